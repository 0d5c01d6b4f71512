//! What the nodes share through Redis: registry and presence, limits, recent messages, and the bus between them.
//!
//! The backplane is Off (no Redis configured), Up or Down. Off and Down are served by the same local parts
//! (`local.rs`). Imports `model`, `config`, `metrics`, `degrade`; never the store or the hub.

use std::{sync::Arc, time::Duration};

use crate::model::{ConnectionId, ConversationId, Entry, Event, LogId, Seq, Timestamp, UserId};

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
pub enum Admission {
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
}

/// What the first listening of a user to a conversation brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listening {
    /// No other socket of the user listened to it, on any node, nor did one just before within the grace.
    pub first: bool,
}
