//! Members who are away are told that messages wait: by a row in the store, an entry in their inbox, and a webhook.
//!
//! Behind the commit, and gathered by conversation: however many messages come, a conversation's members are looked at
//! once a round. It is kept in memory alone: a node that dies takes with it what it had not told.

use std::{
    collections::{HashMap, hash_map},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use serde::Serialize;
use tokio::{
    sync::Notify,
    time::{Instant, Interval, MissedTickBehavior, interval, sleep},
};

use super::Chat;
use crate::{
    metrics::Metrics,
    model::{Body, ConversationId, Entry, EntryId, LogOf, Seq, Timestamp, UserId},
    store::{Committed, StoreError, Waiting},
    webhook::{Backoff, Queued, Webhook},
};

/// Between the beginnings of two rounds, while there is something to tell.
const ROUND: Duration = Duration::from_millis(500);
/// Conversations looked at side by side.
const SIDE_BY_SIDE: usize = 4;
/// Members read at a time.
const PAGE: u32 = 500;
/// While the store can't be asked: pauses between tries, and after how long a conversation is given up.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
const PATIENCE: Duration = Duration::from_secs(600);
/// How much of a message the webhook is shown.
const EXCERPT_CHARS: usize = 200;

/// New messages of one conversation.
#[derive(Debug, Clone)]
struct News {
    waiting: Waiting,
    first: Arc<Entry>,
    /// The first one by somebody else than who sent `first`.
    other: Option<Arc<Entry>>,
}

impl News {
    fn of(entry: Arc<Entry>) -> Self {
        Self { waiting: Waiting { first: entry.seq, last: entry.seq }, first: entry, other: None }
    }

    fn add(&mut self, entry: Arc<Entry>) {
        let Waiting { first, last } = &mut self.waiting;
        (*first, *last) = ((*first).min(entry.seq), (*last).max(entry.seq));
        if self.other.is_none() && entry.sender != self.first.sender {
            self.other = Some(entry);
        }
    }

    /// The first message that is news to `user`; none where all are their own.
    fn to(&self, user: &UserId) -> Option<&Arc<Entry>> {
        if self.first.sender == *user { self.other.as_ref() } else { Some(&self.first) }
    }
}

/// What was said and is still to be told to members who are away.
#[derive(Debug)]
pub(super) struct Untold {
    conversations: Mutex<HashMap<ConversationId, News>>,
    capacity: usize,
    wake: Notify,
    metrics: Arc<Metrics>,
}

impl Untold {
    /// For so many conversations.
    pub(super) fn new(capacity: usize, metrics: Arc<Metrics>) -> Self {
        Self { conversations: Mutex::default(), capacity, wake: Notify::new(), metrics }
    }

    /// Takes note of messages among what was stored.
    pub(super) fn note(&self, stored: &[Committed]) {
        let messages = stored.iter().filter(|one| one.entry.body.is_message());
        let messages = messages.filter_map(|one| Some((one.entry.log.conversation()?, one.entry.clone())));
        let mut conversations = self.lock();
        for (conversation, entry) in messages {
            let full = conversations.len() >= self.capacity;
            match conversations.entry(conversation) {
                hash_map::Entry::Occupied(mut known) => known.get_mut().add(entry),
                hash_map::Entry::Vacant(_) if full => self.metrics.notifications_dropped.inc(),
                hash_map::Entry::Vacant(place) => {
                    place.insert(News::of(entry));
                    self.metrics.notification_queue.inc();
                    self.wake.notify_one();
                }
            }
        }
    }

    /// All that gathered, once there is something and the next round may begin.
    async fn take(&self, rounds: &mut Interval) -> HashMap<ConversationId, News> {
        while self.lock().is_empty() {
            self.wake.notified().await;
        }
        rounds.tick().await;
        mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ConversationId, News>> {
        self.conversations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A notification on its way to the webhook.
pub(super) struct Notified {
    user: UserId,
    conversation: ConversationId,
    from_seq: Seq,
    message: Arc<Entry>,
    at: Timestamp,
}

/// What the webhook is told.
#[derive(Serialize)]
struct Post<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    user_id: &'a UserId,
    conversation_id: &'a ConversationId,
    from_seq: Seq,
    message: Excerpt<'a>,
    created_at: Timestamp,
}

#[derive(Serialize)]
struct Excerpt<'a> {
    id: EntryId,
    seq: Seq,
    sender_id: &'a UserId,
    sender_name: &'a str,
    content: &'a str,
    created_at: Timestamp,
}

impl<'a> From<&'a Notified> for Post<'a> {
    fn from(Notified { user, conversation, from_seq, message, at }: &'a Notified) -> Self {
        let content = match &message.body {
            Body::Message { content, .. } => content,
            _ => "",
        };
        let end = content.char_indices().nth(EXCERPT_CHARS).map_or(content.len(), |(at, _)| at);
        let excerpt = Excerpt {
            id: message.id(),
            seq: message.seq,
            sender_id: &message.sender,
            sender_name: &message.sender_name,
            content: &content[..end],
            created_at: message.at,
        };
        Self {
            kind: "notification",
            user_id: user,
            conversation_id: conversation,
            from_seq: *from_seq,
            message: excerpt,
            created_at: *at,
        }
    }
}

impl Chat {
    /// Tells members who are away, round by round.
    pub(super) async fn tell_those_away(self: Arc<Self>) {
        let mut rounds = interval(ROUND);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let news = self.untold.take(&mut rounds).await;
            let tell = |(conversation, news)| self.tell_away(conversation, news);
            stream::iter(news).for_each_concurrent(SIDE_BY_SIDE, tell).await;
        }
    }

    /// Tells the members of one conversation who are away, page by page, and again where the store could not be asked.
    async fn tell_away(&self, conversation: ConversationId, news: News) {
        let (begun, mut backoff) = (Instant::now(), Backoff::new(PAUSES.0, PAUSES.1));
        let mut told = None;
        loop {
            match self.tell_page(&conversation, &news, told.as_ref()).await {
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
            opened.iter().for_each(|entry| self.push_notification(entry, news));
            self.spread_entries(opened);
        }
        Ok(last)
    }

    /// Has the webhook told of a notification that was opened.
    fn push_notification(&self, opened: &Entry, news: &News) {
        let (LogOf::Inbox(user), Body::Notified { conversation, from_seq }) = (opened.log.of(), &opened.body) else {
            return;
        };
        if let (Some(queue), Some(message)) = (&self.notified, news.to(&user)) {
            let (conversation, message) = (conversation.clone(), message.clone());
            let notified = Notified { user, conversation, from_seq: *from_seq, message, at: opened.at };
            // What is too much was counted; the row in the store stands.
            let _dropped = queue.push(notified);
        }
    }

    /// Posts notifications, some at a time.
    pub(super) async fn post_notifications(self: Arc<Self>, webhook: Webhook, notified: Queued<Notified>) {
        let webhook = &webhook;
        let post = async |notified: Notified| {
            if let Err(error) = webhook.post(&Post::from(&notified)).await {
                let Notified { user, conversation, .. } = notified;
                tracing::warn!(%user, %conversation, %error, "a notification did not reach the webhook");
            }
        };
        notified.each(post).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::LogId;

    fn message(log: &str, seq: Seq, sender: &str, content: &str) -> Arc<Entry> {
        let content = content.into();
        Arc::new(Entry {
            log: LogId::parse(log).unwrap(),
            seq,
            message_no: seq,
            sender: user(sender),
            sender_name: sender.into(),
            client_id: None,
            at: Timestamp::from_seconds(seq),
            body: Body::Message { content, reply_to: None, is_ai: false, edited_at: None, deleted: false },
        })
    }

    fn user(id: &str) -> UserId {
        UserId::parse(id).unwrap()
    }

    fn stored(entries: impl IntoIterator<Item = Arc<Entry>>) -> Vec<Committed> {
        entries.into_iter().map(|entry| Committed { entry, origin: None }).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn messages_gather_by_conversation() {
        let mut rounds = interval(ROUND);
        let untold = Untold::new(10, Arc::new(Metrics::new().unwrap()));
        let joined = Entry { body: Body::MemberAdded { user: user("x") }, ..(*message("team", 5, "x", "")).clone() };
        untold.note(&stored([message("team", 6, "alice", "a"), message("other", 1, "bob", "b"), Arc::new(joined)]));
        untold.note(&stored([message("team", 8, "bob", "c"), message("team", 7, "alice", "d")]));
        let taken = untold.take(&mut rounds).await;
        let news = |conversation| &taken[&ConversationId::parse(conversation).unwrap()];
        assert_eq!(taken.len(), 2);
        assert_eq!(news("team").waiting, Waiting { first: 6, last: 8 });
        assert_eq!(news("other").waiting, Waiting { first: 1, last: 1 });

        let begun = Instant::now();
        untold.note(&stored([message("team", 9, "alice", "e")]));
        let later = async {
            sleep(ROUND / 2).await;
            untold.note(&stored([message("team", 10, "alice", "f")]));
        };
        let (taken, ()) = tokio::join!(untold.take(&mut rounds), later);
        assert_eq!(taken.into_values().next().unwrap().waiting, Waiting { first: 9, last: 10 });
        assert!(begun.elapsed() >= ROUND, "what comes meanwhile is told in the next round");
    }

    #[test]
    fn nobody_hears_of_their_own_messages() {
        let mut news = News::of(message("team", 1, "alice", "a"));
        news.add(message("team", 2, "alice", "b"));
        assert!(news.to(&user("alice")).is_none());
        assert_eq!(news.to(&user("bob")).unwrap().seq, 1);
        news.add(message("team", 3, "bob", "c"));
        news.add(message("team", 4, "carol", "d"));
        let heard = ["alice", "bob", "carol"].map(|name| news.to(&user(name)).unwrap().seq);
        assert_eq!(heard, [3, 1, 1]);
    }

    #[test]
    fn beyond_its_capacity_conversations_are_dropped_and_counted() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let untold = Untold::new(1, metrics.clone());
        untold.note(&stored([message("one", 1, "a", "x"), message("two", 1, "a", "x"), message("one", 2, "a", "x")]));
        assert_eq!((metrics.notification_queue.get(), metrics.notifications_dropped.get()), (1, 1));
    }

    #[test]
    fn the_webhook_is_shown_the_beginning_of_a_message() {
        let long = format!("{}…", "ä".repeat(EXCERPT_CHARS));
        let of = |content: &str| Notified {
            user: user("bob"),
            conversation: ConversationId::parse("team").unwrap(),
            from_seq: 3,
            message: message("team", 3, "alice", content),
            at: Timestamp::from_seconds(9),
        };
        let shown = |content| serde_json::to_value(Post::from(&of(content))).unwrap();
        assert_eq!(shown(&long)["message"]["content"], "ä".repeat(EXCERPT_CHARS));
        let short = shown("hi");
        assert_eq!((&short["type"], &short["user_id"]), (&"notification".into(), &"bob".into()));
        assert_eq!((&short["message"]["content"], &short["message"]["sender_id"]), (&"hi".into(), &"alice".into()));
    }
}
