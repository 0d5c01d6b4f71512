//! Blocks between users.

use async_trait::async_trait;

use super::{
    super::{Blocks, Operation, StoreError},
    Postgres,
    rows::user,
};
use crate::model::UserId;

#[async_trait]
impl Blocks for Postgres {
    async fn block(&self, by: &UserId, other: &UserId, limit: u32) -> Result<bool, StoreError> {
        let (by, other, limit) = (by.as_str(), other.as_str(), i64::from(limit));
        let rows = self.query(Operation::Write, "SELECT block_user($1, $2, $3)", &[&by, &other, &limit]).await?;
        Ok(rows.first().is_some_and(|row| row.get(0)))
    }

    async fn unblock(&self, by: &UserId, other: &UserId) -> Result<(), StoreError> {
        let sql = "DELETE FROM blocks WHERE user_id = $1 AND blocked = $2";
        self.query(Operation::Write, sql, &[&by.as_str(), &other.as_str()]).await.map(drop)
    }

    async fn blocked(&self, by: &UserId) -> Result<Vec<UserId>, StoreError> {
        let sql = "SELECT blocked FROM blocks WHERE user_id = $1 ORDER BY blocked";
        self.query(Operation::Read, sql, &[&by.as_str()]).await?.iter().map(|row| user(row.get(0))).collect()
    }

    async fn any_blocks(&self, users: &[UserId], other: &UserId) -> Result<bool, StoreError> {
        let users: Vec<&str> = users.iter().map(UserId::as_str).collect();
        let sql = "SELECT EXISTS (SELECT FROM blocks WHERE user_id = ANY ($1) AND blocked = $2)";
        let rows = self.query(Operation::Read, sql, &[&users, &other.as_str()]).await?;
        Ok(rows.first().is_some_and(|row| row.get(0)))
    }
}
