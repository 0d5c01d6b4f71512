//! Waits of acks: an ack that delivery did not put into its place waits until its socket has every entry before it.
//!
//! Usually the shard that delivers an entry puts the ack where the socket's own copy would stand. It can't if the entry
//! reaches the hub without its ack: in a backfill, a replay, or a repeat of a stored command.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{
    Hub,
    shard::{Listener, Op},
};
use crate::model::{ConnectionId, LogId, Seq};

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

    /// Ends the waits of sockets that no longer listen, and of those that have their entries. Live listeners have every
    /// entry up to `delivered`.
    pub(super) fn settle(&mut self, listeners: &[Listener], delivered: Seq) {
        if self.0.is_empty() {
            return;
        }
        for wait in std::mem::take(&mut self.0) {
            match listeners.iter().find(|listener| listener.connection == wait.connection) {
                None => drop(wait),
                Some(listener) if listener.live_after.is_some_and(|has| has.max(delivered) >= wait.seq) => {
                    let _gone = wait.reached.send(());
                }
                Some(_) => self.0.push(wait),
            }
        }
    }
}

impl Hub {
    /// Waits until a listener of this node has every entry of `log` up to `seq`, which is stored. Resolves with false at
    /// once if the connection does not listen, or when it ceases to.
    pub fn reached(
        self: &Arc<Self>,
        log: &LogId,
        connection: ConnectionId,
        seq: Seq,
    ) -> impl Future<Output = bool> + Send + use<> {
        let (reached, wait) = oneshot::channel();
        if let Some(track) = self.partition(log).get_mut(log) {
            // The hub may have dropped the entry; then it is backfilled.
            track.record_seq(seq);
            self.backfill_if_needed(log, track);
            let shard = &self.shards[self.shard_of(connection)];
            shard.queue(log, Op::Wait(AckWait { connection, seq, reached }));
            shard.wake();
        }
        async move { wait.await.is_ok() }
    }
}
