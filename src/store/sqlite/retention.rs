//! Removal of entries that are older than they are kept, and the work that one node does for all. As on PostgreSQL, where
//! `remove_aged` is a function of the database.

use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use super::{
    super::{
        AgedLog, AgedPage, Job, JobTurn, Operation, RemovedEntries, Retention, StoreError,
        row::{deletions, messages_between, removed},
    },
    Sqlite,
    logs::head,
    now,
    rows::{id, micros},
};
use crate::model::{ConversationId, LogId, RetentionDays, Seq, Timestamp};

/// The time of the first entry of a log that is kept.
const FIRST_KEPT: &str = "SELECT created_at FROM log WHERE log = ?1 AND seq > ?2 ORDER BY seq LIMIT 1";
const LOGS: &str = "SELECT h.log, h.removed_seq, coalesce(c.retention_days, ?3) FROM ( \
         SELECT log, removed_seq FROM heads WHERE log > ?1 ORDER BY log LIMIT ?2 \
     ) h LEFT JOIN conversations c ON c.id = h.log ORDER BY h.log";
const LOGS_WITH_OWN_RULE: &str = "SELECT h.log, h.removed_seq, c.retention_days FROM conversations c \
     JOIN heads h ON h.log = c.id WHERE c.retention_days > 0 AND c.id > ?1 AND ?3 = 0 ORDER BY c.id LIMIT ?2";

#[async_trait]
impl Retention for Sqlite {
    async fn take_job(&self, job: Job, holder: &str, span: Duration, every: Duration) -> Result<JobTurn, StoreError> {
        let holder = holder.to_owned();
        self.write(Operation::Upkeep, move |db| take(db, job, &holder, micros(span), micros(every))).await
    }

    async fn finish_job(&self, job: Job, holder: &str) -> Result<bool, StoreError> {
        let holder = holder.to_owned();
        let sql = "UPDATE upkeep SET held_until = ?3, done_at = ?3 WHERE job = ?1 AND holder = ?2";
        self.write(Operation::Upkeep, move |db| Ok(db.execute(sql, params![job.label(), holder, now()])? > 0)).await
    }

    async fn aged(
        &self,
        default: RetentionDays,
        at: Timestamp,
        after: Option<&LogId>,
        limit: u32,
    ) -> Result<AgedPage, StoreError> {
        let after = after.map_or_else(String::new, ToString::to_string);
        let found = self.read(Operation::Upkeep, move |db| first_entries(db, default, &after, limit)).await?;
        Ok(AgedPage::of(found, at, limit))
    }

    async fn remove_aged(&self, logs: &[AgedLog], limit: u32) -> Result<Vec<RemovedEntries>, StoreError> {
        let logs = logs.to_vec();
        self.write(Operation::Upkeep, move |db| {
            let (mut left, mut removed) = (i64::from(limit), Vec::new());
            for aged in logs {
                if left <= 0 {
                    break;
                }
                if let Some((count, more)) = remove(db, &aged, left)? {
                    left -= count;
                    removed.push(RemovedEntries { log: aged.log, removed: count.unsigned_abs(), more });
                }
            }
            Ok(removed)
        })
        .await
    }

    async fn retention(&self, of: &ConversationId) -> Result<Option<Option<RetentionDays>>, StoreError> {
        let of = of.clone();
        self.read(Operation::Read, move |db| {
            let sql = "SELECT retention_days FROM conversations WHERE id = ?1";
            let read = |row: &Row<'_>| Ok(row.get::<_, Option<u32>>(0)?.and_then(RetentionDays::new));
            db.prepare_cached(sql)?.query_row([of.as_str()], read).optional()
        })
        .await
    }

    async fn set_retention(&self, of: &ConversationId, days: Option<RetentionDays>) -> Result<bool, StoreError> {
        let of = of.clone();
        let sql = "UPDATE conversations SET retention_days = ?2 WHERE id = ?1";
        self.write(Operation::Write, move |db| {
            Ok(db.execute(sql, params![of.as_str(), days.map(RetentionDays::get)])? > 0)
        })
        .await
    }
}

fn take(db: &Connection, job: Job, holder: &str, span: i64, every: i64) -> Result<JobTurn> {
    let at = now();
    let sql = "INSERT INTO upkeep (job, holder, held_until) VALUES (?1, ?2, ?3) ON CONFLICT (job) DO UPDATE \
         SET holder = excluded.holder, held_until = excluded.held_until \
         WHERE (holder = ?2 OR held_until <= ?4) AND (done_at IS NULL OR done_at <= ?5)";
    let taken = params![job.label(), holder, at.saturating_add(span), at, at.saturating_sub(every)];
    let held = db.execute(sql, taken)? > 0;
    let sql = "SELECT done_at FROM upkeep WHERE job = ?1";
    let done_at: Option<i64> = db.query_row(sql, [job.label()], |row| row.get(0))?;
    Ok(JobTurn { held, at: Timestamp::from_micros(at), done_at: done_at.map(Timestamp::from_micros) })
}

/// The next logs, each with the time of its first entry and its rule.
fn first_entries(
    db: &Connection,
    default: RetentionDays,
    after: &str,
    limit: u32,
) -> Result<Vec<(LogId, Option<Timestamp>, RetentionDays)>> {
    let sql = if default == RetentionDays::FOR_EVER { LOGS_WITH_OWN_RULE } else { LOGS };
    let read = |row: &Row<'_>| {
        let days = RetentionDays::new(row.get(2)?).unwrap_or_default();
        Ok((id(LogId::parse(&row.get::<_, String>(0)?))?, row.get::<_, Seq>(1)?, days))
    };
    let logs: Vec<_> =
        db.prepare_cached(sql)?.query_map(params![after, limit, default.get()], read)?.collect::<Result<_>>()?;
    let mut first = db.prepare_cached(FIRST_KEPT)?;
    let mut found = Vec::with_capacity(logs.len());
    for (log, gone, days) in logs {
        let at = first.query_row(params![log.as_str(), gone], |row| row.get(0)).optional()?;
        found.push((log, at.map(Timestamp::from_micros), days));
    }
    Ok(found)
}

/// Removes the aged entries at the beginning of a log, at most `limit`. Returns their number, and whether there may be more;
/// `None` if there is nothing to remove.
fn remove(db: &Connection, AgedLog { log: of, before, .. }: &AgedLog, limit: i64) -> Result<Option<(i64, bool)>> {
    let Some(head) = head(db, of)? else { return Ok(None) };
    let sql = "SELECT min(CASE WHEN created_at >= ?3 THEN seq END), max(seq) FROM ( \
         SELECT seq, created_at FROM log WHERE log = ?1 AND seq > ?2 ORDER BY seq LIMIT ?4)";
    let parameters = params![of.as_str(), head.removed, before.micros(), limit];
    let read = |row: &Row<'_>| Ok((row.get::<_, Option<Seq>>(0)?, row.get::<_, Option<Seq>>(1)?));
    let (young, last) = db.prepare_cached(sql)?.query_row(parameters, read)?;
    let Some(upto) = young.map(|young| young - 1).or(last).filter(|upto| *upto > head.removed) else {
        return Ok(None);
    };
    let (log, end) = (of.as_str(), params![of.as_str(), upto]);
    let sql = "SELECT message_no FROM log WHERE log = ?1 AND seq <= ?2 ORDER BY seq DESC LIMIT 1";
    let Some(messages) = db.prepare_cached(sql)?.query_row(end, |row| row.get::<_, i64>(0)).optional()? else {
        return Ok(None);
    };
    let sql = "UPDATE heads SET removed_seq = ?2, removed_no = ?3 WHERE log = ?1";
    db.prepare_cached(sql)?.execute(params![log, upto, messages])?;
    let count = db.prepare_cached("DELETE FROM log WHERE log = ?1 AND seq <= ?2")?.execute(end)? as i64;
    if of.conversation().is_some() {
        for sql in [
            "DELETE FROM words WHERE rowid IN (SELECT id FROM worded WHERE log = ?1 AND seq <= ?2)",
            "DELETE FROM worded WHERE log = ?1 AND seq <= ?2",
            "DELETE FROM reactions WHERE log = ?1 AND seq <= ?2",
            "DELETE FROM notification_posts WHERE id IN ( \
                 SELECT id FROM notifications WHERE conversation = ?1 AND last_seq <= ?2)",
            "DELETE FROM notifications WHERE conversation = ?1 AND last_seq <= ?2",
            concat!(
                "UPDATE notifications AS n SET from_seq = ?2 + 1, count = ",
                messages_between!("?1", "?2 + 1", "n.last_seq"),
                " WHERE conversation = ?1 AND last_seq > ?2 AND from_seq <= ?2"
            ),
        ] {
            db.prepare_cached(sql)?.execute(end)?;
        }
    }
    Ok(Some((count, young.is_none() && count >= limit)))
}
