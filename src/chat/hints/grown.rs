//! Conversations with new messages, until hints were sent to their members. Each round handles one page of the members of
//! each conversation, so the larger a group is, the rarer are its hints: its cost per second has a bound.

use std::{
    collections::{HashMap, hash_map},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::Notify, time::Interval};

use crate::{
    metrics::Metrics,
    model::{ConversationId, Event, LogId, Seq, UserId},
};

/// Maximum number of conversations that wait; and of those whose announced head is remembered.
const CONVERSATIONS_MAX: usize = 10_000;

/// A pass through the members of a conversation, as far as it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pass {
    pub(super) conversation: ConversationId,
    /// The last member who was handled.
    pub(super) after: Option<UserId>,
    /// True if other nodes get hints too; otherwise every node makes its own.
    pub(super) elsewhere: bool,
}

/// The state of a conversation's pass.
#[derive(Debug, Default)]
struct Progress {
    after: Option<UserId>,
    /// True if a message came since the pass began.
    again: bool,
    elsewhere: bool,
}

/// The conversations with new messages.
pub(in crate::chat) struct Grown {
    conversations: Mutex<HashMap<ConversationId, Progress>>,
    /// The heads that other nodes announced through the store, which they do several times.
    announced: Mutex<HashMap<LogId, Seq>>,
    added: Notify,
    metrics: Arc<Metrics>,
}

impl Grown {
    pub(in crate::chat) fn new(metrics: Arc<Metrics>) -> Self {
        Self { conversations: Mutex::default(), announced: Mutex::default(), added: Notify::new(), metrics }
    }

    /// Adds the conversations of the messages among committed events.
    pub(in crate::chat) fn observe(&self, stored: &[Event]) {
        let messages = stored.iter().filter_map(|event| match event {
            Event::Entry { entry, .. } if entry.body.is_message() => entry.log.conversation(),
            Event::Entry { .. } | Event::Ephemeral { .. } => None,
        });
        self.add(messages, true);
    }

    /// Adds conversations whose logs grew according to the store.
    pub(super) fn relayed(&self, heads: &[(LogId, Seq)]) {
        let mut announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
        if announced.len() > CONVERSATIONS_MAX {
            // A forgotten head may be announced once more. That costs one superfluous hint.
            announced.clear();
        }
        let new = heads.iter().filter(|(log, head)| {
            let known = announced.entry(log.clone()).or_default();
            std::mem::replace(known, (*known).max(*head)) < *head
        });
        self.add(new.filter_map(|(log, _)| log.conversation()), false);
    }

    pub(super) fn forget_announced(&self) {
        self.announced.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn add(&self, conversations: impl Iterator<Item = ConversationId>, elsewhere: bool) {
        let mut waiting = self.lock();
        for conversation in conversations {
            let full = waiting.len() >= CONVERSATIONS_MAX;
            match waiting.entry(conversation) {
                hash_map::Entry::Occupied(mut known) => {
                    let progress = known.get_mut();
                    (progress.again, progress.elsewhere) = (true, progress.elsewhere || elsewhere);
                }
                hash_map::Entry::Vacant(_) if full => self.metrics.hints_dropped.inc(),
                hash_map::Entry::Vacant(place) => {
                    place.insert(Progress { elsewhere, ..Progress::default() });
                    self.added.notify_one();
                }
            }
        }
    }

    /// Waits for conversations and for the next round. Returns the pass of each conversation.
    pub(super) async fn next_round(&self, rounds: &mut Interval) -> Vec<Pass> {
        while self.lock().is_empty() {
            self.added.notified().await;
        }
        rounds.tick().await;
        let mut waiting = self.lock();
        let pass = |(conversation, progress): (&ConversationId, &mut Progress)| {
            // The page that is read now is the first one that shows the messages so far.
            progress.again &= progress.after.is_some();
            Pass { conversation: conversation.clone(), after: progress.after.clone(), elsewhere: progress.elsewhere }
        };
        waiting.iter_mut().map(pass).collect()
    }

    /// Records that a page of members was handled: up to `last`, or all if `None`.
    pub(super) fn passed(&self, conversation: &ConversationId, last: Option<UserId>) {
        let mut waiting = self.lock();
        let hash_map::Entry::Occupied(mut known) = waiting.entry(conversation.clone()) else { return };
        let progress = known.get_mut();
        match last {
            Some(last) => progress.after = Some(last),
            None if progress.again => progress.after = None,
            None => drop(known.remove()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ConversationId, Progress>> {
        self.conversations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, interval};

    use super::*;

    const ROUND: Duration = Duration::from_millis(500);

    fn id(name: &str) -> ConversationId {
        ConversationId::parse(name).unwrap()
    }

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    fn grown() -> (Grown, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::new().unwrap());
        (Grown::new(metrics.clone()), metrics)
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_group_is_handled_page_by_page_and_again_after_a_message_meanwhile() {
        let ((grown, _), mut rounds) = (grown(), interval(ROUND));
        let pass = |after: Option<&str>| {
            let after = after.map(user);
            Pass { conversation: id("crowd"), after, elsewhere: true }
        };
        grown.add([id("crowd")].into_iter(), true);
        assert_eq!(grown.next_round(&mut rounds).await, [pass(None)]);
        grown.passed(&id("crowd"), Some(user("m")));
        grown.add([id("crowd"), id("crowd")].into_iter(), true);
        let begun = Instant::now();
        assert_eq!(grown.next_round(&mut rounds).await, [pass(Some("m"))]);
        assert!(begun.elapsed() >= ROUND);
        grown.passed(&id("crowd"), None);
        // Once more, for the members of the first page.
        assert_eq!(grown.next_round(&mut rounds).await, [pass(None)]);
        grown.passed(&id("crowd"), Some(user("m")));
        assert_eq!(grown.next_round(&mut rounds).await, [pass(Some("m"))]);
        grown.passed(&id("crowd"), None);
        assert!(grown.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_is_announced_again_causes_nothing() {
        let ((grown, _), mut rounds) = (grown(), interval(ROUND));
        let log = |name: &str| LogId::from(&id(name));
        grown.relayed(&[(log("a"), 3), (LogId::inbox(&user("bob")), 7)]);
        grown.relayed(&[(log("a"), 3), (log("a"), 2)]);
        let passes = grown.next_round(&mut rounds).await;
        assert_eq!(passes, [Pass { conversation: id("a"), after: None, elsewhere: false }]);
        grown.passed(&id("a"), None);
        grown.relayed(&[(log("a"), 3)]);
        assert!(grown.lock().is_empty());
        grown.relayed(&[(log("a"), 4)]);
        grown.add([id("a")].into_iter(), true);
        assert!(grown.next_round(&mut rounds).await[0].elsewhere, "this node stored messages there too");
    }

    #[test]
    fn beyond_the_bound_conversations_are_dropped_and_counted() {
        let (grown, metrics) = grown();
        grown.add((0..CONVERSATIONS_MAX + 2).map(|at| id(&format!("c{at}"))), true);
        grown.add([id("c1")].into_iter(), true);
        assert_eq!((grown.lock().len(), metrics.hints_dropped.get()), (CONVERSATIONS_MAX, 2));
    }
}
