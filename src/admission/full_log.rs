//! Log lines about full places.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Minimum time between two log lines.
const EVERY: Duration = Duration::from_secs(60);

/// Decides when to log that all places are taken: at most once a minute.
#[derive(Debug, Default)]
pub(super) struct FullLog(Mutex<Option<Instant>>);

impl FullLog {
    /// True if a line is due, which the caller logs.
    pub(super) fn is_due(&self) -> bool {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = logged.is_none_or(|at| at.elapsed() >= EVERY);
        if due {
            *logged = Some(Instant::now());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_line_is_due_after_a_minute() {
        let log = FullLog::default();
        assert_eq!((log.is_due(), log.is_due()), (true, false));
        *log.0.lock().unwrap() = Instant::now().checked_sub(EVERY);
        assert_eq!((log.is_due(), log.is_due()), (true, false));
    }
}
