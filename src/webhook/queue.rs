//! What waits for a webhook: so much and no more, of which some is worked off at a time.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;

use super::hook::Hook;
use crate::metrics::Metrics;

/// The end that jobs are put into.
pub struct Queue<J> {
    jobs: mpsc::Sender<J>,
    hook: Hook,
    metrics: Arc<Metrics>,
}

/// The end that they come out of.
pub struct Queued<J> {
    jobs: mpsc::Receiver<J>,
    concurrency: usize,
    hook: Hook,
    metrics: Arc<Metrics>,
}

pub(super) fn queue<J>(
    capacity: usize,
    concurrency: usize,
    hook: Hook,
    metrics: &Arc<Metrics>,
) -> (Queue<J>, Queued<J>) {
    let (sender, receiver) = mpsc::channel(capacity);
    (
        Queue { jobs: sender, hook, metrics: metrics.clone() },
        Queued { jobs: receiver, concurrency, hook, metrics: metrics.clone() },
    )
}

impl<J> Queue<J> {
    /// Puts a job behind the others.
    ///
    /// # Errors
    /// Too many wait: it is given back, and counted as dropped.
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

impl<J> Queued<J> {
    /// Works jobs off for ever, some at a time: one that takes long holds one place, and no other job back.
    pub async fn each<F: Future<Output = ()>>(self, work: impl Fn(J) -> F) {
        let Self { mut jobs, concurrency, hook, metrics } = self;
        let waiting = metrics.webhook_queue.with_label_values(&[hook.label()]);
        let jobs = stream::poll_fn(|context| jobs.poll_recv(context));
        let taken = |job| {
            waiting.dec();
            work(job)
        };
        jobs.for_each_concurrent(concurrency, taken).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn so_many_run_so_many_wait_and_one_more_is_refused() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let (queue, queued) = queue(2, 2, Hook::Persona, &metrics);
        let (begun, mut running) = mpsc::unbounded_channel();
        let go_on = Arc::new(Semaphore::new(0));
        let held = go_on.clone();
        tokio::spawn(queued.each(move |job: u32| {
            begun.send(job).unwrap();
            let held = held.clone();
            async move { held.acquire().await.unwrap().forget() }
        }));
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
        go_on.add_permits(4);
        assert_eq!((running.recv().await, running.recv().await), (Some(3), Some(4)));
        assert_eq!(waiting.get(), 0);
    }
}
