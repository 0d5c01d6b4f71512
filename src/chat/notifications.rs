//! Notifications for members who are away: a row in the store, an entry in the member's inbox, and a request to the webhook.
//!
//! They run after the commit, grouped by conversation: however many messages arrive, each round reads a conversation's
//! members once, those of many conversations in one query, and the rounds of a large conversation are further apart. The requests wait in the store ([`posts`]). What a dead node left is found by another one ([`watch`]).

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, stream};
use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

use super::{retell::Retell, router::Router};
use crate::{
    backplane::Backplane,
    metrics::Metrics,
    model::{ConversationId, UserId},
    store::{Notified, NotifyOptions, Store, StoreError, Waiting},
    supervise::{Supervisor, TaskName},
    webhook::{Backoff, Hook},
};

mod payload;
pub(super) mod posts;
pub(super) mod unconfirmed;
pub(super) mod unread;
pub(super) mod watch;

use unconfirmed::Unconfirmed;
use unread::Unread;

/// Minimum interval between the starts of two rounds, and of two rounds of one conversation for each page of its members.
const ROUND: Duration = Duration::from_millis(500);
/// Conversations processed concurrently, and those whose first pages of members are read together.
const CONVERSATIONS_AT_ONCE: usize = 4;
const CONVERSATIONS_PER_READ: usize = 50;
/// Members per read.
const PAGE: u32 = 500;
/// Members who are notified by one statement. It holds their read marks, for which their own messages wait.
const NOTIFIED_AT_ONCE: usize = 50;
/// While the store is unavailable: the first and the longest pause between tries, and the time after which a
/// conversation is given up.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
const GIVE_UP_AFTER: Duration = Duration::from_secs(600);

/// The members on one page of a conversation who are away, and the last member of the page, unless it is the last page.
#[derive(Debug, Clone)]
struct Page {
    away: Vec<UserId>,
    last: Option<UserId>,
}

impl Page {
    /// The page of these members. `connected` is asked for each of them, in order.
    fn of(members: Vec<UserId>, mut connected: impl FnMut(&UserId) -> bool) -> Self {
        let last = if members.len() < PAGE as usize { None } else { members.last().cloned() };
        Self { away: members.into_iter().filter(|user| !connected(user)).collect(), last }
    }
}

/// Notifies members who are away.
pub(super) struct Notifications {
    pub(super) unread: Arc<Unread>,
    pub(super) unconfirmed: Arc<Unconfirmed>,
    pub(super) store: Arc<dyn Store>,
    pub(super) backplane: Arc<Backplane>,
    pub(super) router: Arc<Router>,
    pub(super) retell: Arc<Retell>,
    pub(super) metrics: Arc<Metrics>,
    /// Maximum number of requests to the webhook that wait; 0 if there is no webhook.
    pub(super) post_queue: usize,
    /// Wakes the task that posts.
    pub(super) queued: Arc<Notify>,
    pub(super) supervisor: Supervisor,
}

impl Notifications {
    /// Notifies members until its task is stopped.
    pub(super) async fn run(&self) {
        tokio::join!(self.notify_rounds(), self.notify_unconfirmed());
    }

    /// Notifies users whose sockets ended without confirming what they were given, if they are away.
    async fn notify_unconfirmed(&self) {
        let mut rounds = interval(ROUND);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let now = rounds.tick().await;
            let due = self.unconfirmed.take_due(now, PAGE as usize);
            if due.is_empty() {
                continue;
            }
            let users: Vec<UserId> = due.iter().map(|(user, _)| user.clone()).collect();
            let connected = self.backplane.connected(&users).await;
            let away = due.into_iter().zip(connected).filter_map(|(one, connected)| (!connected).then_some(one));
            let notify = async |(user, since): (UserId, Instant)| {
                let notified = self.supervisor.guard(TaskName::Notifications, self.notify_since(&user, since)).await;
                if let Some(Err(error)) = notified {
                    tracing::debug!(%user, %error, "a user whose socket ended was not notified; retrying");
                    self.unconfirmed.retry(user, since, RETRY_PAUSES.1);
                }
            };
            stream::iter(away).for_each_concurrent(CONVERSATIONS_AT_ONCE, notify).await;
        }
    }

    /// Notifies a user of the messages since then that have not arrived.
    async fn notify_since(&self, user: &UserId, since: Instant) -> Result<(), StoreError> {
        for (conversation, waiting) in self.store.undelivered(user, since.elapsed()).await? {
            let options = NotifyOptions { undelivered_only: true, post_queue: self.post_queue };
            let notified = self.store.notify(&conversation, waiting, std::slice::from_ref(user), options).await;
            self.pass_on(notified.inspect_err(|error| self.retell.doubt_inboxes(error, [user]))?);
        }
        Ok(())
    }

    /// Notifies members of new messages, round by round.
    async fn notify_rounds(&self) {
        let mut rounds = interval(ROUND);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let new_messages = self.unread.next_round(&mut rounds).await;
            let notify = async |((conversation, waiting), first): ((ConversationId, Waiting), Option<Page>)| {
                let options = NotifyOptions { undelivered_only: false, post_queue: self.post_queue };
                let (begun, notified) = (Instant::now(), self.notify_away(&conversation, waiting, options, first));
                match self.supervisor.guard(TaskName::Notifications, notified).await {
                    Some(pages) if pages > 1 => self.unread.rest(conversation, begun + ROUND * pages),
                    Some(_) => {}
                    None => self.metrics.notifications_dropped.inc(),
                }
                self.metrics.notification_queue.dec();
            };
            let new_messages: Vec<_> = new_messages.into_iter().collect();
            for new_messages in new_messages.chunks(CONVERSATIONS_PER_READ) {
                let first_pages = self.supervisor.guard(TaskName::Notifications, self.first_pages(new_messages)).await;
                let first_pages = first_pages.unwrap_or_else(|| vec![None; new_messages.len()]);
                let each = new_messages.iter().cloned().zip(first_pages);
                stream::iter(each).for_each_concurrent(CONVERSATIONS_AT_ONCE, notify).await;
            }
        }
    }

    /// The first pages of these conversations, in order. Where it is `None`, the conversation's own read tells, and is retried.
    async fn first_pages(&self, conversations: &[(ConversationId, Waiting)]) -> Vec<Option<Page>> {
        let from: Vec<_> = conversations.iter().map(|(conversation, _)| (conversation.clone(), None)).collect();
        let Ok(members) = self.store.members_of(&from, PAGE).await else {
            return vec![None; conversations.len()];
        };
        let mut users: Vec<UserId> = members.iter().map(|(_, user)| user.clone()).collect();
        users.sort_unstable();
        users.dedup();
        let connected: HashSet<UserId> = {
            let connected = self.backplane.connected(&users).await;
            users.into_iter().zip(connected).filter_map(|(user, connected)| connected.then_some(user)).collect()
        };
        let mut pages: HashMap<ConversationId, Vec<UserId>> = HashMap::new();
        for (conversation, user) in members {
            pages.entry(conversation).or_default().push(user);
        }
        let page = |(conversation, _): &(ConversationId, Waiting)| {
            let members = pages.remove(conversation).unwrap_or_default();
            Some(Page::of(members, |user| connected.contains(user)))
        };
        conversations.iter().map(page).collect()
    }

    /// Notifies the away members of one conversation, page by page, and retries while the store is unavailable. Returns the
    /// number of pages. `first` is the first page, if it was read already.
    async fn notify_away(
        &self,
        conversation: &ConversationId,
        waiting: Waiting,
        options: NotifyOptions,
        mut first: Option<Page>,
    ) -> u32 {
        let (begun, mut backoff) = (Instant::now(), Backoff::new(RETRY_PAUSES.0, RETRY_PAUSES.1));
        let (mut last_notified, mut pages) = (None, 1);
        loop {
            let page = self.notify_page(conversation, waiting, options, last_notified.as_ref(), first.take());
            match page.await {
                Ok(None) => return pages,
                Ok(last) => (last_notified, pages) = (last, pages + 1),
                Err(error) if begun.elapsed() >= GIVE_UP_AFTER => {
                    tracing::warn!(%conversation, %error, "members who are away were not notified; given up");
                    self.metrics.notifications_dropped.inc();
                    return pages;
                }
                Err(error) => {
                    tracing::debug!(%conversation, %error, "members who are away were not notified; retrying");
                    sleep(backoff.pause()).await;
                }
            }
        }
    }

    /// Notifies the away members of one page, which is `read` if it was read already. Returns the last member of the page, or none if it is the last page.
    async fn notify_page(
        &self,
        conversation: &ConversationId,
        waiting: Waiting,
        options: NotifyOptions,
        after: Option<&UserId>,
        read: Option<Page>,
    ) -> Result<Option<UserId>, StoreError> {
        let Page { away, last } = match read {
            Some(page) => page,
            None => self.page(conversation, after).await?,
        };
        for away in away.chunks(NOTIFIED_AT_ONCE) {
            let notified = self.store.notify(conversation, waiting, away, options).await;
            // The next try finds the notifications open and returns no entries of them.
            let notified = notified.inspect_err(|error| self.retell.doubt_inboxes(error, away))?;
            self.pass_on(notified);
        }
        Ok(last)
    }

    /// Reads one page of members, and asks which of them are away.
    async fn page(&self, conversation: &ConversationId, after: Option<&UserId>) -> Result<Page, StoreError> {
        let members = self.store.members(conversation, after, PAGE).await?;
        let mut connected = self.backplane.connected(&members).await.into_iter();
        Ok(Page::of(members, |_| connected.next().unwrap_or_default()))
    }

    /// Notifies the away members of a conversation of messages that a dead node may have left, unless they received them.
    async fn notify_left(&self, conversation: ConversationId, waiting: Waiting) {
        let options = NotifyOptions { undelivered_only: true, post_queue: self.post_queue };
        self.notify_away(&conversation, waiting, options, None).await;
    }

    /// Tells the inboxes of notifications that were opened, and the task that posts.
    fn pass_on(&self, Notified { entries, queued }: Notified) {
        self.metrics.notifications.inc_by(entries.len() as u64);
        if queued > 0 {
            self.queued.notify_one();
        }
        if self.post_queue > 0 {
            let dropped = (entries.len() - queued) as u64;
            self.metrics.webhook_dropped.with_label_values(&[Hook::Notification.label()]).inc_by(dropped);
        }
        self.router.send_entries(entries);
    }
}
