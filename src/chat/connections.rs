//! Registration of connections: counts them against their users' caps on all nodes, and lists them for users and
//! operators.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{
    command::CommandReply, connection::Connection, places::Places, subscriptions::Subscriptions, typing::Typing,
    user_upserts::UserUpserts,
};
use crate::{
    backplane::{Backplane, Registration, Scope, TooMany},
    metrics::Metrics,
    model::{Clock, Identity, NodeId, NodeStats, Reject, Reply, Stats, UserId},
};

/// The connections of this node, and access to the registry of all nodes.
pub(super) struct Connections {
    pub(super) node: NodeId,
    pub(super) backplane: Arc<Backplane>,
    pub(super) places: Places,
    pub(super) subscriptions: Arc<Subscriptions>,
    pub(super) typing: Arc<Typing>,
    pub(super) users: Arc<UserUpserts>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Clock,
    /// Number of connections that are registered and not yet unregistered.
    pub(super) count: AtomicU64,
}

impl Connections {
    /// The number of connections on this node.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Registers a connection: counts it against its user's caps on all nodes, and attaches it to the user's inbox.
    pub(super) async fn connect(&self, identity: &Identity, connection: &Arc<Connection>) -> Result<(), Reject> {
        connection.begin_in(self.subscriptions.hub.past());
        let registration = Registration {
            connection: connection.id(),
            user: identity.user.clone(),
            name: identity.name.clone(),
            scope: connection.bound.clone().map_or(Scope::User, Scope::Conversation),
            connected_at: self.clock.now(),
            dialect: connection.dialect.label(),
        };
        match self.places.register(&registration).await {
            Ok(()) => {}
            Err(TooMany { retry_may_succeed: false }) => return Err(Reject::TooManyConnections),
            Err(TooMany { retry_may_succeed: true }) => return Err(Reject::TooManyConnectionsMaybe),
        }
        let followed =
            if connection.dialect.follows_inbox() { self.subscriptions.follow_inbox(connection).await } else { Ok(()) };
        if let Err(reject) = followed {
            self.backplane.unregister(connection.id()).await;
            return Err(reject);
        }
        if connection.dialect.shows_hints() {
            self.subscriptions.hints.add(connection);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.users.enqueue(identity);
        Ok(())
    }

    /// Unregisters a connection: ends all its joins, and removes it from the counts.
    pub(super) async fn disconnect(&self, identity: &Identity, connection: &Connection) {
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.subscriptions.hints.forget(connection);
        for conversation in connection.joined() {
            let attached = connection.remove_join(&conversation) == Some(true);
            drop(self.subscriptions.detach(connection, &conversation, attached));
            self.typing.stop(identity, &conversation, Some(connection.id()));
        }
        if connection.dialect.follows_inbox() {
            self.subscriptions.leave_inbox(connection);
        }
        self.backplane.unregister(connection.id()).await;
    }

    /// Records that a connection's client is silent, or no longer; false if the connection gave way to another one.
    pub(super) async fn set_silent(&self, connection: &Connection, silent: bool) -> bool {
        self.backplane.set_silent(connection.id(), silent).await
    }

    /// Removes a connection from the registry only.
    pub(super) async fn forget(&self, connection: &Connection) {
        self.backplane.unregister(connection.id()).await;
    }

    pub(super) async fn connections_of(&self, user: &UserId) -> CommandReply {
        Reply::Connections(self.backplane.connections_of(user).await).into()
    }

    pub(super) async fn stats(&self) -> CommandReply {
        let (node, connections) = (self.node.clone(), self.count());
        let users_online = self.backplane.online_count().await;
        let mut nodes: Vec<_> = self.backplane.nodes().await.into_iter().map(NodeStats::from).collect();
        if nodes.is_empty() {
            nodes.push(NodeStats { node: node.clone(), alive: true, users: users_online, connections });
        }
        let followed = u64::try_from(self.metrics.followed.get()).unwrap_or(0);
        Reply::Stats(Stats { node, connections, followed, users_online, nodes }).into()
    }
}
