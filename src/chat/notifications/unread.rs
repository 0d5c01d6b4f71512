//! New messages, grouped by conversation until the next round of notifications. A round reads all members of a conversation,
//! so the rounds of large conversations are further apart: each costs the same in a second.

use std::{
    collections::{HashMap, hash_map},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::Notify,
    time::{Instant, Interval, timeout_at},
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
    conversations: HashMap<ConversationId, New>,
    /// Large conversations that had a round lately, with the earliest time of the next one.
    resting: HashMap<ConversationId, Instant>,
    /// The time of the oldest message in the round under way.
    working_since: Option<Instant>,
}

/// The new messages of a conversation, and the time of the oldest one.
#[derive(Debug)]
struct New {
    waiting: Waiting,
    since: Instant,
}

impl Queued {
    /// Takes the conversations whose next round may begin now.
    fn take_due(&mut self, now: Instant) -> HashMap<ConversationId, Waiting> {
        let Self { conversations, resting, working_since } = self;
        resting.retain(|_, until| *until > now);
        let due = conversations.extract_if(|conversation, _| !resting.contains_key(conversation));
        let taken = due.map(|(conversation, New { waiting, since })| {
            *working_since = Some(working_since.map_or(since, |oldest: Instant| oldest.min(since)));
            (conversation, waiting)
        });
        taken.collect()
    }

    /// The earliest time at which the next round of a queued conversation may begin; `None` if there is none.
    fn next_due(&self, now: Instant) -> Option<Instant> {
        self.conversations.keys().map(|conversation| self.resting.get(conversation).copied().unwrap_or(now)).min()
    }
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
        let conversations = &mut self.lock().conversations;
        for (conversation, seq) in messages {
            let full = conversations.len() >= self.capacity;
            match conversations.entry(conversation) {
                hash_map::Entry::Occupied(mut known) => {
                    let Waiting { first, last } = &mut known.get_mut().waiting;
                    (*first, *last) = ((*first).min(seq), (*last).max(seq));
                }
                hash_map::Entry::Vacant(_) if full => self.metrics.notifications_dropped.inc(),
                hash_map::Entry::Vacant(place) => {
                    place.insert(New { waiting: Waiting { first: seq, last: seq }, since: Instant::now() });
                    self.metrics.notification_queue.inc();
                    self.wake.notify_one();
                }
            }
        }
    }

    /// Waits for new messages and for the next round, then takes all whose conversations don't rest.
    pub(super) async fn next_round(&self, rounds: &mut Interval) -> HashMap<ConversationId, Waiting> {
        self.lock().working_since = None;
        loop {
            let due = self.lock().next_due(Instant::now());
            match due {
                None => self.wake.notified().await,
                Some(due) => {
                    // A conversation that comes meanwhile may be due earlier.
                    let _earlier = timeout_at(due, self.wake.notified()).await;
                    let now = rounds.tick().await.max(Instant::now());
                    let taken = self.lock().take_due(now);
                    if !taken.is_empty() {
                        return taken;
                    }
                }
            }
        }
    }

    /// Lets a conversation rest until then: its next round begins no sooner.
    pub(super) fn rest(&self, conversation: ConversationId, until: Instant) {
        let mut queued = self.lock();
        if queued.resting.len() < self.capacity {
            queued.resting.insert(conversation, until);
        }
    }

    /// The time of the oldest message that is queued, or in the round under way.
    pub(super) fn oldest(&self) -> Option<Instant> {
        let queued = self.lock();
        let waiting = queued.conversations.values().map(|new| new.since);
        queued.working_since.into_iter().chain(waiting).min()
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

    #[tokio::test(start_paused = true)]
    async fn a_conversation_that_rests_keeps_no_other_waiting_and_counts_as_queued() {
        let mut rounds = interval(ROUND);
        let unread = Unread::new(10, Arc::new(Metrics::new().unwrap()));
        let names =
            |taken: HashMap<ConversationId, Waiting>| taken.into_keys().map(|id| id.to_string()).collect::<Vec<_>>();
        let begun = Instant::now();
        unread.observe(&stored([message("large", 1, "a", "x")]));
        assert_eq!(names(unread.next_round(&mut rounds).await), ["large"]);
        unread.rest(ConversationId::parse("large").unwrap(), begun + 6 * ROUND);
        unread.observe(&stored([message("large", 2, "a", "x")]));
        let queued = Instant::now();
        let small = async {
            sleep(2 * ROUND).await;
            unread.observe(&stored([message("small", 1, "a", "x")]));
        };
        let (taken, ()) = tokio::join!(unread.next_round(&mut rounds), small);
        assert_eq!(names(taken), ["small"]);
        assert!(begun.elapsed() <= 4 * ROUND, "{:?}", begun.elapsed());
        assert_eq!(unread.oldest(), Some(queued), "what rests is not done");
        unread.observe(&stored([message("large", 3, "a", "x")]));
        let taken = unread.next_round(&mut rounds).await;
        assert!((6 * ROUND..=7 * ROUND).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        assert_eq!(taken.into_values().next().unwrap(), Waiting { first: 2, last: 3 });
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
