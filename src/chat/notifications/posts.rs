//! The requests to the webhook of notifications. They wait in the store until the webhook accepts them, so that they outlive a
//! node, and a webhook that is down for a while.
//!
//! A node takes requests for a limited time. If it ends meanwhile, any node takes them again: a request arrives at least once,
//! and says by `notification_id` which one it is.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use super::payload::Payload;
use crate::{
    metrics::Metrics,
    store::{NotificationPost, Store},
    supervise::{Supervisor, TaskName, checkpoint},
    webhook::{Hook, Webhook},
};

/// Interval between two looks for requests that other nodes left.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Time beyond the timeout of a request for which a node takes it.
const CLAIM_MARGIN: Duration = Duration::from_secs(5);
/// First and longest pause until a request that failed is made again; each is twice as long as the one before.
const PAUSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));
/// Time that requests under way have when the node ends.
const END_WITHIN: Duration = Duration::from_secs(5);

/// Makes the requests.
pub(in crate::chat) struct Posts {
    pub(in crate::chat) store: Arc<dyn Store>,
    pub(in crate::chat) webhook: Arc<Webhook>,
    /// Time after which a request that never succeeded is given up.
    pub(in crate::chat) max_age: Duration,
    pub(in crate::chat) metrics: Arc<Metrics>,
    pub(in crate::chat) supervisor: Supervisor,
    /// Requests were queued.
    pub(in crate::chat) queued: Arc<Notify>,
}

/// The requests whose outcome the store does not know yet.
#[derive(Debug, Default)]
struct Finished {
    done: Vec<i64>,
    later: Vec<(i64, Duration)>,
}

/// The outcome of a request.
enum Outcome {
    Done(i64),
    Later(i64, Duration),
}

impl Finished {
    fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Done(id) => self.done.push(id),
            Outcome::Later(id, pause) => self.later.push((id, pause)),
        }
    }

    fn is_empty(&self) -> bool {
        self.done.is_empty() && self.later.is_empty()
    }
}

impl Posts {
    /// Makes requests, several concurrently. When the node stops, it waits a moment for those under way.
    pub(in crate::chat) async fn run(&self) {
        let (concurrency, stop) = (self.webhook.settings().concurrency, self.supervisor.stop());
        let (mut running, mut finished) = (FuturesUnordered::new(), Finished::default());
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut may_wait, mut ends_at) = (true, None);
        loop {
            let free = concurrency.saturating_sub(running.len());
            // A request whose end the store has not recorded yet would be claimed again.
            if may_wait && free > 0 && finished.is_empty() && ends_at.is_none() {
                let posts = self.claim(free).await;
                may_wait = posts.len() == free;
                running.extend(posts.into_iter().map(|post| self.post(post)));
            }
            if ends_at.is_some() && running.is_empty() && finished.is_empty() {
                return;
            }
            tokio::select! {
                Some(outcome) = running.next() => finished.add(outcome),
                () = self.queued.notified() => may_wait = true,
                _ = looks.tick() => {
                    may_wait = true;
                    self.measure().await;
                }
                () = stop.cancelled(), if ends_at.is_none() => ends_at = Some(Instant::now() + END_WITHIN),
                () = sleep_until(ends_at.unwrap_or_else(Instant::now)), if ends_at.is_some() => return,
            }
            while let Some(Some(outcome)) = running.next().now_or_never() {
                finished.add(outcome);
            }
            self.finish(&mut finished).await;
        }
    }

    async fn claim(&self, limit: usize) -> Vec<NotificationPost> {
        let claim = self.webhook.settings().timeout + CLAIM_MARGIN;
        self.store.claim_posts(limit, claim, self.max_age).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "notifications for the webhook can't be read; retrying");
            Vec::new()
        })
    }

    /// Tells the store what became of requests. If that fails, it is told at the next look, or the claim lapses.
    async fn finish(&self, finished: &mut Finished) {
        if finished.is_empty() {
            return;
        }
        match self.store.finish_posts(&finished.done, &finished.later).await {
            Ok(()) => *finished = Finished::default(),
            Err(error) => tracing::debug!(%error, "posted notifications can't be recorded; retrying"),
        }
    }

    async fn measure(&self) {
        if let Ok(waiting) = self.store.waiting_posts().await {
            let count = i64::try_from(waiting.count).unwrap_or(i64::MAX);
            self.metrics.webhook_queue.with_label_values(&[Hook::Notification.label()]).set(count);
            self.metrics.notification_oldest.set(i64::try_from(waiting.oldest.as_secs()).unwrap_or(i64::MAX));
        }
    }

    /// Makes a request.
    async fn post(&self, post: NotificationPost) -> Outcome {
        let posted = self.supervisor.guard(TaskName::NotificationPosts, self.try_post(&post)).await;
        // A request that panicked is tried again, until it is too old.
        match posted.unwrap_or_else(|| Some(pause(post.tries))) {
            None => Outcome::Done(post.id),
            Some(pause) => Outcome::Later(post.id, pause),
        }
    }

    /// Makes a request. Returns the pause until it must be made again, if it must.
    async fn try_post(&self, post: &NotificationPost) -> Option<Duration> {
        // The user has read the messages, or they were deleted.
        let message = post.message.as_ref()?;
        let NotificationPost { user, conversation, .. } = post;
        checkpoint(TaskName::NotificationPosts, || user.to_string());
        if post.expired {
            tracing::warn!(%user, %conversation, "a notification is too old for the webhook; given up");
            self.count_dropped();
            return None;
        }
        let error = self.webhook.post(&Payload::of(post, message)).await.err()?;
        if error.may_pass() {
            tracing::info!(%user, %conversation, %error, "a notification did not reach the webhook; retrying later");
            return Some(pause(post.tries).max(error.retry_after().unwrap_or_default()));
        }
        tracing::warn!(%user, %conversation, %error, "the webhook did not accept a notification; given up");
        self.count_dropped();
        None
    }

    fn count_dropped(&self) {
        self.metrics.webhook_dropped.with_label_values(&[Hook::Notification.label()]).inc();
    }
}

/// The pause after this number of tries, with jitter.
fn pause(tries: u32) -> Duration {
    let doublings = tries.saturating_sub(1).min(16);
    (PAUSES.0 * 2_u32.pow(doublings)).min(PAUSES.1).mul_f64(rand::random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_longest() {
        for (tries, longest) in [(0, 2), (1, 2), (2, 4), (5, 32), (9, 300), (u32::MAX, 300)] {
            let (pause, longest) = (pause(tries), Duration::from_secs(longest));
            assert!((longest / 2..=longest).contains(&pause), "{pause:?} after {tries}");
        }
    }
}
