//! What reads.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Result, Row, params, types::Type};

use super::super::{Access, Ends, row::EntryRow};
use crate::model::{
    Conversation, ConversationId, ConversationKind, Entry, InvalidId, LogId, Member, Notification, Seq, Status,
    Timestamp, UserId,
};

const ENTRIES: &str = "SELECT log, seq, message_no, kind, sender, sender_name, dedupe, client_gave_id, content, target, \
     subject, flag, edited_at, deleted, created_at FROM log WHERE log = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3";
const CONVERSATION: &str = "SELECT c.id, c.kind, c.name, c.description, c.open, c.created_by, c.created_at, \
     h.updated_at, h.seq, h.message_no - coalesce(m.read_no, h.message_no), coalesce(m.archived, 0) \
     FROM conversations c JOIN heads h ON h.log = c.id \
     LEFT JOIN members m ON m.conversation = c.id AND m.user_id = ?2 WHERE c.id = ?1";
/// A row that no version of this program wrote.
pub(super) fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error))
}

pub(super) fn id<T>(parsed: std::result::Result<T, InvalidId>) -> Result<T> {
    parsed.map_err(unreadable)
}

fn text(row: &Row<'_>, at: usize) -> Result<Option<Arc<str>>> {
    Ok(row.get::<_, Option<String>>(at)?.map(Arc::from))
}

fn time(row: &Row<'_>, at: usize) -> Result<Timestamp> {
    row.get(at).map(Timestamp::from_micros)
}

pub(super) fn entry(row: &Row<'_>) -> Result<Entry> {
    let row = EntryRow {
        log: row.get(0)?,
        seq: row.get(1)?,
        message_no: row.get(2)?,
        kind: row.get(3)?,
        sender: row.get(4)?,
        sender_name: row.get(5)?,
        dedupe: row.get(6)?,
        client_gave_id: row.get(7)?,
        content: row.get(8)?,
        target: row.get(9)?,
        subject: row.get(10)?,
        flag: row.get(11)?,
        edited_at: row.get::<_, Option<i64>>(12)?.map(Timestamp::from_micros),
        deleted: row.get(13)?,
        created_at: time(row, 14)?,
    };
    Entry::try_from(row).map_err(unreadable)
}

pub(super) fn ends(db: &Connection, logs: Vec<LogId>) -> Result<Vec<(LogId, Ends)>> {
    let mut statement = db.prepare_cached("SELECT seq FROM heads WHERE log = ?1")?;
    let mut found = Vec::with_capacity(logs.len());
    for log in logs {
        if let Some(head) = statement.query_row([log.as_str()], |row| row.get(0)).optional()? {
            found.push((log, Ends { first: 1, head }));
        }
    }
    Ok(found)
}

pub(super) fn entries(db: &Connection, log: &LogId, after: Seq, limit: u32) -> Result<Vec<Entry>> {
    db.prepare_cached(ENTRIES)?.query_map(params![log.as_str(), after, limit], entry)?.collect()
}

pub(super) fn access(db: &Connection, conversation: &ConversationId, user: &UserId) -> Result<Option<Access>> {
    let sql = "SELECT c.open, h.seq, m.user_id IS NOT NULL FROM conversations c JOIN heads h ON h.log = c.id \
         LEFT JOIN members m ON m.conversation = c.id AND m.user_id = ?2 WHERE c.id = ?1";
    let read = |row: &Row<'_>| {
        Ok(Access { open: row.get(0)?, ends: Ends { first: 1, head: row.get(1)? }, member: row.get(2)? })
    };
    db.prepare_cached(sql)?.query_row((conversation.as_str(), user.as_str()), read).optional()
}

pub(super) fn direct(db: &Connection, key: &str) -> Result<Option<ConversationId>> {
    let read = |row: &Row<'_>| id(ConversationId::parse(&row.get::<_, String>(0)?));
    db.prepare_cached("SELECT id FROM conversations WHERE direct_key = ?1")?.query_row([key], read).optional()
}

pub(super) fn conversation_row(row: &Row<'_>) -> Result<Conversation> {
    Ok(Conversation {
        id: id(ConversationId::parse(&row.get::<_, String>(0)?))?,
        kind: if row.get(1)? { ConversationKind::Direct } else { ConversationKind::Group },
        name: text(row, 2)?,
        description: text(row, 3)?,
        open: row.get(4)?,
        created_by: id(UserId::parse(&row.get::<_, String>(5)?))?,
        created_at: time(row, 6)?,
        updated_at: time(row, 7)?,
        head: row.get(8)?,
        unread: row.get::<_, i64>(9)?.max(0),
        archived: row.get(10)?,
        members: Vec::new(),
    })
}

pub(super) fn conversation(db: &Connection, of: &ConversationId, reader: &UserId) -> Result<Option<Conversation>> {
    let read =
        db.prepare_cached(CONVERSATION)?.query_row((of.as_str(), reader.as_str()), conversation_row).optional()?;
    let Some(conversation) = read else { return Ok(None) };
    Ok(Some(Conversation { members: members(db, of, "", 1_000)?, ..conversation }))
}

pub(super) fn members(db: &Connection, of: &ConversationId, after: &str, limit: u32) -> Result<Vec<Member>> {
    let sql = "SELECT m.user_id, u.name, m.delivered_seq, m.read_seq \
         FROM members m LEFT JOIN users u ON u.id = m.user_id WHERE m.conversation = ?1 AND m.user_id > ?2 \
         ORDER BY m.user_id LIMIT ?3";
    let read = |row: &Row<'_>| {
        let user = id(UserId::parse(&row.get::<_, String>(0)?))?;
        Ok(Member { user, name: text(row, 1)?, delivered_seq: row.get(2)?, read_seq: row.get(3)? })
    };
    db.prepare_cached(sql)?.query_map(params![of.as_str(), after, limit], read)?.collect()
}

pub(super) fn statuses(db: &Connection, users: Vec<UserId>) -> Result<Vec<(UserId, Status, Option<Timestamp>)>> {
    let mut statement = db.prepare_cached("SELECT status, last_seen FROM users WHERE id = ?1")?;
    let mut found = Vec::with_capacity(users.len());
    for user in users {
        let read = |row: &Row<'_>| Ok((row.get(0)?, row.get::<_, Option<i64>>(1)?));
        if let Some((status, seen)) = statement.query_row([user.as_str()], read).optional()? {
            found.push((user, Status::from_code(status), seen.map(Timestamp::from_micros)));
        }
    }
    Ok(found)
}

pub(super) fn notifications(db: &Connection, user: &UserId, limit: u32, offset: u32) -> Result<Vec<Notification>> {
    let sql = "SELECT id, conversation, from_seq, count, created_at, read_at FROM notifications \
         WHERE user_id = ?1 ORDER BY id DESC LIMIT ?2 OFFSET ?3";
    let read = |row: &Row<'_>| {
        Ok(Notification {
            id: row.get(0)?,
            conversation: id(ConversationId::parse(&row.get::<_, String>(1)?))?,
            from_seq: row.get(2)?,
            count: row.get(3)?,
            created_at: time(row, 4)?,
            read_at: row.get::<_, Option<i64>>(5)?.map(Timestamp::from_micros),
        })
    };
    db.prepare_cached(sql)?.query_map(params![user.as_str(), limit, offset], read)?.collect()
}
