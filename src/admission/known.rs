//! Places of sockets that showed a valid token. They keep them until they close.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::full_log::FullLog;

/// A fixed number of places.
#[derive(Debug)]
pub(super) struct Known {
    limit: usize,
    free: Arc<Semaphore>,
    full: FullLog,
}

/// A held place. Dropping it releases the place.
#[derive(Debug)]
pub(super) struct KnownPlace {
    _place: OwnedSemaphorePermit,
}

impl Known {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, free: Arc::new(Semaphore::new(limit)), full: FullLog::default() })
    }

    /// The number of places.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// The number of free places.
    pub(super) fn free(&self) -> usize {
        self.free.available_permits()
    }

    /// Takes a place; `None` if all are taken.
    pub(super) fn take(&self) -> Option<KnownPlace> {
        let place = Arc::clone(&self.free).try_acquire_owned().ok();
        if place.is_none() {
            self.log_full();
        }
        Some(KnownPlace { _place: place? })
    }

    /// Logs that all places are taken, at most once a minute.
    pub(super) fn log_full(&self) {
        if self.full.is_due() {
            tracing::warn!(
                limit = self.limit,
                "this node has its maximum of sockets and refuses further ones (MAX_CONNECTIONS, or less if the limit of \
                 open files allows no more)"
            );
        }
    }
}
