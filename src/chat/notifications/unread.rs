//! New messages, grouped by conversation until the next round of notifications.

use std::{
    collections::{HashMap, hash_map},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::Notify, time::Interval};

use crate::{
    metrics::Metrics,
    model::{ConversationId, Entry, Event, UserId},
    store::Waiting,
};

/// The new messages of one conversation.
#[derive(Debug, Clone)]
pub(super) struct NewMessages {
    pub(super) waiting: Waiting,
    first: Arc<Entry>,
    /// The first message of a sender other than that of `first`.
    other: Option<Arc<Entry>>,
}

impl NewMessages {
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

    /// The first message by somebody other than `user`; none if all are by `user`.
    pub(super) fn first_for(&self, user: &UserId) -> Option<&Arc<Entry>> {
        if self.first.sender == *user { self.other.as_ref() } else { Some(&self.first) }
    }
}

/// New messages whose away members are not notified yet, by conversation.
#[derive(Debug)]
pub(in crate::chat) struct Unread {
    conversations: Mutex<HashMap<ConversationId, NewMessages>>,
    capacity: usize,
    wake: Notify,
    metrics: Arc<Metrics>,
}

impl Unread {
    /// Creates a queue for at most `capacity` conversations.
    pub(in crate::chat) fn new(capacity: usize, metrics: Arc<Metrics>) -> Self {
        Self { conversations: Mutex::default(), capacity, wake: Notify::new(), metrics }
    }

    /// Adds the messages among committed events.
    pub(in crate::chat) fn observe(&self, stored: &[Event]) {
        let messages = stored.iter().filter_map(|event| match event {
            Event::Entry { entry, .. } if entry.body.is_message() => Some((entry.log.conversation()?, entry.clone())),
            Event::Entry { .. } | Event::Ephemeral { .. } => None,
        });
        let mut conversations = self.lock();
        for (conversation, entry) in messages {
            let full = conversations.len() >= self.capacity;
            match conversations.entry(conversation) {
                hash_map::Entry::Occupied(mut known) => known.get_mut().add(entry),
                hash_map::Entry::Vacant(_) if full => self.metrics.notifications_dropped.inc(),
                hash_map::Entry::Vacant(place) => {
                    place.insert(NewMessages::of(entry));
                    self.metrics.notification_queue.inc();
                    self.wake.notify_one();
                }
            }
        }
    }

    /// Waits for new messages and for the next round, then takes all that are queued.
    pub(super) async fn next_round(&self, rounds: &mut Interval) -> HashMap<ConversationId, NewMessages> {
        while self.lock().is_empty() {
            self.wake.notified().await;
        }
        rounds.tick().await;
        mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ConversationId, NewMessages>> {
        self.conversations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, interval, sleep};

    use super::*;

    use crate::model::{Body, LogId, Seq, Timestamp};

    const ROUND: Duration = Duration::from_millis(500);

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
            body: Body::Message {
                content,
                reply_to: None,
                is_ai: false,
                persona: None,
                edited_at: None,
                deleted: false,
            },
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
        let new_messages = |conversation| &taken[&ConversationId::parse(conversation).unwrap()];
        assert_eq!(taken.len(), 2);
        assert_eq!(new_messages("team").waiting, Waiting { first: 6, last: 8 });
        assert_eq!(new_messages("other").waiting, Waiting { first: 1, last: 1 });

        let begun = Instant::now();
        unread.observe(&stored([message("team", 9, "alice", "e")]));
        let later = async {
            sleep(ROUND / 2).await;
            unread.observe(&stored([message("team", 10, "alice", "f")]));
        };
        let (taken, ()) = tokio::join!(unread.next_round(&mut rounds), later);
        assert_eq!(taken.into_values().next().unwrap().waiting, Waiting { first: 9, last: 10 });
        assert!(begun.elapsed() >= ROUND, "messages of the meantime go into the next round");
    }

    #[test]
    fn own_messages_do_not_notify() {
        let mut new_messages = NewMessages::of(message("team", 1, "alice", "a"));
        new_messages.add(message("team", 2, "alice", "b"));
        assert!(new_messages.first_for(&user("alice")).is_none());
        assert_eq!(new_messages.first_for(&user("bob")).unwrap().seq, 1);
        new_messages.add(message("team", 3, "bob", "c"));
        new_messages.add(message("team", 4, "carol", "d"));
        let heard = ["alice", "bob", "carol"].map(|name| new_messages.first_for(&user(name)).unwrap().seq);
        assert_eq!(heard, [3, 1, 1]);
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
