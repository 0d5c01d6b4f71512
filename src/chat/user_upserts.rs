//! Users who came with a token are made known to the store: behind their connects many in one statement, and at once
//! where a command needs it.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;

use super::{command::unavailable, ttl_cache::TtlCache};
use crate::{
    model::{Identity, Reject, UserId},
    store::Store,
};

/// How long a user that was made known is not made known again.
const USER_TTL: Duration = Duration::from_secs(3_600);
/// Users remembered to be known.
const KNOWN_MAX: usize = 50_000;
/// Users that may wait to be noted; beyond it they are noted when they come again.
const QUEUE: usize = 10_000;
/// How many are noted in one statement.
const BATCH: usize = 500;
/// How long the first of them waits for others.
const GATHER: Duration = Duration::from_millis(50);

/// A user and their display name.
type Newcomer = (UserId, Arc<str>);

/// Makes users known.
pub(super) struct UserUpserts {
    store: Arc<dyn Store>,
    known: TtlCache<UserId, Arc<str>>,
    newcomers: mpsc::Sender<Newcomer>,
}

/// Those who wait to be made known.
pub(super) struct Newcomers(mpsc::Receiver<Newcomer>);

impl UserUpserts {
    /// Newcomers are noted once [`UserUpserts::run`] runs with them.
    pub(super) fn new(store: Arc<dyn Store>) -> (Arc<Self>, Newcomers) {
        let (newcomers, queue) = mpsc::channel(QUEUE);
        (Arc::new(Self { store, known: TtlCache::new(USER_TTL, KNOWN_MAX), newcomers }), Newcomers(queue))
    }

    /// Has a user noted soon, where they are not known to be.
    pub(super) fn note(&self, identity: &Identity) {
        if !self.is_known(identity) {
            let _full = self.newcomers.try_send((identity.user.clone(), identity.name.clone()));
        }
    }

    /// Sees to it that a user who came with a token exists.
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

    /// Notes newcomers, batch by batch, until it is stopped.
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
                    tracing::debug!(%error, users = batch.len(), "users could not be noted");
                    batch.clear();
                }
            }
        }
    }
}
