//! Members who are away are told that messages wait: by a row in the store, an entry in their inbox, and a webhook.
//!
//! Behind the commit, and gathered by conversation: however many messages come, a conversation's members are looked at
//! once a round. It is kept in memory alone: a node that dies takes with it what it had not told.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::router::Router;
use crate::{
    backplane::Backplane,
    metrics::Metrics,
    model::{Body, ConversationId, Entry, LogOf, UserId},
    store::{Store, StoreError},
    webhook::{Backoff, Queue, QueueReceiver, Webhook},
};

mod post;
pub(super) mod unread;

use post::{Notified, Post};
use unread::{News, Unread};

/// Between the beginnings of two rounds, while there is something to tell.
const ROUND: Duration = Duration::from_millis(500);
/// Conversations looked at side by side.
const SIDE_BY_SIDE: usize = 4;
/// Members read at a time.
const PAGE: u32 = 500;
/// While the store can't be asked: pauses between tries, and after how long a conversation is given up.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
const PATIENCE: Duration = Duration::from_secs(600);
/// Notifies members who are away.
pub(super) struct Notifications {
    pub(super) unread: Arc<Unread>,
    pub(super) store: Arc<dyn Store>,
    pub(super) backplane: Arc<Backplane>,
    pub(super) router: Arc<Router>,
    pub(super) metrics: Arc<Metrics>,
    /// Where the operator is told; none where no webhook is configured.
    pub(super) webhook: Option<Webhook>,
}

impl Notifications {
    /// Tells members who are away, round by round, until it is stopped.
    pub(super) async fn run(self) {
        let (queue, queued) = self.webhook.as_ref().map(Webhook::queue).unzip();
        let posting = async {
            if let (Some(webhook), Some(queued)) = (&self.webhook, queued) {
                post_all(webhook, queued).await;
            }
        };
        tokio::join!(self.tell_rounds(queue.as_ref()), posting);
    }

    async fn tell_rounds(&self, webhook: Option<&Queue<Notified>>) {
        let mut rounds = interval(ROUND);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let news = self.unread.take(&mut rounds).await;
            let tell = |(conversation, news)| self.tell_away(conversation, news, webhook);
            stream::iter(news).for_each_concurrent(SIDE_BY_SIDE, tell).await;
        }
    }

    /// Tells the members of one conversation who are away, page by page, and again where the store could not be asked.
    async fn tell_away(&self, conversation: ConversationId, news: News, webhook: Option<&Queue<Notified>>) {
        let (begun, mut backoff) = (Instant::now(), Backoff::new(PAUSES.0, PAUSES.1));
        let mut told = None;
        loop {
            match self.tell_page(&conversation, &news, told.as_ref(), webhook).await {
                Ok(None) => break,
                Ok(last) => told = last,
                Err(error) if begun.elapsed() >= PATIENCE => {
                    tracing::warn!(%conversation, %error, "members who are away were not noted");
                    self.metrics.notifications_dropped.inc();
                    break;
                }
                Err(error) => {
                    tracing::debug!(%conversation, %error, "members who are away are noted later");
                    sleep(backoff.pause()).await;
                }
            }
        }
        self.metrics.notification_queue.dec();
    }

    /// Tells those of a page of members who are away. The last member of the page, where it is not the last page.
    async fn tell_page(
        &self,
        conversation: &ConversationId,
        news: &News,
        after: Option<&UserId>,
        webhook: Option<&Queue<Notified>>,
    ) -> Result<Option<UserId>, StoreError> {
        let mut members = self.store.members(conversation, after, PAGE).await?;
        let last = if members.len() < PAGE as usize { None } else { members.last().cloned() };
        members.retain(|user| news.to(user).is_some());
        let connected = self.backplane.connected(&members).await;
        let away = members.into_iter().zip(connected).filter_map(|(user, connected)| (!connected).then_some(user));
        let away: Vec<UserId> = away.collect();
        if !away.is_empty() {
            let opened = self.store.notify(conversation, news.waiting, &away).await?;
            self.metrics.notifications.inc_by(opened.len() as u64);
            opened.iter().for_each(|entry| push_notification(webhook, entry, news));
            self.router.send_entries(opened);
        }
        Ok(last)
    }
}

/// Has the webhook told of a notification that was opened.
fn push_notification(webhook: Option<&Queue<Notified>>, opened: &Entry, news: &News) {
    let (LogOf::Inbox(user), Body::Notified { conversation, from_seq }) = (opened.log.of(), &opened.body) else {
        return;
    };
    if let (Some(queue), Some(message)) = (webhook, news.to(&user)) {
        let (conversation, message) = (conversation.clone(), message.clone());
        let notified = Notified { user, conversation, from_seq: *from_seq, message, at: opened.at };
        // What is too much was counted; the row in the store stands.
        let _dropped = queue.push(notified);
    }
}

/// Posts notifications, some at a time.
async fn post_all(webhook: &Webhook, notified: QueueReceiver<Notified>) {
    let post = async |notified: Notified| {
        if let Err(error) = webhook.post(&Post::from(&notified)).await {
            let Notified { user, conversation, .. } = notified;
            tracing::warn!(%user, %conversation, %error, "a notification did not reach the webhook");
        }
    };
    notified.each(post).await;
}
