//! Coming, going, and what others see of it; how far people have read.

use std::sync::{Arc, atomic::Ordering};

use super::{Answer, Caller, Chat, Connection, unavailable};
use crate::{
    backplane::{Departure, Registration, Return, Scope, TooMany},
    degrade::Feature,
    model::{ConversationId, Ephemeral, Identity, LogId, Presence, Reject, Reply, Seq, Status, UserId},
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
            connection.exit(&conversation);
            drop(self.detach(connection, &conversation));
            self.stop_typing(conversation, identity.user.clone(), identity.name.clone());
        }
        if connection.dialect.follows_inbox() {
            self.leave_inbox(connection);
        }
        self.backplane.unregister(connection.id()).await;
    }

    /// Tells those concerned that somebody left. Only the node that claimed the departure does.
    pub(super) async fn departed(&self, departure: Departure) {
        let Departure { user, name, left, offline } = departure;
        for conversation in left {
            let gone = Ephemeral::Listening { user: user.clone(), name: name.clone(), active: false };
            let presence = Ephemeral::Presence { user: user.clone(), online: false, status: Status::Online };
            self.tell(&LogId::from(&conversation), None, [gone].into_iter().chain(offline.then_some(presence)));
        }
        if offline && let Err(error) = self.store.seen(&[user], self.clock.now()).await {
            tracing::debug!(%error, "last-seen could not be noted");
        }
    }

    /// Tells those concerned that somebody is here after all.
    pub(super) fn returned(&self, Return { user, name, joined, .. }: Return) {
        for conversation in joined {
            let here = came(user.clone(), name.clone());
            self.tell(&LogId::from(&conversation), None, here);
        }
    }

    pub(super) async fn presence(&self, users: Vec<UserId>) -> Result<Answer, Reject> {
        let online = self.backplane.online(&users).await;
        let known = match self.needs(Feature::History) {
            Ok(()) => self.store.statuses(&users).await.map_err(|error| unavailable(&error))?,
            Err(_) => Vec::new(),
        };
        let known: std::collections::HashMap<_, _> =
            known.into_iter().map(|(user, status, seen)| (user, (status, seen))).collect();
        let seen = |(user, online): (UserId, bool)| {
            let (status, last_seen) = known.get(&user).copied().unwrap_or_default();
            let online = online && status != Status::Invisible;
            Presence { user, online, status: shown(status), last_seen }
        };
        Ok(Reply::Presence(users.into_iter().zip(online).map(seen).collect()).into())
    }

    pub(super) async fn set_status(&self, caller: &Caller, status: Status) -> Result<Answer, Reject> {
        self.needs(Feature::Append)?;
        self.make_known(&caller.identity).await?;
        let user = &caller.identity.user;
        self.store.set_status(user, status).await.map_err(|error| unavailable(&error))?;
        let online = status != Status::Invisible;
        for conversation in caller.connection.iter().flat_map(|connection| connection.joined()) {
            let what = Ephemeral::Presence { user: user.clone(), online, status: shown(status) };
            self.tell(&LogId::from(&conversation), None, [what]);
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
        self.must_be_member(&caller.identity, conversation).await?;
        let (read, user) = (read.unwrap_or(0), &caller.identity.user);
        let marked = self.store.mark(conversation, user, delivered.unwrap_or(0).max(read), read).await;
        if let Some((delivered_seq, read_seq)) = marked.map_err(|error| unavailable(&error))? {
            let origin = caller.connection.as_ref().map(|connection| connection.id());
            let what = Ephemeral::Receipt { user: user.clone(), delivered_seq, read_seq };
            self.tell(&LogId::from(conversation), origin, [what]);
        }
        Ok(Reply::Done.into())
    }

    pub(super) async fn notifications(&self, caller: &Caller, limit: u32, offset: u32) -> Result<Answer, Reject> {
        self.needs(Feature::History)?;
        let read = self.store.notifications(&caller.identity.user, limit, offset).await;
        Ok(Reply::Notifications(read.map_err(|error| unavailable(&error))?).into())
    }

    pub(super) async fn read_notifications(&self, caller: &Caller, ids: Option<Vec<i64>>) -> Result<Answer, Reject> {
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
pub(super) fn came(user: UserId, name: Arc<str>) -> [Ephemeral; 2] {
    let presence = Ephemeral::Presence { user: user.clone(), online: true, status: Status::Online };
    [Ephemeral::Listening { user, name, active: true }, presence]
}
