//! Reconciliation: compares the followed logs with the store after a possible loss of events, and single logs about which
//! Redis may have said something untrue.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::sleep,
};

use crate::{
    degrade::{Degrade, Feature, Mode},
    hub::Hub,
    model::LogId,
    store::{Store, StoreError},
    supervise::{Supervisor, TaskName, checkpoint},
};

/// Logs per read.
const PAGE: usize = 500;
/// Pause between two tries while the store is unavailable.
const RETRY: Duration = Duration::from_millis(500);

/// Compares every followed log with the store: on request, after each outage of the store, and after a panic that may
/// have lost entries.
pub(super) struct Reconciler {
    store: Arc<dyn Store>,
    hub: Arc<Hub>,
    degrade: Arc<Degrade>,
    asked: Notify,
    /// Logs to compare, each of which may be missing entries. This node follows them, so their number is bounded.
    doubtful: Mutex<HashSet<LogId>>,
    doubted: Notify,
    /// True while a comparison runs; it is repeated if its task panics.
    comparing: AtomicBool,
    losses: watch::Receiver<u64>,
}

impl Reconciler {
    pub(super) fn new(store: Arc<dyn Store>, hub: Arc<Hub>, degrade: Arc<Degrade>, supervisor: &Supervisor) -> Self {
        let (asked, doubted, comparing) = (Notify::new(), Notify::new(), AtomicBool::new(false));
        let (doubtful, losses) = (Mutex::default(), supervisor.losses());
        Self { store, hub, degrade, asked, doubtful, doubted, comparing, losses }
    }

    /// Requests a comparison of every followed log with the store.
    pub(super) fn compare_soon(&self) {
        self.asked.notify_one();
    }

    /// Requests a comparison of these logs with the store.
    pub(super) fn compare_logs_soon(&self, logs: Vec<LogId>) {
        self.doubtful.lock().unwrap_or_else(PoisonError::into_inner).extend(logs);
        self.doubted.notify_one();
    }

    /// Compares logs until its task is stopped.
    pub(super) async fn run(&self) {
        if self.comparing.load(Ordering::Relaxed) {
            self.compare_soon();
        }
        let asking = async { tokio::join!(self.ask_after_outages(), self.ask_after_losses()) };
        tokio::join!(self.compare_when_asked(), self.compare_doubtful(), asking);
    }

    /// Compares single logs on request. If that fails, all logs are compared, which is retried.
    async fn compare_doubtful(&self) {
        loop {
            self.doubted.notified().await;
            let logs = std::mem::take(&mut *self.doubtful.lock().unwrap_or_else(PoisonError::into_inner));
            for logs in Vec::from_iter(logs).chunks(PAGE) {
                if let Err(error) = self.compare(logs).await {
                    tracing::debug!(%error, "doubtful logs can't be compared with the store; comparing all logs");
                    self.compare_soon();
                    break;
                }
            }
        }
    }

    /// Compares on request and retries until it succeeds. It runs in its own task, because it must not block delivery.
    async fn compare_when_asked(&self) {
        loop {
            self.asked.notified().await;
            self.comparing.store(true, Ordering::Relaxed);
            checkpoint(TaskName::Reconciler, || "");
            while let Err(error) = self.compare_all().await {
                tracing::warn!(%error, "logs can't be compared with the store; retrying");
                sleep(RETRY).await;
            }
            self.comparing.store(false, Ordering::Relaxed);
        }
    }

    async fn compare_all(&self) -> Result<(), StoreError> {
        for logs in self.hub.logs().chunks(PAGE) {
            self.compare(logs).await?;
        }
        Ok(())
    }

    async fn compare(&self, logs: &[LogId]) -> Result<(), StoreError> {
        let before: Vec<_> = logs.iter().map(|log| self.hub.last(log)).collect();
        for (log, ends) in self.store.ends(logs).await? {
            let at = logs.iter().position(|known| *known == log);
            let before = at.and_then(|at| before[at]);
            self.hub.compare(&log, ends.first, ends.head, before);
        }
        Ok(())
    }

    /// Requests a comparison after each panic that may have lost entries on their way from the store to listeners.
    async fn ask_after_losses(&self) {
        let mut losses = self.losses.clone();
        while losses.changed().await.is_ok() {
            self.compare_soon();
        }
    }

    /// Requests a comparison each time the store becomes available again.
    async fn ask_after_outages(&self) {
        let mut changes = self.degrade.changes();
        let mut append = self.degrade.mode(Feature::Append);
        while changes.changed().await.is_ok() {
            let now = self.degrade.mode(Feature::Append);
            if append == Mode::Refused && now != Mode::Refused {
                self.compare_soon();
            }
            append = now;
        }
    }
}
