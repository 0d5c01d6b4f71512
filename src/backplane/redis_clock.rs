//! Redis' clock as this node reads it, and the last time at which it was set back.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Smallest step back that counts. It is longer than the doubt of a reading, which is half of the time that the reply took.
const STEP_MICROS: i64 = 1_000_000;
/// Longest step back for which the rest of the state is kept.
const STEP_MAX: Duration = Duration::from_secs(3_600);

/// A step back of Redis' clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct SetBack {
    /// The time of this node at which it noticed the step.
    noticed: Instant,
    by: Duration,
}

impl SetBack {
    /// Time since this node noticed the step.
    pub(super) fn age(self) -> Duration {
        self.noticed.elapsed()
    }

    /// True while a time from before the step can be taken for a later one, if nothing keeps such a time for longer than
    /// `kept`.
    pub(super) fn confuses(self, kept: Duration) -> bool {
        self.age() <= self.by.min(STEP_MAX) + kept
    }
}

#[derive(Debug, Default)]
struct Readings {
    /// Redis' time in microseconds at a moment of this node. A jump of this node's clock changes nothing of it.
    last: Option<(Instant, i64)>,
    set_back: Option<SetBack>,
}

/// Redis' clock.
#[derive(Debug, Default)]
pub(super) struct RedisClock {
    readings: Mutex<Readings>,
}

impl RedisClock {
    /// Records that Redis' clock showed `micros` between `asked_at` and now.
    pub(super) fn read(&self, asked_at: Instant, micros: i64) {
        let at = asked_at + asked_at.elapsed() / 2;
        let mut readings = self.lock();
        let back = readings.last.map_or(0, |last| advanced(last, at).saturating_sub(micros));
        if back > STEP_MICROS {
            let by = Duration::from_micros(back.unsigned_abs());
            tracing::warn!(seconds = by.as_secs_f64(), "the clock of Redis was set back");
            readings.set_back = Some(SetBack { noticed: Instant::now(), by });
        }
        readings.last = Some((at, micros));
    }

    /// Estimate of Redis' current time, in microseconds.
    pub(super) fn micros(&self) -> Option<i64> {
        self.lock().last.map(|last| advanced(last, Instant::now()))
    }

    /// The last step back that this node noticed.
    pub(super) fn set_back(&self) -> Option<SetBack> {
        self.lock().set_back
    }

    fn lock(&self) -> MutexGuard<'_, Readings> {
        self.readings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time that a clock shows at `now`, if it showed `micros` at `at`.
fn advanced((at, micros): (Instant, i64), now: Instant) -> i64 {
    let passed = i64::try_from(now.saturating_duration_since(at).as_micros()).unwrap_or(i64::MAX);
    micros.saturating_add(passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_step_back_is_noticed() {
        let (clock, second) = (RedisClock::default(), 1_000_000);
        clock.read(Instant::now(), 100 * second);
        for micros in [100 * second, 99 * second + 500_000, 900 * second] {
            clock.read(Instant::now(), micros);
            assert!(clock.set_back().is_none(), "{micros}");
        }
        clock.read(Instant::now(), 880 * second);
        let set_back = clock.set_back().unwrap();
        assert!(set_back.by.abs_diff(Duration::from_secs(20)) < Duration::from_secs(1), "{set_back:?}");
        assert!(set_back.age() < Duration::from_secs(10) && set_back.confuses(Duration::ZERO));
    }
}
