//! What happened: durable entries of a log, and ephemeral ephemerals.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ClientId, ConnectionId, ConversationId, EntryId, LogId, Seq, Status, Timestamp, UserId};

/// An entry of a log. Entries of one log are numbered 1, 2, 3 … by `seq`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The log it stands in.
    pub log: LogId,
    /// Its position.
    pub seq: Seq,
    /// How many entries up to and with this one are messages: unread is a subtraction.
    pub message_no: i64,
    /// Who did it.
    pub sender: UserId,
    /// That user's display name then.
    pub sender_name: Arc<str>,
    /// The idempotency id that the client gave, if it gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<ClientId>,
    /// When the store took it.
    pub at: Timestamp,
    /// What it says.
    pub body: Body,
}

impl Entry {
    /// Its public id.
    pub fn id(&self) -> EntryId {
        EntryId::of(&self.log, self.seq)
    }
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Body {
    /// A message. As the store gives it back it shows later edits and deletion.
    Message {
        /// The text; empty once deleted.
        content: Arc<str>,
        /// The message it replies to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reply_to: Option<Seq>,
        /// Whether a persona wrote it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_ai: bool,
        /// When it was last edited.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        edited_at: Option<Timestamp>,
        /// Whether it was deleted.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        deleted: bool,
    },
    /// A message got a new text.
    Edited {
        /// The message.
        target: Seq,
        /// Its new text.
        content: Arc<str>,
    },
    /// A message was deleted.
    Deleted {
        /// The message.
        target: Seq,
    },
    /// Somebody reacted to a message, or took a reaction back.
    Reacted {
        /// The message.
        target: Seq,
        /// The reaction.
        emoji: Arc<str>,
        /// False where it was taken back.
        active: bool,
    },
    /// A user became a member.
    MemberAdded {
        /// Who.
        user: UserId,
    },
    /// A user's membership ended.
    MemberRemoved {
        /// Who.
        user: UserId,
    },
    /// Inbox: the user became a member of a conversation.
    ConversationAdded {
        /// Which.
        conversation: ConversationId,
        /// Its newest seq just before: all that follows concerns the user.
        #[serde(default)]
        since: Seq,
    },
    /// Inbox: the user's membership of a conversation ended.
    ConversationRemoved {
        /// Which.
        conversation: ConversationId,
    },
    /// Inbox: messages wait for a user who was away.
    Notified {
        /// Where they wait.
        conversation: ConversationId,
        /// The first one unread.
        from_seq: Seq,
    },
}

impl Body {
    /// How long its text is, in bytes.
    pub fn content_bytes(&self) -> usize {
        match self {
            Self::Message { content, .. } | Self::Edited { content, .. } => content.len(),
            _ => 0,
        }
    }

    /// Whether this is a message, and so counted by `message_no`.
    pub fn is_message(&self) -> bool {
        matches!(self, Self::Message { .. })
    }
}

/// Something that passes: never stored, may be lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Ephemeral {
    /// Somebody types, or stopped.
    Typing {
        /// Who.
        user: UserId,
        /// Their display name.
        name: Arc<str>,
        /// False when they stopped.
        active: bool,
    },
    /// A user's first socket began, or last one ended, to listen.
    Listening {
        /// Who.
        user: UserId,
        /// Their display name.
        name: Arc<str>,
        /// False when they left.
        active: bool,
    },
    /// As `Listening`, with all who listen then. Each node makes it for those dialects that tell it; it is never
    /// published.
    Audience {
        /// Who came or left.
        user: UserId,
        /// Their display name.
        name: Arc<str>,
        /// False when they left.
        active: bool,
        /// All who listen now.
        present: Arc<[UserId]>,
    },
    /// A user came, went, or changed how they wish to be seen.
    Presence {
        /// Who.
        user: UserId,
        /// Whether they are to be shown as online.
        online: bool,
        /// Their status.
        status: Status,
    },
    /// How far a member has got and read.
    Receipt {
        /// Who.
        user: UserId,
        /// All up to here was delivered.
        delivered_seq: Seq,
        /// All up to here was read.
        read_seq: Seq,
    },
}

/// Something ephemeral that happened in a log's audience.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EphemeralEvent {
    /// Whose audience it concerns.
    pub log: LogId,
    /// When.
    pub at: Timestamp,
    /// What.
    pub what: Ephemeral,
}

/// Something that happened, and the connection that caused it where that is on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A durable one.
    Entry {
        /// The entry.
        entry: Arc<Entry>,
        /// The socket that sent it: it has its ack and, in some dialects, gets no copy.
        origin: Option<ConnectionId>,
    },
    /// One that passes.
    Ephemeral {
        /// The event.
        ephemeral: Arc<EphemeralEvent>,
        /// The socket that caused it.
        origin: Option<ConnectionId>,
    },
}

impl Event {
    /// The log it belongs to.
    pub fn log(&self) -> &LogId {
        match self {
            Self::Entry { entry, .. } => &entry.log,
            Self::Ephemeral { ephemeral, .. } => &ephemeral.log,
        }
    }

    /// The socket that caused it.
    pub fn origin(&self) -> Option<ConnectionId> {
        match self {
            Self::Entry { origin, .. } | Self::Ephemeral { origin, .. } => *origin,
        }
    }
}
