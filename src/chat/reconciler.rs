//! Comparing with the store, whenever anything may have been missed.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Notify, time::sleep};

use crate::{
    degrade::{Degrade, Feature, Mode},
    hub::Hub,
    model::LogId,
    store::{Store, StoreError},
};

/// Logs compared at a time.
const PAGE: usize = 500;
/// Between two tries while the store can't be asked.
const RETRY: Duration = Duration::from_millis(500);

/// Compares every followed log with the store, whenever it is asked to or the store came back.
pub(super) struct Reconciler {
    store: Arc<dyn Store>,
    hub: Arc<Hub>,
    degrade: Arc<Degrade>,
    asked: Notify,
}

impl Reconciler {
    pub(super) fn new(store: Arc<dyn Store>, hub: Arc<Hub>, degrade: Arc<Degrade>) -> Self {
        Self { store, hub, degrade, asked: Notify::new() }
    }

    /// Has every followed log compared with the store, soon.
    pub(super) fn compare_soon(&self) {
        self.asked.notify_one();
    }

    /// Compares until it is stopped.
    pub(super) async fn run(self: Arc<Self>) {
        tokio::join!(self.compare_when_asked(), self.ask_after_outages());
    }

    /// Compares whenever it was asked for, until it succeeds: beside what goes on, which it must not hold up.
    async fn compare_when_asked(&self) {
        loop {
            self.asked.notified().await;
            while let Err(error) = self.compare_all().await {
                tracing::warn!(%error, "logs can't be compared with the store now");
                sleep(RETRY).await;
            }
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

    /// Asks for it whenever the store came back.
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
