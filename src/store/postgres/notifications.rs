//! Notifications: messages wait for users who are away.

use std::time::SystemTime;

use async_trait::async_trait;
use tokio_postgres::Row;

use super::{
    super::{Notifications, Operation, StoreError, Waiting, row::notification_columns},
    Postgres,
    rows::{conversation_id, inbox_columns, inbox_entries, limit_and_offset, time},
};
use crate::model::{Body, ConversationId, Entry, Notification, Page, UserId};

const NOTIFICATIONS: &str = concat!(
    "SELECT ",
    notification_columns!(),
    " FROM notifications WHERE user_id = $1 ORDER BY id DESC LIMIT $2 OFFSET $3"
);

const NOTIFY: &str = concat!("SELECT ", inbox_columns!(), ", o_from FROM notify_users($1, $2, $3, $4)");

fn notification(row: &Row) -> Result<Notification, StoreError> {
    Ok(Notification {
        id: row.get(0),
        conversation: conversation_id(row.get(1))?,
        from_seq: row.get(2),
        count: row.get(3),
        created_at: time(row.get(4)),
        read_at: row.get::<_, Option<SystemTime>>(5).map(time),
    })
}

#[async_trait]
impl Notifications for Postgres {
    async fn notify(
        &self,
        conversation: &ConversationId,
        Waiting { first, last }: Waiting,
        users: &[UserId],
    ) -> Result<Vec<Entry>, StoreError> {
        let users: Vec<&str> = users.iter().map(UserId::as_str).collect();
        let rows = self.query(Operation::Write, NOTIFY, &[&conversation.as_str(), &first, &last, &users]).await?;
        let body = |row: &Row| Body::Notified { conversation: conversation.clone(), from_seq: row.get(3) };
        inbox_entries(&rows, UserId::clone, body)
    }

    async fn notifications(&self, user: &UserId, page: Page) -> Result<Vec<Notification>, StoreError> {
        let (limit, offset) = limit_and_offset(page);
        let rows = self.query(Operation::List, NOTIFICATIONS, &[&user.as_str(), &limit, &offset]).await?;
        rows.iter().map(notification).collect()
    }

    async fn read_notifications(&self, user: &UserId, ids: Option<&[i64]>) -> Result<u64, StoreError> {
        let sql = "UPDATE notifications SET read_at = now() \
             WHERE user_id = $1 AND read_at IS NULL AND ($2::bigint[] IS NULL OR id = ANY ($2)) RETURNING 1";
        Ok(self.query(Operation::Write, sql, &[&user.as_str(), &ids]).await?.len() as u64)
    }
}
