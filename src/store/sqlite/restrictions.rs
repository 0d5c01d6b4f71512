//! Restrictions of users by admins.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use super::{
    super::{
        Operation, RestrictOutcome, RestrictionRow, Restrictions, StoreError,
        codes::RestrictionCode,
        restriction_row::{Columns, parts, restriction_columns},
    },
    Sqlite, now,
    rows::{time, unreadable},
};
use crate::model::{Page, Restriction, RestrictionChange, RestrictionRequest, Timestamp, UserId};

/// A revocation that repeats one this recent changes nothing. A later one is recorded anew: revocations count, and are
/// removed, by the time at which they were made.
const REPEATED_WITHIN_MICROS: i64 = 1_800_000_000;

#[async_trait]
impl Restrictions for Sqlite {
    async fn restrict(
        &self,
        user: &UserId,
        request: &RestrictionRequest,
        by: &str,
        limit: u32,
    ) -> Result<RestrictOutcome, StoreError> {
        let (user, request, by) = (user.clone(), request.clone(), by.to_owned());
        self.write(Operation::Write, move |db| restrict(db, &user, &request, &by, limit)).await
    }

    async fn restriction_changes(&self, from: i64, limit: u32) -> Result<Vec<RestrictionRow>, StoreError> {
        let sql =
            concat!("SELECT ", restriction_columns!(), " FROM restriction_changes WHERE id >= ?1 ORDER BY id LIMIT ?2");
        self.read(Operation::Read, move |db| rows(db, sql, from, limit)).await
    }

    async fn standing_restrictions(&self, after: i64, limit: u32) -> Result<Vec<RestrictionRow>, StoreError> {
        let sql = concat!(
            "SELECT ",
            restriction_columns!(),
            " FROM restriction_changes WHERE standing AND id > ?1 ORDER BY id LIMIT ?2"
        );
        self.read(Operation::Read, move |db| rows(db, sql, after, limit)).await
    }

    async fn block_of(&self, user: &UserId) -> Result<Option<RestrictionChange>, StoreError> {
        let user = user.clone();
        self.read(Operation::Read, move |db| standing(db, &user, RestrictionCode::Blocked, None)).await
    }

    async fn blocked_users(&self, page: Page) -> Result<(Vec<RestrictionChange>, i64), StoreError> {
        self.read(Operation::List, move |db| {
            let kind = i16::from(RestrictionCode::Blocked);
            let sql = concat!(
                "SELECT ",
                restriction_columns!(),
                " FROM restriction_changes WHERE standing AND kind = ?1 ORDER BY user_id LIMIT ?2 OFFSET ?3"
            );
            let mut statement = db.prepare_cached(sql)?;
            let users = statement.query_map(params![kind, page.limit.get(), page.offset.get()], change)?;
            let users = users.collect::<Result<_>>()?;
            let sql = "SELECT count(*) FROM restriction_changes WHERE standing AND kind = ?1";
            Ok((users, db.prepare_cached(sql)?.query_row([kind], |row| row.get(0))?))
        })
        .await
    }

    async fn prune_restrictions(&self, over: Timestamp, made_before: Timestamp) -> Result<u64, StoreError> {
        self.write(Operation::Write, move |db| {
            let sql = "DELETE FROM restriction_changes WHERE id < (SELECT max(id) FROM restriction_changes) AND CASE \
                 WHEN NOT standing THEN made_at < ?1 WHEN kind IN (1, 2) THEN made_at < ?2 ELSE 0 END";
            let removed = db.execute(sql, params![over.micros(), made_before.micros()])?;
            Ok(removed as u64)
        })
        .await
    }
}

fn restrict(
    db: &Connection,
    user: &UserId,
    request: &RestrictionRequest,
    by: &str,
    limit: u32,
) -> Result<RestrictOutcome> {
    let at = now();
    let (kind, token, until) = parts(request);
    let mut until = (kind == RestrictionCode::Revoked).then(|| until.unwrap_or(at.div_euclid(1_000_000)));
    let replaced = if kind == RestrictionCode::Unblocked { RestrictionCode::Blocked } else { kind };
    let old = standing(db, user, replaced, token)?;
    let repeated = old.as_ref().is_some_and(|old| old.at.micros() > at.saturating_sub(REPEATED_WITHIN_MICROS));
    let before = old.as_ref().and_then(|old| match old.restriction {
        Restriction::Revoked { issued_until } => Some(issued_until.seconds()),
        _ => None,
    });
    let unchanged = match kind {
        RestrictionCode::Disconnected => false,
        RestrictionCode::Revoked => before >= until && repeated,
        RestrictionCode::TokenRevoked => repeated,
        RestrictionCode::Blocked => old.is_some(),
        RestrictionCode::Unblocked => old.is_none(),
    };
    if unchanged {
        return Ok(RestrictOutcome::Unchanged(old));
    }
    let stands = matches!(kind, RestrictionCode::Revoked | RestrictionCode::TokenRevoked | RestrictionCode::Blocked);
    if stands && old.is_none() {
        let sql = "SELECT count(*) FROM restriction_changes WHERE standing";
        let count: u32 = db.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
        if count >= limit {
            return Ok(RestrictOutcome::TooMany);
        }
    }
    until = until.max(before);
    if let Some(old) = old {
        db.execute("UPDATE restriction_changes SET standing = 0 WHERE id = ?1", [old.id])?;
    }
    let sql = "INSERT INTO restriction_changes (kind, user_id, token, issued_until, standing, made_at, made_by) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    db.execute(sql, params![i16::from(kind), user.as_str(), token, until, stands, at, by])?;
    let sql = concat!("SELECT ", restriction_columns!(), " FROM restriction_changes WHERE id = ?1");
    db.query_row(sql, [db.last_insert_rowid()], change).map(RestrictOutcome::Changed)
}

/// The standing restriction of this kind; of a token if one is given.
fn standing(
    db: &Connection,
    user: &UserId,
    kind: RestrictionCode,
    token: Option<&str>,
) -> Result<Option<RestrictionChange>> {
    let sql = concat!(
        "SELECT ",
        restriction_columns!(),
        " FROM restriction_changes WHERE standing AND user_id = ?1 AND kind = ?2 AND token IS ?3"
    );
    db.prepare_cached(sql)?.query_row(params![user.as_str(), i16::from(kind), token], change).optional()
}

fn rows(db: &Connection, sql: &str, id: i64, limit: u32) -> Result<Vec<RestrictionRow>> {
    db.prepare_cached(sql)?.query_map([id, i64::from(limit)], |row| columns(row).map(RestrictionRow::from))?.collect()
}

fn columns(row: &Row<'_>) -> Result<Columns> {
    Ok(Columns {
        id: row.get(0)?,
        kind: row.get(1)?,
        user: row.get(2)?,
        token: row.get(3)?,
        issued_until: row.get(4)?,
        at: time(row, 5)?,
        by: row.get(6)?,
    })
}

fn change(row: &Row<'_>) -> Result<RestrictionChange> {
    RestrictionChange::try_from(columns(row)?).map_err(unreadable)
}
