//! Connections come and go: counted against their users' caps on all nodes, and shown to users and operators.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{
    command::{Caller, CommandReply},
    connection::Connection,
    subscriptions::Subscriptions,
    typing::Typing,
    user_upserts::UserUpserts,
};
use crate::{
    backplane::{Backplane, Registration, Scope, TooMany},
    metrics::Metrics,
    model::{Clock, Identity, NodeId, NodeStats, Reject, Reply, Stats},
};

/// The connections of this node, and what is known of those of others.
pub(super) struct Connections {
    pub(super) node: NodeId,
    pub(super) backplane: Arc<Backplane>,
    pub(super) subscriptions: Arc<Subscriptions>,
    pub(super) typing: Arc<Typing>,
    pub(super) users: Arc<UserUpserts>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Clock,
    /// How many were let in and not let go.
    pub(super) count: AtomicU64,
}

impl Connections {
    /// How many this node holds.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Lets a connection in: counts it against its user's caps on all nodes, and follows the user's inbox.
    pub(super) async fn connect(&self, identity: &Identity, connection: &Arc<Connection>) -> Result<(), Reject> {
        let registration = Registration {
            connection: connection.id(),
            user: identity.user.clone(),
            name: identity.name.clone(),
            scope: connection.bound.clone().map_or(Scope::User, Scope::Conversation),
            connected_at: self.clock.now(),
        };
        match self.backplane.register(&registration).await {
            Ok(_) => {}
            Err(TooMany { retry_may_succeed: false }) => return Err(Reject::TooManyConnections),
            Err(TooMany { retry_may_succeed: true }) => return Err(Reject::TooManyConnectionsMaybe),
        }
        let followed =
            if connection.dialect.follows_inbox() { self.subscriptions.follow_inbox(connection).await } else { Ok(()) };
        if let Err(reject) = followed {
            self.backplane.unregister(connection.id()).await;
            return Err(reject);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.users.note(identity);
        Ok(())
    }

    /// Lets a connection go: it listens to nothing any more, and counts for nothing.
    pub(super) async fn disconnect(&self, identity: &Identity, connection: &Connection) {
        self.count.fetch_sub(1, Ordering::Relaxed);
        for conversation in connection.joined() {
            let attached = connection.exit(&conversation) == Some(true);
            drop(self.subscriptions.detach(connection, &conversation, attached));
            self.typing.stop(conversation, identity.user.clone(), identity.name.clone());
        }
        if connection.dialect.follows_inbox() {
            self.subscriptions.leave_inbox(connection);
        }
        self.backplane.unregister(connection.id()).await;
    }

    pub(super) async fn connections_of(&self, caller: &Caller) -> CommandReply {
        Reply::Connections(self.backplane.connections_of(&caller.identity.user).await).into()
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
