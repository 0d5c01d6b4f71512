//! The bound on the sum of all outboxes of a node. When it is exceeded, the sockets that hold most, for longest without
//! taking a byte, are closed as too slow.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::{sync::Notify, time::Instant};

use crate::{
    metrics::Metrics,
    model::ConnectionId,
    supervise::{TaskName, checkpoint},
};

/// An outbox, as the budget sees it.
pub(super) trait Waiting: std::fmt::Debug + Send + Sync {
    /// The burden for the node: the waiting bytes, weighted by the time for which none was taken.
    fn burden(&self, now: Instant) -> u128;

    /// Drops what waits and closes the connection as too slow, because all outboxes together hold too much.
    fn shed(&self);
}

/// The bytes that wait in the outboxes of a node, and the outboxes in which they wait.
#[derive(Debug)]
pub struct OutboxBudget {
    limit: usize,
    metrics: Arc<Metrics>,
    /// Outboxes with waiting bytes.
    waiting: Mutex<HashMap<ConnectionId, Weak<dyn Waiting>>>,
    exceeded: Notify,
}

impl OutboxBudget {
    /// A budget of `limit` bytes. It is kept while [`OutboxBudget::run`] runs.
    pub fn new(limit: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        metrics.outbox_limit.set(i64::try_from(limit).unwrap_or(i64::MAX));
        Arc::new(Self { limit, metrics, waiting: Mutex::default(), exceeded: Notify::new() })
    }

    /// Closes sockets whenever the outboxes hold more than the limit, until its task is stopped.
    pub async fn run(&self) {
        loop {
            self.exceeded.notified().await;
            checkpoint(TaskName::Outboxes, || "");
            self.shed();
        }
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Counts a change of the bytes that wait in one outbox.
    pub(super) fn count(&self, outbox: &Weak<dyn Waiting>, connection: ConnectionId, before: usize, now: usize) {
        self.metrics.outbox_bytes.add(now as i64 - before as i64);
        if before == 0 && now > 0 {
            self.lock().insert(connection, outbox.clone());
        } else if before > 0 && now == 0 {
            self.lock().remove(&connection);
        }
        if now > before && self.total() > self.limit {
            self.exceeded.notify_one();
        }
    }

    /// True if the outboxes hold so much more than the limit that no further frame may wait: frames arrive faster than
    /// [`OutboxBudget::run`] closes sockets.
    pub(super) fn is_exhausted(&self) -> bool {
        self.total() > self.limit.saturating_add(self.limit / 4)
    }

    fn total(&self) -> usize {
        usize::try_from(self.metrics.outbox_bytes.get()).unwrap_or(0)
    }

    /// Closes sockets until the outboxes hold an eighth less than the limit.
    fn shed(&self) {
        let target = self.limit - self.limit / 8;
        let outboxes: Vec<_> = self.lock().values().filter_map(Weak::upgrade).collect();
        let now = Instant::now();
        let mut loads: Vec<_> = outboxes.into_iter().map(|outbox| (outbox.burden(now), outbox)).collect();
        loads.sort_unstable_by_key(|(burden, _)| std::cmp::Reverse(*burden));
        let mut closed = 0_u64;
        for (_, outbox) in loads {
            if self.total() <= target {
                break;
            }
            outbox.shed();
            closed += 1;
        }
        if closed > 0 {
            self.metrics.outbox_shed.inc_by(closed);
            tracing::warn!(closed, limit = self.limit, "the outboxes held too much; the slowest readers were closed");
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ConnectionId, Weak<dyn Waiting>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
