//! The logs to which this node appended, while nodes relay events through the store.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    degrade::Degrade,
    model::{Event, LogId, Seq},
};

/// Maximum number of logs that wait for a notice. Entries of further logs are found when Redis is back.
const GROWN_MAX: usize = 65_536;

/// Logs that grew and wait for a notice.
pub(in crate::chat) struct Growth {
    degrade: Arc<Degrade>,
    grown: Mutex<HashMap<LogId, Seq>>,
}

impl Growth {
    pub(in crate::chat) fn new(degrade: Arc<Degrade>) -> Self {
        Self { degrade, grown: Mutex::default() }
    }

    /// Adds the logs of these entries, if any node relays.
    pub(in crate::chat) fn observe(&self, events: &[Event]) {
        if self.degrade.relays() {
            self.add(events.iter().filter_map(|event| match event {
                Event::Entry { entry, .. } => Some((entry.log.clone(), entry.seq)),
                Event::Ephemeral { .. } => None,
            }));
        }
    }

    /// Adds logs, each with its newest seq.
    pub(super) fn add(&self, logs: impl IntoIterator<Item = (LogId, Seq)>) {
        let mut grown = self.lock();
        for (log, seq) in logs {
            if grown.len() < GROWN_MAX || grown.contains_key(&log) {
                let known = grown.entry(log).or_default();
                *known = seq.max(*known);
            }
        }
    }

    /// Takes all queued logs.
    pub(super) fn drain(&self) -> Vec<(LogId, Seq)> {
        self.lock().drain().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<LogId, Seq>> {
        self.grown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::degrade::LinkState;

    #[test]
    fn the_newest_seq_of_each_log_is_taken_once() {
        let growth = Growth::new(Arc::new(Degrade::new(LinkState::Off)));
        let log = |name| LogId::parse(name).unwrap();
        growth.add([(log("a"), 3), (log("b"), 1), (log("a"), 2)]);
        let mut taken = growth.drain();
        taken.sort();
        assert_eq!(taken, [(log("a"), 3), (log("b"), 1)]);
        assert!(growth.drain().is_empty());
    }
}
