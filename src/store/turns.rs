//! The turns of the calls of one pool: a bounded number runs, a bounded number waits for a bounded time.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use prometheus::{Histogram, IntCounter, IntGauge};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{Cause, Pool, StoreError};
use crate::{config::StoreConfig, degrade::Fault, metrics::Metrics};

/// Maximum time that a call other than a heavy read waits for its turn.
const WAIT: Duration = Duration::from_secs(1);
/// Maximum time that a bulk write waits: one creates a conversation with 1,000 members.
const BULK_WAIT: Duration = Duration::from_secs(3);

/// The bounds of a pool.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Maximum number of calls that run.
    pub(super) size: usize,
    /// Maximum number of calls that wait.
    pub(super) queue: usize,
    /// Maximum time that a call waits.
    pub(super) wait: Duration,
}

impl Bounds {
    /// The bounds of `pool` with `size` connections.
    pub(super) fn of(pool: Pool, size: usize, config: &StoreConfig) -> Self {
        let wait = match pool {
            Pool::Bulk => BULK_WAIT,
            heavy if heavy.is_heavy() => config.heavy_read_wait,
            _ => WAIT,
        };
        Self { size, queue: config.queue, wait }
    }
}

/// Time without any answer of the server after which a call that gets no turn is refused because of that: the health check alone
/// asks twice a second.
const SILENT_AFTER: Duration = WAIT;

/// Time of the newest answer of the server to any call, through any pool.
#[derive(Debug)]
pub(super) struct Answers(Mutex<Instant>);

impl Default for Answers {
    fn default() -> Self {
        Self(Mutex::new(Instant::now()))
    }
}

impl Answers {
    /// Records an answer.
    pub(super) fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// The error if the server has answered nothing for a while: then calls wait because of that, not of their number.
    fn silence(&self) -> Option<StoreError> {
        let silent = self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
        let why = || format!("no call got an answer for {:.1} s", silent.as_secs_f64());
        (silent >= SILENT_AFTER).then(|| StoreError::Unavailable(Cause::named(Fault::StoreSilent, why())))
    }
}

/// The turns of one pool: a call runs while it holds one, and waits in a bounded queue before that.
#[derive(Debug)]
pub(super) struct Turns {
    pool: Pool,
    bounds: Bounds,
    free: Arc<Semaphore>,
    /// `None` if the server is a part of this program.
    answers: Option<Arc<Answers>>,
    waiting: AtomicUsize,
    refused_at: Mutex<Option<Instant>>,
    metrics: PoolMetrics,
}

#[derive(Debug)]
struct PoolMetrics {
    in_use: IntGauge,
    waiting: IntGauge,
    refused: IntCounter,
    wait: Histogram,
}

impl PoolMetrics {
    fn of(pool: Pool, size: usize, metrics: &Metrics) -> Self {
        let label = [pool.label()];
        metrics.store_pool_size.with_label_values(&label).set(i64::try_from(size).unwrap_or(i64::MAX));
        Self {
            in_use: metrics.store_pool_in_use.with_label_values(&label),
            waiting: metrics.store_pool_waiting.with_label_values(&label),
            refused: metrics.store_pool_refused.with_label_values(&label),
            wait: metrics.store_pool_wait.with_label_values(&label),
        }
    }
}

/// Creates the metrics of a pool that is not open yet: dashboards ask for them while a node waits for its store.
pub(super) fn show(pool: Pool, size: usize, metrics: &Metrics) {
    PoolMetrics::of(pool, size, metrics);
}

/// The right to run one call; dropping it lets the next call run.
#[derive(Debug)]
pub(super) struct Turn {
    _permit: OwnedSemaphorePermit,
    in_use: IntGauge,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.in_use.dec();
    }
}

/// A call that waits; dropping it ends the wait, also if the caller gives up.
struct Waiting<'a>(&'a Turns);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
        self.0.metrics.waiting.dec();
    }
}

impl Turns {
    /// The turns of a pool, all free.
    pub(super) fn new(pool: Pool, bounds: Bounds, answers: Option<Arc<Answers>>, metrics: &Metrics) -> Self {
        let metrics = PoolMetrics::of(pool, bounds.size, metrics);
        let free = Arc::new(Semaphore::new(bounds.size));
        Self { pool, bounds, free, answers, waiting: AtomicUsize::new(0), refused_at: Mutex::default(), metrics }
    }

    /// Waits for a turn. Turns are given in the order of the calls.
    ///
    /// # Errors
    /// The queue is full, or no turn came in time: [`StoreError::Busy`], or [`StoreError::Unavailable`] if the server answers
    /// nothing.
    pub(super) async fn take(&self) -> Result<Turn, StoreError> {
        let started = Instant::now();
        let permit = match self.free.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => self.wait_for_permit().await?,
        };
        self.metrics.wait.observe(started.elapsed().as_secs_f64());
        self.metrics.in_use.inc();
        Ok(Turn { _permit: permit, in_use: self.metrics.in_use.clone() })
    }

    async fn wait_for_permit(&self) -> Result<OwnedSemaphorePermit, StoreError> {
        let before = self.waiting.fetch_add(1, Ordering::AcqRel);
        self.metrics.waiting.inc();
        let _waiting = Waiting(self);
        if before >= self.bounds.queue {
            return Err(self.refuse());
        }
        match timeout(self.bounds.wait, self.free.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(self.refuse()),
        }
    }

    fn refuse(&self) -> StoreError {
        self.metrics.refused.inc();
        if let Some(silence) = self.answers.as_ref().and_then(|answers| answers.silence()) {
            return silence;
        }
        *self.refused_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        StoreError::Busy { pool: self.pool }
    }

    /// True if a call was refused within the last `span`.
    pub(super) fn refused_within(&self, span: Duration) -> bool {
        let refused_at = *self.refused_at.lock().unwrap_or_else(PoisonError::into_inner);
        refused_at.is_some_and(|refused_at| refused_at.elapsed() < span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(size: usize, queue: usize, wait: Duration) -> (Arc<Turns>, Metrics) {
        let metrics = Metrics::new().unwrap();
        (Arc::new(Turns::new(Pool::Search, Bounds { size, queue, wait }, None, &metrics)), metrics)
    }

    #[tokio::test]
    async fn calls_beyond_the_queue_are_refused_and_counted() {
        let (turns, metrics) = turns(1, 1, Duration::from_secs(60));
        let running = turns.take().await.unwrap();
        let waiting = tokio::spawn({
            let turns = turns.clone();
            async move { turns.take().await }
        });
        while metrics.store_pool_waiting.with_label_values(&["search"]).get() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(!turns.refused_within(Duration::from_secs(60)));
        assert!(matches!(turns.take().await, Err(StoreError::Busy { pool: Pool::Search })));
        assert!(turns.refused_within(Duration::from_secs(60)));
        assert_eq!(metrics.store_pool_in_use.with_label_values(&["search"]).get(), 1);
        drop(running);
        let next = waiting.await.unwrap().unwrap();
        assert_eq!(metrics.store_pool_in_use.with_label_values(&["search"]).get(), 1);
        assert_eq!(metrics.store_pool_waiting.with_label_values(&["search"]).get(), 0);
        assert_eq!(metrics.store_pool_refused.with_label_values(&["search"]).get(), 1);
        drop(next);
        assert_eq!(metrics.store_pool_in_use.with_label_values(&["search"]).get(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_whose_turn_does_not_come_is_refused() {
        let (turns, _metrics) = turns(1, 10, Duration::from_secs(2));
        let _running = turns.take().await.unwrap();
        assert!(matches!(turns.take().await, Err(StoreError::Busy { .. })));
        assert_eq!(turns.waiting.load(Ordering::Acquire), 0);
    }

    #[tokio::test]
    async fn calls_that_wait_for_a_silent_server_are_refused_because_of_its_silence() {
        let metrics = Metrics::new().unwrap();
        let answers = Arc::<Answers>::default();
        let bounds = Bounds { size: 1, queue: 0, wait: Duration::from_secs(60) };
        let turns = Turns::new(Pool::Search, bounds, Some(answers.clone()), &metrics);
        let _running = turns.take().await.unwrap();
        assert!(matches!(turns.take().await, Err(StoreError::Busy { .. })), "it answers others");
        *answers.0.lock().unwrap() -= SILENT_AFTER;
        let error = turns.take().await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)) && error.finding().fault == Fault::StoreSilent, "{error}");
        assert!(error.to_string().contains("no call got an answer"), "{error}");
        answers.note();
        assert!(matches!(turns.take().await, Err(StoreError::Busy { .. })));
    }
}
