//! Removal of entries that are older than they are kept, and the work that one node does for all.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio_postgres::Row;

use super::{
    super::{AgedLog, AgedPage, Job, JobTurn, Operation, RemovedEntries, Retention, StoreError},
    Postgres,
    rows::{log, system_time, time, unreadable},
};
use crate::model::{ConversationId, LogId, RetentionDays, Timestamp};

/// The columns of a log `h` with the time of its first entry `f` that is kept.
macro_rules! first_kept {
    () => {
        " LEFT JOIN LATERAL (SELECT l.created_at FROM log l WHERE l.log = h.log AND l.seq > h.removed_seq \
             ORDER BY l.seq LIMIT 1) f ON true "
    };
}

/// All logs.
const AGED: &str = concat!(
    "SELECT h.log, f.created_at, coalesce((SELECT c.retention_days FROM conversations c WHERE c.id = h.log), $3) FROM ( \
         SELECT log, removed_seq FROM heads WHERE log > $1 ORDER BY log LIMIT $2 \
     ) h",
    first_kept!(),
    "ORDER BY h.log"
);
/// The conversations with a rule of their own.
const AGED_BY_OWN_RULE: &str = concat!(
    "SELECT h.log, f.created_at, c.retention_days FROM ( \
         SELECT id, retention_days FROM conversations WHERE retention_days > 0 AND id > $1 ORDER BY id LIMIT $2 \
     ) c JOIN heads h ON h.log = c.id",
    first_kept!(),
    "ORDER BY h.log"
);
const TAKE: &str = "SELECT o_held, o_at, o_done_at FROM take_upkeep($1, $2, $3, $4)";
const FINISH: &str = "UPDATE upkeep SET held_until = clock_timestamp(), done_at = clock_timestamp() \
     WHERE job = $1 AND holder = $2 RETURNING 1";
const REMOVE: &str = "SELECT o_log, o_removed, o_more FROM remove_aged($1, $2, $3)";

#[async_trait]
impl Retention for Postgres {
    async fn take_job(&self, job: Job, holder: &str, span: Duration, every: Duration) -> Result<JobTurn, StoreError> {
        let (span, every) = (span.as_secs_f64(), every.as_secs_f64());
        let rows = self.query(Operation::Upkeep, TAKE, &[&job.label(), &holder, &span, &every]).await?;
        let row = rows.first().ok_or_else(|| StoreError::Failed("take_upkeep returned no row".into()))?;
        Ok(JobTurn { held: row.get(0), at: time(row.get(1)), done_at: row.get::<_, Option<SystemTime>>(2).map(time) })
    }

    async fn finish_job(&self, job: Job, holder: &str) -> Result<bool, StoreError> {
        Ok(!self.query(Operation::Upkeep, FINISH, &[&job.label(), &holder]).await?.is_empty())
    }

    async fn aged(
        &self,
        default: RetentionDays,
        at: Timestamp,
        after: Option<&LogId>,
        limit: u32,
    ) -> Result<AgedPage, StoreError> {
        let (after, rows) = (after.map_or("", LogId::as_str), i64::from(limit));
        let rows = match i32::try_from(default.get()).unwrap_or(i32::MAX) {
            0 => self.query(Operation::Upkeep, AGED_BY_OWN_RULE, &[&after, &rows]).await?,
            days => self.query(Operation::Upkeep, AGED, &[&after, &rows, &days]).await?,
        };
        let read = |row: &Row| {
            let days = u32::try_from(row.get::<_, i32>(2)).ok().and_then(RetentionDays::new).unwrap_or_default();
            Ok((log(row.get(0))?, row.get::<_, Option<SystemTime>>(1).map(time), days))
        };
        let found = rows.iter().map(read).collect::<Result<Vec<_>, StoreError>>()?;
        Ok(AgedPage::of(found, at, limit))
    }

    async fn remove_aged(&self, logs: &[AgedLog], limit: u32) -> Result<Vec<RemovedEntries>, StoreError> {
        let names: Vec<&str> = logs.iter().map(|aged| aged.log.as_str()).collect();
        let before: Vec<SystemTime> = logs.iter().map(|aged| system_time(aged.before)).collect();
        let rows = self.query(Operation::Upkeep, REMOVE, &[&names, &before, &i64::from(limit)]).await?;
        let removed = |row: &Row| {
            let removed = row.get::<_, i64>(1).unsigned_abs();
            Ok(RemovedEntries { log: log(row.get(0))?, removed, more: row.get(2) })
        };
        rows.iter().map(removed).collect()
    }

    async fn retention(&self, of: &ConversationId) -> Result<Option<Option<RetentionDays>>, StoreError> {
        let sql = "SELECT retention_days FROM conversations WHERE id = $1";
        let rows = self.query(Operation::Read, sql, &[&of.as_str()]).await?;
        rows.first().map(|row| days(row.get(0))).transpose()
    }

    async fn set_retention(&self, of: &ConversationId, days: Option<RetentionDays>) -> Result<bool, StoreError> {
        let sql = "UPDATE conversations SET retention_days = $2 WHERE id = $1 RETURNING 1";
        let days = days.map(|days| i32::try_from(days.get()).unwrap_or(i32::MAX));
        Ok(!self.query(Operation::Write, sql, &[&of.as_str(), &days]).await?.is_empty())
    }
}

fn days(stored: Option<i32>) -> Result<Option<RetentionDays>, StoreError> {
    let Some(stored) = stored else { return Ok(None) };
    let days = u32::try_from(stored).ok().and_then(RetentionDays::new);
    days.map(Some).ok_or_else(|| unreadable(&"retention_days is out of range"))
}
