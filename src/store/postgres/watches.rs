//! The signs of life of nodes, and what was stored since a time.

use std::time::Duration;

use async_trait::async_trait;
use tokio_postgres::Row;

use super::{
    super::{LIVING_MAX, LivingNode, Operation, StoreError, TakenWatch, Waiting, Watches},
    Postgres,
    rows::conversation_id,
};
use crate::model::{ConversationId, LogId, NodeId, Seq};

const SIGN: &str = "INSERT INTO watches (process, signed_at, done_until) \
         VALUES ($1, clock_timestamp(), clock_timestamp() - make_interval(secs => $2)) \
     ON CONFLICT (process) DO UPDATE SET signed_at = excluded.signed_at, done_until = excluded.done_until, \
         taken_until = NULL";
/// The process is the node's id and a random number; no id has this letter.
pub(super) const LIVING: &str = "SELECT split_part(w.process, '#', 1), \
         extract(epoch FROM clock_timestamp() - w.signed_at)::double precision, \
         EXISTS (SELECT FROM alone a WHERE a.node = split_part(w.process, '#', 1) AND a.until > clock_timestamp()) \
     FROM watches w WHERE w.signed_at > clock_timestamp() - make_interval(secs => $1) ORDER BY w.process LIMIT $2";
const TAKE: &str = "UPDATE watches w SET taken_until = clock_timestamp() + make_interval(secs => $3) \
     FROM ( \
         SELECT process FROM watches WHERE process <> $1 AND signed_at < clock_timestamp() - make_interval(secs => $2) \
             AND (taken_until IS NULL OR taken_until < clock_timestamp()) \
         ORDER BY signed_at LIMIT 1 FOR UPDATE SKIP LOCKED \
     ) lapsed WHERE w.process = lapsed.process \
     RETURNING w.process, extract(epoch FROM clock_timestamp() - w.done_until)::double precision";
/// Reads all heads once for each page; there is no index on their times, which each append would have to keep.
const GROWN: &str = "WITH grown AS MATERIALIZED ( \
         SELECT log, seq FROM heads \
         WHERE updated_at >= clock_timestamp() - make_interval(secs => $1) AND log > $2 AND log < '~' \
         ORDER BY log LIMIT $3 \
     ) \
     SELECT g.log, g.seq, (SELECT min(l.seq) FROM ( \
             SELECT seq, kind, created_at FROM log WHERE log = g.log ORDER BY seq DESC LIMIT 10000 \
         ) l WHERE l.kind = 0 AND l.created_at >= clock_timestamp() - make_interval(secs => $1)) \
     FROM grown g ORDER BY g.log";

/// A row of [`LIVING`]; `None` if no node wrote it.
pub(super) fn living_node(row: &Row) -> Option<LivingNode> {
    let node = NodeId::parse(row.get(0)).ok()?;
    Some(LivingNode {
        node,
        signed_ago: Duration::try_from_secs_f64(row.get(1)).unwrap_or_default(),
        alone: row.get(2),
    })
}

#[async_trait]
impl Watches for Postgres {
    async fn sign_watch(&self, process: &str, behind: Duration) -> Result<(), StoreError> {
        self.query(Operation::Write, SIGN, &[&process, &behind.as_secs_f64()]).await.map(drop)
    }

    async fn end_watch(&self, process: &str) -> Result<(), StoreError> {
        self.query(Operation::Write, "DELETE FROM watches WHERE process = $1", &[&process]).await.map(drop)
    }

    async fn living(&self, span: Duration) -> Result<Vec<LivingNode>, StoreError> {
        let limit = i64::try_from(LIVING_MAX).unwrap_or(i64::MAX);
        let rows = self.query(Operation::Relay, LIVING, &[&span.as_secs_f64(), &limit]).await?;
        Ok(rows.iter().filter_map(living_node).collect())
    }

    async fn take_watch(&self, by: &str, lapse: Duration, claim: Duration) -> Result<Option<TakenWatch>, StoreError> {
        let rows = self.query(Operation::Write, TAKE, &[&by, &lapse.as_secs_f64(), &claim.as_secs_f64()]).await?;
        Ok(rows.first().map(|row| TakenWatch {
            process: row.get(0),
            behind: Duration::try_from_secs_f64(row.get(1)).unwrap_or_default(),
        }))
    }

    async fn grown_within(
        &self,
        span: Duration,
        after: Option<&LogId>,
        limit: u32,
    ) -> Result<(Vec<(ConversationId, Waiting)>, Option<LogId>), StoreError> {
        let after = after.map_or("", LogId::as_str);
        let rows = self.query(Operation::Write, GROWN, &[&span.as_secs_f64(), &after, &i64::from(limit)]).await?;
        let (mut grown, mut last) = (Vec::new(), None);
        for row in &rows {
            let conversation = conversation_id(row.get(0))?;
            last = Some(LogId::from(&conversation));
            if let Some(first) = row.get::<_, Option<Seq>>(2) {
                grown.push((conversation, Waiting { first, last: row.get(1) }));
            }
        }
        Ok((grown, last.filter(|_| rows.len() >= limit as usize)))
    }
}
