//! The logs to which this node appended, while nodes relay events through the store and shortly before.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    degrade::Degrade,
    model::{Event, LogId, Seq},
};

/// Maximum number of logs that wait for a notice. Entries of further logs are found when Redis is back.
const GROWN_MAX: usize = 65_536;

/// Time for which an entry is remembered while no node relays. A node notices a silent Redis within this time, and then
/// gives notice of the entries that it published in vain.
const REMEMBERED: Duration = Duration::from_secs(2);
/// Maximum number of entries that are remembered.
const REMEMBERED_MAX: usize = 16_384;

/// Logs that grew and wait for a notice.
pub(in crate::chat) struct Growth {
    degrade: Arc<Degrade>,
    grown: Mutex<HashMap<LogId, Seq>>,
    /// Entries of the last moments while no node relayed, oldest first.
    recent: Mutex<VecDeque<(Instant, LogId, Seq)>>,
}

impl Growth {
    pub(in crate::chat) fn new(degrade: Arc<Degrade>) -> Self {
        Self { degrade, grown: Mutex::default(), recent: Mutex::default() }
    }

    /// Adds the logs of these entries, if any node relays; else it remembers them for a while.
    pub(in crate::chat) fn observe(&self, events: &[Event]) {
        let logs = events.iter().filter_map(|event| match event {
            Event::Entry { entry, .. } => Some((entry.log.clone(), entry.seq)),
            Event::Ephemeral { .. } => None,
        });
        if self.degrade.relays() {
            self.add(logs);
        } else {
            self.remember(logs);
        }
    }

    fn remember(&self, logs: impl Iterator<Item = (LogId, Seq)>) {
        let (now, mut recent) = (Instant::now(), self.recent.lock().unwrap_or_else(PoisonError::into_inner));
        recent.extend(logs.map(|(log, seq)| (now, log, seq)));
        let old = recent.partition_point(|(at, ..)| now.duration_since(*at) > REMEMBERED);
        let excess = recent.len().saturating_sub(REMEMBERED_MAX);
        recent.drain(..old.max(excess));
    }

    /// Adds the logs of the remembered entries.
    pub(super) fn add_recent(&self) {
        let recent = std::mem::take(&mut *self.recent.lock().unwrap_or_else(PoisonError::into_inner));
        let young = |(at, log, seq): (Instant, LogId, Seq)| (at.elapsed() <= REMEMBERED).then_some((log, seq));
        self.add(recent.into_iter().filter_map(young));
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

    #[test]
    fn entries_from_shortly_before_the_relay_are_added_once() {
        let growth = Growth::new(Arc::new(Degrade::new(LinkState::Off)));
        let log = |number: usize| LogId::parse(&format!("log-{number}")).unwrap();
        growth.remember((0..REMEMBERED_MAX + 2).map(|number| (log(number), 1)));
        assert!(growth.drain().is_empty(), "no node relays");
        growth.add_recent();
        let added: HashMap<_, _> = growth.drain().into_iter().collect();
        assert_eq!((added.len(), added.get(&log(1)), added.get(&log(2))), (REMEMBERED_MAX, None, Some(&1)));
        growth.add_recent();
        assert!(growth.drain().is_empty());
    }
}
