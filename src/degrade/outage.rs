//! The shards of a Redis Cluster that don't work.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use super::Finding;

/// The shards that don't work, and why.
#[derive(Debug, Default)]
pub(super) struct Outage {
    /// A bit for each.
    mask: AtomicU64,
    why: Mutex<Option<Arc<Finding>>>,
}

impl Outage {
    /// Records which they are, and why. True if they are others than before.
    pub(super) fn set(&self, mask: u64, why: Option<Finding>) -> bool {
        *self.why.lock().unwrap_or_else(PoisonError::into_inner) = why.map(Arc::new);
        self.mask.swap(mask, Ordering::AcqRel) != mask
    }

    /// True if there are any.
    pub(super) fn any(&self) -> bool {
        self.mask.load(Ordering::Acquire) != 0
    }

    /// Number of them.
    pub(super) fn count(&self) -> usize {
        self.mask.load(Ordering::Acquire).count_ones() as usize
    }

    /// True unless the first shard is one of them.
    pub(super) fn spares_first(&self) -> bool {
        self.mask.load(Ordering::Acquire) & 1 == 0
    }

    /// Why they don't work.
    pub(super) fn finding(&self) -> Option<Arc<Finding>> {
        self.why.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
