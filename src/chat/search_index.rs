//! Keeps the search index of the store up to date: after the commit, in the background, one log at a time.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::sleep};

use crate::{
    metrics::Metrics,
    model::{Body, Event, LogId, Seq},
    store::Store,
};

/// A log is queued each time that its seq passes a multiple of this, and when one of its messages changes.
const STEP: Seq = 128;
/// Maximum number of logs that wait. Further ones are queued again with their next step.
const QUEUE: usize = 10_000;
/// Pause between two rounds: a log is handled at most once per round, however often its messages change.
const ROUND_PAUSE: Duration = Duration::from_secs(1);
/// Pause between two pages of the sweep over all logs.
const SWEEP_PAUSE: Duration = Duration::from_millis(200);
/// Pause after a failed call.
const RETRY: Duration = Duration::from_secs(5);

/// Logs that grew and may have a full segment.
#[derive(Default)]
pub(super) struct GrownLogs {
    logs: Mutex<HashSet<LogId>>,
    grown: Notify,
}

impl GrownLogs {
    /// Queues the logs of newly stored entries that complete a step or change a message.
    pub(super) fn observe(&self, events: &[Event]) {
        let changes = |body: &Body| matches!(body, Body::Edited { .. } | Body::Deleted { .. });
        let grown = events.iter().filter_map(|event| match event {
            Event::Entry { entry, .. } if entry.seq % STEP == 0 || changes(&entry.body) => Some(&entry.log),
            Event::Entry { .. } | Event::Ephemeral { .. } => None,
        });
        for log in grown.filter(|log| log.conversation().is_some()) {
            self.add(log.clone());
        }
    }

    fn add(&self, log: LogId) {
        let mut logs = self.lock();
        if logs.len() < QUEUE {
            logs.insert(log);
            self.grown.notify_one();
        }
    }

    async fn next(&self) -> Vec<LogId> {
        loop {
            let logs: Vec<LogId> = self.lock().drain().collect();
            if !logs.is_empty() {
                return logs;
            }
            self.grown.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<LogId>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds segments to the search index.
pub(super) struct SearchIndex {
    pub(super) grown: Arc<GrownLogs>,
    pub(super) store: Arc<dyn Store>,
    pub(super) metrics: Arc<Metrics>,
}

impl SearchIndex {
    /// Adds segments until its task is stopped: at first for what earlier nodes left, and always for logs that grow.
    pub(super) async fn run(&self) {
        tokio::join!(self.sweep(), self.follow());
    }

    async fn follow(&self) {
        loop {
            let logs = self.grown.next().await;
            self.metrics.search_queue.set(i64::try_from(logs.len()).unwrap_or(i64::MAX));
            for log in logs {
                self.add_segments(&log).await;
                self.metrics.search_queue.dec();
            }
            sleep(ROUND_PAUSE).await;
        }
    }

    /// Goes through all logs once.
    async fn sweep(&self) {
        let mut after = None;
        loop {
            match self.store.unindexed(after.as_ref()).await {
                Ok((logs, last)) => {
                    for log in logs {
                        self.add_segments(&log).await;
                    }
                    let Some(last) = last else { return };
                    after = Some(last);
                    sleep(SWEEP_PAUSE).await;
                }
                Err(error) => {
                    tracing::debug!(%error, "logs that are not in the search index can't be listed; retrying");
                    sleep(RETRY).await;
                }
            }
        }
    }

    /// Adds all full segments of a log. After a failure the log waits for its next step, or for the next node that starts:
    /// until then, its newest messages are searched without the index.
    async fn add_segments(&self, log: &LogId) {
        loop {
            match self.store.index(log).await {
                Ok(0) => return,
                Ok(added) => self.metrics.search_segments.inc_by(added.into()),
                Err(error) => {
                    tracing::debug!(%log, %error, "the search index was not extended");
                    return;
                }
            }
        }
    }
}
