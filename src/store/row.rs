//! How entries stand in a table: the same columns in both stores.

use std::sync::Arc;

use super::{Appended, NewEntry};
use crate::model::{Body, ClientId, ConversationId, Entry, InvalidId, LogId, Pair, Seq, Timestamp, UserId};

/// The numbers that stand for kinds of entries. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i16)]
pub(super) enum Kind {
    Message = 0,
    Edited = 1,
    Deleted = 2,
    Reacted = 3,
    MemberAdded = 4,
    MemberRemoved = 5,
    ConversationAdded = 6,
    ConversationRemoved = 7,
    Notified = 8,
}

/// What an entry says, as columns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Columns<'a> {
    pub(super) kind: Kind,
    pub(super) content: Option<&'a str>,
    pub(super) target: Option<Seq>,
    pub(super) subject: Option<&'a str>,
    pub(super) flag: bool,
}

impl<'a> From<&'a Body> for Columns<'a> {
    fn from(body: &'a Body) -> Self {
        let plain = |kind| Columns { kind, content: None, target: None, subject: None, flag: false };
        match body {
            Body::Message { content, reply_to, is_ai, .. } => {
                Columns { content: Some(content), target: *reply_to, flag: *is_ai, ..plain(Kind::Message) }
            }
            Body::Edited { target, content } => {
                Columns { content: Some(content), target: Some(*target), ..plain(Kind::Edited) }
            }
            Body::Deleted { target } => Columns { target: Some(*target), ..plain(Kind::Deleted) },
            Body::Reacted { target, emoji, active } => {
                Columns { target: Some(*target), subject: Some(emoji), flag: *active, ..plain(Kind::Reacted) }
            }
            Body::MemberAdded { user } => Columns { subject: Some(user.as_str()), ..plain(Kind::MemberAdded) },
            Body::MemberRemoved { user } => Columns { subject: Some(user.as_str()), ..plain(Kind::MemberRemoved) },
            Body::ConversationAdded { conversation, since } => {
                Columns { subject: Some(conversation.as_str()), target: Some(*since), ..plain(Kind::ConversationAdded) }
            }
            Body::ConversationRemoved { conversation } => {
                Columns { subject: Some(conversation.as_str()), ..plain(Kind::ConversationRemoved) }
            }
            Body::Notified { conversation, from_seq } => {
                Columns { subject: Some(conversation.as_str()), target: Some(*from_seq), ..plain(Kind::Notified) }
            }
        }
    }
}

/// An entry's row.
#[derive(Debug)]
pub(super) struct EntryRow {
    pub(super) log: String,
    pub(super) seq: Seq,
    pub(super) message_no: i64,
    pub(super) kind: i16,
    pub(super) sender: String,
    pub(super) sender_name: String,
    pub(super) dedupe: String,
    pub(super) client_gave_id: bool,
    pub(super) content: Option<String>,
    pub(super) target: Option<Seq>,
    pub(super) subject: Option<String>,
    pub(super) flag: bool,
    pub(super) edited_at: Option<Timestamp>,
    pub(super) deleted: bool,
    pub(super) created_at: Timestamp,
}

/// A row that no version of this program wrote.
#[derive(Debug, thiserror::Error)]
#[error("a row of the log can't be read: {0}")]
pub(super) struct BadRow(&'static str);

impl From<InvalidId> for BadRow {
    fn from(_: InvalidId) -> Self {
        Self("an id")
    }
}

impl TryFrom<EntryRow> for Entry {
    type Error = BadRow;

    fn try_from(row: EntryRow) -> Result<Self, BadRow> {
        let subject = row.subject.as_deref();
        let user = || subject.ok_or(BadRow("subject")).and_then(|id| Ok(UserId::parse(id)?));
        let conversation = || subject.ok_or(BadRow("subject")).and_then(|id| Ok(ConversationId::parse(id)?));
        let target = || row.target.ok_or(BadRow("target"));
        let content = || Arc::<str>::from(row.content.as_deref().unwrap_or_default());
        let body = match row.kind {
            k if k == Kind::Message as i16 => Body::Message {
                content: content(),
                reply_to: row.target,
                is_ai: row.flag,
                edited_at: row.edited_at,
                deleted: row.deleted,
            },
            k if k == Kind::Edited as i16 => Body::Edited { target: target()?, content: content() },
            k if k == Kind::Deleted as i16 => Body::Deleted { target: target()? },
            k if k == Kind::Reacted as i16 => {
                Body::Reacted { target: target()?, emoji: subject.ok_or(BadRow("subject"))?.into(), active: row.flag }
            }
            k if k == Kind::MemberAdded as i16 => Body::MemberAdded { user: user()? },
            k if k == Kind::MemberRemoved as i16 => Body::MemberRemoved { user: user()? },
            k if k == Kind::ConversationAdded as i16 => {
                Body::ConversationAdded { conversation: conversation()?, since: target()? }
            }
            k if k == Kind::ConversationRemoved as i16 => Body::ConversationRemoved { conversation: conversation()? },
            k if k == Kind::Notified as i16 => Body::Notified { conversation: conversation()?, from_seq: target()? },
            _ => return Err(BadRow("kind")),
        };
        Ok(Self {
            log: LogId::parse(&row.log)?,
            seq: row.seq,
            message_no: row.message_no,
            sender: UserId::parse(&row.sender)?,
            sender_name: row.sender_name.into(),
            client_id: if row.client_gave_id { Some(ClientId::parse(&row.dedupe)?) } else { None },
            at: row.created_at,
            body,
        })
    }
}

/// The key that makes a direct conversation unique: both users, in order. A blank is in no id.
pub(super) fn direct_key(one: &UserId, other: &UserId) -> String {
    format!("{} {}", one.min(other), one.max(other))
}

/// The members of a direct conversation, by its key.
pub(super) fn pair(key: &str) -> Result<Pair, BadRow> {
    let (one, other) = key.split_once(' ').ok_or(BadRow("a pair"))?;
    Ok(Pair::of(&UserId::parse(one)?, &UserId::parse(other)?))
}

/// The entry that a change of members puts into the inbox of the user concerned, at `seq` there.
pub(super) fn inbox_entry(change: &NewEntry, appended: &Appended, seq: Seq) -> Option<Entry> {
    let conversation = change.log.conversation()?;
    let (user, body) = match &change.body {
        Body::MemberAdded { user } => (user, Body::ConversationAdded { conversation, since: appended.seq - 1 }),
        Body::MemberRemoved { user } => (user, Body::ConversationRemoved { conversation }),
        _ => return None,
    };
    Some(Entry {
        log: LogId::inbox(user),
        seq,
        message_no: 0,
        sender: change.sender.clone(),
        sender_name: change.sender_name.clone(),
        client_id: None,
        at: appended.at,
        body,
    })
}
