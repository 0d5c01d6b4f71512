//! Frames to native clients.

use serde::Serialize;
use serde_json::value::RawValue;

use super::shapes::{Change, ConversationSummary, EntryHeader, MemberOf, Message, MessageView, PresentUser, SyncedOne};
use crate::{
    dialect::codec::{Greeting, RequestMeta},
    model::{
        Body, ClientId, ConnectionId, ConversationId, Data, Entry, EntryId, Ephemeral, EphemeralEvent, EventName,
        LogId, Reject, Seq, Status, Timestamp, UserId,
    },
    outbox::{Class, Frame},
};

/// The client's mark, returned in the reply.
pub(super) type Ref<'a> = Option<&'a RawValue>;

/// A frame to a client, by its `type`.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Out<'a> {
    Authenticated {
        user_id: &'a UserId,
        name: &'a str,
        connection_id: ConnectionId,
        expires_at: Timestamp,
        /// The server's clock, by which `expires_at` counts.
        server_time: Timestamp,
        epoch: i64,
    },
    Refreshed {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Ref<'a>,
        expires_at: Timestamp,
    },
    Joined {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Ref<'a>,
        conversation_id: &'a ConversationId,
        head: Seq,
    },
    Resync {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Ref<'a>,
        conversation_id: ConversationId,
        first_seq: Seq,
        head: Seq,
    },
    Left {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Ref<'a>,
        conversation_id: &'a ConversationId,
    },
    Synced {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Ref<'a>,
        conversations: Vec<SyncedOne<'a>>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        more: bool,
    },
    Ack {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Ref<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        client_id: Option<&'a ClientId>,
        conversation_id: &'a LogId,
        seq: Seq,
        id: EntryId,
        created_at: Timestamp,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        duplicate: bool,
    },
    Ok {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Ref<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        client_id: Option<&'a ClientId>,
    },
    Pong {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Ref<'a>,
    },
    Error {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Ref<'a>,
        code: &'static str,
        message: String,
        retryable: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        client_id: Option<&'a ClientId>,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
    },
    Restart {
        retry_after_ms: u64,
    },
    History {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Ref<'a>,
        conversation_id: &'a ConversationId,
        messages: Vec<MessageView<'a>>,
        total: i64,
        as_of: Seq,
        #[serde(skip_serializing_if = "Option::is_none")]
        next_before_seq: Option<Seq>,
        #[serde(skip_serializing_if = "Option::is_none")]
        next_after_seq: Option<Seq>,
    },
    Found {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Ref<'a>,
        messages: Vec<Message<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        next_offset: Option<u32>,
    },
    PresenceList {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Ref<'a>,
        users: Vec<PresentUser<'a>>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        more: bool,
    },
    Conversations {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Ref<'a>,
        conversations: Vec<ConversationSummary<'a>>,
        total: i64,
        #[serde(skip_serializing_if = "Option::is_none")]
        next_offset: Option<u32>,
        status: Status,
    },
    Members {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Ref<'a>,
        conversation_id: &'a ConversationId,
        members: Vec<MemberOf<'a>>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        more: bool,
    },
    Message(Message<'a>),
    MessageEdited {
        #[serde(flatten)]
        change: Change<'a>,
        content: &'a str,
        /// `null` if the edit removed the data; not shown if the data stays.
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<Option<&'a Data>>,
    },
    MessageDeleted {
        #[serde(flatten)]
        change: Change<'a>,
    },
    Reaction {
        #[serde(flatten)]
        change: Change<'a>,
        emoji: &'a str,
        active: bool,
    },
    MemberAdded {
        #[serde(flatten)]
        header: EntryHeader<'a>,
        user_id: &'a UserId,
    },
    MemberRemoved {
        #[serde(flatten)]
        header: EntryHeader<'a>,
        user_id: &'a UserId,
    },
    ConversationAdded {
        conversation_id: &'a ConversationId,
        since_seq: Seq,
        created_at: Timestamp,
    },
    ConversationRemoved {
        conversation_id: &'a ConversationId,
        created_at: Timestamp,
    },
    Notification {
        conversation_id: &'a ConversationId,
        from_seq: Seq,
        created_at: Timestamp,
    },
    Hint {
        conversation_id: &'a ConversationId,
        head: Seq,
        unread: i64,
    },
    Event {
        /// Not shown if the event is for the user and not for a conversation.
        #[serde(skip_serializing_if = "Option::is_none")]
        conversation_id: Option<ConversationId>,
        user_id: &'a UserId,
        name: &'a EventName,
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<&'a Data>,
        timestamp: Timestamp,
    },
    Typing {
        conversation_id: &'a LogId,
        user_id: &'a UserId,
        name: &'a str,
        active: bool,
    },
    UserJoined {
        conversation_id: &'a LogId,
        user_id: &'a UserId,
        name: &'a str,
    },
    UserLeft {
        conversation_id: &'a LogId,
        user_id: &'a UserId,
        name: &'a str,
    },
    Presence {
        user_id: &'a UserId,
        online: bool,
        status: Status,
    },
    Receipt {
        conversation_id: &'a LogId,
        user_id: &'a UserId,
        delivered_seq: Seq,
        read_seq: Seq,
    },
}

impl<'a> Out<'a> {
    pub(super) fn frame(&self) -> Frame {
        Frame::json(self, Class::Durable)
    }

    pub(super) fn greeting(greeting: &'a Greeting<'a>) -> Self {
        Self::Authenticated {
            user_id: &greeting.identity.user,
            name: &greeting.identity.name,
            connection_id: greeting.connection,
            expires_at: greeting.identity.expires_at,
            server_time: greeting.at,
            epoch: greeting.epoch,
        }
    }

    pub(super) fn error(meta: &'a RequestMeta, reject: &Reject) -> Self {
        Self::Error {
            reference: meta.reference.as_deref(),
            code: reject.code(),
            message: reject.to_string(),
            retryable: reject.retryable(),
            client_id: meta.client_id.as_ref(),
            retry_after_ms: reject.retry_after_ms(),
        }
    }

    pub(super) fn entry(entry: &'a Entry) -> Self {
        let header = || EntryHeader {
            conversation_id: &entry.log,
            seq: entry.seq,
            sender_id: &entry.sender,
            created_at: entry.at,
        };
        let change =
            |target| Change { header: header(), target_seq: target, target_id: EntryId::of(&entry.log, target) };
        let created_at = entry.at;
        match &entry.body {
            Body::Message { content, data, reply_to, is_ai, edited_at, deleted, .. } => Self::Message(Message {
                conversation_id: &entry.log,
                seq: entry.seq,
                id: entry.id(),
                sender_id: &entry.sender,
                sender_name: &entry.sender_name,
                content,
                data: data.as_ref(),
                created_at,
                client_id: entry.client_id.as_ref(),
                reply_to: *reply_to,
                is_ai: *is_ai,
                edited_at: *edited_at,
                deleted: *deleted,
            }),
            Body::Edited { target, content, data } => {
                Self::MessageEdited { change: change(*target), content, data: data.change() }
            }
            Body::Deleted { target } => Self::MessageDeleted { change: change(*target) },
            Body::Reacted { target, emoji, active } => {
                Self::Reaction { change: change(*target), emoji, active: *active }
            }
            Body::MemberAdded { user } => Self::MemberAdded { header: header(), user_id: user },
            Body::MemberRemoved { user } => Self::MemberRemoved { header: header(), user_id: user },
            Body::ConversationAdded { conversation, since } => {
                Self::ConversationAdded { conversation_id: conversation, since_seq: *since, created_at }
            }
            Body::ConversationRemoved { conversation } => {
                Self::ConversationRemoved { conversation_id: conversation, created_at }
            }
            Body::Notified { conversation, from_seq } => {
                Self::Notification { conversation_id: conversation, from_seq: *from_seq, created_at }
            }
        }
    }

    /// Encodes an ephemeral event; `None` if the native dialect shows it in another form.
    pub(super) fn ephemeral(ephemeral: &'a EphemeralEvent) -> Option<Self> {
        let conversation_id = &ephemeral.log;
        Some(match &ephemeral.what {
            Ephemeral::Audience { .. } | Ephemeral::Probe { .. } => return None,
            Ephemeral::Custom { user, name, data, after: _ } => Self::Event {
                conversation_id: ephemeral.log.conversation(),
                user_id: user,
                name,
                data: data.as_ref(),
                timestamp: ephemeral.at,
            },
            Ephemeral::Typing { user, name, active } => {
                Self::Typing { conversation_id, user_id: user, name, active: *active }
            }
            Ephemeral::Listening { user, name, active: true } => {
                Self::UserJoined { conversation_id, user_id: user, name }
            }
            Ephemeral::Listening { user, name, active: false } => {
                Self::UserLeft { conversation_id, user_id: user, name }
            }
            Ephemeral::Presence { user, online, status } => {
                Self::Presence { user_id: user, online: *online, status: *status }
            }
            Ephemeral::Receipt { user, delivered_seq, read_seq } => {
                Self::Receipt { conversation_id, user_id: user, delivered_seq: *delivered_seq, read_seq: *read_seq }
            }
        })
    }
}
