//! Where the hub and resuming clients get entries: the recent-message cache where it suffices, else the store.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    backplane::Backplane,
    hub::{Source, SourceFailed},
    model::{Entry, LogId, Seq},
    store::Store,
};

/// Entries read at a time.
pub(super) const PAGE: u32 = 200;

/// Reads through the cache.
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
            tracing::warn!(%log, %error, "entries can't be read");
            SourceFailed
        })
    }
}
