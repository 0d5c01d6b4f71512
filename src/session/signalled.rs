//! Joins and leaves that the hub's signals require of a session: their order, and the repetition of joins that failed.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use crate::model::{Command, ConversationId, Seq, SinceSeq};

/// First pause before a join is repeated.
const RETRY_MIN: Duration = Duration::from_millis(250);
/// Longest pause before a join is repeated.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// A join whose last try failed for a temporary reason.
#[derive(Debug)]
struct FailedJoin {
    conversation: ConversationId,
    since: Option<SinceSeq>,
    due: Instant,
    pause: Duration,
}

/// The commands that signals require. A session without any has no memory for them.
#[derive(Debug, Default)]
pub(super) struct Signalled(Option<Box<Commands>>);

/// The commands of a session that has some.
#[derive(Debug, Default)]
struct Commands {
    queue: VecDeque<Command>,
    /// The join that is under way, and the pause before its next try.
    current: Option<(ConversationId, Option<SinceSeq>, Duration)>,
    /// The conversation of the leave that is under way.
    leaving: Option<ConversationId>,
    failed: Vec<FailedJoin>,
    /// Conversations to which the user was added while the connection listened to them, each with its head at that time.
    /// The removal before that addition, in another log, may be signalled later.
    added_again: HashMap<ConversationId, Seq>,
}

impl Signalled {
    /// True if no command waits for its turn now.
    pub(super) fn is_idle(&self) -> bool {
        self.0.as_ref().is_none_or(|commands| commands.queue.is_empty())
    }

    /// Number of joins and leaves that wait, failed joins included.
    pub(super) fn count(&self) -> usize {
        self.0.as_ref().map_or(0, |commands| commands.queue.len() + commands.failed.len())
    }

    /// Queues the join of a conversation to which the user was added when its head was `since`. If the connection listens
    /// already, the join is needed only after a removal that came before; at most `limit` such additions are remembered.
    pub(super) fn added(&mut self, conversation: ConversationId, since: Seq, listens: bool, limit: usize) {
        self.0.get_or_insert_default().added(conversation, since, listens, limit);
        self.free();
    }

    /// Queues the join of a conversation. Without `since`, the connection continues after the last entry that it received.
    pub(super) fn join(&mut self, conversation: ConversationId, since: Option<Seq>) {
        self.0.get_or_insert_default().join(conversation, since);
    }

    /// True while the connection leaves a conversation from which its user was removed.
    pub(super) fn is_leaving(&self) -> bool {
        self.0.as_ref().is_some_and(|commands| commands.leaving.is_some())
    }

    /// True if a join of the conversation waits, for its turn or for a repetition, or is under way.
    pub(super) fn joins(&self, id: &ConversationId) -> bool {
        self.0.as_ref().is_some_and(|commands| commands.joins(id))
    }

    /// Queues the leave of a conversation from which the entry `seq` removed the user, and a join if the user was added
    /// again after it. A failed join from before is no longer needed.
    pub(super) fn removed(&mut self, conversation: ConversationId, seq: Seq) {
        self.0.get_or_insert_default().removed(conversation, seq);
    }

    /// The next command whose turn it is. Skips joins of conversations that the connection listens to already.
    pub(super) fn next(&mut self, listens_to: impl Fn(&ConversationId) -> bool) -> Option<Command> {
        let next = self.0.as_mut()?.next(listens_to);
        self.free();
        next
    }

    /// Records that the command from [`Signalled::next`] has ended. Returns true if it was a join that failed for a
    /// temporary reason, and will be repeated.
    pub(super) fn ended(&mut self, failed_temporarily: bool) -> bool {
        let repeated = self.0.as_mut().is_some_and(|commands| commands.ended(failed_temporarily));
        self.free();
        repeated
    }

    /// When the next failed join must be repeated.
    pub(super) fn next_retry(&self) -> Option<Instant> {
        self.0.as_ref()?.next_retry()
    }

    /// Queues the failed joins that are due.
    pub(super) fn queue_due(&mut self, now: Instant) {
        if let Some(commands) = &mut self.0 {
            commands.queue_due(now);
        }
    }

    /// Frees the memory if nothing is left.
    fn free(&mut self) {
        self.0.take_if(|commands| commands.is_empty());
    }
}

impl Commands {
    fn is_empty(&self) -> bool {
        let Self { queue, current, leaving, failed, added_again } = self;
        queue.is_empty() && current.is_none() && leaving.is_none() && failed.is_empty() && added_again.is_empty()
    }

    fn added(&mut self, conversation: ConversationId, since: Seq, listens: bool, limit: usize) {
        // A leave that waits or is under way ends the listening.
        let leaves = self.leaving.as_ref() == Some(&conversation)
            || self.queue.iter().any(|command| is_leave_of(command, &conversation));
        if !listens || leaves {
            self.join(conversation, Some(since));
        } else if self.added_again.len() < limit || self.added_again.contains_key(&conversation) {
            self.added_again.insert(conversation, since);
        }
    }

    fn join(&mut self, conversation: ConversationId, since: Option<Seq>) {
        self.queue.push_back(join(conversation, since.map(SinceSeq::known)));
    }

    fn joins(&self, id: &ConversationId) -> bool {
        self.queue.iter().any(|command| is_join_of(command, id))
            || self.failed.iter().any(|failed| failed.conversation == *id)
            || self.current.as_ref().is_some_and(|(current, ..)| current == id)
    }

    fn removed(&mut self, conversation: ConversationId, seq: Seq) {
        self.failed.retain(|failed| failed.conversation != conversation);
        self.queue.push_back(Command::Leave { conversation: conversation.clone() });
        let added_again = self.added_again.remove(&conversation).filter(|since| *since >= seq);
        #[cfg(feature = "faults")]
        let added_again = added_again.filter(|_| !crate::faults::has(crate::faults::Fault::OvertakenAddition));
        if let Some(since) = added_again {
            self.join(conversation, Some(since));
        }
    }

    fn next(&mut self, listens_to: impl Fn(&ConversationId) -> bool) -> Option<Command> {
        while let Some(command) = self.queue.pop_front() {
            match &command {
                Command::Join { conversation, .. } if listens_to(conversation) => {
                    self.failed.retain(|failed| failed.conversation != *conversation);
                }
                Command::Join { conversation, since, .. } => {
                    let failed = self.failed.iter().position(|failed| failed.conversation == *conversation);
                    let pause = failed.map_or(RETRY_MIN, |at| (self.failed.swap_remove(at).pause * 2).min(RETRY_MAX));
                    self.current = Some((conversation.clone(), *since, pause));
                    return Some(command);
                }
                Command::Leave { conversation } => {
                    self.leaving = Some(conversation.clone());
                    return Some(command);
                }
                _ => return Some(command),
            }
        }
        None
    }

    fn ended(&mut self, failed_temporarily: bool) -> bool {
        self.leaving = None;
        let Some((conversation, since, pause)) = self.current.take() else { return false };
        #[cfg(feature = "faults")]
        if crate::faults::has(crate::faults::Fault::JoinNotRepeated) {
            return failed_temporarily;
        }
        if failed_temporarily {
            self.failed.push(FailedJoin { conversation, since, due: Instant::now() + pause, pause });
        }
        failed_temporarily
    }

    fn next_retry(&self) -> Option<Instant> {
        // One that is queued again waits for its turn, not for the clock.
        let queued = |failed: &FailedJoin| self.queue.iter().any(|command| is_join_of(command, &failed.conversation));
        self.failed.iter().filter(|failed| !queued(failed)).map(|failed| failed.due).min()
    }

    fn queue_due(&mut self, now: Instant) {
        let Self { queue, failed, .. } = self;
        for join in failed.iter().filter(|join| join.due <= now) {
            if !queue.iter().any(|command| is_join_of(command, &join.conversation)) {
                queue.push_back(self::join(join.conversation.clone(), join.since));
            }
        }
    }
}

fn join(conversation: ConversationId, since: Option<SinceSeq>) -> Command {
    Command::Join { conversation, since, roster: false, automatic: true }
}

fn is_join_of(command: &Command, id: &ConversationId) -> bool {
    matches!(command, Command::Join { conversation, .. } if conversation == id)
}

fn is_leave_of(command: &Command, id: &ConversationId) -> bool {
    matches!(command, Command::Leave { conversation } if conversation == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_addition_right_after_a_removal_is_joined_after_the_leave() {
        for under_way in [false, true] {
            let mut signalled = Signalled::default();
            signalled.removed(team(), 4);
            if under_way {
                assert!(matches!(signalled.next(|_| true), Some(Command::Leave { .. })));
            }
            // The leave has not taken effect yet.
            signalled.added(team(), 4, true, 10);
            if !under_way {
                assert!(matches!(signalled.next(|_| true), Some(Command::Leave { .. })));
            }
            signalled.ended(false);
            assert!(matches!(signalled.next(|_| false), Some(Command::Join { .. })));
        }
    }

    fn team() -> ConversationId {
        ConversationId::parse("team").unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_join_that_failed_is_repeated_with_growing_pauses_until_it_succeeds() {
        let mut signalled = Signalled::default();
        signalled.join(team(), Some(3));
        let mut pauses = Vec::new();
        for _ in 0..7 {
            let command = signalled.next(|_| false).unwrap();
            assert!(matches!(command, Command::Join { since: Some(since), .. } if since.get() == 3));
            assert!(signalled.ended(true));
            assert!(signalled.next(|_| false).is_none(), "not before its time");
            let due = signalled.next_retry().unwrap();
            pauses.push((due - Instant::now()).as_millis());
            tokio::time::advance(due - Instant::now()).await;
            signalled.queue_due(Instant::now());
            assert_eq!(signalled.next_retry(), None);
        }
        assert_eq!(pauses, [250, 500, 1_000, 2_000, 4_000, 5_000, 5_000]);
        signalled.next(|_| false).unwrap();
        assert!(!signalled.ended(false));
        assert!(signalled.next_retry().is_none() && signalled.count() == 0);
        assert!(signalled.0.is_none(), "a session without commands has no memory for them");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_join_ends_when_the_user_is_removed_or_joins_otherwise() {
        let mut signalled = Signalled::default();
        signalled.join(team(), Some(3));
        signalled.next(|_| false).unwrap();
        signalled.ended(true);
        signalled.removed(team(), 4);
        assert!(matches!(signalled.next(|_| false), Some(Command::Leave { .. })));
        assert!(!signalled.ended(false) && signalled.count() == 0);

        signalled.join(team(), Some(5));
        signalled.next(|_| false).unwrap();
        signalled.ended(true);
        tokio::time::advance(RETRY_MAX).await;
        signalled.queue_due(Instant::now());
        assert!(signalled.next(|_| true).is_none(), "the client joined by itself");
        assert_eq!(signalled.count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_removal_that_is_signalled_after_the_next_addition_ends_with_a_join() {
        let mut signalled = Signalled::default();
        signalled.added(team(), 7, true, 10);
        assert!(signalled.next(|_| true).is_none());
        signalled.removed(team(), 7);
        assert!(matches!(signalled.next(|_| true), Some(Command::Leave { .. })));
        let join = signalled.next(|_| false).unwrap();
        assert!(matches!(join, Command::Join { since: Some(since), .. } if since.get() == 7));
        assert!(!signalled.ended(false));

        signalled.added(team(), 7, true, 10);
        signalled.removed(team(), 8);
        assert!(matches!(signalled.next(|_| true), Some(Command::Leave { .. })));
        assert!(signalled.next(|_| false).is_none(), "the removal came after the addition");
        assert_eq!(signalled.count(), 0);
    }
}
