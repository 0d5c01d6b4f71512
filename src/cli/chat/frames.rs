//! Frames of the native dialect (docs/protocol/native.md) that this client uses.

use serde::{Deserialize, Serialize, de::IgnoredAny};

use crate::model::{ClientId, ConversationId, Seq, Status, Timestamp, UserId};

/// Type of a frame from the server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Authenticated,
    Joined,
    Resync,
    Left,
    Ack,
    Error,
    Restart,
    History,
    Conversations,
    PresenceList,
    /// The default, because messages in a history have no type.
    #[default]
    Message,
    MessageEdited,
    MessageDeleted,
    Reaction,
    MemberAdded,
    MemberRemoved,
    UserJoined,
    UserLeft,
    #[serde(other)]
    Other,
}

/// The `ref` of a request, which names its purpose. The server repeats it in the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Tag {
    Join,
    /// A page of missed or earlier messages that the client shows by itself.
    Reading,
    History,
    Who,
    Send,
    #[serde(other)]
    Other,
}

/// A frame from the server. Each kind has some of these fields.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Frame {
    #[serde(rename = "type", default)]
    pub(super) kind: Kind,
    #[serde(rename = "ref", default)]
    pub(super) tag: Option<Tag>,
    /// A string, not a `ConversationId`, because the name of an inbox is no valid one.
    pub(super) conversation_id: Option<String>,
    pub(super) seq: Option<Seq>,
    pub(super) head: Option<Seq>,
    pub(super) client_id: Option<ClientId>,
    pub(super) sender_id: Option<UserId>,
    pub(super) sender_name: Option<String>,
    pub(super) user_id: Option<UserId>,
    pub(super) name: Option<String>,
    pub(super) content: Option<String>,
    /// Present if the message carries JSON, which this client does not show.
    pub(super) data: Option<IgnoredAny>,
    pub(super) emoji: Option<String>,
    pub(super) active: Option<bool>,
    pub(super) created_at: Option<Timestamp>,
    pub(super) edited_at: Option<Timestamp>,
    #[serde(default)]
    pub(super) deleted: bool,
    pub(super) code: Option<String>,
    pub(super) message: Option<String>,
    #[serde(default)]
    pub(super) retryable: bool,
    pub(super) retry_after_ms: Option<u64>,
    pub(super) epoch: Option<i64>,
    #[serde(default)]
    pub(super) messages: Vec<Self>,
    /// Position of the next page of older messages, if there are more.
    pub(super) next_before_seq: Option<Seq>,
    #[serde(default)]
    pub(super) conversations: Vec<ConversationSummary>,
    #[serde(default)]
    pub(super) users: Vec<UserPresence>,
}

/// A conversation in a list.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct ConversationSummary {
    pub(super) conversation_id: ConversationId,
    #[serde(default)]
    pub(super) members: Vec<Member>,
}

/// A member of a conversation.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Member {
    pub(super) user_id: UserId,
    pub(super) name: Option<String>,
}

/// Presence of a user.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct UserPresence {
    pub(super) user_id: UserId,
    pub(super) online: bool,
    pub(super) status: Status,
}

/// A frame to the server.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Request<'a> {
    Join {
        conversation_id: &'a ConversationId,
        #[serde(skip_serializing_if = "Option::is_none")]
        since_seq: Option<Seq>,
        /// True to get `user_joined` and `user_left`.
        roster: bool,
        #[serde(rename = "ref")]
        tag: Tag,
    },
    Send {
        conversation_id: &'a ConversationId,
        content: &'a str,
        client_id: &'a ClientId,
        #[serde(rename = "ref")]
        tag: Tag,
    },
    History {
        conversation_id: &'a ConversationId,
        #[serde(skip_serializing_if = "Option::is_none")]
        before_seq: Option<Seq>,
        limit: u32,
        #[serde(rename = "ref")]
        tag: Tag,
    },
    Conversations {
        limit: u32,
        #[serde(rename = "ref")]
        tag: Tag,
    },
    Presence {
        user_ids: Vec<&'a UserId>,
        #[serde(rename = "ref")]
        tag: Tag,
    },
}

impl Request<'_> {
    /// The frame's text.
    pub(super) fn text(&self) -> String {
        // Strings and numbers always serialize to JSON.
        serde_json::to_string(self).unwrap_or_default()
    }
}
