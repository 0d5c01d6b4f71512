//! Latencies: over all time for Prometheus, and over the last minute for health.

use std::{
    array,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use prometheus::{
    Histogram,
    core::{Collector, Desc},
    proto::MetricFamily,
};

/// Length of one span, and number of spans kept: one minute, including the current span.
const SPAN: Duration = Duration::from_secs(10);
const SPANS: usize = 6;
/// Number of buckets per power of two microseconds; a percentile is then at most an eighth too high.
const STEPS: usize = 8;
const STEP_BITS: u32 = STEPS.ilog2();
/// Longest duration with a bucket of its own, in microseconds (about 134 s). Longer ones count as this one.
const LONGEST_MICROS: u64 = (1 << 27) - 1;
const BUCKETS: usize = bucket(LONGEST_MICROS) + 1;

/// A histogram that also covers the last minute. Clones share their counts.
#[derive(Debug, Clone)]
pub struct Latency {
    histogram: Histogram,
    recent: Arc<Recent>,
}

/// Percentiles of the last minute, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Percentiles {
    /// The median.
    pub p50: f64,
    /// The 99th percentile.
    pub p99: f64,
}

impl Latency {
    pub(super) fn new(histogram: Histogram) -> Self {
        Self { histogram, recent: Arc::new(Recent::new()) }
    }

    /// Records one duration, in seconds.
    pub fn observe(&self, seconds: f64) {
        self.histogram.observe(seconds);
        let duration = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        self.recent.observe(self.recent.began.elapsed(), duration);
    }

    /// Percentiles of the last minute; `None` if nothing was recorded in it.
    pub fn recent(&self) -> Option<Percentiles> {
        self.recent.percentiles(self.recent.began.elapsed())
    }
}

impl Collector for Latency {
    fn desc(&self) -> Vec<&Desc> {
        self.histogram.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.histogram.collect()
    }
}

/// Counts by span and bucket, without locks: a count that arrives while its span is being reset may be lost.
#[derive(Debug)]
struct Recent {
    began: Instant,
    spans: [Span; SPANS],
}

#[derive(Debug)]
struct Span {
    /// Number of the span since the start, from 1; 0 if unused.
    number: AtomicU64,
    counts: [AtomicU32; BUCKETS],
}

impl Recent {
    fn new() -> Self {
        let span = |_| Span { number: AtomicU64::new(0), counts: array::from_fn(|_| AtomicU32::new(0)) };
        Self { began: Instant::now(), spans: array::from_fn(span) }
    }

    fn observe(&self, at: Duration, duration: Duration) {
        let number = span_at(at);
        let span = &self.spans[number as usize % SPANS];
        if span.number.load(Ordering::Relaxed) != number && span.number.swap(number, Ordering::Relaxed) != number {
            span.counts.iter().for_each(|count| count.store(0, Ordering::Relaxed));
        }
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        span.counts[bucket(micros)].fetch_add(1, Ordering::Relaxed);
    }

    fn percentiles(&self, at: Duration) -> Option<Percentiles> {
        let now = span_at(at);
        let mut counts = [0_u64; BUCKETS];
        for span in &self.spans {
            let number = span.number.load(Ordering::Relaxed);
            if number != 0 && number + SPANS as u64 > now {
                counts.iter_mut().zip(&span.counts).for_each(|(sum, count)| {
                    *sum += u64::from(count.load(Ordering::Relaxed));
                });
            }
        }
        let total: u64 = counts.iter().sum();
        let percentile = |percent: u64| {
            let rank = (total * percent).div_ceil(100);
            let mut below = 0;
            let at = counts.iter().position(|count| {
                below += count;
                below >= rank
            });
            at.map(|at| upper_bound(at) as f64 / 1_000.0)
        };
        if total == 0 {
            return None;
        }
        Some(Percentiles { p50: percentile(50)?, p99: percentile(99)? })
    }
}

fn span_at(at: Duration) -> u64 {
    at.as_secs() / SPAN.as_secs() + 1
}

/// The bucket for a duration in microseconds.
const fn bucket(micros: u64) -> usize {
    let micros = if micros > LONGEST_MICROS { LONGEST_MICROS } else { micros };
    if micros < STEPS as u64 {
        return micros as usize;
    }
    let octave = micros.ilog2() - STEP_BITS;
    (octave as usize) * STEPS + (micros >> octave) as usize
}

/// The longest duration that a bucket holds, in microseconds.
const fn upper_bound(bucket: usize) -> u64 {
    if bucket < 2 * STEPS {
        return bucket as u64;
    }
    let octave = bucket / STEPS - 1;
    ((bucket - octave * STEPS + 1) as u64) * (1 << octave) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_and_are_narrow() {
        for at in 0..BUCKETS {
            let most = upper_bound(at);
            assert_eq!(bucket(most), at);
            assert!(at + 1 == BUCKETS || bucket(most + 1) == at + 1);
        }
        for micros in [1, 9, 100, 1_234, 999_999, LONGEST_MICROS] {
            let shown = upper_bound(bucket(micros));
            assert!(shown >= micros && shown <= micros + micros / STEPS as u64, "{micros} is shown as {shown}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_those_of_the_last_minute() {
        let recent = Recent::new();
        let at = Duration::from_secs;
        assert_eq!(recent.percentiles(at(0)), None);
        for millis in 1..=100 {
            recent.observe(at(5), Duration::from_millis(millis));
        }
        let shown = recent.percentiles(at(5)).unwrap();
        assert!((50.0..57.0).contains(&shown.p50) && (99.0..112.0).contains(&shown.p99), "{shown:?}");
        recent.observe(at(30), Duration::from_millis(1));
        assert_eq!(recent.percentiles(at(59)), Some(shown));
        let later = recent.percentiles(at(60)).unwrap();
        assert!(later.p99 < 1.2, "what is a minute old no longer counts: {later:?}");
        assert_eq!(recent.percentiles(at(90)), None);
        recent.observe(at(605), Duration::from_millis(3));
        assert!(recent.percentiles(at(605)).unwrap().p50 > 2.9, "its span began anew");
    }
}
