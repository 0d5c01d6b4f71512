//! Inputs and outputs of the backplane: values without behaviour, on which its other files build.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::model::{ConnectionId, ConversationId, Event, LogId, NodeId, NodeStats, Timestamp, UserId};

/// Why the backplane can't start: a fault of the configuration. A Redis that is down is not a fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// REDIS_URL has a form that is not supported. The message does not show it, since it may hold a password.
    #[error("REDIS_URL has a form that is not supported")]
    BadUrl,
    /// REDIS_URL has another form than the servers need.
    #[error("{0}")]
    WrongForm(String),
    /// A file with certificates can't be used.
    #[error("the certificates for Redis can't be used: {0}")]
    BadTls(String),
}

/// Where Redis is, for the health report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisStatus {
    /// The address of the server; `None` while none is known.
    pub primary: Option<String>,
    /// Time since which it is that.
    pub since: Option<Instant>,
    /// Number of changes of the address since the start of the node.
    pub changes: u64,
    /// Number of sentinels that answer, and of those in REDIS_URL; `None` without sentinels.
    pub sentinels: Option<(usize, usize)>,
    /// The masters and shards of a Redis Cluster; `None` for one server.
    pub cluster: Option<ClusterStatus>,
}

/// The masters and shards of a Redis Cluster, for the health report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterStatus {
    /// The addresses of the masters, and whether each answered when it was used last.
    pub masters: Vec<(String, bool)>,
    /// Number of shards.
    pub shards: usize,
    /// Number of shards whose master does not answer, or that have none.
    pub shards_down: usize,
}

/// The scope of a socket, which decides the connection limits that it counts against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// A socket for all of a user's conversations.
    User,
    /// A socket bound to one conversation.
    Conversation(ConversationId),
}

/// A connection for the registry.
#[derive(Debug, Clone)]
pub struct Registration {
    /// The connection's id.
    pub connection: ConnectionId,
    /// The connection's user.
    pub user: UserId,
    /// The user's display name.
    pub name: Arc<str>,
    /// The connection's scope.
    pub scope: Scope,
    /// Time at which it connected.
    pub connected_at: Timestamp,
    /// The label of its dialect.
    pub dialect: &'static str,
}

/// A connection was not registered, because its user has reached a connection limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany {
    /// Some of the user's connections belong to a node that may be dead, so a retry may succeed.
    pub retry_may_succeed: bool,
}

/// The users who listen to a conversation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listeners {
    /// The users, at most 1,000.
    pub users: Vec<UserId>,
    /// False if Redis did not answer, so that these are this node's users.
    pub of_all_nodes: bool,
}

/// The decision on one command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateDecision {
    /// The command is admitted and counted.
    Admitted,
    /// The command is refused.
    Refused {
        /// Weight of the commands within the window.
        sent: u32,
        /// Time until the next command is admitted.
        retry_after: Duration,
    },
}

/// Members of a conversation who must learn that it has new messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hint {
    /// The conversation.
    pub conversation: ConversationId,
    /// The members.
    pub users: Vec<UserId>,
}

/// An event from the backplane to the node.
#[derive(Debug)]
pub enum BackplaneEvent {
    /// Events of other nodes from one channel, in order.
    Events(Vec<Event>),
    /// Hints for users with connections on this node.
    Hints(Vec<Hint>),
    /// Events may have been missed, because the link was down or a queue overflowed. The node must compare every
    /// followed log with the store.
    Missed,
    /// Something was published on the channels of these logs that no node of this deployment signed. The node must compare
    /// them with the store, since a node with other keys may have published entries. It comes at most once a second.
    Doubtful(Vec<LogId>),
    /// This node claimed a departure whose grace is over, and must announce it.
    Departed(Departure),
    /// The node must announce that a user is here, since other nodes don't know it.
    Returned(Return),
}

/// A user on this node whom other nodes believe to have departed, or never saw come online, because this node lost its
/// connection to Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Return {
    /// The user.
    pub user: UserId,
    /// The user's display name.
    pub name: Arc<str>,
    /// Conversations that the user listens to without other nodes knowing.
    pub joined: Vec<ConversationId>,
    /// True if other nodes don't know that the user is online.
    pub online: bool,
}

/// The end of a user's listening to conversations, or of the user's last socket, after the grace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Departure {
    /// The user.
    pub user: UserId,
    /// The user's display name.
    pub name: Arc<str>,
    /// Conversations that the user no longer listens to.
    pub left: Vec<ConversationId>,
    /// Conversations that the user left earlier and stayed online, the newest 32 at most, if the user is now offline: their
    /// listeners know of the leaving only.
    pub left_before: Vec<ConversationId>,
    /// True if the user is now offline.
    pub offline: bool,
    /// True if it was announced to this node's listeners while Redis was down, so that only other nodes lack it.
    pub announced_here: bool,
}

/// The result of [`super::Backplane::listen`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listening {
    /// True if no other socket of the user listens to the conversation on any node, and none did within the grace.
    pub first: bool,
}

/// A node that has a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// The node's id. A restarted node may appear twice until its former lease is removed.
    pub node: NodeId,
    /// Time until its lease expires; zero if expired.
    pub lease_left: Duration,
    /// Number of users connected to it.
    pub users: u64,
    /// Number of connections that it held when it last renewed its lease.
    pub connections: u64,
}

impl From<NodeInfo> for NodeStats {
    fn from(NodeInfo { node, lease_left, users, connections }: NodeInfo) -> Self {
        Self { node, alive: !lease_left.is_zero(), users, connections }
    }
}
