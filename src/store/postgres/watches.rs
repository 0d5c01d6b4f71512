//! The signs of life of nodes, and what was stored since a time.

use std::time::Duration;

use async_trait::async_trait;

use super::{
    super::{Operation, StoreError, TakenWatch, Waiting, Watches},
    Postgres,
    rows::conversation_id,
};
use crate::model::{ConversationId, LogId, Seq};

const SIGN: &str = "INSERT INTO watches (process, signed_at, done_until) \
         VALUES ($1, clock_timestamp(), clock_timestamp() - make_interval(secs => $2)) \
     ON CONFLICT (process) DO UPDATE SET signed_at = excluded.signed_at, done_until = excluded.done_until, \
         taken_until = NULL";
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

#[async_trait]
impl Watches for Postgres {
    async fn sign_watch(&self, process: &str, behind: Duration) -> Result<(), StoreError> {
        self.query(Operation::Write, SIGN, &[&process, &behind.as_secs_f64()]).await.map(drop)
    }

    async fn end_watch(&self, process: &str) -> Result<(), StoreError> {
        self.query(Operation::Write, "DELETE FROM watches WHERE process = $1", &[&process]).await.map(drop)
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
