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
    async fn after(&self, log: &LogId, after: Seq) -> Result<Vec<Entry>, SourceFailed> {
        if let Some(entries) = self.backplane.recent(log, after).await {
            return Ok(entries);
        }
        self.store.entries(log, after, PAGE).await.map_err(|error| {
            tracing::warn!(%log, %error, "entries can't be read from the store");
            SourceFailed
        })
    }
}
