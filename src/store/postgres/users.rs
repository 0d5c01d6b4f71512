//! Users: display names, statuses and last-seen times.

use std::{sync::Arc, time::SystemTime};

use async_trait::async_trait;
use tokio_postgres::types::ToSql;

use super::{
    super::{Operation, StoreError, Users, row::LATE_DEPARTURE},
    Postgres,
    rows::{system_time, time, user},
};
use crate::model::{Status, Timestamp, UserId};

#[async_trait]
impl Users for Postgres {
    async fn know(&self, users: &[(UserId, Arc<str>)]) -> Result<(), StoreError> {
        let mut users: Vec<(&str, &str)> = users.iter().map(|(user, name)| (user.as_str(), &**name)).collect();
        // Sorted, so that concurrent calls lock rows in the same order and can't deadlock.
        users.sort_unstable();
        users.dedup_by_key(|(user, _)| *user);
        let (ids, names): (Vec<&str>, Vec<&str>) = users.into_iter().unzip();
        let sql = "INSERT INTO users (id, name) SELECT * FROM unnest($1::text[], $2::text[]) \
             ON CONFLICT (id) DO UPDATE SET name = excluded.name WHERE users.name <> excluded.name";
        self.query(Operation::Write, sql, &[&ids, &names]).await.map(drop)
    }

    async fn set_status(&self, user: &UserId, status: Status) -> Result<(), StoreError> {
        let sql = "UPDATE users SET status = $2 WHERE id = $1";
        self.query(Operation::Write, sql, &[&user.as_str(), &status.code()]).await.map(drop)
    }

    async fn seen(&self, users: &[UserId], at: Timestamp) -> Result<(), StoreError> {
        let users: Vec<&str> = users.iter().map(UserId::as_str).collect();
        let sql = "UPDATE users u SET last_seen = greatest(last_seen, $2) WHERE id = ANY ($1) AND status <> $3 \
             AND NOT EXISTS (SELECT FROM erasures e \
                 WHERE e.user_id = u.id AND e.requested_at > clock_timestamp() - make_interval(secs => $4))";
        let parameters: [&(dyn ToSql + Sync); 4] =
            [&users, &system_time(at), &Status::Invisible.code(), &LATE_DEPARTURE.as_secs_f64()];
        self.query(Operation::Write, sql, &parameters).await.map(drop)
    }

    async fn names(&self, users: &[UserId]) -> Result<Vec<(UserId, Arc<str>)>, StoreError> {
        let users: Vec<&str> = users.iter().map(UserId::as_str).collect();
        let rows = self.query(Operation::Read, "SELECT id, name FROM users WHERE id = ANY ($1)", &[&users]).await?;
        rows.iter().map(|row| Ok((user(row.get(0))?, row.get::<_, &str>(1).into()))).collect()
    }

    async fn statuses(&self, users: &[UserId]) -> Result<Vec<(UserId, Status, Option<Timestamp>)>, StoreError> {
        let users: Vec<&str> = users.iter().map(UserId::as_str).collect();
        let sql = "SELECT id, status, last_seen FROM users WHERE id = ANY ($1)";
        let rows = self.query(Operation::Read, sql, &[&users]).await?;
        rows.iter()
            .map(|row| {
                let seen = row.get::<_, Option<SystemTime>>(2).map(time);
                Ok((user(row.get(0))?, Status::from_code(row.get(1)), seen))
            })
            .collect()
    }
}
