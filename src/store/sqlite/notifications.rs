//! Notifications: messages wait for users who are away.

use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use super::{
    super::{
        NotificationPost, Notifications, Notified, NotifyOptions, Operation, StoreError, Waiting, WaitingPosts,
        row::{deletions, entry_columns, messages_between, notification_columns, removed},
    },
    Sqlite,
    logs::{append_to_inbox, head, new_inbox_entry},
    now,
    rows::{entry, id, micros, time},
};
use crate::model::{Body, ConversationId, Entry, LogId, Notification, Page, Seq, Timestamp, UserId};

const NOTIFICATIONS: &str = concat!(
    "SELECT ",
    notification_columns!(),
    " FROM notifications n LEFT JOIN members m ON m.conversation = n.conversation AND m.user_id = n.user_id \
     WHERE n.user_id = ?1 ORDER BY n.id DESC LIMIT ?2 OFFSET ?3"
);

const DUE: &str = "SELECT p.id, n.user_id, n.conversation, n.from_seq, n.created_at, p.tries + 1, p.queued_at < ?2, \
         n.last_seq, n.read_at IS NULL \
     FROM notification_posts p JOIN notifications n ON n.id = p.id WHERE p.due <= ?1 ORDER BY p.due LIMIT ?3";
const FIRST_OF_OTHERS: &str = concat!(
    "SELECT ",
    entry_columns!(),
    " FROM log WHERE log = ?1 AND seq BETWEEN ?2 AND ?3 AND kind = 0 AND sender <> ?4 AND NOT deleted ORDER BY seq LIMIT 1"
);

#[async_trait]
impl Notifications for Sqlite {
    async fn notify(
        &self,
        conversation: &ConversationId,
        waiting: Waiting,
        users: &[UserId],
        options: NotifyOptions,
    ) -> Result<Notified, StoreError> {
        let (id, users) = (conversation.clone(), users.to_vec());
        self.write(Operation::Write, move |db| notify(db, &id, waiting, users, options)).await
    }

    async fn undelivered(&self, user: &UserId, span: Duration) -> Result<Vec<(ConversationId, Waiting)>, StoreError> {
        let user = user.clone();
        self.read(Operation::Write, move |db| undelivered(db, &user, now().saturating_sub(micros(span)))).await
    }

    async fn claim_posts(
        &self,
        limit: usize,
        claim: Duration,
        max_age: Duration,
    ) -> Result<Vec<NotificationPost>, StoreError> {
        self.write(Operation::Write, move |db| claim_posts(db, limit, micros(claim), micros(max_age))).await
    }

    async fn finish_posts(&self, done: &[i64], later: &[(i64, Duration)]) -> Result<(), StoreError> {
        let (done, later) = (done.to_vec(), later.to_vec());
        self.write(Operation::Write, move |db| finish_posts(db, &done, &later)).await
    }

    async fn waiting_posts(&self) -> Result<WaitingPosts, StoreError> {
        let read = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(1)?));
        let sql = "SELECT count(*), min(queued_at) FROM notification_posts";
        let (count, oldest) = self.read(Operation::Read, move |db| db.prepare_cached(sql)?.query_row([], read)).await?;
        let age = oldest.map_or(0, |queued_at| now().saturating_sub(queued_at).max(0));
        Ok(WaitingPosts { count: count.unsigned_abs(), oldest: Duration::from_micros(age.unsigned_abs()) })
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

pub(super) fn notification(row: &Row<'_>) -> Result<Notification> {
    Ok(Notification {
        id: row.get(0)?,
        conversation: id(ConversationId::parse(&row.get::<_, String>(1)?))?,
        from_seq: row.get(2)?,
        count: row.get::<_, i64>(3)?.max(0),
        created_at: time(row, 4)?,
        read_at: row.get::<_, Option<i64>>(5)?.map(Timestamp::from_micros),
    })
}

/// Opens a notification of unread messages for each user, or widens the open one. Skips users who are not members,
/// messages that the user wrote or has read, deleted ones, and those of a notification that the user marked read.
fn notify(
    db: &Connection,
    id: &ConversationId,
    waiting: Waiting,
    users: Vec<UserId>,
    NotifyOptions { undelivered_only, post_queue }: NotifyOptions,
) -> Result<Notified> {
    let (at, mut entries, mut queued) = (now(), Vec::new(), 0);
    let head = head(db, &LogId::from(id))?.map_or(0, |head| head.seq);
    let waiting = Waiting { last: waiting.last.min(head), ..waiting };
    for user in users {
        let sql = "SELECT l.seq, m.read_seq FROM members m, log l \
             WHERE m.conversation = ?1 AND m.user_id = ?2 AND l.log = ?1 \
             AND l.seq > max(m.read_seq, iif(?5, m.delivered_seq, 0), ?3 - 1, \
                 coalesce((SELECT max(last_seq) FROM notifications \
                     WHERE user_id = ?2 AND conversation = ?1 AND read_at IS NOT NULL), 0)) \
             AND l.seq <= ?4 AND l.kind = 0 AND l.sender <> ?2 AND NOT l.deleted ORDER BY l.seq LIMIT 1";
        let parameters = params![id.as_str(), user.as_str(), waiting.first, waiting.last, undelivered_only];
        let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let found: Option<(Seq, Seq)> = db.prepare_cached(sql)?.query_row(parameters, read).optional()?;
        let Some((first, has_read)) = found else { continue };
        let sql = "SELECT id, from_seq, last_seq FROM notifications \
             WHERE user_id = ?2 AND conversation = ?1 AND read_at IS NULL";
        let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let open: Option<(i64, Seq, Seq)> =
            db.prepare_cached(sql)?.query_row(params![id.as_str(), user.as_str()], read).optional()?;
        let (from, last) = match open {
            Some((_, from, last)) if from > has_read => (from.min(first), last.max(waiting.last)),
            // A run that is read in part goes on behind the read mark.
            Some((.., last)) => (first, last.max(waiting.last)),
            None => (first, waiting.last),
        };
        let sql = concat!("SELECT ", messages_between!("?1", "?2", "?3"));
        let count: i64 = db.prepare_cached(sql)?.query_row(params![id.as_str(), from, last], |row| row.get(0))?;
        if let Some((run, ..)) = open {
            let sql = "UPDATE notifications SET from_seq = ?2, last_seq = ?3, count = ?4 WHERE id = ?1";
            db.prepare_cached(sql)?.execute(params![run, from, last, count])?;
            continue;
        }
        let sql = "INSERT INTO notifications (user_id, conversation, from_seq, last_seq, count, created_at) \
             VALUES (?2, ?1, ?3, ?4, ?5, ?6)";
        db.prepare_cached(sql)?.execute(params![id.as_str(), user.as_str(), from, last, count, at])?;
        let sql = "INSERT INTO notification_posts (id, queued_at, due) \
             SELECT ?1, ?2, ?2 WHERE (SELECT count(*) FROM notification_posts) < ?3";
        queued += db.prepare_cached(sql)?.execute(params![db.last_insert_rowid(), at, post_queue as i64])?;
        let body = Body::Notified { conversation: id.clone(), from_seq: from };
        entries.push(append_to_inbox(db, new_inbox_entry(&user, &user, at, body))?);
    }
    Ok(Notified { entries, queued })
}

/// The conversations of a user with messages of others since `since` that the user has neither received nor read.
fn undelivered(db: &Connection, user: &UserId, since: i64) -> Result<Vec<(ConversationId, Waiting)>> {
    let sql = "SELECT m.conversation, max(m.read_seq, m.delivered_seq), h.seq FROM members m \
         JOIN heads h ON h.log = m.conversation WHERE m.user_id = ?1 AND h.updated_at >= ?2 LIMIT 1000";
    let read = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, Seq>(1)?, row.get::<_, Seq>(2)?));
    let grown: Vec<_> =
        db.prepare_cached(sql)?.query_map(params![user.as_str(), since], read)?.collect::<Result<_>>()?;
    let sql = "SELECT min(seq) FROM ( \
             SELECT seq, kind, sender, deleted, created_at FROM log WHERE log = ?1 ORDER BY seq DESC LIMIT 1000 \
         ) WHERE created_at >= ?2 AND kind = 0 AND NOT deleted AND sender <> ?3 AND seq > ?4";
    let mut first = db.prepare_cached(sql)?;
    let mut waiting = Vec::new();
    for (conversation, has, last) in grown {
        let parameters = params![conversation, since, user.as_str(), has];
        if let Some(first) = first.query_row(parameters, |row| row.get::<_, Option<Seq>>(0))? {
            waiting.push((id(ConversationId::parse(&conversation))?, Waiting { first, last }));
        }
    }
    Ok(waiting)
}

/// Takes requests that are due for `claim` microseconds.
fn claim_posts(db: &Connection, limit: usize, claim: i64, max_age: i64) -> Result<Vec<NotificationPost>> {
    let (at, mut posts) = (now(), Vec::new());
    let mut due = db.prepare_cached(DUE)?;
    let mut rows = due.query(params![at, at.saturating_sub(max_age), limit as i64])?;
    while let Some(row) = rows.next()? {
        let post = NotificationPost {
            id: row.get(0)?,
            user: id(UserId::parse(&row.get::<_, String>(1)?))?,
            conversation: id(ConversationId::parse(&row.get::<_, String>(2)?))?,
            from_seq: row.get(3)?,
            created_at: time(row, 4)?,
            tries: row.get(5)?,
            expired: row.get(6)?,
            message: None,
        };
        let message = match row.get(8)? {
            true => first_of_others(db, &post, row.get(7)?)?,
            false => None,
        };
        posts.push(NotificationPost { message, ..post });
    }
    let mut take = db.prepare_cached("UPDATE notification_posts SET due = ?2, tries = tries + 1 WHERE id = ?1")?;
    for post in &posts {
        take.execute(params![post.id, at.saturating_add(claim)])?;
    }
    Ok(posts)
}

/// The first message of a notification that is not the user's own.
fn first_of_others(db: &Connection, post: &NotificationPost, last: Seq) -> Result<Option<Entry>> {
    let parameters = params![post.conversation.as_str(), post.from_seq, last, post.user.as_str()];
    db.prepare_cached(FIRST_OF_OTHERS)?.query_row(parameters, entry).optional()
}

/// Removes requests that are done, and makes others due again after their pauses.
fn finish_posts(db: &Connection, done: &[i64], later: &[(i64, Duration)]) -> Result<()> {
    for id in done {
        db.prepare_cached("DELETE FROM notification_posts WHERE id = ?1")?.execute([id])?;
    }
    for (id, pause) in later {
        let due = now().saturating_add(micros(*pause));
        db.prepare_cached("UPDATE notification_posts SET due = ?2 WHERE id = ?1")?.execute([*id, due])?;
    }
    Ok(())
}

/// Marks a user's open notifications read: those in `ids`, or all. Returns their number.
fn read_notifications(db: &Connection, user: &UserId, ids: Option<Vec<i64>>) -> Result<u64> {
    let sql = "UPDATE notifications SET read_at = ?2 WHERE user_id = ?1 AND read_at IS NULL";
    let Some(ids) = ids else { return Ok(db.execute(sql, params![user.as_str(), now()])? as u64) };
    let mut one = db.prepare_cached(&format!("{sql} AND id = ?3"))?;
    let read = ids.into_iter().map(|id| one.execute(params![user.as_str(), now(), id]));
    Ok(read.sum::<Result<usize>>()? as u64)
}
