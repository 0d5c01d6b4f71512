//! What a session is told beside the frames that go out: the frames are for the client, the signals for the session.

use std::collections::VecDeque;

use crate::model::{ClientId, ConversationId, Reject, Seq};

/// Signals that may wait for a session; one that lets more pile up is stuck.
const WAITING_MAX: usize = 1_024;

/// What a session is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// The user was made a member of a conversation whose newest seq was `since`.
    Added {
        /// Which.
        conversation: ConversationId,
        /// Its head just before.
        since: Seq,
    },
    /// The user is no longer a member, and was detached.
    Removed(ConversationId),
    /// All of a conversation up to this seq was handed over; whether it arrives is for the session to find out.
    HandedOver(ConversationId, Seq),
    /// What was to follow a command that succeeded did not come about: the session says so to the client.
    Failed {
        /// The id that the client gave the command.
        client_id: Option<ClientId>,
        /// Why.
        reject: Reject,
    },
}

/// The signals that wait for one session.
#[derive(Debug, Default)]
pub(super) struct Signals(VecDeque<Signal>);

impl Signals {
    /// Adds a signal; false where too many wait already. What was handed over of one conversation is one signal.
    pub(super) fn push(&mut self, signal: Signal) -> bool {
        let full = self.0.len() >= WAITING_MAX;
        match (self.0.back_mut(), signal) {
            (Some(Signal::HandedOver(last, to)), Signal::HandedOver(conversation, seq)) if *last == conversation => {
                *to = seq;
            }
            _ if full => return false,
            (_, signal) => self.0.push_back(signal),
        }
        true
    }

    /// Takes the oldest.
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
    fn what_was_handed_over_of_one_conversation_is_one_signal() {
        let mut signals = Signals::default();
        for (id, seq) in [("a", 1), ("a", 2), ("b", 1), ("a", 3)] {
            assert!(signals.push(Signal::HandedOver(conversation(id), seq)));
        }
        let waiting: Vec<_> = std::iter::from_fn(|| signals.pop()).collect();
        let expected = [("a", 2), ("b", 1), ("a", 3)].map(|(id, seq)| Signal::HandedOver(conversation(id), seq));
        assert_eq!(waiting, expected);
    }

    #[test]
    fn signals_are_bounded() {
        let mut signals = Signals::default();
        assert!((0..WAITING_MAX).all(|_| signals.push(Signal::Removed(conversation("a")))));
        assert!(!signals.push(Signal::Removed(conversation("a"))));
    }
}
