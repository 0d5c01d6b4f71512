//! Retention: removes entries that are older than they are kept.
//!
//! One node does it for all: it holds a row of the store with a time, so another one takes over if it dies. A pass looks at all
//! logs, and removes in small transactions with pauses between them, on the connection that large writes share, so that sends
//! never wait for it. A batch that is done twice has the same outcome.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::command::{CommandReply, require_feature, unavailable};
use crate::{
    backplane::Backplane,
    degrade::{Degrade, Feature, LinkState, Part},
    metrics::Metrics,
    model::{ConversationId, LogId, Reject, Reply, Retention, RetentionDays, Timestamp},
    store::{AgedLog, Job, Store, StoreError},
    supervise::{TaskName, checkpoint},
};

/// Time for which a node has the job without renewing it. A batch takes at most 5 s.
const HOLD: Duration = Duration::from_secs(60);
/// The row is renewed before a batch or page if it is older than this.
const RENEW_AFTER: Duration = Duration::from_secs(15);
/// Entries per transaction. Appends to the conversations of one wait for it, so it must be short.
const BATCH: u32 = 500;
/// Maximum number of logs per transaction.
const BATCH_LOGS: usize = 100;
/// Logs that one read looks at.
const PAGE: u32 = 1_000;
/// Minimum pause after a transaction. It is at least twice as long as the transaction took.
const PAUSE: Duration = Duration::from_millis(25);
/// Pause after a failure, and while the store is down.
const RETRY: Duration = Duration::from_secs(10);

/// Removes what is older than it is kept.
pub(super) struct Remover {
    pub(super) store: Arc<dyn Store>,
    pub(super) backplane: Arc<Backplane>,
    pub(super) degrade: Arc<Degrade>,
    pub(super) metrics: Arc<Metrics>,
    /// The name of this process in the row of the job.
    pub(super) process: String,
    pub(super) rules: Rules,
}

/// The settings of retention.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// For conversations without a rule of their own, and inboxes.
    pub(super) default: RetentionDays,
    /// Time between two passes.
    pub(super) interval: Duration,
}

/// A pass of this process.
struct Pass {
    /// The store's time at its begin.
    at: Timestamp,
    renewed: Instant,
    /// Time of the oldest entry that is kept.
    oldest: Option<Timestamp>,
}

impl Remover {
    /// Removes until its task is stopped.
    pub(super) async fn run(&self) {
        let began = Instant::now();
        // Nodes that start together don't ask together.
        sleep(self.rules.interval.min(HOLD).mul_f64(rand::random_range(0.0..0.5))).await;
        loop {
            checkpoint(TaskName::Retention, || "");
            let pause = match self.turn(began).await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::warn!(%error, "old entries can't be removed now; retrying");
                    RETRY
                }
            };
            sleep(pause.min(self.rules.interval)).await;
        }
    }

    /// Makes a pass if one is due and no other node makes it. Returns the time until the next try.
    async fn turn(&self, began: Instant) -> Result<Duration, StoreError> {
        if self.degrade.state(Part::Store).link != LinkState::Up {
            return Ok(RETRY);
        }
        let interval = self.rules.interval;
        let turn = self.store.take_job(Job::Retention, &self.process, HOLD, interval).await?;
        let (now, done_at) = (turn.at, turn.done_at);
        // Before the first pass is done, the age is that of this node.
        let behind = done_at.map_or(began.elapsed(), |done| now.since(done));
        self.metrics.retention_done_at.set(now.seconds() - i64::try_from(behind.as_secs()).unwrap_or(i64::MAX));
        if !turn.held {
            let due_in = done_at.and_then(|done| interval.checked_sub(now.since(done)));
            return Ok(due_in.map_or(HOLD, |due_in| due_in + Duration::from_secs(1)));
        }
        let mut pass = Pass { at: now, renewed: Instant::now(), oldest: None };
        if self.pass(&mut pass).await? && self.store.finish_job(Job::Retention, &self.process).await? {
            let age = pass.oldest.map_or(Duration::ZERO, |oldest| pass.at.since(oldest));
            self.metrics.retention_oldest.set(i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
            self.metrics.retention_overdue.set(0);
            self.metrics.retention_done_at.set(now.seconds());
            tracing::debug!("everything is removed that is older than it is kept");
        }
        Ok(interval)
    }

    /// Looks at all logs. Returns false if another process has the job meanwhile.
    async fn pass(&self, pass: &mut Pass) -> Result<bool, StoreError> {
        let mut after: Option<LogId> = None;
        loop {
            if !self.renew(pass).await? {
                return Ok(false);
            }
            let page = self.store.aged(self.rules.default, pass.at, after.as_ref(), PAGE).await?;
            let overdue = page.logs.iter().map(|aged| aged.before.since(aged.oldest)).max().unwrap_or_default();
            self.metrics.retention_overdue.set(i64::try_from(overdue.as_secs()).unwrap_or(i64::MAX));
            pass.oldest = pass.oldest.into_iter().chain(page.oldest).min();
            // Heads of conversations and of inboxes are never locked by one transaction of this.
            let (conversations, inboxes): (Vec<_>, Vec<_>) =
                page.logs.into_iter().partition(|aged| aged.log.conversation().is_some());
            for logs in [conversations, inboxes] {
                if !self.remove(pass, &logs).await? {
                    return Ok(false);
                }
            }
            let Some(last) = page.last else { return Ok(true) };
            after = Some(last);
            sleep(PAUSE).await;
        }
    }

    /// Removes the aged entries of logs. Returns false if another process has the job meanwhile.
    async fn remove(&self, pass: &mut Pass, mut logs: &[AgedLog]) -> Result<bool, StoreError> {
        while !logs.is_empty() {
            if !self.renew(pass).await? {
                return Ok(false);
            }
            let began = Instant::now();
            let batch = &logs[..logs.len().min(BATCH_LOGS)];
            let removed = self.store.remove_aged(batch, BATCH).await?;
            let count: u64 = removed.iter().map(|one| one.removed).sum();
            self.metrics.retention_removed.inc_by(count);
            let changed: Vec<ConversationId> = removed.iter().filter_map(|one| one.log.conversation()).collect();
            self.backplane.forget_recent(&changed).await;
            let place =
                removed.last().and_then(|last| Some((batch.iter().position(|aged| aged.log == last.log)?, last)));
            let done = match place.filter(|_| count >= u64::from(BATCH)) {
                Some((at, last)) => at + usize::from(!last.more),
                None => batch.len(),
            };
            logs = &logs[done..];
            checkpoint(TaskName::Retention, || "");
            sleep(PAUSE.max(2 * began.elapsed())).await;
        }
        Ok(true)
    }

    /// Renews the row of the job if it is time to. Returns false if another process has it.
    ///
    /// # Errors
    /// The store is down.
    async fn renew(&self, pass: &mut Pass) -> Result<bool, StoreError> {
        if self.degrade.state(Part::Store).link != LinkState::Up {
            return Err(StoreError::Unavailable("the store is down".into()));
        }
        if pass.renewed.elapsed() < RENEW_AFTER {
            return Ok(true);
        }
        let began = Instant::now();
        let turn = self.store.take_job(Job::Retention, &self.process, HOLD, self.rules.interval).await?;
        pass.renewed = began;
        Ok(turn.held)
    }
}

impl super::Chat {
    pub(super) async fn retention(&self, of: &ConversationId) -> Result<CommandReply, Reject> {
        require_feature(&self.degrade, Feature::History)?;
        let log = LogId::from(of);
        let days = self.store.retention(of).await.map_err(|error| unavailable(&error))?;
        let days = days.ok_or(Reject::NotFound("Conversation"))?;
        let ends = self.store.ends(std::slice::from_ref(&log)).await.map_err(|error| unavailable(&error))?;
        let first_seq = ends.first().map_or(1, |(_, ends)| ends.first);
        let (conversation_id, default_days) = (of.clone(), self.kept.default);
        Ok(Reply::Retention(Retention { conversation_id, days, default_days, first_seq }).into())
    }

    pub(super) async fn set_retention(
        &self,
        of: &ConversationId,
        days: Option<RetentionDays>,
    ) -> Result<CommandReply, Reject> {
        require_feature(&self.degrade, Feature::History)?;
        if !self.store.set_retention(of, days).await.map_err(|error| unavailable(&error))? {
            return Err(Reject::NotFound("Conversation"));
        }
        self.retention(of).await
    }
}
