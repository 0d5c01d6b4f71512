//! Events: durable entries of a log, and ephemeral events.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    ClientId, ConnectionId, ConversationId, Data, DataEdit, EntryId, EventName, LogId, PendingAck, Seq, Status,
    Timestamp, UserId,
    data::{read_from_text, write_as_text},
};

/// An entry of a log. Entries of one log are numbered 1, 2, 3 … by `seq`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The log that contains the entry.
    pub log: LogId,
    /// The entry's position in the log.
    pub seq: Seq,
    /// Number of messages in the log up to and including this entry; the difference of two such numbers counts the messages
    /// between, deleted ones included.
    pub message_no: i64,
    /// The user who made the entry.
    pub sender: UserId,
    /// The sender's display name at that time.
    pub sender_name: Arc<str>,
    /// The idempotency id, if the client gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<ClientId>,
    /// Time at which the store accepted the entry.
    pub at: Timestamp,
    /// The content of the entry.
    pub body: Body,
}

impl Entry {
    /// The entry's public id.
    pub fn id(&self) -> EntryId {
        EntryId::of(&self.log, self.seq)
    }

    /// The entry's identity within its log.
    pub fn stamp(&self) -> EntryStamp {
        EntryStamp { seq: self.seq, at: self.at }
    }
}

/// The identity of an entry within its log. A store that was set back to an earlier state assigns seqs again; the time then
/// tells the new entry from the lost one. Entries never change place or time, so two states of a log that have one entry in
/// common have all entries up to it in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryStamp {
    /// The entry's seq.
    pub seq: Seq,
    /// Time at which the store accepted the entry.
    pub at: Timestamp,
}

/// The content of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Body {
    /// A message. The store returns it with its later edits and deletion applied.
    Message {
        /// The text; empty after a deletion.
        content: Arc<str>,
        /// The JSON beside the text; none after a deletion.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[serde(serialize_with = "write_as_text", deserialize_with = "read_from_text")]
        data: Option<Data>,
        /// The message it replies to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reply_to: Option<Seq>,
        /// True if a persona wrote the message.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_ai: bool,
        /// The persona that must answer. Only the store and the node that asks the persona use it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        persona: Option<UserId>,
        /// Time of the last edit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        edited_at: Option<Timestamp>,
        /// True if the message was deleted.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        deleted: bool,
    },
    /// The text of a message was replaced, and its data if the edit says so.
    Edited {
        /// The message.
        target: Seq,
        /// The new text.
        content: Arc<str>,
        /// The change of its data.
        #[serde(default, skip_serializing_if = "DataEdit::is_kept")]
        data: DataEdit,
    },
    /// A message was deleted.
    Deleted {
        /// The message.
        target: Seq,
    },
    /// A user added a reaction to a message, or removed it.
    Reacted {
        /// The message.
        target: Seq,
        /// The reaction.
        emoji: Arc<str>,
        /// False if the reaction was removed.
        active: bool,
    },
    /// A user became a member.
    MemberAdded {
        /// The new member.
        user: UserId,
    },
    /// A user's membership ended.
    MemberRemoved {
        /// The former member.
        user: UserId,
    },
    /// Inbox: the user became a member of a conversation.
    ConversationAdded {
        /// The conversation.
        conversation: ConversationId,
        /// The conversation's newest seq just before the addition: every later entry concerns the user.
        #[serde(default)]
        since: Seq,
    },
    /// Inbox: the user's membership of a conversation ended.
    ConversationRemoved {
        /// The conversation.
        conversation: ConversationId,
    },
    /// Inbox: messages wait for a user who was away.
    Notified {
        /// The conversation in which they wait.
        conversation: ConversationId,
        /// The first unread message.
        from_seq: Seq,
    },
}

impl Body {
    /// A message with this text and nothing else.
    pub fn message(content: impl Into<Arc<str>>) -> Self {
        Self::Message {
            content: content.into(),
            data: None,
            reply_to: None,
            is_ai: false,
            persona: None,
            edited_at: None,
            deleted: false,
        }
    }

    /// An edit that replaces the text of a message and keeps its data.
    pub fn edited(target: Seq, content: impl Into<Arc<str>>) -> Self {
        Self::Edited { target, content: content.into(), data: DataEdit::Keep }
    }

    /// The text and the data that the entry holds.
    pub fn payload(&self) -> (&str, Option<&Data>) {
        match self {
            Self::Message { content, data, .. } => (content, data.as_ref()),
            Self::Edited { content, data, .. } => (content, data.data()),
            _ => ("", None),
        }
    }

    /// Length of the text and the data, in bytes.
    pub fn payload_bytes(&self) -> usize {
        let (content, data) = self.payload();
        content.len() + data.map_or(0, Data::bytes)
    }

    /// True if this is a message, which `message_no` counts.
    pub fn is_message(&self) -> bool {
        matches!(self, Self::Message { .. })
    }
}

/// An ephemeral event: never stored, and may be lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Ephemeral {
    /// A user types, or stopped typing.
    Typing {
        /// The user.
        user: UserId,
        /// The user's display name.
        name: Arc<str>,
        /// False if the user stopped.
        active: bool,
    },
    /// A user's first socket began to listen, or the last one stopped.
    Listening {
        /// The user.
        user: UserId,
        /// The user's display name.
        name: Arc<str>,
        /// False if the user left.
        active: bool,
    },
    /// As `Listening`, with all current listeners. Each node builds it for the dialects that show it; it is never
    /// published.
    Audience {
        /// The user who joined or left.
        user: UserId,
        /// The user's display name.
        name: Arc<str>,
        /// False if the user left.
        active: bool,
        /// All users who listen now.
        present: Arc<[UserId]>,
    },
    /// A user came online, went offline, or changed status.
    Presence {
        /// The user.
        user: UserId,
        /// True if others see the user as online.
        online: bool,
        /// The user's status.
        status: Status,
    },
    /// A new socket of a user needs room: those that the user has must show that they live. For the sessions only.
    Probe {
        /// The user.
        user: UserId,
    },
    /// A member's delivered and read marks.
    Receipt {
        /// The member.
        user: UserId,
        /// The member received every entry up to this seq.
        delivered_seq: Seq,
        /// The member read every entry up to this seq.
        read_seq: Seq,
    },
    /// An event of a client, which the broker passes on without reading it.
    Custom {
        /// The sender.
        user: UserId,
        /// The name that the sender gave it.
        name: EventName,
        /// Its JSON.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[serde(serialize_with = "write_as_text", deserialize_with = "read_from_text")]
        data: Option<Data>,
        /// The newest entry of the log that the sender's node had. Nobody gets the event before that entry, so a member
        /// whose removal the sender knew does not get it.
        #[serde(default)]
        after: Seq,
    },
}

impl Ephemeral {
    /// True for an event of a client. It never takes the place that other events need.
    pub fn is_custom(&self) -> bool {
        matches!(self, Self::Custom { .. })
    }
}

/// An ephemeral event for the listeners of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EphemeralEvent {
    /// The log whose listeners receive it.
    pub log: LogId,
    /// Time of the event.
    pub at: Timestamp,
    /// The event itself.
    pub what: Ephemeral,
}

/// An event, and the connection that caused it if that is on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A durable event.
    Entry {
        /// The entry.
        entry: Arc<Entry>,
        /// The ack of the socket that sent it; in some dialects that socket gets no copy.
        origin: Option<Arc<PendingAck>>,
    },
    /// An ephemeral event.
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

    /// The entry, if it is a durable event.
    pub fn entry(&self) -> Option<&Entry> {
        match self {
            Self::Entry { entry, .. } => Some(entry),
            Self::Ephemeral { .. } => None,
        }
    }

    /// True for an event of a client.
    pub fn is_custom(&self) -> bool {
        matches!(self, Self::Ephemeral { ephemeral, .. } if ephemeral.what.is_custom())
    }

    /// The socket that caused it.
    pub fn origin(&self) -> Option<ConnectionId> {
        match self {
            Self::Entry { origin, .. } => origin.as_ref().map(|ack| ack.connection()),
            Self::Ephemeral { origin, .. } => *origin,
        }
    }
}
