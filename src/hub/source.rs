//! Where the hub gets entries that it misses.

use async_trait::async_trait;

use crate::model::{Entry, EntryStamp, LogId, Seq};

/// The source of entries for backfills and replays.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// Entries of a log, oldest first, possibly not all; empty if there are none.
    ///
    /// # Errors
    /// The entries can't be read now.
    async fn after(&self, wanted: Wanted<'_>) -> Result<Vec<Entry>, SourceFailed>;

    /// The first seq of a log that is still stored; past its head if none is.
    ///
    /// # Errors
    /// It can't be read now.
    async fn first(&self, _log: &LogId) -> Result<Seq, SourceFailed> {
        Ok(1)
    }

    /// Waits a moment for the outcome of the entries of a log that this node appends now: those that are stored were then
    /// passed to the hub, with the acks that their senders await. Returns at once where nothing is appended.
    async fn settled(&self, _log: &LogId) {}
}

/// The entries that a source is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Their log.
    pub log: &'a LogId,
    /// They come after this seq.
    pub after: Seq,
    /// The newest entry that the store is known to have. Copies of entries count only if they lead to it without a gap: others
    /// may be of a state that the store has lost, or lack a later edit or deletion.
    pub proof: Option<EntryStamp>,
}

/// A source can't be read now; retry later.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("entries can't be read now")]
pub struct SourceFailed;
