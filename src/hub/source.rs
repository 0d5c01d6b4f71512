//! Where the hub gets entries that it misses.

use async_trait::async_trait;

use crate::model::{Entry, LogId, Seq};

/// The source of entries for backfills and replays.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// Entries of `log` after `after`, oldest first, possibly not all; empty if there are none.
    ///
    /// # Errors
    /// The entries can't be read now.
    async fn after(&self, log: &LogId, after: Seq, head: Seq) -> Result<Vec<Entry>, SourceFailed>;
}

/// A source can't be read now; retry later.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("entries can't be read now")]
pub struct SourceFailed;
