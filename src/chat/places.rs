//! The places of a user's sockets. Silent sockets give way to a new one at a cap; a refusal makes the user's sockets show
//! whether they live.

use std::{sync::Arc, time::Duration};

use super::{router::Router, ttl_cache::TtlCache};
use crate::{
    backplane::{Backplane, Registration, Scope, TooMany},
    model::{Ephemeral, LogId, UserId},
};

/// Time after a refusal in which further ones of the same user ask no socket again.
const ASKED_FOR: Duration = Duration::from_secs(5);
/// Maximum number of users that are remembered.
const ASKED_MAX: usize = 10_000;

/// Finds places for new sockets.
pub(super) struct Places {
    backplane: Arc<Backplane>,
    router: Arc<Router>,
    /// Users whose sockets were asked lately.
    asked: TtlCache<UserId, ()>,
}

impl Places {
    pub(super) fn new(backplane: Arc<Backplane>, router: Arc<Router>) -> Self {
        Self { backplane, router, asked: TtlCache::new(ASKED_FOR, ASKED_MAX) }
    }

    /// Registers a connection. If it is refused, dead sockets of its user are found soon: they are pinged now.
    pub(super) async fn register(&self, new: &Registration) -> Result<(), TooMany> {
        let registered = self.backplane.register(new).await;
        if registered.is_err() && self.asked.get(&new.user).is_none() {
            self.asked.insert(new.user.clone(), ());
            self.ask_for_life(new);
        }
        registered.map(drop)
    }

    /// Asks the sockets that count against the same cap, on all nodes.
    fn ask_for_life(&self, new: &Registration) {
        let log = match &new.scope {
            Scope::User => LogId::inbox(&new.user),
            Scope::Conversation(conversation) => LogId::from(conversation),
        };
        self.router.send_ephemeral(&log, None, [Ephemeral::Probe { user: new.user.clone() }]);
    }
}
