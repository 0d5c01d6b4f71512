//! Frames of the native dialect (docs/protocol/native.md), as far as this client speaks it.

use serde::{Deserialize, Serialize};

use crate::model::{ClientId, ConversationId, Seq, Status, Timestamp, UserId};

/// What a frame from the server is.
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
    /// The messages of a history say no type.
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

/// What a question of ours was for; the answer carries it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Mark {
    Join,
    /// A page of what was missed, or of what was said before.
    Reading,
    History,
    Who,
    Send,
    #[serde(other)]
    Other,
}

/// A frame from the server. Each kind has some of these.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Frame {
    #[serde(rename = "type", default)]
    pub(super) kind: Kind,
    #[serde(rename = "ref", default)]
    pub(super) mark: Option<Mark>,
    /// As it is written: the name of an inbox is no conversation's id.
    pub(super) conversation_id: Option<String>,
    pub(super) seq: Option<Seq>,
    pub(super) head: Option<Seq>,
    pub(super) client_id: Option<ClientId>,
    pub(super) sender_id: Option<UserId>,
    pub(super) sender_name: Option<String>,
    pub(super) user_id: Option<UserId>,
    pub(super) name: Option<String>,
    pub(super) content: Option<String>,
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
    #[serde(default)]
    pub(super) messages: Vec<Self>,
    #[serde(default)]
    pub(super) conversations: Vec<About>,
    #[serde(default)]
    pub(super) users: Vec<Present>,
}

/// A conversation of a list.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct About {
    pub(super) conversation_id: ConversationId,
    #[serde(default)]
    pub(super) members: Vec<Member>,
}

/// A member of it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Member {
    pub(super) user_id: UserId,
    pub(super) name: Option<String>,
}

/// Whether somebody is there.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Present {
    pub(super) user_id: UserId,
    pub(super) online: bool,
    pub(super) status: Status,
}

/// A frame to the server.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Ask<'a> {
    Join {
        conversation_id: &'a ConversationId,
        #[serde(skip_serializing_if = "Option::is_none")]
        since_seq: Option<Seq>,
        #[serde(rename = "ref")]
        mark: Mark,
    },
    Send {
        conversation_id: &'a ConversationId,
        content: &'a str,
        client_id: &'a ClientId,
        #[serde(rename = "ref")]
        mark: Mark,
    },
    History {
        conversation_id: &'a ConversationId,
        #[serde(skip_serializing_if = "Option::is_none")]
        before_seq: Option<Seq>,
        limit: u32,
        #[serde(rename = "ref")]
        mark: Mark,
    },
    Conversations {
        limit: u32,
        #[serde(rename = "ref")]
        mark: Mark,
    },
    Presence {
        user_ids: Vec<&'a UserId>,
        #[serde(rename = "ref")]
        mark: Mark,
    },
}

impl Ask<'_> {
    /// The frame's text.
    pub(super) fn text(&self) -> String {
        // Texts and numbers can always be written as JSON.
        serde_json::to_string(self).unwrap_or_default()
    }
}
