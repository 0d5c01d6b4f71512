//! Notifications: messages wait for users who are away.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use super::{
    super::{Notifications, Operation, StoreError, Waiting, row::notification_columns},
    Sqlite,
    logs::{append_to_inbox, new_inbox_entry},
    now,
    rows::{id, time},
};
use crate::model::{Body, ConversationId, Entry, Notification, Page, Seq, Timestamp, UserId};

const NOTIFICATIONS: &str = concat!(
    "SELECT ",
    notification_columns!(),
    " FROM notifications WHERE user_id = ?1 ORDER BY id DESC LIMIT ?2 OFFSET ?3"
);

#[async_trait]
impl Notifications for Sqlite {
    async fn notify(
        &self,
        conversation: &ConversationId,
        waiting: Waiting,
        users: &[UserId],
    ) -> Result<Vec<Entry>, StoreError> {
        let (id, users) = (conversation.clone(), users.to_vec());
        self.write(Operation::Write, move |db| notify(db, &id, waiting, users)).await
    }

    async fn notifications(&self, user: &UserId, page: Page) -> Result<Vec<Notification>, StoreError> {
        let user = user.clone();
        self.read(Operation::List, move |db| {
            db.prepare_cached(NOTIFICATIONS)?
                .query_map(params![user.as_str(), page.limit.get(), page.offset.get()], notification)?
                .collect()
        })
        .await
    }

    async fn read_notifications(&self, user: &UserId, ids: Option<&[i64]>) -> Result<u64, StoreError> {
        let (user, ids) = (user.clone(), ids.map(<[i64]>::to_vec));
        self.write(Operation::Write, move |db| read_notifications(db, &user, ids)).await
    }
}

fn notification(row: &Row<'_>) -> Result<Notification> {
    Ok(Notification {
        id: row.get(0)?,
        conversation: id(ConversationId::parse(&row.get::<_, String>(1)?))?,
        from_seq: row.get(2)?,
        count: row.get(3)?,
        created_at: time(row, 4)?,
        read_at: row.get::<_, Option<i64>>(5)?.map(Timestamp::from_micros),
    })
}

/// Opens a notification of unread messages for each user, or widens the open one. Skips users who are not members,
/// messages that the user has read, and messages of a notification that the user marked read.
fn notify(db: &Connection, id: &ConversationId, waiting: Waiting, users: Vec<UserId>) -> Result<Vec<Entry>> {
    let (at, mut entries) = (now(), Vec::new());
    for user in users {
        let sql = "SELECT l.seq FROM members m, log l WHERE m.conversation = ?1 AND m.user_id = ?2 AND l.log = ?1 \
             AND l.seq > max(m.read_seq, ?3 - 1, coalesce((SELECT max(last_seq) FROM notifications \
                 WHERE user_id = ?2 AND conversation = ?1 AND read_at IS NOT NULL), 0)) \
             AND l.seq <= ?4 AND l.kind = 0 ORDER BY l.seq LIMIT 1";
        let parameters = params![id.as_str(), user.as_str(), waiting.first, waiting.last];
        let Some(first): Option<Seq> = db.prepare_cached(sql)?.query_row(parameters, |row| row.get(0)).optional()?
        else {
            continue;
        };
        let sql = "SELECT id, from_seq, last_seq FROM notifications \
             WHERE user_id = ?2 AND conversation = ?1 AND read_at IS NULL";
        let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let open: Option<(i64, Seq, Seq)> =
            db.prepare_cached(sql)?.query_row(params![id.as_str(), user.as_str()], read).optional()?;
        let (from, last) =
            open.map_or((first, waiting.last), |(_, from, last)| (from.min(first), last.max(waiting.last)));
        let sql = "SELECT max(message_no) - min(message_no) + 1 FROM log WHERE log = ?1 AND seq IN (?2, ?3)";
        let count: i64 = db.prepare_cached(sql)?.query_row(params![id.as_str(), from, last], |row| row.get(0))?;
        if let Some((run, ..)) = open {
            let sql = "UPDATE notifications SET from_seq = ?2, last_seq = ?3, count = ?4 WHERE id = ?1";
            db.prepare_cached(sql)?.execute(params![run, from, last, count])?;
            continue;
        }
        let sql = "INSERT INTO notifications (user_id, conversation, from_seq, last_seq, count, created_at) \
             VALUES (?2, ?1, ?3, ?4, ?5, ?6)";
        db.prepare_cached(sql)?.execute(params![id.as_str(), user.as_str(), from, last, count, at])?;
        let body = Body::Notified { conversation: id.clone(), from_seq: from };
        entries.push(append_to_inbox(db, new_inbox_entry(&user, &user, at, body))?);
    }
    Ok(entries)
}

/// Marks a user's open notifications read: those in `ids`, or all. Returns their number.
fn read_notifications(db: &Connection, user: &UserId, ids: Option<Vec<i64>>) -> Result<u64> {
    let sql = "UPDATE notifications SET read_at = ?2 WHERE user_id = ?1 AND read_at IS NULL";
    let Some(ids) = ids else { return Ok(db.execute(sql, params![user.as_str(), now()])? as u64) };
    let mut one = db.prepare_cached(&format!("{sql} AND id = ?3"))?;
    let read = ids.into_iter().map(|id| one.execute(params![user.as_str(), now(), id]));
    Ok(read.sum::<Result<usize>>()? as u64)
}
