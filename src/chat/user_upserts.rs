//! Upserts of users from their tokens: after connects in batches, and at once if a command needs the user's row.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;

use super::{command::unavailable, ttl_cache::TtlCache};
use crate::{
    model::{Identity, Reject, UserId},
    store::Store,
    supervise::{TaskName, checkpoint},
};

/// Time for which a stored user is not stored again.
const CACHE_TTL: Duration = Duration::from_secs(3_600);
/// Maximum number of users in the cache.
const CACHED_MAX: usize = 50_000;
/// Users that may wait. Beyond this they are dropped, and queued again with their next connect.
const QUEUE: usize = 10_000;
/// Users per statement.
const BATCH: usize = 500;
/// Time that the first user of a batch waits for others.
const BATCH_DELAY: Duration = Duration::from_millis(50);

/// A user and their display name.
type PendingUser = (UserId, Arc<str>);

/// Stores users in the background or at once.
pub(super) struct UserUpserts {
    store: Arc<dyn Store>,
    cache: TtlCache<UserId, Arc<str>>,
    pending_users: mpsc::Sender<PendingUser>,
}

/// The queue of users for [`UserUpserts::run`].
pub(super) struct PendingUsers(mpsc::Receiver<PendingUser>);

impl UserUpserts {
    /// Creates the queue. Queued users are stored only while [`UserUpserts::run`] runs with it.
    pub(super) fn new(store: Arc<dyn Store>) -> (Arc<Self>, PendingUsers) {
        let (pending_users, queue) = mpsc::channel(QUEUE);
        (Arc::new(Self { store, cache: TtlCache::new(CACHE_TTL, CACHED_MAX), pending_users }), PendingUsers(queue))
    }

    /// Queues a user for storage, unless the cache has the user with this name.
    pub(super) fn enqueue(&self, identity: &Identity) {
        if !self.is_cached(identity) {
            let _full = self.pending_users.try_send((identity.user.clone(), identity.name.clone()));
        }
    }

    /// Stores the user of a token, unless the cache has the user with this name.
    pub(super) async fn ensure_stored(&self, identity: &Identity) -> Result<(), Reject> {
        if self.is_cached(identity) {
            return Ok(());
        }
        let user = (identity.user.clone(), identity.name.clone());
        self.store.know(&[user]).await.map_err(|error| unavailable(&error))?;
        self.cache.insert(identity.user.clone(), identity.name.clone());
        Ok(())
    }

    /// Forgets which users are stored.
    pub(super) fn forget(&self) {
        self.cache.clear();
    }

    fn is_cached(&self, identity: &Identity) -> bool {
        self.cache.get(&identity.user).is_some_and(|name| name == identity.name)
    }

    /// Stores queued users, batch by batch, until its task is stopped.
    pub(super) async fn run(&self, PendingUsers(pending_users): &mut PendingUsers) {
        let mut batch = Vec::with_capacity(BATCH);
        while pending_users.recv_many(&mut batch, BATCH).await > 0 {
            checkpoint(TaskName::UserUpserts, || "");
            tokio::time::sleep(BATCH_DELAY).await;
            while batch.len() < BATCH
                && let Ok(pending_user) = pending_users.try_recv()
            {
                batch.push(pending_user);
            }
            match self.store.know(&batch).await {
                Ok(()) => batch.drain(..).for_each(|(user, name)| self.cache.insert(user, name)),
                Err(error) => {
                    tracing::debug!(%error, users = batch.len(), "users were not stored; their next connect retries");
                    batch.clear();
                }
            }
        }
    }
}
