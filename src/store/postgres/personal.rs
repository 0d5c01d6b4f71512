//! The data of one user: reads for its export, and the steps of its erasure.

use std::time::SystemTime;

use async_trait::async_trait;
use tokio_postgres::Row;

use super::{
    super::{
        Operation, PersonalData, StoreError,
        codes::ConversationCode,
        row::{
            AUTHORED_EMOJI, ENTRY_COLUMNS, deletions, entry_columns, erasure_columns, membership_columns,
            messages_between, notification_columns, removed,
        },
    },
    Postgres,
    notifications::notification,
    rows::{conversation_id, entry, log, system_time, time, unreadable, user},
};
use crate::model::{
    ClientId, ConversationId, ConversationKind, Entry, Erasure, LogId, Membership, Notification, Seq, UserId,
};

const LOGS: &str = "SELECT h.log, EXISTS (SELECT FROM log l WHERE l.log = h.log AND l.sender = $3) \
     FROM (SELECT log FROM heads WHERE log > $1 ORDER BY log LIMIT $2) h ORDER BY h.log";
const AUTHORED: &str = concat!(
    "SELECT ",
    entry_columns!(),
    ", dedupe FROM log WHERE log = $1 AND sender = $2 AND dedupe > $3 ORDER BY dedupe LIMIT $4"
);
const MEMBERSHIPS: &str = concat!(
    "SELECT ",
    membership_columns!(),
    " FROM members m JOIN conversations c ON c.id = m.conversation \
     WHERE m.user_id = $1 AND m.conversation > $2 ORDER BY m.conversation LIMIT $3"
);
const NOTIFICATIONS: &str = concat!(
    "SELECT ",
    notification_columns!(),
    " FROM notifications n LEFT JOIN members m ON m.conversation = n.conversation AND m.user_id = n.user_id \
     WHERE n.user_id = $1 AND n.id > $2 ORDER BY n.id LIMIT $3"
);
const REQUEST: &str = concat!(
    "INSERT INTO erasures AS e (user_id, requested_at, requested_by) VALUES ($1, clock_timestamp(), $2) \
     ON CONFLICT (user_id) DO UPDATE \
     SET requested_at = excluded.requested_at, requested_by = excluded.requested_by, position = NULL, done_at = NULL \
     RETURNING ",
    erasure_columns!()
);
const ERASURE: &str = concat!("SELECT ", erasure_columns!(), " FROM erasures WHERE user_id = $1");
const PENDING: &str =
    concat!("SELECT ", erasure_columns!(), " FROM erasures WHERE done_at IS NULL ORDER BY requested_at LIMIT 1");
const FORGET_MARKS: &str = "UPDATE members m SET delivered_seq = h.seq, read_seq = h.seq, read_no = h.message_no, \
         archived = true, joined_at = to_timestamp(0) \
     FROM heads h WHERE h.log = m.conversation AND m.conversation = $1 AND m.user_id = $2";

#[async_trait]
impl PersonalData for Postgres {
    async fn authored_logs(
        &self,
        by: &UserId,
        after: Option<&LogId>,
        limit: u32,
    ) -> Result<(Vec<LogId>, Option<LogId>), StoreError> {
        let (after, rows) = (after.map_or("", LogId::as_str), i64::from(limit));
        let rows = self.query(Operation::Upkeep, LOGS, &[&after, &rows, &by.as_str()]).await?;
        let last = rows.last().filter(|_| rows.len() >= limit as usize).map(|row| log(row.get(0))).transpose()?;
        let authored = rows.iter().filter(|row| row.get(1)).map(|row| log(row.get(0)));
        Ok((authored.collect::<Result<_, _>>()?, last))
    }

    async fn authored(
        &self,
        of: &LogId,
        by: &UserId,
        after: Option<&ClientId>,
        limit: u32,
    ) -> Result<Vec<(ClientId, Entry)>, StoreError> {
        let (after, limit) = (after.map_or("", ClientId::as_str), i64::from(limit));
        let rows = self.query(Operation::Upkeep, AUTHORED, &[&of.as_str(), &by.as_str(), &after, &limit]).await?;
        let read = |row: &Row| {
            let key = ClientId::parse(row.get(ENTRY_COLUMNS)).map_err(|error| unreadable(&error))?;
            Ok((key, entry(row)?))
        };
        rows.iter().map(read).collect()
    }

    async fn memberships(
        &self,
        of: &UserId,
        after: Option<&ConversationId>,
        limit: u32,
    ) -> Result<Vec<Membership>, StoreError> {
        let (after, limit) = (after.map_or("", ConversationId::as_str), i64::from(limit));
        let rows = self.query(Operation::Upkeep, MEMBERSHIPS, &[&of.as_str(), &after, &limit]).await?;
        let read = |row: &Row| {
            let kind = ConversationCode::try_from(row.get::<_, i16>(1)).map_err(|error| unreadable(&error))?;
            Ok(Membership {
                conversation: conversation_id(row.get(0))?,
                direct: ConversationKind::from(kind) == ConversationKind::Direct,
                name: row.get::<_, Option<&str>>(2).map(Into::into),
                created: row.get(3),
                joined_at: time(row.get(4)),
                delivered_seq: row.get(5),
                read_seq: row.get(6),
                archived: row.get(7),
            })
        };
        rows.iter().map(read).collect()
    }

    async fn notifications_after(&self, of: &UserId, after: i64, limit: u32) -> Result<Vec<Notification>, StoreError> {
        let rows = self.query(Operation::Upkeep, NOTIFICATIONS, &[&of.as_str(), &after, &i64::from(limit)]).await?;
        rows.iter().map(notification).collect()
    }

    async fn request_erasure(&self, of: &UserId, by: &UserId) -> Result<Erasure, StoreError> {
        let rows = self.query(Operation::Write, REQUEST, &[&of.as_str(), &by.as_str()]).await?;
        rows.first().ok_or_else(|| StoreError::Failed("no erasure was stored".into())).and_then(erasure)
    }

    async fn erasure(&self, of: &UserId) -> Result<Option<Erasure>, StoreError> {
        self.query(Operation::Read, ERASURE, &[&of.as_str()]).await?.first().map(erasure).transpose()
    }

    async fn pending_erasure(&self) -> Result<Option<Erasure>, StoreError> {
        self.query(Operation::Upkeep, PENDING, &[]).await?.first().map(erasure).transpose()
    }

    async fn advance_erasure(&self, of: &Erasure, position: &LogId) -> Result<(), StoreError> {
        let sql = "UPDATE erasures SET position = $3 WHERE user_id = $1 AND requested_at = $2";
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
            [&of.user.as_str(), &system_time(of.requested_at), &position.as_str()];
        self.query(Operation::Upkeep, sql, &parameters).await.map(drop)
    }

    async fn hide_author(&self, of: &LogId, by: &UserId, seqs: &[Seq]) -> Result<(), StoreError> {
        let sql = "SELECT hide_author($1, $2, $3, $4)";
        self.query(Operation::Upkeep, sql, &[&of.as_str(), &by.as_str(), &seqs, &AUTHORED_EMOJI]).await.map(drop)
    }

    async fn forget_former_member(
        &self,
        of: &UserId,
        after: Option<&LogId>,
        upto: Option<&LogId>,
    ) -> Result<(), StoreError> {
        let (after, upto) = (after.map_or("", LogId::as_str), upto.map(LogId::as_str));
        let sql = "DELETE FROM former_members WHERE user_id = $1 AND conversation > $2 \
             AND ($3::text IS NULL OR conversation <= $3)";
        self.query(Operation::Upkeep, sql, &[&of.as_str(), &after, &upto]).await.map(drop)
    }

    async fn forget_marks(&self, conversation: &ConversationId, of: &UserId) -> Result<(), StoreError> {
        self.query(Operation::Upkeep, FORGET_MARKS, &[&conversation.as_str(), &of.as_str()]).await.map(drop)
    }

    async fn erase_notifications(&self, of: &UserId, limit: u32) -> Result<u64, StoreError> {
        let sql = "SELECT erase_notifications($1, $2)";
        let rows = self.query(Operation::Upkeep, sql, &[&of.as_str(), &i64::from(limit)]).await?;
        Ok(rows.first().map_or(0, |row| row.get::<_, i64>(0).unsigned_abs()))
    }

    async fn finish_erasure(&self, of: &Erasure) -> Result<bool, StoreError> {
        let sql = "WITH unblocked AS (DELETE FROM blocks WHERE user_id = $1), \
             unnamed AS (UPDATE users SET name = id, status = 0, last_seen = NULL WHERE id = $1) \
             UPDATE erasures SET done_at = clock_timestamp(), position = NULL WHERE user_id = $1 AND requested_at = $2 \
             RETURNING 1";
        let rows = self.query(Operation::Upkeep, sql, &[&of.user.as_str(), &system_time(of.requested_at)]).await?;
        Ok(!rows.is_empty())
    }
}

fn erasure(row: &Row) -> Result<Erasure, StoreError> {
    Ok(Erasure {
        user: user(row.get(0))?,
        requested_at: time(row.get(1)),
        by: user(row.get(2))?,
        position: row.get::<_, Option<&str>>(3).map(log).transpose()?,
        done_at: row.get::<_, Option<SystemTime>>(4).map(time),
    })
}
