//! Users who ask for hints: a socket of theirs does not listen to all the conversations that it would join by itself. A
//! node that stores a message reads who of the members asked.
//!
//! A request lapses by itself, so that it ends with the node that made it.

use std::{sync::Arc, time::Duration};

use redis::Pipeline;

use super::{
    keys,
    lease::Lease,
    link::{Link, LinkError},
    ops::Op,
};
use crate::model::UserId;

/// Time after which a request lapses unless it is made again.
const TTL: Duration = Duration::from_secs(90);
/// Number of users per pipeline.
const BATCH: usize = 500;

/// The requests in Redis.
pub(super) struct Hints {
    pub(super) link: Arc<Link>,
    pub(super) lease: Arc<Lease>,
}

impl Hints {
    /// Asks for hints for these users, for 90 s.
    pub(super) async fn ask(&self, users: &[UserId]) {
        let now = self.lease.redis_micros() / 1_000;
        let until = now.saturating_add(i64::try_from(TTL.as_millis()).unwrap_or(i64::MAX));
        for batch in users.chunks(BATCH) {
            let mut pipeline = Pipeline::new();
            for user in batch {
                pipeline.cmd("ZADD").arg(keys::HINTS).arg(until).arg(user.as_str());
            }
            pipeline.cmd("EXPIRE").arg(keys::HINTS).arg(2 * TTL.as_secs());
            pipeline.cmd("ZRANGEBYSCORE").arg(keys::HINTS).arg("-inf").arg(now).arg("LIMIT").arg(0).arg(BATCH);
            let lapsed = self.link.run(Op::Hints, keys::HINTS, &pipeline).await;
            // If a call fails, the next one asks again.
            let Ok(lapsed) = lapsed.and_then(|mut replies| replies.take::<Vec<String>>(batch.len() + 1)) else {
                return;
            };
            if !lapsed.is_empty() {
                let mut pipeline = Pipeline::new();
                pipeline.cmd("ZREM").arg(keys::HINTS).arg(lapsed);
                let _ = self.link.run(Op::Hints, keys::HINTS, &pipeline).await;
            }
        }
    }

    /// For each user, true if they asked. While Redis is unavailable, nobody did.
    pub(super) async fn asked(&self, users: &[UserId]) -> Vec<bool> {
        self.read(users).await.unwrap_or_else(|_| vec![false; users.len()])
    }

    async fn read(&self, users: &[UserId]) -> Result<Vec<bool>, LinkError> {
        let now = self.lease.redis_micros() / 1_000;
        let mut any = Pipeline::new();
        any.cmd("ZRANGEBYSCORE").arg(keys::HINTS).arg(now).arg("+inf").arg("LIMIT").arg(0).arg(1);
        // Usually nobody asked, and one command is all.
        if self.link.query(Op::Hints, &any).await?.take::<Vec<String>>(0)?.is_empty() {
            return Ok(vec![false; users.len()]);
        }
        let mut asked = Vec::with_capacity(users.len());
        for batch in users.chunks(BATCH) {
            let mut pipeline = Pipeline::new();
            for user in batch {
                pipeline.cmd("ZSCORE").arg(keys::HINTS).arg(user.as_str());
            }
            let mut replies = self.link.query(Op::Hints, &pipeline).await?;
            for index in 0..batch.len() {
                let until: Option<f64> = replies.take(index)?;
                asked.push(until.is_some_and(|until| until >= now as f64));
            }
        }
        Ok(asked)
    }
}
