//! Rates, measured from counters when somebody asks for them.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::metrics::Metrics;

/// Time over which rates are measured.
const RATE_SPAN: Duration = Duration::from_secs(10);
/// Time that a first request waits, so that there is a rate.
const FIRST_SPAN: Duration = Duration::from_secs(1);
/// Maximum number of measurements that are kept.
const SAMPLES: usize = 16;

/// Measures rates from counters, when somebody asks for them.
#[derive(Default)]
pub(super) struct Rates(Mutex<VecDeque<Sample>>);

/// The counters at one time.
#[derive(Clone, Copy)]
struct Sample {
    at: Instant,
    deliveries: u64,
    messages: u64,
}

/// Events per second.
#[derive(Serialize)]
pub(super) struct PerSecond {
    deliveries: f64,
    messages: f64,
}

impl Rates {
    /// The rates of the last seconds. Waits a second if nobody asked lately.
    pub(super) async fn measure(&self, metrics: &Metrics) -> PerSecond {
        let sample =
            || Sample { at: Instant::now(), deliveries: metrics.deliveries.get(), messages: metrics.messages.get() };
        let mut now = sample();
        let before = match self.oldest(now) {
            Some(before) => before,
            None => {
                self.add(now);
                tokio::time::sleep(FIRST_SPAN).await;
                let before = now;
                now = sample();
                before
            }
        };
        self.add(now);
        let seconds = now.at.saturating_duration_since(before.at).as_secs_f64().max(0.001);
        // One decimal is enough for people.
        let rate = |new: u64, old: u64| (new.saturating_sub(old) as f64 / seconds * 10.0).round() / 10.0;
        PerSecond { deliveries: rate(now.deliveries, before.deliveries), messages: rate(now.messages, before.messages) }
    }

    /// The oldest measurement of the span that is at least a second old.
    fn oldest(&self, now: Sample) -> Option<Sample> {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        samples.retain(|sample| now.at.saturating_duration_since(sample.at) <= RATE_SPAN);
        samples.front().filter(|sample| now.at.saturating_duration_since(sample.at) >= FIRST_SPAN).copied()
    }

    fn add(&self, sample: Sample) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_close = |last: &Sample| sample.at.saturating_duration_since(last.at) < FIRST_SPAN;
        if samples.len() < SAMPLES && !samples.back().is_some_and(is_close) {
            samples.push_back(sample);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rates_are_those_of_the_last_seconds() {
        let (metrics, rates) = (Metrics::new().unwrap(), Rates::default());
        let began = Instant::now();
        let at = |seconds, deliveries| Sample { at: began + Duration::from_secs(seconds), deliveries, messages: 0 };
        for (second, deliveries) in [(0, 0), (5, 50), (8, 200)] {
            rates.add(at(second, deliveries));
        }
        assert_eq!(rates.oldest(at(10, 300)).unwrap().deliveries, 0);
        assert_eq!(rates.oldest(at(12, 300)).unwrap().deliveries, 50);
        assert!(rates.oldest(at(40, 300)).is_none());
        for number in 0..100 {
            rates.add(at(50 + 2 * number, 0));
        }
        assert!(rates.0.lock().unwrap().len() <= SAMPLES);
        let fresh = Rates::default();
        assert!(fresh.measure(&metrics).await.deliveries < 0.1);
    }
}
