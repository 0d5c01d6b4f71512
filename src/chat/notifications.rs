//! Notifications for members who are away: a row in the store, an entry in the member's inbox, and a webhook.
//!
//! They run after the commit, grouped by conversation: however many messages arrive, each round reads a conversation's
//! members once. The queue is in memory only; if the node dies, its pending notifications are lost.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::{hints::Hints, retell::Retell, router::Router};
use crate::{
    backplane::Backplane,
    metrics::Metrics,
    model::{Body, ConversationId, Entry, LogOf, UserId},
    store::{Store, StoreError},
    supervise::{Supervisor, TaskName},
    webhook::{Backoff, Queue, QueueReceiver, Webhook},
};

mod post;
pub(super) mod unread;

use post::{Notified, Post};
use unread::{NewMessages, Unread};

/// Minimum interval between the starts of two rounds.
const ROUND: Duration = Duration::from_millis(500);
/// Conversations processed concurrently.
const CONVERSATIONS_AT_ONCE: usize = 4;
/// Members per read.
const PAGE: u32 = 500;
/// While the store is unavailable: the first and the longest pause between tries, and the time after which a
/// conversation is given up.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
const GIVE_UP_AFTER: Duration = Duration::from_secs(600);
/// The notifications that wait for the webhook, if there is one.
pub(super) type QueuedPosts = Option<QueueReceiver<Notified>>;

/// Notifies members who are away.
pub(super) struct Notifications {
    pub(super) unread: Arc<Unread>,
    pub(super) store: Arc<dyn Store>,
    pub(super) backplane: Arc<Backplane>,
    pub(super) router: Arc<Router>,
    pub(super) retell: Arc<Retell>,
    pub(super) hints: Arc<Hints>,
    pub(super) metrics: Arc<Metrics>,
    /// The operator's webhook; none if it is not configured.
    pub(super) webhook: Option<Webhook>,
    /// The queue of that webhook.
    pub(super) queue: Option<Queue<Notified>>,
    pub(super) supervisor: Supervisor,
}

impl Notifications {
    /// Notifies members round by round until its task is stopped.
    pub(super) async fn run(&self, queued: &mut QueuedPosts) {
        let posting = async {
            if let (Some(webhook), Some(queued)) = (&self.webhook, queued) {
                post_all(webhook, queued).await;
            }
        };
        tokio::join!(self.notify_rounds(self.queue.as_ref()), posting);
    }

    async fn notify_rounds(&self, webhook: Option<&Queue<Notified>>) {
        let mut rounds = interval(ROUND);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let new_messages = self.unread.next_round(&mut rounds).await;
            let notify = async |(conversation, new_messages)| {
                let notified = self.notify_away(conversation, new_messages, webhook);
                if self.supervisor.guard(TaskName::Notifications, notified).await.is_none() {
                    self.metrics.notifications_dropped.inc();
                }
                self.metrics.notification_queue.dec();
            };
            stream::iter(new_messages).for_each_concurrent(CONVERSATIONS_AT_ONCE, notify).await;
        }
    }

    /// Notifies the away members of one conversation, page by page, and retries while the store is unavailable.
    async fn notify_away(
        &self,
        conversation: ConversationId,
        new_messages: NewMessages,
        webhook: Option<&Queue<Notified>>,
    ) {
        let (begun, mut backoff) = (Instant::now(), Backoff::new(RETRY_PAUSES.0, RETRY_PAUSES.1));
        let mut last_notified = None;
        loop {
            match self.notify_page(&conversation, &new_messages, last_notified.as_ref(), webhook).await {
                Ok(None) => break,
                Ok(last) => last_notified = last,
                Err(error) if begun.elapsed() >= GIVE_UP_AFTER => {
                    tracing::warn!(%conversation, %error, "members who are away were not notified; given up");
                    self.metrics.notifications_dropped.inc();
                    break;
                }
                Err(error) => {
                    tracing::debug!(%conversation, %error, "members who are away were not notified; retrying");
                    sleep(backoff.pause()).await;
                }
            }
        }
    }

    /// Notifies the away members of one page. Returns the last member of the page, or none if it is the last page.
    async fn notify_page(
        &self,
        conversation: &ConversationId,
        new_messages: &NewMessages,
        after: Option<&UserId>,
        webhook: Option<&Queue<Notified>>,
    ) -> Result<Option<UserId>, StoreError> {
        let members = self.store.members(conversation, after, PAGE).await?;
        let last = if members.len() < PAGE as usize { None } else { members.last().cloned() };
        let connected = self.backplane.connected(&members).await;
        let (present, mut away): (Vec<_>, Vec<_>) =
            members.into_iter().zip(connected).partition(|(_, connected)| *connected);
        let present = present.into_iter().map(|(user, _)| user).collect();
        self.hints.send(conversation, new_messages.waiting.last, present).await;
        away.retain(|(user, _)| new_messages.first_for(user).is_some());
        let away: Vec<UserId> = away.into_iter().map(|(user, _)| user).collect();
        if !away.is_empty() {
            let opened = self.store.notify(conversation, new_messages.waiting, &away).await;
            // The next try finds the notifications open and returns no entries of them.
            let opened = opened.inspect_err(|error| self.retell.doubt_inboxes(error, &away))?;
            self.metrics.notifications.inc_by(opened.len() as u64);
            opened.iter().for_each(|entry| queue_webhook(webhook, entry, new_messages));
            self.router.send_entries(opened);
        }
        Ok(last)
    }
}

/// Queues a new notification for the webhook.
fn queue_webhook(webhook: Option<&Queue<Notified>>, opened: &Entry, new_messages: &NewMessages) {
    let (LogOf::Inbox(user), Body::Notified { conversation, from_seq }) = (opened.log.of(), &opened.body) else {
        return;
    };
    if let (Some(queue), Some(message)) = (webhook, new_messages.first_for(&user)) {
        let (conversation, message) = (conversation.clone(), message.clone());
        let notified = Notified { user, conversation, from_seq: *from_seq, message, at: opened.at };
        // The queue counts the drop; the row in the store remains.
        let _dropped = queue.push(notified);
    }
}

/// Posts queued notifications to the webhook, several concurrently.
async fn post_all(webhook: &Webhook, notified: &mut QueueReceiver<Notified>) {
    let post = async |notified: Notified| {
        if let Err(error) = webhook.post(&Post::from(&notified)).await {
            let Notified { user, conversation, .. } = notified;
            tracing::warn!(%user, %conversation, %error, "a notification did not reach the webhook");
        }
    };
    notified.each(post).await;
}
