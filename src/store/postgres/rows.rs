//! Rows of PostgreSQL as the model knows them.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio_postgres::Row;

use super::super::{
    AppendRefused, Appended, Outcome, StoreError,
    row::{self, EntryRow},
};
use crate::model::{Conversation, ConversationId, ConversationKind, Entry, Pair, Timestamp, UserId};

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

/// A row that can't be read: a store that something else wrote to.
pub(super) fn unreadable(error: &impl std::fmt::Display) -> StoreError {
    StoreError::Failed(error.to_string())
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
    };
    Entry::try_from(row).map_err(|error| unreadable(&error))
}

pub(super) fn user(text: &str) -> Result<UserId, StoreError> {
    UserId::parse(text).map_err(|error| unreadable(&error))
}

pub(super) fn conversation(row: &Row) -> Result<Conversation, StoreError> {
    Ok(Conversation {
        id: ConversationId::parse(row.get(0)).map_err(|error| unreadable(&error))?,
        kind: if row.get::<_, i16>(1) == 1 { ConversationKind::Direct } else { ConversationKind::Group },
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
    })
}

pub(super) fn outcome(row: &Row) -> Outcome {
    match row.get::<_, i16>(0) {
        code @ (0 | 4) => Ok(Appended {
            seq: row.get(1),
            message_no: row.get(2),
            at: time(row.get(3)),
            duplicate: code == 4,
            also: Vec::new(),
        }),
        1 => Err(AppendRefused::NotMember),
        2 => Err(AppendRefused::NoSuchLog),
        3 => Err(AppendRefused::NoSuchTarget),
        5 => Err(AppendRefused::NotYours),
        _ => Err(AppendRefused::Unchanged),
    }
}

/// The members of a direct conversation, by its key.
pub(super) fn pair(key: &str) -> Result<Pair, StoreError> {
    row::pair(key).map_err(|error| unreadable(&error))
}
