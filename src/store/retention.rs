//! Values of retention, and of the work that one node does for all.

use crate::model::{LogId, RetentionDays, Timestamp};

/// Work that one node does for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// Removing entries that are older than they are kept.
    Retention,
    /// Erasing users.
    Erasures,
}

impl Job {
    /// The name in the store.
    pub fn label(self) -> &'static str {
        match self {
            Self::Retention => "retention",
            Self::Erasures => "erasures",
        }
    }
}

/// The answer to a process that wants to do a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobTurn {
    /// True if the process has the job now.
    pub held: bool,
    /// The store's time.
    pub at: Timestamp,
    /// Time at which the job was last done to its end, by any process.
    pub done_at: Option<Timestamp>,
}

/// A log whose first entries are older than they are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgedLog {
    /// The log.
    pub log: LogId,
    /// Entries that were stored before this time are removed.
    pub before: Timestamp,
    /// Time of its first entry.
    pub oldest: Timestamp,
}

/// Logs that were looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AgedPage {
    /// Those with aged entries, in the order of their names.
    pub logs: Vec<AgedLog>,
    /// Time of the first entry of all of them.
    pub oldest: Option<Timestamp>,
    /// The last name that was looked at; `None` after the last one.
    pub last: Option<LogId>,
}

impl AgedPage {
    /// The page of these logs, each with the time of its first entry and its rule, at this time. There are more if it is full.
    pub(super) fn of(found: Vec<(LogId, Option<Timestamp>, RetentionDays)>, at: Timestamp, limit: u32) -> Self {
        let last = found.last().filter(|_| found.len() >= limit as usize).map(|(log, ..)| log.clone());
        let oldest = found.iter().filter_map(|(_, first, _)| *first).min();
        let aged = found.into_iter().filter_map(|(log, first, days)| {
            let (oldest, before) = (first?, days.cutoff(at)?);
            (oldest < before).then_some(AgedLog { log, before, oldest })
        });
        Self { logs: aged.collect(), oldest, last }
    }
}

/// The entries that were removed from the beginning of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovedEntries {
    /// The log.
    pub log: LogId,
    /// Number of entries.
    pub removed: u64,
    /// True if the limit ended it: there may be more.
    pub more: bool,
}
