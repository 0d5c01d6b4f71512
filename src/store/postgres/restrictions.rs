//! Restrictions of users by admins.

use std::time::SystemTime;

use async_trait::async_trait;
use tokio_postgres::Row;

use super::{
    super::{
        Operation, RestrictOutcome, RestrictionRow, Restrictions, StoreError,
        codes::{RestrictCode, RestrictionCode},
        restriction_row::{Columns, parts, restriction_columns},
    },
    Postgres,
    rows::{limit_and_offset, system_time, time, unreadable},
};
use crate::model::{Page, RestrictionChange, RestrictionRequest, Timestamp, UserId};

#[async_trait]
impl Restrictions for Postgres {
    async fn restrict(
        &self,
        user: &UserId,
        request: &RestrictionRequest,
        by: &str,
        limit: u32,
    ) -> Result<RestrictOutcome, StoreError> {
        let (kind, token, until) = parts(request);
        let (kind, limit) = (i16::from(kind), i64::from(limit));
        let sql = "SELECT o_id, o_kind, o_user, o_token, o_issued_until, o_at, o_by, o_outcome \
             FROM restrict_user($1, $2, $3, $4, $5, $6)";
        let rows = self.query(Operation::Write, sql, &[&kind, &user.as_str(), &token, &until, &by, &limit]).await?;
        let row = rows.first().ok_or_else(|| StoreError::Failed("restrict_user returned no row".into()))?;
        Ok(match RestrictCode::try_from(row.get::<_, i16>(7)).map_err(|error| unreadable(&error))? {
            RestrictCode::Changed => RestrictOutcome::Changed(change(row)?),
            RestrictCode::Unchanged if row.get::<_, Option<i64>>(0).is_none() => RestrictOutcome::Unchanged(None),
            RestrictCode::Unchanged => RestrictOutcome::Unchanged(Some(change(row)?)),
            RestrictCode::TooMany => RestrictOutcome::TooMany,
        })
    }

    async fn restriction_changes(&self, from: i64, limit: u32) -> Result<Vec<RestrictionRow>, StoreError> {
        let sql =
            concat!("SELECT ", restriction_columns!(), " FROM restriction_changes WHERE id >= $1 ORDER BY id LIMIT $2");
        let rows = self.query(Operation::Relay, sql, &[&from, &i64::from(limit)]).await?;
        Ok(rows.iter().map(|row| columns(row).into()).collect())
    }

    async fn standing_restrictions(&self, after: i64, limit: u32) -> Result<Vec<RestrictionRow>, StoreError> {
        let sql = concat!(
            "SELECT ",
            restriction_columns!(),
            " FROM restriction_changes WHERE standing AND id > $1 ORDER BY id LIMIT $2"
        );
        let rows = self.query(Operation::Relay, sql, &[&after, &i64::from(limit)]).await?;
        Ok(rows.iter().map(|row| columns(row).into()).collect())
    }

    async fn block_of(&self, user: &UserId) -> Result<Option<RestrictionChange>, StoreError> {
        let sql = concat!(
            "SELECT ",
            restriction_columns!(),
            " FROM restriction_changes WHERE standing AND user_id = $1 AND kind = $2"
        );
        let kind = i16::from(RestrictionCode::Blocked);
        let rows = self.query(Operation::Read, sql, &[&user.as_str(), &kind]).await?;
        rows.first().map(change).transpose()
    }

    async fn blocked_users(&self, page: Page) -> Result<(Vec<RestrictionChange>, i64), StoreError> {
        let kind = i16::from(RestrictionCode::Blocked);
        let sql = concat!(
            "SELECT ",
            restriction_columns!(),
            " FROM restriction_changes WHERE standing AND kind = $1 ORDER BY user_id LIMIT $2 OFFSET $3"
        );
        let (limit, offset) = limit_and_offset(page);
        let rows = self.query(Operation::List, sql, &[&kind, &limit, &offset]).await?;
        let users = rows.iter().map(change).collect::<Result<_, _>>()?;
        let sql = "SELECT count(*) FROM restriction_changes WHERE standing AND kind = $1";
        let total = self.query(Operation::List, sql, &[&kind]).await?;
        Ok((users, total.first().map_or(0, |row| row.get(0))))
    }

    async fn prune_restrictions(&self, over: Timestamp, made_before: Timestamp) -> Result<u64, StoreError> {
        let sql = "SELECT prune_restrictions($1, $2)";
        let rows = self.query(Operation::Write, sql, &[&system_time(over), &system_time(made_before)]).await?;
        Ok(rows.first().map_or(0, |row| row.get::<_, i64>(0).unsigned_abs()))
    }
}

fn columns(row: &Row) -> Columns {
    Columns {
        id: row.get(0),
        kind: row.get(1),
        user: row.get(2),
        token: row.get(3),
        issued_until: row.get(4),
        at: time(row.get::<_, SystemTime>(5)),
        by: row.get(6),
    }
}

fn change(row: &Row) -> Result<RestrictionChange, StoreError> {
    RestrictionChange::try_from(columns(row)).map_err(|error| unreadable(&error))
}
