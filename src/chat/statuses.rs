//! The statuses of users, with a short cache in front of the store.

use std::{collections::HashSet, sync::Arc, time::Duration};

use super::{batch_loader::BatchLoader, ttl_cache::TtlCache};
use crate::{
    model::{Status, UserId},
    store::Store,
};

/// Maximum age of a cached status.
const STATUS_TTL: Duration = Duration::from_secs(5);
/// Maximum number of cached statuses.
const CACHED_MAX: usize = 50_000;

/// Reads and caches statuses.
pub(super) struct Statuses {
    store: Arc<dyn Store>,
    loader: BatchLoader,
    recent: TtlCache<UserId, Status>,
}

impl Statuses {
    pub(super) fn new(store: Arc<dyn Store>, loader: BatchLoader) -> Self {
        Self { store, loader, recent: TtlCache::new(STATUS_TTL, CACHED_MAX) }
    }

    /// A user's status; the default if the store can't be read.
    pub(super) async fn of(&self, user: &UserId) -> Status {
        if let Some(known) = self.recent.get(user) {
            return known;
        }
        match self.loader.status(user).await {
            Some(status) => {
                self.recent.insert(user.clone(), status);
                status
            }
            None => Status::default(),
        }
    }

    /// Caches a status that was just stored.
    pub(super) fn cache(&self, user: UserId, status: Status) {
        self.recent.insert(user, status);
    }

    /// Forgets the cached statuses.
    pub(super) fn forget(&self) {
        self.recent.clear();
    }

    /// Removes the invisible users from `users`.
    pub(super) async fn visible(&self, mut users: Vec<UserId>) -> Vec<UserId> {
        if let Ok(statuses) = self.store.statuses(&users).await {
            let invisible = statuses.into_iter().filter(|(_, status, _)| *status == Status::Invisible);
            let invisible: HashSet<UserId> = invisible.map(|(user, ..)| user).collect();
            users.retain(|user| !invisible.contains(user));
        }
        users
    }
}
