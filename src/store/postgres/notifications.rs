//! Notifications: messages wait for users who are away.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio_postgres::{Row, types::ToSql};

use super::{
    super::{
        NotificationPost, Notifications, Notified, NotifyOptions, Operation, StoreError, Waiting, WaitingPosts,
        row::{deletions, entry_columns, messages_between, notification_columns, removed},
    },
    Postgres,
    rows::{conversation_id, entry, inbox_columns, inbox_entries, limit_and_offset, time, user},
};
use crate::model::{Body, ConversationId, Notification, Page, Seq, UserId};

const NOTIFICATIONS: &str = concat!(
    "SELECT ",
    notification_columns!(),
    " FROM notifications n LEFT JOIN members m ON m.conversation = n.conversation AND m.user_id = n.user_id \
     WHERE n.user_id = $1 ORDER BY n.id DESC LIMIT $2 OFFSET $3"
);

/// Messages that the database has lost since the caller read them, because it was set back, don't count as notified.
const NOTIFY: &str = concat!(
    "SELECT ",
    inbox_columns!(),
    ", o_from, o_queued FROM notify_users($1, $2, least($3, (SELECT seq FROM heads WHERE log = $1)), $4, $5, $6)"
);
const CLAIM: &str = concat!(
    "SELECT ",
    entry_columns!("l."),
    ", c.o_id, c.o_user, c.o_conversation, c.o_from, c.o_at, c.o_tries, c.o_expired, c.o_message \
     FROM claim_notification_posts($1, $2, $3) c LEFT JOIN log l ON l.log = c.o_conversation AND l.seq = c.o_message"
);

pub(super) fn notification(row: &Row) -> Result<Notification, StoreError> {
    Ok(Notification {
        id: row.get(0),
        conversation: conversation_id(row.get(1))?,
        from_seq: row.get(2),
        count: row.get::<_, i64>(3).max(0),
        created_at: time(row.get(4)),
        read_at: row.get::<_, Option<SystemTime>>(5).map(time),
    })
}

const UNDELIVERED: &str = "SELECT m.conversation, f.seq, h.seq FROM members m \
     JOIN heads h ON h.log = m.conversation AND h.updated_at >= clock_timestamp() - make_interval(secs => $2) \
     CROSS JOIN LATERAL (SELECT min(l.seq) AS seq FROM ( \
         SELECT seq, kind, sender, deleted, created_at FROM log WHERE log = m.conversation ORDER BY seq DESC LIMIT 1000 \
     ) l WHERE l.created_at >= clock_timestamp() - make_interval(secs => $2) AND l.kind = 0 AND NOT l.deleted \
         AND l.sender <> m.user_id AND l.seq > greatest(m.read_seq, m.delivered_seq)) f \
     WHERE m.user_id = $1 AND f.seq IS NOT NULL LIMIT 1000";

fn post(row: &Row) -> Result<NotificationPost, StoreError> {
    let message = row.get::<_, Option<Seq>>("o_message").map(|_| entry(row)).transpose()?;
    Ok(NotificationPost {
        id: row.get("o_id"),
        user: user(row.get("o_user"))?,
        conversation: conversation_id(row.get("o_conversation"))?,
        from_seq: row.get("o_from"),
        created_at: time(row.get("o_at")),
        tries: u32::try_from(row.get::<_, i32>("o_tries")).unwrap_or(u32::MAX),
        expired: row.get("o_expired"),
        message,
    })
}

#[async_trait]
impl Notifications for Postgres {
    async fn notify(
        &self,
        conversation: &ConversationId,
        Waiting { first, last }: Waiting,
        users: &[UserId],
        NotifyOptions { undelivered_only, post_queue }: NotifyOptions,
    ) -> Result<Notified, StoreError> {
        let users: Vec<&str> = users.iter().map(UserId::as_str).collect();
        let parameters: [&(dyn ToSql + Sync); 6] =
            [&conversation.as_str(), &first, &last, &users, &undelivered_only, &(post_queue as i64)];
        let rows = self.query(Operation::Write, NOTIFY, &parameters).await?;
        let queued = rows.iter().filter(|row| row.get(4)).count();
        let body = |row: &Row| Body::Notified { conversation: conversation.clone(), from_seq: row.get(3) };
        Ok(Notified { entries: inbox_entries(&rows, UserId::clone, body)?, queued })
    }

    async fn undelivered(&self, user: &UserId, span: Duration) -> Result<Vec<(ConversationId, Waiting)>, StoreError> {
        let rows = self.query(Operation::Write, UNDELIVERED, &[&user.as_str(), &span.as_secs_f64()]).await?;
        let waiting = |row: &Row| Ok((conversation_id(row.get(0))?, Waiting { first: row.get(1), last: row.get(2) }));
        rows.iter().map(waiting).collect()
    }

    async fn claim_posts(
        &self,
        limit: usize,
        claim: Duration,
        max_age: Duration,
    ) -> Result<Vec<NotificationPost>, StoreError> {
        let parameters: [&(dyn ToSql + Sync); 3] = [&(limit as i64), &claim.as_secs_f64(), &max_age.as_secs_f64()];
        self.query(Operation::Write, CLAIM, &parameters).await?.iter().map(post).collect()
    }

    async fn finish_posts(&self, done: &[i64], later: &[(i64, Duration)]) -> Result<(), StoreError> {
        let (later, seconds): (Vec<i64>, Vec<f64>) = later.iter().map(|(id, after)| (*id, after.as_secs_f64())).unzip();
        let sql = "SELECT finish_notification_posts($1, $2, $3)";
        self.query(Operation::Write, sql, &[&done, &later, &seconds]).await.map(drop)
    }

    async fn waiting_posts(&self) -> Result<WaitingPosts, StoreError> {
        let sql = "SELECT count(*), extract(epoch FROM clock_timestamp() - min(queued_at))::double precision \
             FROM notification_posts";
        let rows = self.query(Operation::Read, sql, &[]).await?;
        let Some(row) = rows.first() else { return Ok(WaitingPosts::default()) };
        let oldest = Duration::try_from_secs_f64(row.get::<_, Option<f64>>(1).unwrap_or(0.0)).unwrap_or_default();
        Ok(WaitingPosts { count: row.get::<_, i64>(0).unsigned_abs(), oldest })
    }

    async fn notifications(&self, user: &UserId, page: Page) -> Result<Vec<Notification>, StoreError> {
        let (limit, offset) = limit_and_offset(page);
        let rows = self.query(Operation::List, NOTIFICATIONS, &[&user.as_str(), &limit, &offset]).await?;
        rows.iter().map(notification).collect()
    }

    async fn read_notifications(&self, user: &UserId, ids: Option<&[i64]>) -> Result<u64, StoreError> {
        // In the order in which an append locks them.
        let sql = "UPDATE notifications SET read_at = now() WHERE id IN ( \
                 SELECT id FROM notifications \
                 WHERE user_id = $1 AND read_at IS NULL AND ($2::bigint[] IS NULL OR id = ANY ($2)) \
                 ORDER BY conversation FOR NO KEY UPDATE \
             ) RETURNING 1";
        Ok(self.query(Operation::Write, sql, &[&user.as_str(), &ids]).await?.len() as u64)
    }
}
