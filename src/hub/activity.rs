//! Numbers that order logs by their last activity.

use std::sync::atomic::{AtomicU64, Ordering};

/// First number of a delivery. Below it, there are numbers for activity before this hub began.
const FIRST: u64 = 1 << 32;

/// Numbers the deliveries of entries, over all logs.
pub(super) struct Activity(AtomicU64);

impl Activity {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(FIRST))
    }

    /// The number of the next delivery.
    pub(super) fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The number of the newest delivery.
    pub(super) fn newest(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
