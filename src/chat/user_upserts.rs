//! Upserts of users from their tokens: after connects in batches, and at once if a command needs the user's row.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;

use super::{command::unavailable, ttl_cache::TtlCache};
use crate::{
    model::{Identity, Reject, UserId},
    store::Store,
};

/// Time for which a stored user is not stored again.
const USER_TTL: Duration = Duration::from_secs(3_600);
/// Maximum number of users in the cache.
const KNOWN_MAX: usize = 50_000;
/// Users that may wait. Beyond this they are dropped, and queued again with their next connect.
const QUEUE: usize = 10_000;
/// Users per statement.
const BATCH: usize = 500;
/// Time that the first user of a batch waits for others.
const GATHER: Duration = Duration::from_millis(50);

/// A user and their display name.
type Newcomer = (UserId, Arc<str>);

/// Stores users in the background or at once.
pub(super) struct UserUpserts {
    store: Arc<dyn Store>,
    known: TtlCache<UserId, Arc<str>>,
    newcomers: mpsc::Sender<Newcomer>,
}

/// The queue of users for [`UserUpserts::run`].
pub(super) struct Newcomers(mpsc::Receiver<Newcomer>);

impl UserUpserts {
    /// Creates the queue. Queued users are stored only while [`UserUpserts::run`] runs with it.
    pub(super) fn new(store: Arc<dyn Store>) -> (Arc<Self>, Newcomers) {
        let (newcomers, queue) = mpsc::channel(QUEUE);
        (Arc::new(Self { store, known: TtlCache::new(USER_TTL, KNOWN_MAX), newcomers }), Newcomers(queue))
    }

    /// Queues a user for storage, unless the cache has the user with this name.
    pub(super) fn note(&self, identity: &Identity) {
        if !self.is_known(identity) {
            let _full = self.newcomers.try_send((identity.user.clone(), identity.name.clone()));
        }
    }

    /// Stores the user of a token, unless the cache has the user with this name.
    pub(super) async fn make_known(&self, identity: &Identity) -> Result<(), Reject> {
        if self.is_known(identity) {
            return Ok(());
        }
        let user = (identity.user.clone(), identity.name.clone());
        self.store.know(&[user]).await.map_err(|error| unavailable(&error))?;
        self.known.learn(identity.user.clone(), identity.name.clone());
        Ok(())
    }

    fn is_known(&self, identity: &Identity) -> bool {
        self.known.get(&identity.user).is_some_and(|name| name == identity.name)
    }

    /// Stores queued users, batch by batch, until its task is stopped.
    pub(super) async fn run(self: Arc<Self>, Newcomers(mut newcomers): Newcomers) {
        let mut batch = Vec::with_capacity(BATCH);
        while newcomers.recv_many(&mut batch, BATCH).await > 0 {
            tokio::time::sleep(GATHER).await;
            while batch.len() < BATCH
                && let Ok(newcomer) = newcomers.try_recv()
            {
                batch.push(newcomer);
            }
            match self.store.know(&batch).await {
                Ok(()) => batch.drain(..).for_each(|(user, name)| self.known.learn(user, name)),
                Err(error) => {
                    tracing::debug!(%error, users = batch.len(), "users were not stored; they are queued again with their next connect");
                    batch.clear();
                }
            }
        }
    }
}
