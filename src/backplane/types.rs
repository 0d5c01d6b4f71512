//! What goes in and out of the backplane: values without behaviour. Its files stand on these.

use std::{path::PathBuf, sync::Arc, time::Duration};

use crate::model::{ConnectionId, ConversationId, Event, NodeId, NodeStats, Timestamp, UserId};

/// Why the backplane can't be started: a fault of the configuration. A Redis that is down is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// REDIS_URL is no URL of a Redis. It is not shown, since it may hold a password.
    #[error("REDIS_URL is not a redis:// or rediss:// URL")]
    BadUrl,
    /// The file of certificates can't be used.
    #[error("the CA file {} for Redis can't be used: {reason}", path.display())]
    BadCa {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// What counts against which cap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// A socket for all of a user's conversations.
    User,
    /// A socket bound to one conversation.
    Conversation(ConversationId),
}

/// A connection, as the registry keeps it.
#[derive(Debug, Clone)]
pub struct Registration {
    /// Which.
    pub connection: ConnectionId,
    /// Whose.
    pub user: UserId,
    /// That user's display name.
    pub name: Arc<str>,
    /// What it counts against.
    pub scope: Scope,
    /// Since when.
    pub connected_at: Timestamp,
}

/// A user's connection was not registered: they have as many as they may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany {
    /// Some of them belong to a node that may be dead: trying again may succeed.
    pub perhaps: bool,
}

/// Whether a send may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateDecision {
    /// It may, and is counted.
    Admitted,
    /// It may not.
    Refused {
        /// Sends within the window.
        sent: u32,
        /// When the next one will be taken.
        retry_after: Duration,
    },
}

/// What the backplane tells the node.
#[derive(Debug)]
pub enum Notice {
    /// Events of other nodes, as they came from one channel.
    Events(Vec<Event>),
    /// Anything may have been missed (the link was down, a queue overflowed): catch up on every log that is followed.
    Missed,
    /// This node claimed a departure whose grace is over; it is to tell those concerned, once.
    Departed(Departure),
    /// Others are to be told that somebody is here whom they don't know to be.
    Returned(Return),
}

/// A user whom others took for gone, or never saw come, because Redis lost touch with this node: they are here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Return {
    /// Who.
    pub user: UserId,
    /// Their display name.
    pub name: Arc<str>,
    /// Conversations that they listen to, unknown to others.
    pub joined: Vec<ConversationId>,
    /// Whether others don't know that they are online.
    pub online: bool,
}

/// A user's last socket ended to listen to some conversations, and perhaps the user's last socket ended altogether.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Departure {
    /// Who.
    pub user: UserId,
    /// Their display name.
    pub name: Arc<str>,
    /// Conversations that they no longer listen to.
    pub left: Vec<ConversationId>,
    /// Whether they are now offline.
    pub offline: bool,
    /// Those who listen on this node were told while Redis was away; now the others are to be told.
    pub told_here: bool,
}

/// What the first listening of a user to a conversation brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listening {
    /// No other socket of the user listened to it, on any node, nor did one just before within the grace.
    pub first: bool,
}

/// A node, as its lease shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// Which; a node that was restarted may appear twice until its former lease is out.
    pub node: NodeId,
    /// How long its lease still lasts; zero where it is out.
    pub lease_left: Duration,
    /// Users connected to it.
    pub users: u64,
    /// Connections it held when it last renewed its lease.
    pub connections: u64,
}

impl From<NodeInfo> for NodeStats {
    fn from(NodeInfo { node, lease_left, users, connections }: NodeInfo) -> Self {
        Self { node, alive: !lease_left.is_zero(), users, connections }
    }
}
