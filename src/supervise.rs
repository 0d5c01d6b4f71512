//! Supervision of tasks: a panic is logged and counted with the name of its task, and a task that runs as long as the
//! node is started again after a pause that grows.
//!
//! A task keeps what must outlive a panic (its receiver, its listeners) in a state that the supervisor owns and lends to
//! each run. A task that handles items guards each of them with [`Supervisor::guard`] or [`Supervisor::catch`], so that
//! a panic loses the item and not the task.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::metrics::Metrics;

mod checkpoint;
mod name;

pub use checkpoint::checkpoint;
pub use name::TaskName;

/// First and longest pause before a task that panicked runs again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// Number of panics in a row after which a task counts as failing.
const FAILING_AFTER: u32 = 3;
/// Time without a panic after which the panics before count no longer.
const STABLE_AFTER: Duration = Duration::from_secs(60);

/// Starts and supervises the tasks of a node. Clones share the tasks.
#[derive(Debug, Clone)]
pub struct Supervisor(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    tracker: TaskTracker,
    stop: CancellationToken,
    metrics: Arc<Metrics>,
    /// Number of failing tasks of each name.
    failing: [AtomicUsize; TaskName::COUNT],
    /// Number of panics of tasks that carry entries.
    losses: watch::Sender<u64>,
}

impl Supervisor {
    /// A supervisor without tasks.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Inner {
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
            metrics,
            failing: std::array::from_fn(|_| AtomicUsize::new(0)),
            losses: watch::Sender::new(0),
        }))
    }

    /// Cancelled when the tasks must end.
    pub fn stop(&self) -> &CancellationToken {
        &self.0.stop
    }

    /// Runs a task that ends by itself after [`Supervisor::stop`]. Each run gets the same `state`; after a panic, the
    /// next run begins when the pause is over. A run that returns is the last one.
    pub fn spawn<S: Send + 'static>(
        &self,
        name: TaskName,
        state: S,
        run: impl for<'a> Fn(&'a mut S) -> BoxFuture<'a, ()> + Send + Sync + 'static,
    ) {
        let supervisor = self.clone();
        self.0.tracker.spawn(async move { supervisor.supervise(name, state, run).await });
    }

    /// As [`Supervisor::spawn`], and drops the task when the node stops.
    pub fn spawn_until_stop<S: Send + 'static>(
        &self,
        name: TaskName,
        state: S,
        run: impl for<'a> Fn(&'a mut S) -> BoxFuture<'a, ()> + Send + Sync + 'static,
    ) {
        let (supervisor, stop) = (self.clone(), self.0.stop.clone());
        self.0.tracker.spawn(async move { stop.run_until_cancelled(supervisor.supervise(name, state, run)).await });
    }

    /// Runs a job once, and drops it when the node stops.
    pub fn spawn_job(&self, name: TaskName, job: impl Future<Output = ()> + Send + 'static) {
        let (supervisor, stop) = (self.clone(), self.0.stop.clone());
        self.0.tracker.spawn(async move { stop.run_until_cancelled(supervisor.guard(name, job)).await });
    }

    /// A future with the output of `future`; `None` if it panicked. Not an `async fn`, which would keep room for `future`
    /// twice.
    pub fn guard<T, F: Future<Output = T>>(
        &self,
        name: TaskName,
        future: F,
    ) -> impl Future<Output = Option<T>> + use<T, F> {
        let supervisor = self.clone();
        let caught = AssertUnwindSafe(future).catch_unwind();
        caught.map(move |result| result.map_err(|panic| supervisor.record(name, &*panic)).ok())
    }

    /// Calls `work`; `None` if it panicked.
    pub fn catch<T>(&self, name: TaskName, work: impl FnOnce() -> T) -> Option<T> {
        let caught = catch_panic(&self.0.metrics, name, work);
        if caught.is_none() {
            self.note_loss(name);
        }
        caught
    }

    /// Tells the tasks to end, and waits for them; false if some did not end in time.
    pub async fn end(&self, wait: Duration) -> bool {
        self.0.stop.cancel();
        self.0.tracker.close();
        timeout(wait, self.0.tracker.wait()).await.is_ok()
    }

    /// The tasks that panic again and again.
    pub fn failing(&self) -> Vec<TaskName> {
        let fails = |name: &TaskName| self.0.failing[name.index()].load(Ordering::Relaxed) > 0;
        TaskName::ALL.into_iter().filter(fails).collect()
    }

    /// Changes whenever a panic may have lost entries on their way to listeners.
    pub fn losses(&self) -> watch::Receiver<u64> {
        self.0.losses.subscribe()
    }

    async fn supervise<S>(&self, name: TaskName, mut state: S, run: impl for<'a> Fn(&'a mut S) -> BoxFuture<'a, ()>) {
        let (mut pause, mut failures) = (PAUSES.0, Failures { supervisor: self, name, in_a_row: 0 });
        loop {
            let ended = {
                let mut running = pin!(AssertUnwindSafe(run(&mut state)).catch_unwind());
                match timeout(STABLE_AFTER, running.as_mut()).await {
                    Ok(ended) => ended,
                    Err(_) => {
                        (pause, failures.in_a_row) = (PAUSES.0, failures.clear());
                        running.await
                    }
                }
            };
            let Err(panic) = ended else { return };
            self.record(name, &*panic);
            failures.add();
            // While the node stops, a task only finishes what it has.
            if timeout(pause, self.0.stop.cancelled()).await.is_ok() {
                sleep(PAUSES.0).await;
            }
            pause = pause.saturating_mul(2).min(PAUSES.1);
        }
    }

    fn record(&self, name: TaskName, panic: &(dyn Any + Send)) {
        record(&self.0.metrics, name, panic);
        self.note_loss(name);
    }

    fn note_loss(&self, name: TaskName) {
        if name.carries_entries() {
            self.0.losses.send_modify(|losses| *losses += 1);
        }
    }
}

/// Calls `work` outside a supervised task, for example in a thread; `None` if it panicked.
pub fn catch_panic<T>(metrics: &Metrics, name: TaskName, work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| record(metrics, name, &*panic)).ok()
}

/// Logs and counts a panic.
fn record(metrics: &Metrics, name: TaskName, panic: &(dyn Any + Send)) {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(task = name.label(), panic = text.unwrap_or("not text"), "a task panicked");
    metrics.task_panics.with_label_values(&[name.label()]).inc();
}

/// The panics in a row of one task.
struct Failures<'a> {
    supervisor: &'a Supervisor,
    name: TaskName,
    in_a_row: u32,
}

impl Failures<'_> {
    fn add(&mut self) {
        self.in_a_row = self.in_a_row.saturating_add(1);
        if self.in_a_row == FAILING_AFTER {
            self.supervisor.0.failing[self.name.index()].fetch_add(1, Ordering::Relaxed);
            self.supervisor.0.metrics.tasks_failing.inc();
            tracing::error!(task = self.name.label(), "a task keeps failing");
        }
    }

    /// Counts the task as working. Returns the new number of panics in a row.
    fn clear(&mut self) -> u32 {
        if self.in_a_row >= FAILING_AFTER {
            self.supervisor.0.failing[self.name.index()].fetch_sub(1, Ordering::Relaxed);
            self.supervisor.0.metrics.tasks_failing.dec();
        }
        self.in_a_row = 0;
        0
    }
}

impl Drop for Failures<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Logs every panic with its place in the code. The default hook writes plain text, also where logs are JSON.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let text = info.payload_as_str().unwrap_or("not text");
        tracing::error!(place, panic = text, "panic");
    }));
}

#[cfg(test)]
mod tests;
