//! What is known of a store that may have been set back to an earlier state.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use tokio::sync::Notify;

use crate::model::{EntryStamp, LogId, Seq, Timestamp};

/// Logs whose delivered entries are doubted, until they are taken. The node follows them, so their number is bounded.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    logs: Mutex<HashSet<LogId>>,
    added: Notify,
}

/// What the store says about a log.
#[derive(Debug, Clone, Copy)]
pub struct Stored<'a> {
    /// The first seq that is still stored.
    pub first: Seq,
    /// The newest seq; 0 if the log does not exist.
    pub head: Seq,
    /// The newest entry.
    pub newest: Option<EntryStamp>,
    /// Those of the entries of `Given::seqs` that it has.
    pub stamps: &'a [EntryStamp],
}

/// A log whose store was set back: entries that went out are lost. Nothing goes out until `Hub::restart`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetBack {
    /// The log.
    pub log: LogId,
    /// The last entry that went out and is stored, if it is known.
    pub kept: Option<Seq>,
    /// Time of the newest lost entry, if it is known. What was stored after that did not go out.
    pub lost_at: Option<Timestamp>,
    /// Number of restarts of the log before.
    pub(super) restarts: u64,
}

impl Doubts {
    pub(super) fn add(&self, log: &LogId) {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).insert(log.clone());
        self.added.notify_one();
    }

    /// Waits for logs, and takes all.
    pub(super) async fn take(&self) -> Vec<LogId> {
        loop {
            let logs = std::mem::take(&mut *self.logs.lock().unwrap_or_else(PoisonError::into_inner));
            if !logs.is_empty() {
                return logs.into_iter().collect();
            }
            self.added.notified().await;
        }
    }
}
