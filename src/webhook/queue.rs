//! The queue of jobs for a webhook: bounded length, bounded concurrency.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;

use super::hook::Hook;
use crate::{metrics::Metrics, supervise::Supervisor};

/// The sending end.
pub struct Queue<J> {
    jobs: mpsc::Sender<J>,
    hook: Hook,
    metrics: Arc<Metrics>,
}

/// The receiving end.
pub struct QueueReceiver<J> {
    jobs: mpsc::Receiver<J>,
    concurrency: usize,
    hook: Hook,
    metrics: Arc<Metrics>,
    supervisor: Supervisor,
}

pub(super) fn queue<J>(
    capacity: usize,
    concurrency: usize,
    hook: Hook,
    metrics: &Arc<Metrics>,
    supervisor: &Supervisor,
) -> (Queue<J>, QueueReceiver<J>) {
    let (sender, receiver) = mpsc::channel(capacity);
    (
        Queue { jobs: sender, hook, metrics: metrics.clone() },
        QueueReceiver { jobs: receiver, concurrency, hook, metrics: metrics.clone(), supervisor: supervisor.clone() },
    )
}

impl<J> Queue<J> {
    /// True if another job fits.
    pub fn has_room(&self) -> bool {
        self.jobs.capacity() > 0
    }

    /// Adds a job at the end.
    ///
    /// # Errors
    /// The queue is full: the job is returned and counted as dropped.
    pub fn push(&self, job: J) -> Result<(), J> {
        let waiting = self.metrics.webhook_queue.with_label_values(&[self.hook.label()]);
        waiting.inc();
        self.jobs.try_send(job).map_err(|refused| {
            waiting.dec();
            self.metrics.webhook_dropped.with_label_values(&[self.hook.label()]).inc();
            refused.into_inner()
        })
    }
}

impl<J> QueueReceiver<J> {
    /// Runs `work` for every job, `concurrency` at a time, until the queue is dropped. A slow job holds up only its own
    /// place; a job that panics is lost.
    pub async fn each<F: Future<Output = ()>>(&mut self, work: impl Fn(J) -> F) {
        let Self { jobs, concurrency, hook, metrics, supervisor } = self;
        let name = hook.task();
        let waiting = metrics.webhook_queue.with_label_values(&[hook.label()]);
        let jobs = stream::poll_fn(|context| jobs.poll_recv(context));
        let start = |job| {
            waiting.dec();
            let guarded = supervisor.guard(name, work(job));
            async {
                let _panicked = guarded.await;
            }
        };
        jobs.for_each_concurrent(*concurrency, start).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn concurrency_and_length_are_bounded() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let (queue, mut queued) = queue(2, 2, Hook::Persona, &metrics, &Supervisor::new(metrics.clone()));
        let (started, mut running) = mpsc::unbounded_channel();
        let permits = Arc::new(Semaphore::new(0));
        let held = permits.clone();
        tokio::spawn(async move {
            let each = queued.each(|job: u32| {
                started.send(job).unwrap();
                let held = held.clone();
                async move { held.acquire().await.unwrap().forget() }
            });
            each.await;
        });
        for job in [1, 2] {
            queue.push(job).unwrap();
            assert_eq!(running.recv().await, Some(job));
        }
        queue.push(3).unwrap();
        queue.push(4).unwrap();
        assert_eq!(queue.push(5), Err(5));
        assert!(running.try_recv().is_err(), "only two run");
        let waiting = metrics.webhook_queue.with_label_values(&[Hook::Persona.label()]);
        let dropped = metrics.webhook_dropped.with_label_values(&[Hook::Persona.label()]);
        assert_eq!((waiting.get(), dropped.get()), (2, 1));
        permits.add_permits(4);
        assert_eq!((running.recv().await, running.recv().await), (Some(3), Some(4)));
        assert_eq!(waiting.get(), 0);
    }
}
