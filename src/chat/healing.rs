//! Comparing with the store, whenever anything may have been missed.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::Chat;
use crate::{
    degrade::{Feature, Mode},
    model::LogId,
    store::StoreError,
};

/// Logs compared at a time.
const PAGE: usize = 500;
/// Between two tries while the store can't be asked.
const RETRY: Duration = Duration::from_millis(500);

impl Chat {
    /// Has every followed log compared with the store, soon.
    pub(super) fn catch_up(&self) {
        self.catching_up.notify_one();
    }

    /// Compares whenever it was asked for, until it succeeds: beside what goes on, which it must not hold up.
    pub(super) async fn keep_catching_up(self: Arc<Self>) {
        loop {
            self.catching_up.notified().await;
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

    /// Compares with the store whenever it came back.
    pub(super) async fn catch_up_after_outages(self: Arc<Self>) {
        let mut changes = self.degrade.changes();
        let mut append = self.degrade.mode(Feature::Append);
        while changes.changed().await.is_ok() {
            let now = self.degrade.mode(Feature::Append);
            if append == Mode::Refused && now != Mode::Refused {
                self.catch_up();
            }
            append = now;
        }
    }
}
