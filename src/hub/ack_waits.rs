//! Waits of acks: an ack that delivery did not put into its place waits until its socket has every entry before it.
//!
//! Usually the shard that delivers an entry puts the ack where the socket's own copy would stand. It can't if the entry
//! reaches the hub without its ack: in a backfill, a replay, or a repeat of a stored command.

use tokio::sync::oneshot;

use crate::model::{ConnectionId, Seq};

/// The wait of one socket for the entries up to a seq.
#[derive(Debug)]
pub(super) struct AckWait {
    pub(super) connection: ConnectionId,
    pub(super) seq: Seq,
    /// Sent once the socket has the entries; dropped if the socket does not listen.
    pub(super) reached: oneshot::Sender<()>,
}

/// The waits in one log on one shard. A socket has at most as many as it has commands in flight.
#[derive(Debug, Default)]
pub(super) struct AckWaits(Vec<AckWait>);

impl AckWaits {
    pub(super) fn push(&mut self, wait: AckWait) {
        self.0.push(wait);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Ends the waits of sockets that no longer listen, and of those that have their entries. `has` returns the seq up to
    /// which a listener has every entry: 0 while a replay sends it missed ones, none if the socket does not listen.
    pub(super) fn settle(&mut self, has: impl Fn(ConnectionId) -> Option<Seq>) {
        if self.0.is_empty() {
            return;
        }
        for wait in std::mem::take(&mut self.0) {
            match has(wait.connection) {
                None => drop(wait),
                Some(has) if has >= wait.seq => {
                    let _gone = wait.reached.send(());
                }
                Some(_) => self.0.push(wait),
            }
        }
    }
}
