//! The table columns of an entry, which are the same in both backends.

use std::{sync::Arc, time::Duration};

use super::{
    Appended, NewEntry,
    codes::{EntryKind, UnknownCode},
};
use crate::model::{
    Body, ClientId, ConversationId, Data, DataEdit, Emoji, Entry, InvalidId, LogId, Pair, Seq, Timestamp, UserId,
};

/// The columns of an [`EntryRow`], in the order of its fields. Both backends read them by position.
macro_rules! entry_columns {
    () => {
        entry_columns!("")
    };
    ($of:literal) => {
        entry_columns!(@list $of: "log", "seq", "message_no", "kind", "sender", "sender_name", "dedupe", "client_gave_id",
            "content", "target", "subject", "flag", "edited_at", "deleted", "created_at", "data")
    };
    (@list $of:literal: $first:literal, $($next:literal),+) => {
        concat!($of, $first, $(", ", $of, $next),+)
    };
}
pub(super) use entry_columns;

/// The number of those columns: the position of a further one in the same row.
pub(super) const ENTRY_COLUMNS: usize = 16;

/// The number of a log's newest entries among which `Logs::ends_at` looks.
pub(super) const ENDS_AT_SPAN: Seq = 1_000;

/// The larger of two expressions, in the words of both databases.
macro_rules! larger {
    ($one:literal, $other:literal) => {
        concat!("CASE WHEN ", $one, " > ", $other, " THEN ", $one, " ELSE ", $other, " END")
    };
}
pub(super) use larger;

/// The number of messages of a log with the head `h` after the read marks of a member, without deleted ones and those that
/// retention removed.
macro_rules! unread_count {
    ($log:literal, $read_no:literal, $read_seq:literal) => {
        concat!(
            "h.message_no - ",
            larger!($read_no, "h.removed_no"),
            " - ",
            deletions!($log, "> ", larger!($read_seq, "h.removed_seq"))
        )
    };
}
pub(super) use unread_count;

/// The columns of a conversation `c` with the head `h` of its log, as the backends' `conversation` functions read them.
/// The caller passes the read marks and `archived` as expressions, because not every reader is a member. A message reads up
/// to itself, so all messages after the read mark are by others.
macro_rules! conversation_columns {
    ($read_no:literal, $read_seq:literal, $archived:literal) => {
        concat!(
            "c.id, c.kind, c.name, c.description, c.open, c.created_by, c.created_at, h.updated_at, h.seq, ",
            unread_count!("c.id", $read_no, $read_seq),
            ", ",
            $archived
        )
    };
}
pub(super) use conversation_columns;

/// The newest message of each conversation that `$of` selects by the head `h`. Of entries after a message, each has the
/// message's number, so a binary search for the first one with that number finds it however many reactions follow.
macro_rules! last_messages {
    ($of:literal) => {
        concat!(
            "WITH RECURSIVE search (log, number, low, high) AS ( \
                 SELECT h.log, h.message_no, h.removed_seq + 1, h.seq FROM heads h WHERE h.message_no > h.removed_no AND ",
            $of,
            " UNION ALL \
                 SELECT s.log, s.number, CASE WHEN l.message_no < s.number THEN l.seq + 1 ELSE s.low END, \
                     CASE WHEN l.message_no < s.number THEN s.high ELSE l.seq END \
                 FROM search s JOIN log l ON l.log = s.log AND l.seq = (s.low + s.high) / 2 WHERE s.low < s.high \
             ) SELECT ",
            entry_columns!("l."),
            " FROM search s JOIN log l ON l.log = s.log AND l.seq = s.low WHERE s.low = s.high AND l.kind = 0"
        )
    };
}
pub(super) use last_messages;

/// The number of deleted messages of a log whose seq meets a condition; at most 10,000 are counted.
macro_rules! deletions {
    ($log:literal, $($condition:expr),+) => {
        concat!(
            "(SELECT count(*) FROM (SELECT 1 FROM log d WHERE d.log = ",
            $log,
            " AND d.kind = 2 AND d.target ",
            $($condition,)+
            " LIMIT 10000) deletions)"
        )
    };
}
pub(super) use deletions;

/// Up to where retention removed a log: its `seq`, or the `no` of messages.
macro_rules! removed {
    ($what:literal, $log:literal) => {
        concat!("(SELECT r.removed_", $what, " FROM heads r WHERE r.log = ", $log, ")")
    };
}
pub(super) use removed;

/// The number of messages of a log from one seq to another, without deleted and removed ones; all three are expressions.
macro_rules! messages_between {
    ($log:literal, $first:literal, $last:literal) => {
        concat!(
            "coalesce((SELECT a.message_no FROM log a WHERE a.log = ",
            $log,
            " AND a.seq <= ",
            $last,
            " ORDER BY a.seq DESC LIMIT 1), ",
            removed!("no", $log),
            ") - coalesce((SELECT b.message_no FROM log b WHERE b.log = ",
            $log,
            " AND b.seq < ",
            $first,
            " ORDER BY b.seq DESC LIMIT 1), ",
            removed!("no", $log),
            ") - ",
            deletions!($log, "BETWEEN ", $first, " AND ", $last, " AND d.target > ", removed!("seq", $log))
        )
    };
}
pub(super) use messages_between;

/// The columns of a member `m` with the user `u`, as the backends' `member` functions read them. What is read is delivered,
/// also where no device confirmed it.
macro_rules! member_columns {
    () => {
        "m.user_id, u.name, CASE WHEN m.delivered_seq > m.read_seq THEN m.delivered_seq ELSE m.read_seq END, m.read_seq"
    };
}
pub(super) use member_columns;

/// The columns of a direct conversation, as the backends' `direct` functions read them.
macro_rules! direct_columns {
    () => {
        "c.id, c.direct_key, m.delivered_seq, h.seq, h.removed_seq"
    };
}
pub(super) use direct_columns;

/// The columns of a notification `n` of the member `m`, as the backends' `notification` functions read them. Of an open one,
/// the messages that wait now are counted: after a part of them was read, or some were deleted.
macro_rules! notification_columns {
    () => {
        concat!(
            "n.id, n.conversation, n.from_seq, CASE WHEN n.read_at IS NULL AND m.read_seq >= n.from_seq THEN ",
            messages_between!("n.conversation", "m.read_seq + 1", "n.last_seq"),
            " WHEN n.read_at IS NULL THEN ",
            messages_between!("n.conversation", "n.from_seq", "n.last_seq"),
            " ELSE n.count END, n.created_at, n.read_at"
        )
    };
}
pub(super) use notification_columns;

/// The emoji that an erased user's reactions get in the log.
pub(super) const AUTHORED_EMOJI: &str = "\u{25cc}";

/// Time after the request of an erasure in which no last time online is stored for the user: a departure is noticed late if a node
/// died or Redis was away, and would tell of the time before.
pub(super) const LATE_DEPARTURE: Duration = Duration::from_secs(3_600);

/// The columns of a membership `m` in the conversation `c`, as the backends read them.
macro_rules! membership_columns {
    () => {
        "m.conversation, c.kind, c.name, c.created_by = m.user_id, m.joined_at, \
         CASE WHEN m.delivered_seq > m.read_seq THEN m.delivered_seq ELSE m.read_seq END, m.read_seq, m.archived"
    };
}
pub(super) use membership_columns;

/// The columns of an erasure, as the backends' `erasure` functions read them.
macro_rules! erasure_columns {
    () => {
        "user_id, requested_at, requested_by, position, done_at"
    };
}
pub(super) use erasure_columns;

/// The body of an entry as columns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Columns<'a> {
    pub(super) kind: EntryKind,
    pub(super) content: Option<&'a str>,
    /// JSON of a message, as text. Of an edit: [`NO_DATA`] removes the data of its message, and none keeps it.
    pub(super) data: Option<&'a str>,
    pub(super) target: Option<Seq>,
    pub(super) subject: Option<&'a str>,
    pub(super) flag: bool,
}

/// The data of an edit that removes the data of its message. No message has it.
pub(super) const NO_DATA: &str = "null";

impl<'a> From<&'a Body> for Columns<'a> {
    fn from(body: &'a Body) -> Self {
        let empty = |kind| Columns { kind, content: None, data: None, target: None, subject: None, flag: false };
        match body {
            Body::Message { content, data, reply_to, is_ai, persona, .. } => Columns {
                content: Some(content),
                data: data.as_ref().map(Data::as_str),
                target: *reply_to,
                subject: persona.as_ref().map(UserId::as_str),
                flag: *is_ai,
                ..empty(EntryKind::Message)
            },
            Body::Edited { target, content, data } => Columns {
                content: Some(content),
                data: match data {
                    DataEdit::Keep => None,
                    DataEdit::Remove => Some(NO_DATA),
                    DataEdit::Replace(data) => Some(data.as_str()),
                },
                target: Some(*target),
                ..empty(EntryKind::Edited)
            },
            Body::Deleted { target } => Columns { target: Some(*target), ..empty(EntryKind::Deleted) },
            Body::Reacted { target, emoji, active } => {
                Columns { target: Some(*target), subject: Some(emoji), flag: *active, ..empty(EntryKind::Reacted) }
            }
            Body::MemberAdded { user } => Columns { subject: Some(user.as_str()), ..empty(EntryKind::MemberAdded) },
            Body::MemberRemoved { user } => Columns { subject: Some(user.as_str()), ..empty(EntryKind::MemberRemoved) },
            Body::ConversationAdded { conversation, since } => Columns {
                subject: Some(conversation.as_str()),
                target: Some(*since),
                ..empty(EntryKind::ConversationAdded)
            },
            Body::ConversationRemoved { conversation } => {
                Columns { subject: Some(conversation.as_str()), ..empty(EntryKind::ConversationRemoved) }
            }
            Body::Notified { conversation, from_seq } => {
                Columns { subject: Some(conversation.as_str()), target: Some(*from_seq), ..empty(EntryKind::Notified) }
            }
        }
    }
}

/// A row of the `log` table.
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
    pub(super) data: Option<String>,
}

/// A row of the log that this version can't read.
#[derive(Debug, thiserror::Error)]
#[error("a row of the log can't be read: {0}")]
pub(super) struct BadRow(std::borrow::Cow<'static, str>);

impl BadRow {
    fn new(reason: &'static str) -> Self {
        Self(reason.into())
    }
}

impl From<UnknownCode> for BadRow {
    fn from(code: UnknownCode) -> Self {
        Self(code.to_string().into())
    }
}

impl From<InvalidId> for BadRow {
    fn from(_: InvalidId) -> Self {
        Self::new("an id is invalid")
    }
}

impl TryFrom<EntryRow> for Entry {
    type Error = BadRow;

    fn try_from(row: EntryRow) -> Result<Self, BadRow> {
        let subject = row.subject.as_deref();
        let user = || subject.ok_or(BadRow::new("its subject is missing")).and_then(|id| Ok(UserId::parse(id)?));
        let conversation =
            || subject.ok_or(BadRow::new("its subject is missing")).and_then(|id| Ok(ConversationId::parse(id)?));
        let target = || row.target.ok_or(BadRow::new("its target is missing"));
        let content = || Arc::<str>::from(row.content.as_deref().unwrap_or_default());
        let edited = row.data.as_deref().map_or(DataEdit::Keep, |_| DataEdit::Remove);
        let data = row.data.filter(|data| data != NO_DATA).map(Data::stored).transpose();
        let data = data.map_err(|_| BadRow::new("its data is not JSON"))?;
        let body = match EntryKind::try_from(row.kind)? {
            EntryKind::Message => Body::Message {
                content: content(),
                data,
                reply_to: row.target,
                is_ai: row.flag,
                persona: subject.map(UserId::parse).transpose()?,
                edited_at: row.edited_at,
                deleted: row.deleted,
            },
            EntryKind::Edited => {
                Body::Edited { target: target()?, content: content(), data: data.map_or(edited, DataEdit::Replace) }
            }
            EntryKind::Deleted => Body::Deleted { target: target()? },
            EntryKind::Reacted => Body::Reacted {
                target: target()?,
                emoji: Emoji::normalized(subject.ok_or(BadRow::new("its subject is missing"))?),
                active: row.flag,
            },
            EntryKind::MemberAdded => Body::MemberAdded { user: user()? },
            EntryKind::MemberRemoved => Body::MemberRemoved { user: user()? },
            EntryKind::ConversationAdded => Body::ConversationAdded { conversation: conversation()?, since: target()? },
            EntryKind::ConversationRemoved => Body::ConversationRemoved { conversation: conversation()? },
            EntryKind::Notified => Body::Notified { conversation: conversation()?, from_seq: target()? },
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

/// The key that makes a direct conversation unique: both user ids in order, separated by a space, which no id contains.
pub(super) fn direct_key(one: &UserId, other: &UserId) -> String {
    format!("{} {}", one.min(other), one.max(other))
}

/// Parses the members of a direct conversation from its key.
pub(super) fn pair(key: &str) -> Result<Pair, BadRow> {
    let (one, other) = key.split_once(' ').ok_or(BadRow::new("its direct key is not a pair"))?;
    Ok(Pair::of(&UserId::parse(one)?, &UserId::parse(other)?))
}

/// The entry that a change of members puts into the affected user's inbox, at `seq` of that inbox.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_with_any_ids_have_keys_of_their_own() {
        let ids = ["a", "a|b", "b", "b|c", "auth0|abc", "bob+test@example.com", "a="];
        let users: Vec<UserId> = ids.iter().map(|id| UserId::parse(id).unwrap()).collect();
        let mut keys = std::collections::HashMap::new();
        for one in &users {
            for other in &users {
                let key = direct_key(one, other);
                assert_eq!(pair(&key).unwrap(), Pair::of(one, other));
                assert_eq!(key, direct_key(other, one));
                let of = keys.entry(key).or_insert_with(|| Pair::of(one, other));
                assert_eq!(of, &Pair::of(one, other));
            }
        }
    }
}
