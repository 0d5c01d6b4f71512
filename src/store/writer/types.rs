//! The settings of the writer, and what it tells.

use std::{sync::Arc, time::Duration};

use tokio::sync::oneshot;

use super::super::{AppendRefused, Appended, NewEntry};
use crate::model::{Entry, LogId, PendingAck};

/// Settings of the writer: batch size, queues and retries.
#[derive(Debug, Clone, Copy)]
pub struct WriterSettings {
    /// Number of lanes, each with its own group commit. A few lanes perform better than many.
    pub lanes: usize,
    /// Maximum number of entries in one commit.
    pub max_batch: usize,
    /// Maximum number of entries that wait for a lane.
    pub queue: usize,
    /// Maximum time for which a batch with an unknown outcome is retried before the appender gets
    /// [`AppendError::Unknown`].
    pub retry_for: Duration,
}

impl Default for WriterSettings {
    fn default() -> Self {
        Self { lanes: 2, max_batch: 400, queue: 20_000, retry_for: Duration::from_secs(10) }
    }
}

/// The receivers of a writer's results. They must not block.
pub struct Outcomes {
    /// Gets every newly stored entry once, in commit order per log and before the appenders get their answers,
    /// including the entries that were put into inboxes.
    pub committed: Box<dyn Fn(Vec<Committed>) + Send + Sync>,
    /// Gets the logs to which an append that is [given up](AppendError::Unknown) may have stored an entry.
    pub doubted: Box<dyn Fn(Vec<LogId>) + Send + Sync>,
}

/// A stored entry, and the ack that the socket that sent it awaits.
#[derive(Debug, Clone)]
pub struct Committed {
    /// The entry.
    pub entry: Arc<Entry>,
    /// The ack; none if no socket sent the entry.
    pub origin: Option<Arc<PendingAck>>,
}

/// The reason for which an entry was not, or may not have been, appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The store refused the entry.
    #[error(transparent)]
    Refused(#[from] AppendRefused),
    /// The store is unavailable; the entry was not stored.
    #[error("not stored: the store is unavailable")]
    Unavailable,
    /// The entry may or may not be stored; another append with the same `dedupe` finds out.
    #[error("the outcome is unknown")]
    Unknown,
}

pub(super) type AppendResult = Result<Appended, AppendError>;

/// An entry that waits to be stored, or is being stored.
pub(super) struct Queued {
    pub(super) entry: NewEntry,
    pub(super) origin: Option<Arc<PendingAck>>,
    pub(super) answer: oneshot::Sender<AppendResult>,
}
