//! Conversions between PostgreSQL rows and the model.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio_postgres::Row;

use super::super::{
    Direct, StoreError,
    codes::ConversationCode,
    row::{self, EntryRow, member_columns},
};
use crate::model::{Body, Conversation, ConversationId, Entry, LogId, Member, Page, Pair, Timestamp, UserId};

/// A conversation's members, in pages by id.
pub(super) const MEMBERS: &str = concat!(
    "SELECT ",
    member_columns!(),
    " FROM members m LEFT JOIN users u ON u.id = m.user_id \
     WHERE m.conversation = $1 AND m.user_id > $2 ORDER BY m.user_id LIMIT $3"
);

pub(super) fn time(time: SystemTime) -> Timestamp {
    let micros = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |micros| -micros),
    };
    Timestamp::from_micros(micros)
}

pub(super) fn system_time(at: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(at.micros().max(0).unsigned_abs())
}

/// The error for a row that can't be read because another program wrote to the store.
pub(super) fn unreadable(error: &impl std::fmt::Display) -> StoreError {
    StoreError::Failed(error.to_string().into())
}

pub(super) fn entry(row: &Row) -> Result<Entry, StoreError> {
    let row = EntryRow {
        log: row.get(0),
        seq: row.get(1),
        message_no: row.get(2),
        kind: row.get(3),
        sender: row.get(4),
        sender_name: row.get(5),
        dedupe: row.get(6),
        client_gave_id: row.get(7),
        content: row.get(8),
        target: row.get(9),
        subject: row.get(10),
        flag: row.get(11),
        edited_at: row.get::<_, Option<SystemTime>>(12).map(time),
        deleted: row.get(13),
        created_at: time(row.get(14)),
        data: row.get(15),
    };
    Entry::try_from(row).map_err(|error| unreadable(&error))
}

/// Limit and offset of a page, as statement parameters.
pub(super) fn limit_and_offset(page: Page) -> (i64, i64) {
    (i64::from(page.limit.get()), i64::from(page.offset.get()))
}

pub(super) fn user(text: &str) -> Result<UserId, StoreError> {
    UserId::parse(text).map_err(|error| unreadable(&error))
}

pub(super) fn conversation_id(text: &str) -> Result<ConversationId, StoreError> {
    ConversationId::parse(text).map_err(|error| unreadable(&error))
}

pub(super) fn log(text: &str) -> Result<LogId, StoreError> {
    LogId::parse(text).map_err(|error| unreadable(&error))
}

pub(super) fn conversation(row: &Row) -> Result<Conversation, StoreError> {
    Ok(Conversation {
        id: conversation_id(row.get(0))?,
        kind: ConversationCode::try_from(row.get::<_, i16>(1)).map_err(|error| unreadable(&error))?.into(),
        name: row.get::<_, Option<&str>>(2).map(Arc::from),
        description: row.get::<_, Option<&str>>(3).map(Arc::from),
        open: row.get(4),
        created_by: user(row.get(5))?,
        created_at: time(row.get(6)),
        updated_at: time(row.get(7)),
        head: row.get(8),
        unread: row.get::<_, i64>(9).max(0),
        archived: row.get(10),
        members: Vec::new(),
        last_message: None,
    })
}

/// Parses the members of a direct conversation from its key.
pub(super) fn pair(key: &str) -> Result<Pair, StoreError> {
    row::pair(key).map_err(|error| unreadable(&error))
}

pub(super) fn member(row: &Row) -> Result<Member, StoreError> {
    let name = row.get::<_, Option<&str>>(1).map(Arc::from);
    Ok(Member { user: user(row.get(0))?, name, delivered_seq: row.get(2), read_seq: row.get(3) })
}

pub(super) fn direct(row: &Row) -> Result<Direct, StoreError> {
    let conversation = conversation_id(row.get(0))?;
    Ok(Direct { conversation, pair: pair(row.get(1))?, delivered: row.get(2), head: row.get(3), removed: row.get(4) })
}

/// The columns that [`inbox_entries`] reads.
macro_rules! inbox_columns {
    () => {
        "o_user, o_inbox_seq, o_at"
    };
}
pub(super) use inbox_columns;

/// Builds the inbox entries from rows of [`inbox_columns`].
pub(super) fn inbox_entries(
    rows: &[Row],
    sender: impl Fn(&UserId) -> UserId,
    body: impl Fn(&Row) -> Body,
) -> Result<Vec<Entry>, StoreError> {
    rows.iter()
        .map(|row| {
            let user = user(row.get(0))?;
            let sender = sender(&user);
            Ok(Entry {
                log: LogId::inbox(&user),
                seq: row.get(1),
                message_no: 0,
                sender_name: sender.as_str().into(),
                sender,
                client_id: None,
                at: time(row.get(2)),
                body: body(row),
            })
        })
        .collect()
}
