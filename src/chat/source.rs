//! The source of entries for the hub and for replays: the recent-message cache if it covers the range, or else the
//! store.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    backplane::Backplane,
    hub::{Source, SourceFailed, Wanted},
    model::{Entry, EntryStamp},
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
    async fn after(&self, Wanted { log, after, proof }: Wanted<'_>) -> Result<Vec<Entry>, SourceFailed> {
        if let Some(proof) = proof
            && let Some(entries) = self.backplane.recent(log, after).await
            && let Some(entries) = up_to(proof, entries)
        {
            return Ok(entries);
        }
        self.store.entries(log, after, PAGE).await.map_err(|error| {
            tracing::warn!(%log, %error, "entries can't be read from the store");
            SourceFailed
        })
    }
}

/// Cached entries up to `proof`; `None` if that is not among them. The cache holds messages alone. If they reach the newest
/// entry of the store without a gap, there is no edit and no deletion in the range, and none of them is lost: each is as the
/// store has it.
fn up_to(proof: EntryStamp, mut entries: Vec<Entry>) -> Option<Vec<Entry>> {
    #[cfg(feature = "faults")]
    if crate::faults::has(crate::faults::Fault::StaleCache) {
        return Some(entries);
    }
    let at = entries.iter().position(|entry| entry.stamp() == proof)?;
    entries.truncate(at + 1);
    Some(entries)
}
