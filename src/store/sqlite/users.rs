//! Users: display names, statuses and last-seen times.

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Result, Row};

use super::{
    super::{Operation, StoreError, Users, row::LATE_DEPARTURE},
    Sqlite, now,
    rows::micros,
};
use crate::model::{Status, Timestamp, UserId};

#[async_trait]
impl Users for Sqlite {
    async fn know(&self, users: &[(UserId, Arc<str>)]) -> Result<(), StoreError> {
        let users = users.to_vec();
        self.write(Operation::Write, move |db| {
            let sql =
                "INSERT INTO users (id, name) VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET name = excluded.name";
            users
                .iter()
                .try_for_each(|(user, name)| db.prepare_cached(sql)?.execute((user.as_str(), &**name)).map(drop))
        })
        .await
    }

    async fn set_status(&self, user: &UserId, status: Status) -> Result<(), StoreError> {
        let user = user.clone();
        let sql = "UPDATE users SET status = ?2 WHERE id = ?1";
        self.write(Operation::Write, move |db| db.execute(sql, (user.as_str(), status.code())).map(drop)).await
    }

    async fn seen(&self, users: &[UserId], at: Timestamp) -> Result<(), StoreError> {
        let users = users.to_vec();
        self.write(Operation::Write, move |db| {
            let sql = "UPDATE users SET last_seen = max(coalesce(last_seen, 0), ?2) WHERE id = ?1 AND status <> ?3 \
                 AND NOT EXISTS (SELECT 1 FROM erasures e WHERE e.user_id = users.id AND e.requested_at > ?4)";
            let (hidden, lately) = (Status::Invisible.code(), now().saturating_sub(micros(LATE_DEPARTURE)));
            users.iter().try_for_each(|user| db.execute(sql, (user.as_str(), at.micros(), hidden, lately)).map(drop))
        })
        .await
    }

    async fn names(&self, users: &[UserId]) -> Result<Vec<(UserId, Arc<str>)>, StoreError> {
        let users = users.to_vec();
        self.read(Operation::Read, move |db| names(db, users)).await
    }

    async fn statuses(&self, users: &[UserId]) -> Result<Vec<(UserId, Status, Option<Timestamp>)>, StoreError> {
        let users = users.to_vec();
        self.read(Operation::Read, move |db| statuses(db, users)).await
    }
}

fn names(db: &Connection, users: Vec<UserId>) -> Result<Vec<(UserId, Arc<str>)>> {
    let mut statement = db.prepare_cached("SELECT name FROM users WHERE id = ?1")?;
    let mut found = Vec::with_capacity(users.len());
    for user in users {
        if let Some(name) = statement.query_row([user.as_str()], |row| row.get::<_, String>(0)).optional()? {
            found.push((user, name.into()));
        }
    }
    Ok(found)
}

fn statuses(db: &Connection, users: Vec<UserId>) -> Result<Vec<(UserId, Status, Option<Timestamp>)>> {
    let mut statement = db.prepare_cached("SELECT status, last_seen FROM users WHERE id = ?1")?;
    let mut found = Vec::with_capacity(users.len());
    for user in users {
        let read = |row: &Row<'_>| Ok((row.get(0)?, row.get::<_, Option<i64>>(1)?));
        if let Some((status, seen)) = statement.query_row([user.as_str()], read).optional()? {
            found.push((user, Status::from_code(status), seen.map(Timestamp::from_micros)));
        }
    }
    Ok(found)
}
