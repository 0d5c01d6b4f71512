//! Reconciliation: the occasions at which followed logs are [compared](Comparison) with the store. Each is a possible loss of
//! events, or a sign that the store was set back.

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

use super::{
    command::unavailable,
    comparison::{Comparison, PAGE},
};
use crate::{
    degrade::{Degrade, Feature, Mode},
    hub::Hub,
    model::{LogId, Reject},
    store::{Pulse, Store},
    supervise::{Supervisor, TaskName, checkpoint},
};

/// Pause between two tries while the store is unavailable.
const RETRY: Duration = Duration::from_millis(500);

/// Compares every followed log with the store: on request, after each outage of the store and each lost connection to it, if
/// its epoch changed, and after a panic that may have lost entries. Compares single logs that are doubted.
pub(super) struct Reconciler {
    comparison: Comparison,
    hub: Arc<Hub>,
    degrade: Arc<Degrade>,
    asked: Notify,
    /// Logs to compare, each of which may be missing entries. This node follows them, so their number is bounded.
    doubtful: Mutex<HashSet<LogId>>,
    doubted: Notify,
    /// True once the task has run: a later run begins after a panic, and compares all logs.
    ran: AtomicBool,
    losses: watch::Receiver<u64>,
    reconnects: watch::Receiver<u64>,
    pulses: watch::Receiver<Option<Pulse>>,
}

impl Reconciler {
    pub(super) fn new(
        comparison: Comparison,
        (store, hub): (&dyn Store, Arc<Hub>),
        degrade: Arc<Degrade>,
        pulses: watch::Receiver<Option<Pulse>>,
        supervisor: &Supervisor,
    ) -> Self {
        let (asked, doubted, ran) = (Notify::new(), Notify::new(), AtomicBool::new(false));
        let (doubtful, losses, reconnects) = (Mutex::default(), supervisor.losses(), store.reconnects());
        Self { comparison, hub, degrade, asked, doubtful, doubted, ran, losses, reconnects, pulses }
    }

    /// Sets the epoch with which the store has started.
    pub(super) fn begin(&self, epoch: i64) {
        self.comparison.begin(epoch);
    }

    /// The epoch of the store.
    pub(super) fn epoch(&self) -> i64 {
        self.comparison.epoch()
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

    /// Compares a log that contradicts what the store says.
    pub(super) async fn compare_now(&self, log: &LogId) -> Result<(), Reject> {
        let set_back = self.comparison.compare(std::slice::from_ref(log)).await;
        if set_back.map_err(|error| unavailable(&error))? {
            self.compare_soon();
        }
        Ok(())
    }

    /// Compares logs until its task is stopped.
    pub(super) async fn run(&self) {
        if self.ran.swap(true, Ordering::Relaxed) {
            self.compare_soon();
        }
        let asking = async {
            tokio::join!(self.ask_after_outages(), self.ask_after(&self.losses), self.ask_after(&self.reconnects))
        };
        let comparing =
            async { tokio::join!(self.compare_when_asked(), self.compare_doubtful(), self.compare_doubted()) };
        tokio::join!(comparing, asking, self.follow_epochs());
    }

    /// Compares single logs on request.
    async fn compare_doubtful(&self) {
        loop {
            self.doubted.notified().await;
            let logs = std::mem::take(&mut *self.doubtful.lock().unwrap_or_else(PoisonError::into_inner));
            self.compare_some(Vec::from_iter(logs)).await;
        }
    }

    /// Compares single logs that the hub doubts.
    async fn compare_doubted(&self) {
        loop {
            let logs = self.hub.doubted().await;
            self.compare_some(logs).await;
        }
    }

    /// Compares single logs. If that fails, or if the store was set back, all logs are compared, which is retried.
    async fn compare_some(&self, logs: Vec<LogId>) {
        checkpoint(TaskName::Reconciler, || "");
        for logs in logs.chunks(PAGE) {
            match self.comparison.compare(logs).await {
                Ok(false) => {}
                Ok(true) => self.compare_soon(),
                Err(error) => {
                    tracing::debug!(%error, "doubtful logs can't be compared with the store; comparing all logs");
                    return self.compare_soon();
                }
            }
        }
    }

    /// Compares on request and retries until it succeeds. It runs in its own task, because it must not block delivery.
    async fn compare_when_asked(&self) {
        loop {
            self.asked.notified().await;
            checkpoint(TaskName::Reconciler, || "");
            let mut tries = 0_u32;
            loop {
                // Tries while the store is away would only keep connections waiting, which others need.
                if self.degrade.mode(Feature::Append) != Mode::Refused {
                    match self.comparison.compare_all().await {
                        Ok(_) => break,
                        Err(error) if tries == 0 => {
                            tracing::warn!(%error, "logs can't be compared with the store; retrying");
                        }
                        Err(error) => tracing::debug!(%error, "logs can't be compared with the store; retrying"),
                    }
                    tries += 1;
                }
                sleep(RETRY).await;
            }
        }
    }

    /// Requests a comparison after each change of a count: of panics that may have lost entries on their way from the store to
    /// listeners, or of lost connections to the store.
    async fn ask_after(&self, count: &watch::Receiver<u64>) {
        let mut count = count.clone();
        while count.changed().await.is_ok() {
            self.compare_soon();
        }
        std::future::pending().await
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

    /// Requests a comparison when the epoch of the store changes.
    async fn follow_epochs(&self) {
        let mut pulses = self.pulses.clone();
        while pulses.changed().await.is_ok() {
            let Some(Pulse { epoch, .. }) = *pulses.borrow_and_update() else { continue };
            match self.comparison.note_epoch(epoch).await {
                Ok(false) => {}
                Ok(true) => self.compare_soon(),
                Err(error) => tracing::debug!(%error, "the epoch of the store can't be read; retrying"),
            }
        }
    }
}
