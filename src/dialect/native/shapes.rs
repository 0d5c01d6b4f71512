//! Parts that several native frames share.

use serde::Serialize;

use crate::model::{ClientId, ConversationId, Data, EntryId, LogId, Reactions, Seq, Status, Timestamp, UserId};

/// The position and sender of an entry.
#[derive(Serialize)]
pub(super) struct EntryHeader<'a> {
    pub(super) conversation_id: &'a LogId,
    pub(super) seq: Seq,
    pub(super) sender_id: &'a UserId,
    pub(super) created_at: Timestamp,
}

/// An entry that changes a message.
#[derive(Serialize)]
pub(super) struct Change<'a> {
    #[serde(flatten)]
    pub(super) header: EntryHeader<'a>,
    pub(super) target_seq: Seq,
    pub(super) target_id: EntryId,
}

/// A message.
#[derive(Serialize)]
pub(super) struct Message<'a> {
    pub(super) conversation_id: &'a LogId,
    pub(super) seq: Seq,
    pub(super) id: EntryId,
    pub(super) sender_id: &'a UserId,
    pub(super) sender_name: &'a str,
    pub(super) content: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<&'a Data>,
    pub(super) created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) client_id: Option<&'a ClientId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reply_to: Option<Seq>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_ai: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) edited_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) deleted: bool,
}

#[derive(Serialize)]
pub(super) struct SyncedOne<'a> {
    pub(super) conversation_id: &'a ConversationId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) head: Option<Seq>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) resync: Option<FirstSeq>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<Refused>,
}

#[derive(Serialize)]
pub(super) struct FirstSeq {
    pub(super) first_seq: Seq,
}

#[derive(Serialize)]
pub(super) struct Refused {
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) retryable: bool,
}

#[derive(Serialize)]
pub(super) struct PresentUser<'a> {
    pub(super) user_id: &'a UserId,
    pub(super) online: bool,
    pub(super) status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_seen: Option<Timestamp>,
}

#[derive(Serialize)]
pub(super) struct ConversationSummary<'a> {
    pub(super) conversation_id: &'a ConversationId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) description: Option<&'a str>,
    pub(super) is_group: bool,
    pub(super) open: bool,
    pub(super) created_by: &'a UserId,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
    pub(super) head: Seq,
    pub(super) unread: i64,
    pub(super) archived: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_message: Option<Message<'a>>,
    pub(super) members: Vec<MemberOf<'a>>,
}

#[derive(Serialize)]
pub(super) struct MemberOf<'a> {
    pub(super) user_id: &'a UserId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<&'a str>,
    pub(super) delivered_seq: Seq,
    pub(super) read_seq: Seq,
    #[serde(flatten)]
    pub(super) presence: Option<MemberPresence>,
}

#[derive(Serialize)]
pub(super) struct MemberPresence {
    pub(super) online: bool,
    pub(super) status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_seen: Option<Timestamp>,
}

/// A message with its reactions and its number of replies.
#[derive(Serialize)]
pub(super) struct MessageView<'a> {
    #[serde(flatten)]
    pub(super) message: Message<'a>,
    #[serde(skip_serializing_if = "<[Reactions]>::is_empty")]
    pub(super) reactions: &'a [Reactions],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) more_reactions: bool,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) replies: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(count: &i64) -> bool {
    *count == 0
}
