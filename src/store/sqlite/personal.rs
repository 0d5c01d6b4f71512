//! The data of one user: reads for its export, and the steps of its erasure.

use async_trait::async_trait;
use rusqlite::{OptionalExtension, Result, Row, params};

use super::{
    super::{
        Operation, PersonalData, StoreError,
        codes::ConversationCode,
        row::{
            AUTHORED_EMOJI, ENTRY_COLUMNS, deletions, entry_columns, erasure_columns, membership_columns,
            messages_between, notification_columns, removed,
        },
    },
    Sqlite,
    notifications::notification,
    now,
    rows::{entry, id, text, time, unreadable},
};
use crate::model::{
    ClientId, ConversationId, ConversationKind, Entry, Erasure, LogId, Membership, Notification, Seq, Timestamp, UserId,
};

const LOGS: &str = "SELECT h.log, EXISTS (SELECT 1 FROM log l WHERE l.log = h.log AND l.sender = ?3) \
     FROM (SELECT log FROM heads WHERE log > ?1 ORDER BY log LIMIT ?2) h ORDER BY h.log";
const AUTHORED: &str = concat!(
    "SELECT ",
    entry_columns!(),
    ", dedupe FROM log WHERE log = ?1 AND sender = ?2 AND dedupe > ?3 ORDER BY dedupe LIMIT ?4"
);
const MEMBERSHIPS: &str = concat!(
    "SELECT ",
    membership_columns!(),
    " FROM members m JOIN conversations c ON c.id = m.conversation \
     WHERE m.user_id = ?1 AND m.conversation > ?2 ORDER BY m.conversation LIMIT ?3"
);
const NOTIFICATIONS: &str = concat!(
    "SELECT ",
    notification_columns!(),
    " FROM notifications n LEFT JOIN members m ON m.conversation = n.conversation AND m.user_id = n.user_id \
     WHERE n.user_id = ?1 AND n.id > ?2 ORDER BY n.id LIMIT ?3"
);
const REQUEST: &str = concat!(
    "INSERT INTO erasures (user_id, requested_at, requested_by) VALUES (?1, ?2, ?3) \
     ON CONFLICT (user_id) DO UPDATE \
     SET requested_at = excluded.requested_at, requested_by = excluded.requested_by, position = NULL, done_at = NULL \
     RETURNING ",
    erasure_columns!()
);
const ERASURE: &str = concat!("SELECT ", erasure_columns!(), " FROM erasures WHERE user_id = ?1");
const PENDING: &str =
    concat!("SELECT ", erasure_columns!(), " FROM erasures WHERE done_at IS NULL ORDER BY requested_at LIMIT 1");

#[async_trait]
impl PersonalData for Sqlite {
    async fn authored_logs(
        &self,
        by: &UserId,
        after: Option<&LogId>,
        limit: u32,
    ) -> Result<(Vec<LogId>, Option<LogId>), StoreError> {
        let (by, after) = (by.clone(), after.map_or_else(String::new, ToString::to_string));
        self.read(Operation::Upkeep, move |db| {
            let read = |row: &Row<'_>| Ok((id(LogId::parse(&row.get::<_, String>(0)?))?, row.get::<_, bool>(1)?));
            let logs: Vec<_> =
                db.prepare_cached(LOGS)?.query_map(params![after, limit, by.as_str()], read)?.collect::<Result<_>>()?;
            let last = logs.last().filter(|_| logs.len() >= limit as usize).map(|(log, _)| log.clone());
            Ok((logs.into_iter().filter_map(|(log, authored)| authored.then_some(log)).collect(), last))
        })
        .await
    }

    async fn authored(
        &self,
        of: &LogId,
        by: &UserId,
        after: Option<&ClientId>,
        limit: u32,
    ) -> Result<Vec<(ClientId, Entry)>, StoreError> {
        let (of, by, after) = (of.clone(), by.clone(), after.map_or_else(String::new, ToString::to_string));
        self.read(Operation::Upkeep, move |db| {
            let read = |row: &Row<'_>| Ok((id(ClientId::parse(&row.get::<_, String>(ENTRY_COLUMNS)?))?, entry(row)?));
            db.prepare_cached(AUTHORED)?.query_map(params![of.as_str(), by.as_str(), after, limit], read)?.collect()
        })
        .await
    }

    async fn memberships(
        &self,
        of: &UserId,
        after: Option<&ConversationId>,
        limit: u32,
    ) -> Result<Vec<Membership>, StoreError> {
        let (of, after) = (of.clone(), after.map_or_else(String::new, ToString::to_string));
        self.read(Operation::Upkeep, move |db| {
            let read = |row: &Row<'_>| {
                Ok(Membership {
                    conversation: id(ConversationId::parse(&row.get::<_, String>(0)?))?,
                    direct: ConversationKind::from(
                        ConversationCode::try_from(row.get::<_, i16>(1)?).map_err(unreadable)?,
                    ) == ConversationKind::Direct,
                    name: text(row, 2)?,
                    created: row.get(3)?,
                    joined_at: time(row, 4)?,
                    delivered_seq: row.get(5)?,
                    read_seq: row.get(6)?,
                    archived: row.get(7)?,
                })
            };
            db.prepare_cached(MEMBERSHIPS)?.query_map(params![of.as_str(), after, limit], read)?.collect()
        })
        .await
    }

    async fn notifications_after(&self, of: &UserId, after: i64, limit: u32) -> Result<Vec<Notification>, StoreError> {
        let of = of.clone();
        self.read(Operation::Upkeep, move |db| {
            db.prepare_cached(NOTIFICATIONS)?.query_map(params![of.as_str(), after, limit], notification)?.collect()
        })
        .await
    }

    async fn request_erasure(&self, of: &UserId, by: &UserId) -> Result<Erasure, StoreError> {
        let (of, by) = (of.clone(), by.clone());
        self.write(Operation::Write, move |db| db.query_row(REQUEST, params![of.as_str(), now(), by.as_str()], erasure))
            .await
    }

    async fn erasure(&self, of: &UserId) -> Result<Option<Erasure>, StoreError> {
        let of = of.clone();
        self.read(Operation::Read, move |db| db.query_row(ERASURE, [of.as_str()], erasure).optional()).await
    }

    async fn pending_erasure(&self) -> Result<Option<Erasure>, StoreError> {
        self.read(Operation::Upkeep, move |db| db.prepare_cached(PENDING)?.query_row([], erasure).optional()).await
    }

    async fn advance_erasure(&self, of: &Erasure, position: &LogId) -> Result<(), StoreError> {
        let (of, position) = (of.clone(), position.clone());
        let sql = "UPDATE erasures SET position = ?3 WHERE user_id = ?1 AND requested_at = ?2";
        self.write(Operation::Upkeep, move |db| {
            let parameters = params![of.user.as_str(), of.requested_at.micros(), position.as_str()];
            db.execute(sql, parameters).map(drop)
        })
        .await
    }

    async fn hide_author(&self, of: &LogId, by: &UserId, seqs: &[Seq]) -> Result<(), StoreError> {
        let (of, by, seqs) = (of.clone(), by.clone(), seqs.to_vec());
        let sql = "UPDATE log SET sender_name = sender, subject = CASE kind WHEN 3 THEN ?4 ELSE subject END \
             WHERE log = ?1 AND seq = ?3 AND sender = ?2";
        self.write(Operation::Upkeep, move |db| {
            let mut hide = db.prepare_cached(sql)?;
            for seq in seqs {
                hide.execute(params![of.as_str(), by.as_str(), seq, AUTHORED_EMOJI])?;
            }
            Ok(())
        })
        .await
    }

    async fn forget_former_member(
        &self,
        of: &UserId,
        after: Option<&LogId>,
        upto: Option<&LogId>,
    ) -> Result<(), StoreError> {
        let (of, upto) = (of.clone(), upto.map(ToString::to_string));
        let after = after.map_or_else(String::new, ToString::to_string);
        let sql = "DELETE FROM former_members WHERE user_id = ?1 AND conversation > ?2 \
             AND (?3 IS NULL OR conversation <= ?3)";
        self.write(Operation::Upkeep, move |db| db.execute(sql, params![of.as_str(), after, upto]).map(drop)).await
    }

    async fn forget_marks(&self, conversation: &ConversationId, of: &UserId) -> Result<(), StoreError> {
        let (conversation, of) = (conversation.clone(), of.clone());
        let sql = "UPDATE members SET delivered_seq = h.seq, read_seq = h.seq, read_no = h.message_no, archived = 1, \
                 joined_at = 0 \
             FROM heads h WHERE h.log = members.conversation AND members.conversation = ?1 AND members.user_id = ?2";
        self.write(Operation::Upkeep, move |db| db.execute(sql, (conversation.as_str(), of.as_str())).map(drop)).await
    }

    async fn erase_notifications(&self, of: &UserId, limit: u32) -> Result<u64, StoreError> {
        let of = of.clone();
        self.write(Operation::Upkeep, move |db| {
            let some = "(SELECT id FROM notifications WHERE user_id = ?1 ORDER BY id LIMIT ?2)";
            db.execute(&format!("DELETE FROM notification_posts WHERE id IN {some}"), params![of.as_str(), limit])?;
            let sql = format!("DELETE FROM notifications WHERE id IN {some}");
            Ok(db.execute(&sql, params![of.as_str(), limit])? as u64)
        })
        .await
    }

    async fn finish_erasure(&self, of: &Erasure) -> Result<bool, StoreError> {
        let of = of.clone();
        self.write(Operation::Upkeep, move |db| {
            let user = of.user.as_str();
            db.execute("DELETE FROM blocks WHERE user_id = ?1", [user])?;
            db.execute("UPDATE users SET name = id, status = 0, last_seen = NULL WHERE id = ?1", [user])?;
            let sql = "UPDATE erasures SET done_at = ?3, position = NULL WHERE user_id = ?1 AND requested_at = ?2";
            Ok(db.execute(sql, params![user, of.requested_at.micros(), now()])? > 0)
        })
        .await
    }
}

fn erasure(row: &Row<'_>) -> Result<Erasure> {
    let position = row.get::<_, Option<String>>(3)?;
    Ok(Erasure {
        user: id(UserId::parse(&row.get::<_, String>(0)?))?,
        requested_at: time(row, 1)?,
        by: id(UserId::parse(&row.get::<_, String>(2)?))?,
        position: position.map(|log| id(LogId::parse(&log))).transpose()?,
        done_at: row.get::<_, Option<i64>>(4)?.map(Timestamp::from_micros),
    })
}
