//! New messages, grouped by conversation until the next round of notifications.

use std::{
    collections::{HashMap, hash_map},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::Notify,
    time::{Instant, Interval},
};

use crate::{
    metrics::Metrics,
    model::{ConversationId, Event},
    store::Waiting,
};

/// New messages whose away members are not notified yet, by conversation.
#[derive(Debug)]
pub(in crate::chat) struct Unread {
    queued: Mutex<Queued>,
    capacity: usize,
    wake: Notify,
    metrics: Arc<Metrics>,
}

/// The queue, and the age of its oldest message.
#[derive(Debug, Default)]
struct Queued {
    conversations: HashMap<ConversationId, Waiting>,
    since: Option<Instant>,
    /// The same of the round under way.
    working_since: Option<Instant>,
}

impl Unread {
    /// Creates a queue for at most `capacity` conversations.
    pub(in crate::chat) fn new(capacity: usize, metrics: Arc<Metrics>) -> Self {
        Self { queued: Mutex::default(), capacity, wake: Notify::new(), metrics }
    }

    /// Adds the messages among committed events.
    pub(in crate::chat) fn observe(&self, stored: &[Event]) {
        let messages = stored.iter().filter_map(|event| match event {
            Event::Entry { entry, .. } if entry.body.is_message() => Some((entry.log.conversation()?, entry.seq)),
            Event::Entry { .. } | Event::Ephemeral { .. } => None,
        });
        let Queued { conversations, since, .. } = &mut *self.lock();
        for (conversation, seq) in messages {
            let full = conversations.len() >= self.capacity;
            match conversations.entry(conversation) {
                hash_map::Entry::Occupied(mut known) => {
                    let Waiting { first, last } = known.get_mut();
                    (*first, *last) = ((*first).min(seq), (*last).max(seq));
                }
                hash_map::Entry::Vacant(_) if full => self.metrics.notifications_dropped.inc(),
                hash_map::Entry::Vacant(place) => {
                    place.insert(Waiting { first: seq, last: seq });
                    since.get_or_insert_with(Instant::now);
                    self.metrics.notification_queue.inc();
                    self.wake.notify_one();
                }
            }
        }
    }

    /// Waits for new messages and for the next round, then takes all that are queued.
    pub(super) async fn next_round(&self, rounds: &mut Interval) -> HashMap<ConversationId, Waiting> {
        self.lock().working_since = None;
        while self.lock().conversations.is_empty() {
            self.wake.notified().await;
        }
        rounds.tick().await;
        let mut queued = self.lock();
        queued.working_since = queued.since.take();
        mem::take(&mut queued.conversations)
    }

    /// The time of the oldest message that is queued, or in the round under way.
    pub(super) fn oldest(&self) -> Option<Instant> {
        let queued = self.lock();
        queued.working_since.or(queued.since)
    }

    fn lock(&self) -> MutexGuard<'_, Queued> {
        self.queued.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, interval, sleep};

    use super::*;

    use crate::model::{Body, Entry, LogId, Seq, Timestamp, UserId};

    const ROUND: Duration = Duration::from_millis(500);

    fn message(log: &str, seq: Seq, sender: &str, content: &str) -> Arc<Entry> {
        Arc::new(Entry {
            log: LogId::parse(log).unwrap(),
            seq,
            message_no: seq,
            sender: user(sender),
            sender_name: sender.into(),
            client_id: None,
            at: Timestamp::from_seconds(seq),
            body: Body::message(content),
        })
    }

    fn user(id: &str) -> UserId {
        UserId::parse(id).unwrap()
    }

    fn stored(entries: impl IntoIterator<Item = Arc<Entry>>) -> Vec<Event> {
        entries.into_iter().map(|entry| Event::Entry { entry, origin: None }).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn messages_are_grouped_by_conversation() {
        let mut rounds = interval(ROUND);
        let unread = Unread::new(10, Arc::new(Metrics::new().unwrap()));
        let joined = Entry { body: Body::MemberAdded { user: user("x") }, ..(*message("team", 5, "x", "")).clone() };
        unread.observe(&stored([message("team", 6, "alice", "a"), message("other", 1, "bob", "b"), Arc::new(joined)]));
        unread.observe(&stored([message("team", 8, "bob", "c"), message("team", 7, "alice", "d")]));
        let taken = unread.next_round(&mut rounds).await;
        let new_messages = |conversation| taken[&ConversationId::parse(conversation).unwrap()];
        assert_eq!(taken.len(), 2);
        assert_eq!(new_messages("team"), Waiting { first: 6, last: 8 });
        assert_eq!(new_messages("other"), Waiting { first: 1, last: 1 });

        let begun = Instant::now();
        unread.observe(&stored([message("team", 9, "alice", "e")]));
        let later = async {
            sleep(ROUND / 2).await;
            unread.observe(&stored([message("team", 10, "alice", "f")]));
        };
        let (taken, ()) = tokio::join!(unread.next_round(&mut rounds), later);
        assert_eq!(taken.into_values().next().unwrap(), Waiting { first: 9, last: 10 });
        assert!(begun.elapsed() >= ROUND, "messages of the meantime go into the next round");
        // The round counts until the next one is asked for.
        assert_eq!(unread.oldest(), Some(begun));
        let next = unread.next_round(&mut rounds);
        assert!(tokio::time::timeout(ROUND, next).await.is_err());
        assert_eq!(unread.oldest(), None);
    }

    #[test]
    fn beyond_its_capacity_conversations_are_dropped_and_counted() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let unread = Unread::new(1, metrics.clone());
        unread.observe(&stored([
            message("one", 1, "a", "x"),
            message("two", 1, "a", "x"),
            message("one", 2, "a", "x"),
        ]));
        assert_eq!((metrics.notification_queue.get(), metrics.notifications_dropped.get()), (1, 1));
    }
}
