//! Presence of users, as other users see it.

use std::{collections::HashMap, sync::Arc};

use super::{
    command::{Caller, CommandReply, require_feature, unavailable, unwritten},
    present::PresentUsers,
    router::Router,
    statuses::Statuses,
    user_upserts::UserUpserts,
};
use crate::{
    backplane::{Backplane, Departure, Return},
    degrade::{Degrade, Feature},
    model::{Clock, Ephemeral, LogId, PageLimit, Presence as UserPresence, Reject, Reply, Status, UserId},
    store::Store,
};

/// Publishes arrivals, departures and statuses of users.
pub(super) struct Presence {
    pub(super) store: Arc<dyn Store>,
    pub(super) backplane: Arc<Backplane>,
    pub(super) router: Arc<Router>,
    pub(super) degrade: Arc<Degrade>,
    pub(super) statuses: Arc<Statuses>,
    pub(super) present: Arc<PresentUsers>,
    pub(super) users: Arc<UserUpserts>,
    pub(super) clock: Clock,
}

impl Presence {
    /// Publishes a user's departure. Only the node that claims the departure calls this. An invisible user was never
    /// shown as present, so nothing is published for one.
    pub(super) async fn departed(&self, departure: Departure) {
        let Departure { user, name, left, left_before, offline, announced_here } = departure;
        if self.statuses.of(&user).await != Status::Invisible {
            let left = left.into_iter().map(|conversation| (conversation, true));
            let left_before = left_before.into_iter().map(|conversation| (conversation, false));
            for (conversation, leaves) in left.chain(left_before) {
                let gone = Ephemeral::Listening { user: user.clone(), name: name.clone(), active: false };
                let presence = Ephemeral::Presence { user: user.clone(), online: false, status: Status::Online };
                let what = leaves.then_some(gone).into_iter().chain(offline.then_some(presence));
                if announced_here {
                    self.router.send_ephemeral_elsewhere(&LogId::from(&conversation), what);
                } else {
                    self.router.send_ephemeral(&LogId::from(&conversation), None, what);
                }
            }
        }
        if offline
            && !announced_here
            && let Err(error) = self.store.seen(&[user], self.clock.now()).await
        {
            tracing::debug!(%error, "the last-seen time was not stored");
        }
    }

    /// Publishes that a user whose departure was announced is present again.
    pub(super) async fn returned(&self, Return { user, name, joined, .. }: Return) {
        let status = self.statuses.of(&user).await;
        for conversation in joined {
            self.router.send_ephemeral(
                &LogId::from(&conversation),
                None,
                arrival_events(user.clone(), name.clone(), status),
            );
        }
    }

    pub(super) async fn query(&self, users: Vec<UserId>) -> Result<CommandReply, Reject> {
        Ok(Reply::Presence { users: self.of(users).await?, more: false }.into())
    }

    /// A user's own status.
    pub(super) async fn status_of(&self, user: &UserId) -> Status {
        self.statuses.of(user).await
    }

    /// The presence of users as others see it.
    pub(super) async fn of(&self, users: Vec<UserId>) -> Result<Vec<UserPresence>, Reject> {
        let online = self.present.online(&users).await;
        let known = match require_feature(&self.degrade, Feature::History) {
            Ok(()) => self.store.statuses(&users).await.map_err(|error| unavailable(&error))?,
            Err(_) => Vec::new(),
        };
        let known: HashMap<_, _> = known.into_iter().map(|(user, status, seen)| (user, (status, seen))).collect();
        let seen = |(user, online): (UserId, bool)| {
            let (status, last_seen) = known.get(&user).copied().unwrap_or_default();
            let online = online && status != Status::Invisible;
            UserPresence { user, online, status: visible_status(status), last_seen }
        };
        Ok(users.into_iter().zip(online).map(seen).collect())
    }

    /// Stores a status and publishes it to all conversations that the user listens to, on all nodes.
    pub(super) async fn set_status(&self, caller: &Caller, status: Status) -> Result<CommandReply, Reject> {
        require_feature(&self.degrade, Feature::Append)?;
        self.users.ensure_stored(&caller.identity).await?;
        let (user, name) = (&caller.identity.user, &caller.identity.name);
        let before = self.statuses.of(user).await;
        if status == Status::Invisible && before != Status::Invisible {
            // To others the user leaves now. What follows must not move the time.
            self.store.seen(std::slice::from_ref(user), self.clock.now()).await.map_err(|error| unwritten(&error))?;
        }
        self.store.set_status(user, status).await.map_err(|error| unwritten(&error))?;
        self.statuses.cache(user.clone(), status);
        let events = match (before, status) {
            (Status::Invisible, Status::Invisible) => Vec::new(),
            (_, Status::Invisible) => vec![
                Ephemeral::Listening { user: user.clone(), name: name.clone(), active: false },
                Ephemeral::Presence { user: user.clone(), online: false, status: Status::Online },
            ],
            (Status::Invisible, _) => arrival_events(user.clone(), name.clone(), status),
            _ => vec![Ephemeral::Presence { user: user.clone(), online: true, status }],
        };
        for conversation in self.backplane.joined(user).await {
            self.router.send_ephemeral(&LogId::from(&conversation), None, events.iter().cloned());
        }
        Ok(Reply::Done.into())
    }

    /// A page of the visible online users.
    pub(super) async fn online(&self, cursor: u64, limit: PageLimit) -> CommandReply {
        let (users, next) = self.backplane.online_page(cursor, limit.get()).await;
        let users = self.statuses.visible(users).await;
        let count = self.backplane.online_count().await;
        Reply::Online { users, count, next: (next != 0).then_some(next) }.into()
    }
}

/// The status that others see: an invisible user looks like any offline user.
fn visible_status(status: Status) -> Status {
    if status == Status::Invisible { Status::Online } else { status }
}

/// The events for the other listeners when a user begins to listen; none if the user is invisible.
pub(super) fn arrival_events(user: UserId, name: Arc<str>, status: Status) -> Vec<Ephemeral> {
    if status == Status::Invisible {
        return Vec::new();
    }
    let presence = Ephemeral::Presence { user: user.clone(), online: true, status };
    vec![Ephemeral::Listening { user, name, active: true }, presence]
}
