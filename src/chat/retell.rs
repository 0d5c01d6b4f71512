//! Entries that are stored, but that no node may have sent to listeners: the answer of the statement that stored them was
//! lost, or the node ended before it sent them.
//!
//! The newest entry of such a log is sent once more. A listener that has it ignores it; one that lacks it, or entries
//! before it, gets them all, because a hub reads missing entries from the store.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::sleep};

use super::router::{Origin, Router};
use crate::{
    metrics::Metrics,
    model::{Event, LogId, UserId},
    store::{Store, StoreError},
    supervise::{TaskName, checkpoint},
};

/// Logs per read.
const PAGE: usize = 500;
/// Pause between two tries while the store is unavailable.
const RETRY: Duration = Duration::from_millis(500);
/// Maximum number of doubtful logs. Beyond it, listeners get the entries with the next entry of the log, or when they
/// connect again.
const DOUBTFUL_MAX: usize = 10_000;

/// Sends the newest entries of logs again.
pub(super) struct Retell {
    store: Arc<dyn Store>,
    router: Arc<Router>,
    metrics: Arc<Metrics>,
    /// Logs to which a statement may have appended whose answer was lost.
    doubtful: Mutex<HashSet<LogId>>,
    added: Notify,
}

impl Retell {
    pub(super) fn new(store: Arc<dyn Store>, router: Arc<Router>, metrics: Arc<Metrics>) -> Self {
        Self { store, router, metrics, doubtful: Mutex::default(), added: Notify::new() }
    }

    /// Sends the newest entry of each log to its listeners on all nodes, before a command that found a state already
    /// stored is answered. If the store fails, the logs become [doubtful](Self::doubt).
    pub(super) async fn retell(&self, logs: Vec<LogId>) {
        if let Err(error) = self.send_newest(&logs).await {
            tracing::debug!(%error, "newest entries were not read; retrying");
            self.doubt(logs);
        }
    }

    /// Records logs to which a statement may have appended although its answer was lost. Their newest entries are sent
    /// once the store answers.
    pub(super) fn doubt(&self, logs: impl IntoIterator<Item = LogId>) {
        {
            let mut doubtful = self.doubtful();
            for log in logs {
                if doubtful.len() >= DOUBTFUL_MAX && !doubtful.contains(&log) {
                    self.metrics.doubtful_logs_dropped.inc();
                } else {
                    doubtful.insert(log);
                }
            }
        }
        self.added.notify_one();
    }

    /// As [`Self::doubt`], for the inboxes of users, if the outcome of the statement is unknown.
    pub(super) fn doubt_inboxes<'a>(&self, error: &StoreError, users: impl IntoIterator<Item = &'a UserId>) {
        if matches!(error, StoreError::Unknown(_)) {
            self.doubt(users.into_iter().map(LogId::inbox));
        }
    }

    /// Sends the newest entries of doubtful logs until its task is stopped.
    pub(super) async fn run(&self) {
        // An earlier run may have ended by a panic.
        self.added.notify_one();
        loop {
            self.added.notified().await;
            checkpoint(TaskName::Retell, || "");
            loop {
                let logs = self.take_doubtful();
                if logs.is_empty() {
                    break;
                }
                if let Err(error) = self.send_newest(&logs).await {
                    tracing::debug!(%error, "newest entries of doubtful logs can't be read; retrying");
                    self.doubt(logs);
                    sleep(RETRY).await;
                }
            }
        }
    }

    async fn send_newest(&self, logs: &[LogId]) -> Result<(), StoreError> {
        #[cfg(feature = "faults")]
        if crate::faults::has(crate::faults::Fault::NotRetold) {
            return Ok(());
        }
        for logs in logs.chunks(PAGE) {
            let newest = self.store.newest(logs).await?.into_iter();
            let events = newest.map(|entry| Event::Entry { entry: Arc::new(entry), origin: None });
            self.router.dispatch(events.collect(), Origin::Committed);
        }
        Ok(())
    }

    /// Removes a page of doubtful logs.
    fn take_doubtful(&self) -> Vec<LogId> {
        let mut doubtful = self.doubtful();
        let logs: Vec<_> = doubtful.iter().take(PAGE).cloned().collect();
        doubtful.retain(|log| !logs.contains(log));
        logs
    }

    fn doubtful(&self) -> MutexGuard<'_, HashSet<LogId>> {
        self.doubtful.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
