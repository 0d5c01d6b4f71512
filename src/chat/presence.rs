//! Coming, going, and what others see of it; how far people have read.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
};

use super::{Answer, Caller, Chat, Connection, unavailable};
use crate::{
    backplane::{Departure, Registration, Return, Scope, TooMany},
    degrade::Feature,
    model::{
        ConversationId, Ephemeral, Event, Identity, Listed, LogId, Occurrence, Page, Presence, Reject, Reply, Seq,
        Status, UserId,
    },
};

impl Chat {
    /// Lets a connection in: counts it against its user's caps on all nodes, and follows the user's inbox.
    ///
    /// # Errors
    /// The user has as many as they may, or the store can't be asked.
    pub async fn connect(self: &Arc<Self>, identity: &Identity, connection: &Arc<Connection>) -> Result<(), Reject> {
        let registration = Registration {
            connection: connection.id(),
            user: identity.user.clone(),
            name: identity.name.clone(),
            scope: connection.bound.clone().map_or(Scope::User, Scope::Conversation),
            connected_at: self.clock.now(),
        };
        match self.backplane.register(&registration).await {
            Ok(_) => {}
            Err(TooMany { perhaps: false }) => return Err(Reject::TooManyConnections),
            Err(TooMany { perhaps: true }) => return Err(Reject::TooManyConnectionsMaybe),
        }
        let followed = if connection.dialect.follows_inbox() { self.follow_inbox(connection).await } else { Ok(()) };
        if let Err(reject) = followed {
            self.backplane.unregister(connection.id()).await;
            return Err(reject);
        }
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.note(identity);
        Ok(())
    }

    /// Lets a connection go: it listens to nothing any more, and counts for nothing.
    pub async fn disconnect(&self, identity: &Identity, connection: &Connection) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
        for conversation in connection.joined() {
            let attached = connection.exit(&conversation) == Some(true);
            drop(self.detach(connection, &conversation, attached));
            self.stop_typing(conversation, identity.user.clone(), identity.name.clone());
        }
        if connection.dialect.follows_inbox() {
            self.leave_inbox(connection);
        }
        self.backplane.unregister(connection.id()).await;
    }

    /// Tells those concerned that somebody left. Only the node that claimed the departure does. Who was invisible was
    /// never there.
    pub(super) async fn departed(&self, departure: Departure) {
        let Departure { user, name, left, offline, told_here } = departure;
        if self.status_of(&user).await != Status::Invisible {
            for conversation in left {
                let gone = Ephemeral::Listening { user: user.clone(), name: name.clone(), active: false };
                let presence = Ephemeral::Presence { user: user.clone(), online: false, status: Status::Online };
                let what = [gone].into_iter().chain(offline.then_some(presence));
                if told_here {
                    self.tell_elsewhere(&LogId::from(&conversation), what);
                } else {
                    self.tell(&LogId::from(&conversation), None, what);
                }
            }
        }
        if offline
            && !told_here
            && let Err(error) = self.store.seen(&[user], self.clock.now()).await
        {
            tracing::debug!(%error, "last-seen could not be noted");
        }
    }

    /// Tells a log's audience on other nodes alone.
    fn tell_elsewhere(&self, log: &LogId, what: impl IntoIterator<Item = Ephemeral>) {
        let at = self.clock.now();
        let occurrence = |what| Arc::new(Occurrence { log: log.clone(), at, what });
        let event = |what| Event::Occurrence { occurrence: occurrence(what), origin: None };
        self.backplane.publish(what.into_iter().map(event).collect());
    }

    /// Tells those concerned that somebody is here after all.
    pub(super) async fn returned(&self, Return { user, name, joined, .. }: Return) {
        let status = self.status_of(&user).await;
        for conversation in joined {
            self.tell(&LogId::from(&conversation), None, came(user.clone(), name.clone(), status));
        }
    }

    /// How a user wishes to be seen, as it was a moment ago; where the store can't say, as anybody.
    pub(super) async fn status_of(&self, user: &UserId) -> Status {
        if let Some(known) = self.statuses.get(user) {
            return known;
        }
        match self.ask_status(user).await {
            Some(status) => {
                self.statuses.learn(user.clone(), status);
                status
            }
            None => Status::default(),
        }
    }

    /// Those of these users who don't wish to be invisible.
    pub(super) async fn visible(&self, mut users: Vec<UserId>) -> Vec<UserId> {
        if let Ok(statuses) = self.store.statuses(&users).await {
            let invisible = statuses.into_iter().filter(|(_, status, _)| *status == Status::Invisible);
            let invisible: HashSet<UserId> = invisible.map(|(user, ..)| user).collect();
            users.retain(|user| !invisible.contains(user));
        }
        users
    }

    pub(super) async fn presence(&self, users: Vec<UserId>) -> Result<Answer, Reject> {
        let online = self.backplane.online(&users).await;
        let known = match self.needs(Feature::History) {
            Ok(()) => self.store.statuses(&users).await.map_err(|error| unavailable(&error))?,
            Err(_) => Vec::new(),
        };
        let known: HashMap<_, _> = known.into_iter().map(|(user, status, seen)| (user, (status, seen))).collect();
        let seen = |(user, online): (UserId, bool)| {
            let (status, last_seen) = known.get(&user).copied().unwrap_or_default();
            let online = online && status != Status::Invisible;
            Presence { user, online, status: shown(status), last_seen }
        };
        Ok(Reply::Presence(users.into_iter().zip(online).map(seen).collect()).into())
    }

    /// Keeps a status and tells it wherever the user listens, on all nodes.
    pub(super) async fn set_status(&self, caller: &Caller, status: Status) -> Result<Answer, Reject> {
        self.needs(Feature::Append)?;
        self.make_known(&caller.identity).await?;
        let (user, name) = (&caller.identity.user, &caller.identity.name);
        let before = self.status_of(user).await;
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
            self.tell(&LogId::from(&conversation), None, told.iter().cloned());
        }
        Ok(Reply::Done.into())
    }

    pub(super) async fn read(
        &self,
        caller: &Caller,
        conversation: &ConversationId,
        delivered: Option<Seq>,
        read: Option<Seq>,
    ) -> Result<Answer, Reject> {
        self.mark(caller, conversation, delivered.unwrap_or(0), read.unwrap_or(0)).await?;
        Ok(Reply::Done.into())
    }

    async fn mark(
        &self,
        caller: &Caller,
        conversation: &ConversationId,
        delivered: Seq,
        read: Seq,
    ) -> Result<(), Reject> {
        let user = &caller.identity.user;
        let marked = self.store.mark(conversation, user, delivered.max(read), read).await;
        if let Some((delivered_seq, read_seq)) = marked.map_err(|error| unavailable(&error))? {
            let origin = caller.connection.as_ref().map(|connection| connection.id());
            let what = Ephemeral::Receipt { user: user.clone(), delivered_seq, read_seq };
            self.tell(&LogId::from(conversation), origin, [what]);
        }
        Ok(())
    }

    /// Notes what reached a client that can't say so itself. Where that fails, the client gets it again when it comes
    /// back: rather twice than never.
    pub async fn note_delivered(self: Arc<Self>, caller: Caller, arrived: HashMap<ConversationId, Seq>) {
        for (conversation, seq) in arrived {
            if self.mark(&caller, &conversation, seq, 0).await.is_err() {
                return;
            }
        }
    }

    pub(super) async fn notifications(&self, caller: &Caller, page: Page) -> Result<Answer, Reject> {
        self.needs(Feature::History)?;
        let read = self.store.notifications(&caller.identity.user, page).await;
        Ok(Reply::Notifications(read.map_err(|error| unavailable(&error))?).into())
    }

    pub(super) async fn read_notifications(&self, caller: &Caller, ids: Option<Listed<i64>>) -> Result<Answer, Reject> {
        self.needs(Feature::Append)?;
        let read = self.store.read_notifications(&caller.identity.user, ids.as_deref()).await;
        read.map_err(|error| unavailable(&error))?;
        Ok(Reply::Done.into())
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
