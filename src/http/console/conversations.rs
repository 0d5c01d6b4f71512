//! A conversation: members with their marks, and the entries of its log.

use serde::{Deserialize, Serialize};

use crate::{
    http::{
        HttpResult,
        body::RequestBody,
        rest::{Call, ok, read_json, unexpected},
    },
    model::{
        Body, ClientId, Command, Data, Entry, EntryId, EntryRange, Offset, PageLimit, Reply, RetentionDays, Seq,
        Timestamp, UserId,
    },
};

#[derive(Serialize)]
struct Members<'a> {
    members: Vec<Member<'a>>,
    /// Number of members that can be listed: a thousand at most.
    listed: usize,
    limit: PageLimit,
    offset: Offset,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_offset: Option<u32>,
}

#[derive(Serialize)]
struct Member<'a> {
    user_id: &'a UserId,
    username: Option<&'a str>,
    delivered_seq: Seq,
    read_seq: Seq,
}

pub(super) async fn members(call: &Call<'_>) -> HttpResult {
    let page = call.page()?;
    let conversation = call.describe(call.conversation_of_path()?).await?;
    let (from, most) = (page.offset.get() as usize, page.limit.get() as usize);
    let shown = conversation.members.iter().skip(from).take(most).map(|member| Member {
        user_id: &member.user,
        username: member.name.as_deref(),
        delivered_seq: member.delivered_seq,
        read_seq: member.read_seq,
    });
    let listed = conversation.members.len();
    let next_offset = u32::try_from(from + most).ok().filter(|_| listed > from + most);
    ok(&Members { members: shown.collect(), listed, limit: page.limit, offset: page.offset, next_offset })
}

#[derive(Serialize)]
struct Entries<'a> {
    entries: Vec<View<'a>>,
    first_seq: Seq,
    head_seq: Seq,
    limit: PageLimit,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_before_seq: Option<Seq>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_after_seq: Option<Seq>,
}

/// An entry of any kind; fields that a kind lacks are left out.
#[derive(Serialize, Default)]
pub(super) struct View<'a> {
    seq: Seq,
    id: Option<EntryId>,
    kind: &'static str,
    sender_id: Option<&'a UserId>,
    sender_username: &'a str,
    created_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<&'a ClientId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Data>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<Seq>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_ai: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_edited: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_deleted: Option<bool>,
    /// The message that the entry changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    target_seq: Option<Seq>,
    #[serde(skip_serializing_if = "Option::is_none")]
    emoji: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    active: Option<bool>,
    /// The member who was added or removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a UserId>,
}

impl<'a> View<'a> {
    pub(super) fn of(entry: &'a Entry) -> Self {
        let common = Self {
            seq: entry.seq,
            id: Some(entry.id()),
            sender_id: Some(&entry.sender),
            sender_username: &entry.sender_name,
            created_at: Some(entry.at),
            client_id: entry.client_id.as_ref(),
            ..Self::default()
        };
        match &entry.body {
            Body::Message { content, data, reply_to, is_ai, edited_at, deleted, .. } => Self {
                kind: "message",
                content: Some(content),
                data: data.as_ref(),
                reply_to: *reply_to,
                is_ai: Some(*is_ai),
                is_edited: Some(edited_at.is_some()),
                is_deleted: Some(*deleted),
                ..common
            },
            Body::Edited { target, content, data } => {
                let (kind, target_seq) = ("edited", Some(*target));
                Self { kind, target_seq, content: Some(content), data: data.data(), ..common }
            }
            Body::Deleted { target } => Self { kind: "deleted", target_seq: Some(*target), ..common },
            Body::Reacted { target, emoji, active } => {
                let (kind, target_seq) = ("reacted", Some(*target));
                Self { kind, target_seq, emoji: Some(emoji), active: Some(*active), ..common }
            }
            Body::MemberAdded { user } => Self { kind: "member_added", user_id: Some(user), ..common },
            Body::MemberRemoved { user } => Self { kind: "member_removed", user_id: Some(user), ..common },
            // Entries of inboxes, which no conversation has.
            Body::ConversationAdded { .. } | Body::ConversationRemoved { .. } | Body::Notified { .. } => {
                Self { kind: "inbox", ..common }
            }
        }
    }
}

pub(super) async fn entries(call: &Call<'_>) -> HttpResult {
    let conversation = call.conversation_of_path()?;
    let limit = PageLimit::given(call.number("limit"))?;
    let range = EntryRange::given(call.number("before_seq"), call.number("after_seq"))?;
    match call.execute(Command::Entries { conversation, range, limit }).await? {
        Reply::Entries(page) => {
            let ends = page.entries.first().map(|entry| entry.seq).zip(page.entries.last().map(|entry| entry.seq));
            ok(&Entries {
                entries: page.entries.iter().map(View::of).collect(),
                first_seq: page.first,
                head_seq: page.head,
                limit,
                next_before_seq: ends.map(|(oldest, _)| oldest).filter(|oldest| *oldest > page.first),
                next_after_seq: ends.map(|(_, newest)| newest).filter(|newest| *newest < page.head),
            })
        }
        other => Err(unexpected(&other)),
    }
}

/// The body of a change of retention.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewRetention {
    /// Null: as the deployment's rule says.
    #[serde(deserialize_with = "Option::deserialize")]
    days: Option<RetentionDays>,
}

pub(super) async fn retention(call: &Call<'_>) -> HttpResult {
    answer_retention(call, Command::Retention { conversation: call.conversation_of_path()? }).await
}

pub(super) async fn set_retention(call: &Call<'_>, body: RequestBody) -> HttpResult {
    let conversation = call.conversation_of_path()?;
    let NewRetention { days } = read_json(body).await?;
    answer_retention(call, Command::SetRetention { conversation, days }).await
}

async fn answer_retention(call: &Call<'_>, command: Command) -> HttpResult {
    match call.execute(command).await? {
        Reply::Retention(retention) => ok(&retention),
        other => Err(unexpected(&other)),
    }
}
