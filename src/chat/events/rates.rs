//! The limit on the events that all users together send to one conversation or user.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::model::{LogId, Reject};

/// The interval in which events are counted.
const INTERVAL: Duration = Duration::from_secs(1);
/// Maximum number of receivers that are counted; beyond it, others get no events until the next interval.
const RECEIVERS_MAX: usize = 65_536;

/// Counts the events to each log in the current interval.
#[derive(Debug)]
pub(in crate::chat) struct Rates {
    /// Maximum number of events to a log in an interval; 0: no limit.
    limit: u32,
    counted: Mutex<(Instant, HashMap<LogId, u32>)>,
}

impl Rates {
    pub(in crate::chat) fn new(limit: u32) -> Self {
        Self { limit, counted: Mutex::new((Instant::now(), HashMap::new())) }
    }

    /// Counts an event, or refuses it because too many go to that log.
    pub(super) fn admit(&self, log: &LogId) -> Result<(), Reject> {
        if self.limit == 0 {
            return Ok(());
        }
        let (begun, counts) = &mut *self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if begun.elapsed() >= INTERVAL {
            (*begun, *counts) = (Instant::now(), HashMap::new());
        }
        let full = counts.len() >= RECEIVERS_MAX && !counts.contains_key(log);
        let count = if full { self.limit } else { *counts.entry(log.clone()).or_default() };
        if count >= self.limit {
            let retry_after = INTERVAL.saturating_sub(begun.elapsed()).max(Duration::from_millis(1));
            let (limit, setting) = (self.limit, "MAX_EVENTS_PER_RECEIVER");
            return Err(Reject::RateLimited { sent: count, limit, setting, retry_after });
        }
        counts.insert(log.clone(), count + 1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_receiver_takes_no_more_than_the_limit_in_an_interval() {
        let rates = Rates::new(3);
        let log = |name: &str| LogId::parse(name).unwrap();
        for _ in 0..3 {
            rates.admit(&log("team")).unwrap();
        }
        let Err(Reject::RateLimited { retry_after, .. }) = rates.admit(&log("team")) else { panic!("admitted") };
        rates.admit(&log("other")).unwrap();
        tokio::time::advance(retry_after).await;
        rates.admit(&log("team")).unwrap();
        let unlimited = Rates::new(0);
        assert!((0..100).all(|_| unlimited.admit(&log("team")).is_ok()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_receivers_is_bounded() {
        let rates = Rates::new(1);
        for n in 0..RECEIVERS_MAX {
            rates.admit(&LogId::parse(&n.to_string()).unwrap()).unwrap();
        }
        assert!(rates.admit(&LogId::parse("team").unwrap()).is_err());
        tokio::time::advance(INTERVAL).await;
        rates.admit(&LogId::parse("team").unwrap()).unwrap();
    }
}
