//! The ack that a socket awaits for an entry that it sends.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::value::RawValue;

use super::{ConnectionId, UserId};

/// The place of an ack in the order of its log. It travels with the entry, so that delivery can put the ack exactly where
/// the socket's own entry stands. Whoever takes the ack first sends it; nobody sends it twice.
#[derive(Debug)]
pub struct PendingAck {
    connection: ConnectionId,
    reference: Option<Box<RawValue>>,
    recipient: Option<UserId>,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Taken,
    GivenUp,
}

/// The answer to a try to take an ack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakenAck {
    /// The caller must send the ack.
    Now,
    /// Another part sent it, or sends it.
    Before,
    /// Nobody sends it: the client was told that the outcome is unknown, so it gets the entry itself.
    Never,
}

impl PendingAck {
    /// The ack of a command of this socket, which marked the command's frame with `reference`. `recipient` is the user to
    /// whom a message is sent.
    pub fn new(connection: ConnectionId, reference: Option<Box<RawValue>>, recipient: Option<UserId>) -> Self {
        Self { connection, reference, recipient, state: Mutex::new(State::Open) }
    }

    /// The socket that awaits it.
    pub fn connection(&self) -> ConnectionId {
        self.connection
    }

    /// The client's mark on the command's frame.
    pub fn reference(&self) -> Option<&RawValue> {
        self.reference.as_deref()
    }

    /// The user to whom the message is sent, if it is sent to a user.
    pub fn recipient(&self) -> Option<&UserId> {
        self.recipient.as_ref()
    }

    /// Takes the ack.
    pub fn take(&self) -> TakenAck {
        let mut state = self.lock();
        match std::mem::replace(&mut *state, State::Taken) {
            State::Open => TakenAck::Now,
            State::Taken => TakenAck::Before,
            State::GivenUp => {
                *state = State::GivenUp;
                TakenAck::Never
            }
        }
    }

    /// Gives the ack up. Returns false if it was taken before.
    pub fn give_up(&self) -> bool {
        let mut state = self.lock();
        let open = *state == State::Open;
        if open {
            *state = State::GivenUp;
        }
        open
    }

    /// True if the ack was taken or given up.
    pub fn is_settled(&self) -> bool {
        *self.lock() != State::Open
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Two are equal if the same socket awaits them.
impl PartialEq for PendingAck {
    fn eq(&self, other: &Self) -> bool {
        self.connection == other.connection
    }
}

impl Eq for PendingAck {}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending() -> PendingAck {
        PendingAck::new(ConnectionId::fresh(), None, None)
    }

    #[test]
    fn an_ack_is_taken_once() {
        let ack = pending();
        assert!(!ack.is_settled());
        assert_eq!((ack.take(), ack.take()), (TakenAck::Now, TakenAck::Before));
        assert!(ack.is_settled() && !ack.give_up());
    }

    #[test]
    fn an_ack_that_was_given_up_is_never_taken() {
        let ack = pending();
        assert!(ack.give_up() && !ack.give_up());
        assert_eq!((ack.take(), ack.take()), (TakenAck::Never, TakenAck::Never));
    }
}
