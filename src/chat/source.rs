//! The source of entries for the hub and for replays: the recent-message cache if it covers the range, or else the
//! store.

use std::{
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::timeout;

use crate::{
    backplane::Backplane,
    hub::{Source, SourceFailed, Wanted},
    model::{Entry, EntryStamp, LogId, Seq},
    store::{Store, Writer},
};

/// Entries per read.
pub(super) const PAGE: u32 = 200;

/// Maximum time that a backfill waits for this node's own appends.
const SETTLE_WAIT: Duration = Duration::from_secs(1);

/// Reads entries through the cache.
pub(super) struct Entries {
    store: Arc<dyn Store>,
    backplane: Arc<Backplane>,
    /// Set once; weak, because the writer passes what it stores to the hub, which owns this.
    writer: OnceLock<Weak<Writer>>,
}

impl Entries {
    /// Entries of this store. Until [`Self::set_writer`], nothing is appended.
    pub(super) fn new(store: Arc<dyn Store>, backplane: Arc<Backplane>) -> Arc<Self> {
        Arc::new(Self { store, backplane, writer: OnceLock::new() })
    }

    /// Names the writer of this node.
    pub(super) fn set_writer(&self, writer: &Arc<Writer>) {
        self.writer.get_or_init(|| Arc::downgrade(writer));
    }
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
            // Each listener that catches up asks several times a second; health has the fault.
            tracing::debug!(%log, %error, "entries can't be read from the store");
            SourceFailed
        })
    }

    async fn first(&self, log: &LogId) -> Result<Seq, SourceFailed> {
        let ends = self.store.ends(std::slice::from_ref(log)).await.map_err(|_| SourceFailed)?;
        Ok(ends.first().map_or(1, |(_, ends)| ends.first))
    }

    async fn settled(&self, log: &LogId) {
        if let Some(writer) = self.writer.get().and_then(Weak::upgrade) {
            let _slow = timeout(SETTLE_WAIT, writer.settled(log)).await;
        }
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
