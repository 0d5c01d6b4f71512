//! Signals to a session. They travel beside the frames, which are for the client.

use std::collections::VecDeque;

use crate::model::{ClientId, ConversationId, Reject, Seq, UserId};

/// Maximum number of signals that wait for a session; a session that lets more wait is stuck.
const WAITING_MAX: usize = 1_024;

/// A message from the hub or a command to a session, beside frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// The user became a member of a conversation.
    Added {
        /// The conversation.
        conversation: ConversationId,
        /// The conversation's head just before.
        since: Seq,
    },
    /// The user is no longer a member of a conversation, and was detached from it.
    Removed {
        /// The conversation.
        conversation: ConversationId,
        /// The seq of the entry that ended the membership.
        seq: Seq,
    },
    /// The user is no member of a conversation any more, because the store was set back to a state in which it was none.
    NoMember {
        /// The conversation.
        conversation: ConversationId,
        /// The newest seq of that state.
        seq: Seq,
    },
    /// The store was set back: entries of this conversation that were delivered before are lost, and their seqs are assigned
    /// again.
    Restarted(ConversationId),
    /// A conversation of the user has a new message. The session joins it if it gave up an automatic join of it.
    Hint(ConversationId),
    /// Users came online (true) or went offline, for a client that is shown a list of online users.
    Presence(Vec<(UserId, bool)>),
    /// All entries of a conversation up to this seq were given to the outbox. The session checks whether they arrive.
    Delivered {
        /// The conversation.
        conversation: ConversationId,
        /// The newest entry.
        seq: Seq,
        /// The number of durable frames that the outbox had got by then.
        position: u64,
    },
    /// A new socket of the user needs room: the session must find out whether its client lives.
    Probe,
    /// A later step of a command failed after the command was answered. The session reports it to the client.
    Failed {
        /// The id that the client gave the command.
        client_id: Option<ClientId>,
        /// The reason.
        reject: Reject,
    },
}

/// Maximum number of signals that wait when a hint is added; beyond it hints are dropped. A lost hint is found later.
const WAITING_HINTS_MAX: usize = WAITING_MAX / 2;

/// Number of waiting signals from which consecutive [`Signal::Delivered`] of one conversation are merged. A merged one
/// says less about what a slow client has taken so far.
const WAITING_DELIVERED_MAX: usize = 64;

/// Maximum number of users in a waiting [`Signal::Presence`]; further changes are dropped.
const WAITING_PRESENCE_MAX: usize = 1_000;

/// The signals that wait for one session.
#[derive(Debug, Default)]
pub(super) struct Signals(VecDeque<Signal>);

impl Signal {
    /// True if this and the other one are [`Signal::Delivered`] of one conversation.
    fn is_delivery_before(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Delivered { conversation: one, .. }, Self::Delivered { conversation: next, .. })
            if one == next)
    }
}

impl Signals {
    /// Adds a signal; false if too many wait. All [`Signal::Presence`] are merged.
    pub(super) fn push(&mut self, signal: Signal) -> bool {
        let (waiting, full) = (self.0.len(), self.0.len() >= WAITING_MAX);
        match (self.0.back_mut(), signal) {
            (Some(last), signal) if waiting >= WAITING_DELIVERED_MAX && last.is_delivery_before(&signal) => {
                *last = signal;
            }
            (_, Signal::Presence(changes)) => self.push_presence(changes, full),
            (_, hint @ Signal::Hint(_)) => {
                if self.0.len() < WAITING_HINTS_MAX && !self.0.contains(&hint) {
                    self.0.push_back(hint);
                }
            }
            _ if full => return false,
            (_, signal) => self.0.push_back(signal),
        }
        true
    }

    /// Merges changes of presence into those that wait. Of one user, the last one counts.
    fn push_presence(&mut self, changes: Vec<(UserId, bool)>, full: bool) {
        let waiting = self.0.iter_mut().find_map(|signal| match signal {
            Signal::Presence(waiting) => Some(waiting),
            _ => None,
        });
        match waiting {
            Some(waiting) => {
                for (user, online) in changes {
                    match waiting.iter().position(|(known, _)| *known == user) {
                        Some(at) => waiting[at].1 = online,
                        None if waiting.len() < WAITING_PRESENCE_MAX => waiting.push((user, online)),
                        None => {}
                    }
                }
            }
            None if full => {}
            None => self.0.push_back(Signal::Presence(changes)),
        }
    }

    /// Removes and returns the oldest signal.
    pub(super) fn pop(&mut self) -> Option<Signal> {
        self.0.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(id: &str) -> ConversationId {
        ConversationId::parse(id).unwrap()
    }

    #[test]
    fn deliveries_of_one_conversation_are_merged_when_many_wait() {
        let mut signals = Signals::default();
        let delivered = |id, seq| Signal::Delivered { conversation: conversation(id), seq, position: seq as u64 };
        let few = WAITING_DELIVERED_MAX as Seq;
        for seq in 1..=few + 2 {
            assert!(signals.push(delivered("a", seq)));
        }
        for (id, seq) in [("b", 1), ("a", few + 3)] {
            assert!(signals.push(delivered(id, seq)));
        }
        let waiting: Vec<_> = std::iter::from_fn(|| signals.pop()).collect();
        let ends = [("a", few + 2), ("b", 1), ("a", few + 3)];
        let expected: Vec<_> = (1..few).map(|seq| ("a", seq)).chain(ends).map(|(id, seq)| delivered(id, seq)).collect();
        assert_eq!(waiting, expected);
    }

    #[test]
    fn changes_of_presence_are_merged() {
        let mut signals = Signals::default();
        let user = |id: &str| UserId::parse(id).unwrap();
        for (id, online) in [("alice", true), ("bob", true), ("alice", false)] {
            assert!(signals.push(Signal::Presence(vec![(user(id), online)])));
        }
        assert_eq!(signals.pop(), Some(Signal::Presence(vec![(user("alice"), false), (user("bob"), true)])));
        assert_eq!(signals.pop(), None);
    }

    #[test]
    fn hints_never_close_a_connection() {
        let mut signals = Signals::default();
        let hint = |id: String| Signal::Hint(conversation(&id));
        assert!((0..WAITING_MAX).all(|at| signals.push(hint(format!("c{at}"))) && signals.push(hint("c0".into()))));
        assert_eq!(signals.0.len(), WAITING_HINTS_MAX);
        assert!(
            signals.push(Signal::Removed { conversation: conversation("a"), seq: 1 }),
            "there is room for what must not be lost"
        );
    }

    #[test]
    fn signals_are_bounded() {
        let mut signals = Signals::default();
        let removed = || Signal::Removed { conversation: conversation("a"), seq: 1 };
        assert!((0..WAITING_MAX).all(|_| signals.push(removed())));
        assert!(!signals.push(removed()));
    }
}
