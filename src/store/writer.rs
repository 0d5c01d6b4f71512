//! Group commit: each lane takes the entries that wait and commits them in one round trip.
//!
//! Invariants: entries of one log are committed in the order in which they were queued; `committed` receives
//! every stored entry before its appender gets the answer, and receives it again if the entry is sent again; an entry
//! that may have been stored is never reported as refused. Therefore a retried batch says so: the store then looks for
//! stored entries before it judges the rights of their senders, who may have lost them since the first try.

mod batch;
mod lane;
mod queue;
mod refusals;
#[cfg(test)]
mod tests;
mod types;

use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::oneshot;

pub use self::types::{AppendError, Committed, Outcomes, WriterSettings};
use self::{
    lane::Lane,
    queue::Queue,
    types::{AppendResult, Queued},
};
use super::{Logs, NewEntry};
use crate::{
    degrade::Degrade,
    metrics::Metrics,
    model::{LogId, PendingAck},
    supervise::{Supervisor, TaskName},
};

/// The only way to append entries to the logs.
pub struct Writer {
    queue: Arc<Queue>,
}

impl Writer {
    /// Starts the lanes. After the supervisor's stop, they still finish the queued entries. A batch whose commit panics is
    /// answered with [`AppendError::Unknown`].
    pub fn start(
        store: Arc<dyn Logs>,
        settings: WriterSettings,
        metrics: Arc<Metrics>,
        degrade: Arc<Degrade>,
        outcomes: Outcomes,
        supervisor: &Supervisor,
    ) -> Self {
        let (queue, outcomes) = (Arc::new(Queue::new(settings.queue, settings.max_batch)), Arc::new(outcomes));
        for _ in 0..settings.lanes.max(1) {
            let (store, metrics, degrade) = (store.clone(), metrics.clone(), degrade.clone());
            let (outcomes, supervisor) = (outcomes.clone(), supervisor.clone());
            let lane = Lane { store, settings, metrics, degrade, outcomes, supervisor: supervisor.clone() };
            supervisor.spawn(TaskName::WriterLane, (lane, queue.clone()), |(lane, queue)| lane.run(queue).boxed());
        }
        Self { queue }
    }

    /// Queues the entry during the call, so that consecutive calls keep their order. The future resolves when the
    /// outcome is known.
    pub fn append(
        &self,
        entry: NewEntry,
        origin: Option<Arc<PendingAck>>,
    ) -> impl Future<Output = AppendResult> + Send + use<> {
        let (answer, result) = oneshot::channel();
        let queued = self.queue.push(Queued { entry, origin, answer });
        async move {
            if !queued {
                return Err(AppendError::Unavailable);
            }
            result.await.unwrap_or(Err(AppendError::Unknown))
        }
    }

    /// Waits until every entry of this log that was queued before has its outcome.
    pub async fn settled(&self, log: &LogId) {
        self.queue.settled(log).await;
    }
}

impl Drop for Writer {
    /// The lanes end once what waits is stored.
    fn drop(&mut self) {
        self.queue.close();
    }
}
