//! Users who came with a token are noted behind their connects, many in one statement.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;

use super::Chat;
use crate::model::{Identity, UserId};

/// Users that may wait to be noted; beyond it they are noted when they come again.
pub(super) const QUEUE: usize = 10_000;
/// How many are noted in one statement.
const BATCH: usize = 500;
/// How long the first of them waits for others.
const GATHER: Duration = Duration::from_millis(50);

/// A user and their display name.
pub(super) type Newcomer = (UserId, Arc<str>);

impl Chat {
    /// Has a user noted soon, where they are not known to be.
    pub(super) fn note(&self, identity: &Identity) {
        if self.users.get(&identity.user).is_none_or(|name| name != identity.name) {
            let _full = self.newcomers.try_send((identity.user.clone(), identity.name.clone()));
        }
    }

    pub(super) async fn note_newcomers(self: Arc<Self>, mut newcomers: mpsc::Receiver<Newcomer>) {
        let mut batch = Vec::with_capacity(BATCH);
        while newcomers.recv_many(&mut batch, BATCH).await > 0 {
            tokio::time::sleep(GATHER).await;
            while batch.len() < BATCH
                && let Ok(newcomer) = newcomers.try_recv()
            {
                batch.push(newcomer);
            }
            match self.store.know(&batch).await {
                Ok(()) => batch.drain(..).for_each(|(user, name)| self.users.learn(user, name)),
                Err(error) => {
                    tracing::debug!(%error, users = batch.len(), "users could not be noted");
                    batch.clear();
                }
            }
        }
    }
}
