//! The signs of life of processes, and what was stored since a time.

use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use super::{
    super::{LIVING_MAX, LivingNode, Operation, StoreError, TakenWatch, Waiting, Watches},
    Sqlite, now,
    rows::{id, micros},
};
use crate::model::{ConversationId, LogId, NodeId, Seq};

/// A page of conversations with their messages, and the last name that was looked at, unless it is the last one.
type Grown = (Vec<(ConversationId, Waiting)>, Option<LogId>);

#[async_trait]
impl Watches for Sqlite {
    async fn sign_watch(&self, process: &str, behind: Duration) -> Result<(), StoreError> {
        let process = process.to_owned();
        let sql = "INSERT INTO watches (process, signed_at, done_until) VALUES (?1, ?2, ?3) ON CONFLICT (process) \
             DO UPDATE SET signed_at = excluded.signed_at, done_until = excluded.done_until, taken_until = NULL";
        self.write(Operation::Write, move |db| {
            let at = now();
            db.prepare_cached(sql)?.execute(params![process, at, at.saturating_sub(micros(behind))]).map(drop)
        })
        .await
    }

    async fn end_watch(&self, process: &str) -> Result<(), StoreError> {
        let process = process.to_owned();
        let sql = "DELETE FROM watches WHERE process = ?1";
        self.write(Operation::Write, move |db| db.execute(sql, [&process]).map(drop)).await
    }

    async fn living(&self, span: Duration) -> Result<Vec<LivingNode>, StoreError> {
        let sql = "SELECT process, signed_at FROM watches WHERE signed_at > ?1 ORDER BY process LIMIT ?2";
        let read = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?));
        self.read(Operation::Relay, move |db| {
            let at = now();
            let rows: Vec<_> = db
                .prepare_cached(sql)?
                .query_map(params![at.saturating_sub(micros(span)), LIVING_MAX as i64], read)?
                .collect::<Result<_>>()?;
            let living = |(process, signed_at): (String, i64)| {
                let node = NodeId::parse(process.split_once('#')?.0).ok()?;
                let signed_ago = Duration::from_micros(at.saturating_sub(signed_at).max(0).unsigned_abs());
                // A node on SQLite has a store of its own, where nobody relays.
                Some(LivingNode { node, signed_ago, alone: false })
            };
            Ok(rows.into_iter().filter_map(living).collect())
        })
        .await
    }

    async fn take_watch(&self, by: &str, lapse: Duration, claim: Duration) -> Result<Option<TakenWatch>, StoreError> {
        let by = by.to_owned();
        self.write(Operation::Write, move |db| take(db, &by, micros(lapse), micros(claim))).await
    }

    async fn grown_within(
        &self,
        span: Duration,
        after: Option<&LogId>,
        limit: u32,
    ) -> Result<(Vec<(ConversationId, Waiting)>, Option<LogId>), StoreError> {
        let after = after.map_or_else(String::new, ToString::to_string);
        self.read(Operation::Write, move |db| grown(db, now().saturating_sub(micros(span)), &after, limit)).await
    }
}

/// Takes the row of a process that gave no sign for `lapse` microseconds.
fn take(db: &Connection, by: &str, lapse: i64, claim: i64) -> Result<Option<TakenWatch>> {
    let at = now();
    let sql = "SELECT process, done_until FROM watches \
         WHERE process <> ?1 AND signed_at < ?2 AND coalesce(taken_until, 0) < ?3 ORDER BY signed_at LIMIT 1";
    let read = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?));
    let lapsed = db.prepare_cached(sql)?.query_row(params![by, at.saturating_sub(lapse), at], read).optional()?;
    let Some((process, done_until)) = lapsed else { return Ok(None) };
    db.prepare_cached("UPDATE watches SET taken_until = ?2 WHERE process = ?1")?
        .execute(params![process, at.saturating_add(claim)])?;
    let behind = Duration::from_micros(at.saturating_sub(done_until).max(0).unsigned_abs());
    Ok(Some(TakenWatch { process, behind }))
}

/// The conversations with messages since `since`, in order of their names after `after`, and the last name that was looked
/// at, unless it is the last one.
fn grown(db: &Connection, since: i64, after: &str, limit: u32) -> Result<Grown> {
    let sql = "SELECT log, seq FROM heads WHERE updated_at >= ?1 AND log > ?2 AND log < '~' ORDER BY log LIMIT ?3";
    let read = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, Seq>(1)?));
    let heads: Vec<_> =
        db.prepare_cached(sql)?.query_map(params![since, after, limit], read)?.collect::<Result<_>>()?;
    let sql = "SELECT min(seq) FROM (SELECT seq, kind, created_at FROM log WHERE log = ?1 ORDER BY seq DESC LIMIT 10000) \
         WHERE kind = 0 AND created_at >= ?2";
    let mut first = db.prepare_cached(sql)?;
    let (full, mut grown, mut end) = (heads.len() >= limit as usize, Vec::new(), None);
    for (log, last) in heads {
        let conversation = id(ConversationId::parse(&log))?;
        end = Some(LogId::from(&conversation));
        if let Some(first) = first.query_row(params![log, since], |row| row.get::<_, Option<Seq>>(0))? {
            grown.push((conversation, Waiting { first, last }));
        }
    }
    Ok((grown, end.filter(|_| full)))
}
