//! Who is there, as others see it.

use std::{collections::HashMap, sync::Arc};

use super::{
    command::{Caller, CommandReply, needs, unavailable},
    router::Router,
    statuses::Statuses,
    user_upserts::UserUpserts,
};
use crate::{
    backplane::{Backplane, Departure, Return},
    degrade::{Degrade, Feature},
    model::{Clock, Ephemeral, LogId, PageLimit, Presence as Seen, Reject, Reply, Status, UserId},
    store::Store,
};

/// Tells who came, who left and how users wish to be seen.
pub(super) struct Presence {
    pub(super) store: Arc<dyn Store>,
    pub(super) backplane: Arc<Backplane>,
    pub(super) router: Arc<Router>,
    pub(super) degrade: Arc<Degrade>,
    pub(super) statuses: Arc<Statuses>,
    pub(super) users: Arc<UserUpserts>,
    pub(super) clock: Clock,
}

impl Presence {
    /// Tells those concerned that somebody left. Only the node that claimed the departure does. Who was invisible was
    /// never there.
    pub(super) async fn departed(&self, departure: Departure) {
        let Departure { user, name, left, offline, announced_here } = departure;
        if self.statuses.of(&user).await != Status::Invisible {
            for conversation in left {
                let gone = Ephemeral::Listening { user: user.clone(), name: name.clone(), active: false };
                let presence = Ephemeral::Presence { user: user.clone(), online: false, status: Status::Online };
                let what = [gone].into_iter().chain(offline.then_some(presence));
                if announced_here {
                    self.router.tell_elsewhere(&LogId::from(&conversation), what);
                } else {
                    self.router.tell(&LogId::from(&conversation), None, what);
                }
            }
        }
        if offline
            && !announced_here
            && let Err(error) = self.store.seen(&[user], self.clock.now()).await
        {
            tracing::debug!(%error, "last-seen could not be noted");
        }
    }

    /// Tells those concerned that somebody is here after all.
    pub(super) async fn returned(&self, Return { user, name, joined, .. }: Return) {
        let status = self.statuses.of(&user).await;
        for conversation in joined {
            self.router.tell(&LogId::from(&conversation), None, came(user.clone(), name.clone(), status));
        }
    }

    pub(super) async fn of(&self, users: Vec<UserId>) -> Result<CommandReply, Reject> {
        let online = self.backplane.online(&users).await;
        let known = match needs(&self.degrade, Feature::History) {
            Ok(()) => self.store.statuses(&users).await.map_err(|error| unavailable(&error))?,
            Err(_) => Vec::new(),
        };
        let known: HashMap<_, _> = known.into_iter().map(|(user, status, seen)| (user, (status, seen))).collect();
        let seen = |(user, online): (UserId, bool)| {
            let (status, last_seen) = known.get(&user).copied().unwrap_or_default();
            let online = online && status != Status::Invisible;
            Seen { user, online, status: shown(status), last_seen }
        };
        Ok(Reply::Presence(users.into_iter().zip(online).map(seen).collect()).into())
    }

    /// Keeps a status and tells it wherever the user listens, on all nodes.
    pub(super) async fn set_status(&self, caller: &Caller, status: Status) -> Result<CommandReply, Reject> {
        needs(&self.degrade, Feature::Append)?;
        self.users.make_known(&caller.identity).await?;
        let (user, name) = (&caller.identity.user, &caller.identity.name);
        let before = self.statuses.of(user).await;
        self.store.set_status(user, status).await.map_err(|error| unavailable(&error))?;
        self.statuses.learn(user.clone(), status);
        let told = match (before, status) {
            (Status::Invisible, Status::Invisible) => Vec::new(),
            (_, Status::Invisible) => vec![
                Ephemeral::Listening { user: user.clone(), name: name.clone(), active: false },
                Ephemeral::Presence { user: user.clone(), online: false, status: Status::Online },
            ],
            (Status::Invisible, _) => came(user.clone(), name.clone(), status),
            _ => vec![Ephemeral::Presence { user: user.clone(), online: true, status }],
        };
        for conversation in self.backplane.joined(user).await {
            self.router.tell(&LogId::from(&conversation), None, told.iter().cloned());
        }
        Ok(Reply::Done.into())
    }

    /// A page of those who are online and wish to be seen.
    pub(super) async fn online(&self, cursor: u64, limit: PageLimit) -> CommandReply {
        let (users, next) = self.backplane.online_page(cursor, limit.get()).await;
        let users = self.statuses.visible(users).await;
        let count = self.backplane.online_count().await;
        Reply::Online { users, count, next: (next != 0).then_some(next) }.into()
    }
}

/// What others see of a status: the invisible look like anybody who is offline.
fn shown(status: Status) -> Status {
    if status == Status::Invisible { Status::Online } else { status }
}

/// What others see when a user begins to listen.
pub(super) fn came(user: UserId, name: Arc<str>, status: Status) -> Vec<Ephemeral> {
    if status == Status::Invisible {
        return Vec::new();
    }
    let presence = Ephemeral::Presence { user: user.clone(), online: true, status };
    vec![Ephemeral::Listening { user, name, active: true }, presence]
}
