//! The source of entries for the hub and for replays: the recent-message cache if it covers the range, or else the
//! store.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    backplane::Backplane,
    hub::{Source, SourceFailed},
    model::{Entry, LogId, Seq},
    store::Store,
};

/// Entries per read.
pub(super) const PAGE: u32 = 200;

/// Reads entries through the cache.
pub(super) struct Entries {
    pub(super) store: Arc<dyn Store>,
    pub(super) backplane: Arc<Backplane>,
}

#[async_trait]
impl Source for Entries {
    async fn after(&self, log: &LogId, after: Seq, head: Seq) -> Result<Vec<Entry>, SourceFailed> {
        // The cache holds messages alone. If it reaches the head without a gap, there is no edit and no deletion in the
        // range, so each cached entry is as the store has it.
        #[cfg(feature = "faults")]
        let head = if crate::faults::has(crate::faults::Fault::StaleCache) { 0 } else { head };
        if let Some(entries) = self.backplane.recent(log, after).await
            && entries.last().is_some_and(|newest| newest.seq >= head)
        {
            return Ok(entries);
        }
        self.store.entries(log, after, PAGE).await.map_err(|error| {
            tracing::warn!(%log, %error, "entries can't be read from the store");
            SourceFailed
        })
    }
}
