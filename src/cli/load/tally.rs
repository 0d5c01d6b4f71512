//! [`Tally`]: the connections, messages and latencies of all users of a run, counted together.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hdrhistogram::Histogram;
use serde::Serialize;

/// Maximum number of reasons that are told apart. Further ones are counted together.
const REASONS_MAX: usize = 50;

/// Latencies, of which quantiles are asked.
pub(super) struct Latencies(Histogram<u64>);

/// Quantiles of latencies, in milliseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Quantiles {
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
    pub(super) max: f64,
}

impl Latencies {
    /// Latencies from 1 µs to an hour, with three digits. Longer ones count as an hour.
    fn new() -> Result<Self, String> {
        Histogram::new_with_max(3_600_000_000, 3).map(Self).map_err(|error| error.to_string())
    }

    fn add(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    /// The quantiles so far.
    pub(super) fn quantiles(&self) -> Quantiles {
        let at = |quantile| self.0.value_at_quantile(quantile) as f64 / 1_000.0;
        Quantiles { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: self.0.max() as f64 / 1_000.0 }
    }
}

/// Numbers by reason.
#[derive(Debug, Clone, Default, Serialize, PartialEq, Eq)]
#[serde(transparent)]
pub(super) struct Reasons(BTreeMap<String, u64>);

impl Reasons {
    fn add(&mut self, reason: &str) {
        let known = self.0.contains_key(reason) || self.0.len() < REASONS_MAX;
        *self.0.entry(if known { reason } else { "other reasons" }.to_owned()).or_default() += 1;
    }

    /// The number of all.
    pub(super) fn sum(&self) -> u64 {
        self.0.values().sum()
    }

    /// True if this reason was counted.
    pub(super) fn has(&self, reason: &str) -> bool {
        self.0.contains_key(reason)
    }

    /// Each reason with its number, the most frequent first.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut reasons: Vec<_> = self.0.iter().collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        reasons.into_iter().map(|(reason, count)| format!("{count} × {reason}")).collect()
    }
}

/// The counts of all users together.
pub(super) struct Counts {
    /// Connections that were opened and joined their room.
    pub(super) opened: u64,
    pub(super) not_opened: Reasons,
    /// Opened connections that ended before the run.
    pub(super) lost: Reasons,
    /// Time from the begin of a connect until the room is joined.
    pub(super) connect: Latencies,
    /// Messages that were due while the sender was not connected, or had too many to send.
    pub(super) unsent: u64,
    pub(super) sent: u64,
    /// Stored messages, by room.
    pub(super) stored: Vec<u64>,
    pub(super) refused: Reasons,
    pub(super) measured_acks: u64,
    /// Time from when a message was due until its ack, of measured messages.
    pub(super) ack: Latencies,
    /// Messages that reached a listener, each once for each listener.
    pub(super) received: u64,
    pub(super) measured_deliveries: u64,
    /// Time from when a message was due until it reached a listener, of measured messages.
    pub(super) delivery: Latencies,
    /// Messages that a listener received again, or after a later one.
    pub(super) repeated: u64,
    pub(super) resyncs: u64,
}

/// Shared [`Counts`].
pub(super) struct Tally(Mutex<Counts>);

impl Tally {
    /// Empty counts for this number of rooms.
    ///
    /// # Errors
    /// The message for the user.
    pub(super) fn new(rooms: u32) -> Result<Self, String> {
        Ok(Self(Mutex::new(Counts {
            opened: 0,
            not_opened: Reasons::default(),
            lost: Reasons::default(),
            connect: Latencies::new()?,
            unsent: 0,
            sent: 0,
            stored: vec![0; rooms as usize],
            refused: Reasons::default(),
            measured_acks: 0,
            ack: Latencies::new()?,
            received: 0,
            measured_deliveries: 0,
            delivery: Latencies::new()?,
            repeated: 0,
            resyncs: 0,
        })))
    }

    /// The counts, locked.
    pub(super) fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    /// Counts a connection that joined its room after this time.
    pub(super) fn add_opened(&mut self, after: Duration) {
        self.opened += 1;
        self.connect.add(after);
    }

    /// Counts a connection that could not be opened.
    pub(super) fn add_not_opened(&mut self, reason: &str) {
        self.not_opened.add(reason);
    }

    /// Counts an opened connection that ended.
    pub(super) fn add_lost(&mut self, reason: &str) {
        self.lost.add(reason);
    }

    /// Counts a message in `room` as stored; `after` is its latency, if it is measured.
    pub(super) fn add_stored(&mut self, room: u32, after: Option<Duration>) {
        if let Some(stored) = self.stored.get_mut(room as usize) {
            *stored += 1;
        }
        if let Some(after) = after {
            self.measured_acks += 1;
            self.ack.add(after);
        }
    }

    /// Counts a refused message or frame.
    pub(super) fn add_refused(&mut self, code: &str) {
        self.refused.add(code);
    }

    /// Counts a message that reached a listener; `after` is its latency, if it is measured.
    pub(super) fn add_received(&mut self, after: Option<Duration>) {
        self.received += 1;
        if let Some(after) = after {
            self.measured_deliveries += 1;
            self.delivery.add(after);
        }
    }

    /// Number of messages with an outcome.
    pub(super) fn answered(&self) -> u64 {
        self.stored.iter().sum::<u64>() + self.refused.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_in_milliseconds() {
        let mut latencies = Latencies::new().unwrap();
        (1..=100).for_each(|ms| latencies.add(Duration::from_millis(ms)));
        let Quantiles { p50, p99, max, .. } = latencies.quantiles();
        assert!((49.0..51.0).contains(&p50) && (98.0..100.0).contains(&p99) && (99.0..101.0).contains(&max));
    }

    #[test]
    fn reasons_are_bounded() {
        let mut reasons = Reasons::default();
        (0..REASONS_MAX + 10).for_each(|at| reasons.add(&at.to_string()));
        reasons.add("0");
        assert_eq!((reasons.0.len(), reasons.sum()), (REASONS_MAX + 1, REASONS_MAX as u64 + 11));
        assert_eq!(reasons.lines()[..2], ["10 × other reasons", "2 × 0"]);
    }
}
