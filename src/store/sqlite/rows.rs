//! Conversions between SQLite rows and the model.

use std::{sync::Arc, time::Duration};

use rusqlite::{Connection, Result, Row, params, types::Type};

use super::super::{
    codes::ConversationCode,
    row::{EntryRow, member_columns},
};
use crate::model::{Conversation, ConversationId, Entry, InvalidId, Member, Timestamp, UserId};

const MEMBERS: &str = concat!(
    "SELECT ",
    member_columns!(),
    " FROM members m LEFT JOIN users u ON u.id = m.user_id \
     WHERE m.conversation = ?1 AND m.user_id > ?2 ORDER BY m.user_id LIMIT ?3"
);

/// The error for a row that this version can't read.
pub(super) fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error))
}

/// A duration in microseconds.
pub(super) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

pub(super) fn id<T>(parsed: std::result::Result<T, InvalidId>) -> Result<T> {
    parsed.map_err(unreadable)
}

pub(super) fn text(row: &Row<'_>, at: usize) -> Result<Option<Arc<str>>> {
    Ok(row.get::<_, Option<String>>(at)?.map(Arc::from))
}

pub(super) fn time(row: &Row<'_>, at: usize) -> Result<Timestamp> {
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
        data: row.get(15)?,
    };
    Entry::try_from(row).map_err(unreadable)
}

pub(super) fn conversation(row: &Row<'_>) -> Result<Conversation> {
    Ok(Conversation {
        id: id(ConversationId::parse(&row.get::<_, String>(0)?))?,
        kind: ConversationCode::try_from(row.get::<_, i16>(1)?).map_err(unreadable)?.into(),
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
        last_message: None,
    })
}

pub(super) fn member(row: &Row<'_>) -> Result<Member> {
    let user = id(UserId::parse(&row.get::<_, String>(0)?))?;
    Ok(Member { user, name: text(row, 1)?, delivered_seq: row.get(2)?, read_seq: row.get(3)? })
}

/// Returns a conversation's members, in pages by id.
pub(super) fn members(db: &Connection, of: &ConversationId, after: &str, limit: u32) -> Result<Vec<Member>> {
    db.prepare_cached(MEMBERS)?.query_map(params![of.as_str(), after, limit], member)?.collect()
}
