//! Waits of acks: an ack that delivery did not put into its place waits until its socket has every entry before it.
//!
//! Usually the shard that delivers an entry puts the ack where the socket's own copy would stand. It can't if a replay or
//! a backfill brings the socket the entry, or if the command repeated a stored one. The shard sends these acks too: it
//! sends all acks of a log, so they can't overtake each other. One that waits when its entry is delivered without it takes
//! the place of the socket's own copy.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{
    delivery::{Delivery, ack_frame, sent_of},
    listener::Listener,
};
use crate::{
    model::{ConnectionId, Event, PendingAck, Sent, Seq, TakenAck},
    outbox::Outbox,
};

/// The wait of one socket's ack for the entries up to that of its command.
#[derive(Debug)]
pub(super) struct AckWait {
    pub(super) ack: Arc<PendingAck>,
    pub(super) sent: Sent,
    /// Sent once the socket has the entries; dropped if the socket does not listen. None if nobody waits.
    pub(super) reached: Option<oneshot::Sender<()>>,
}

impl AckWait {
    /// The wait of the ack that the sender of an event's entry awaits, if there is one.
    pub(super) fn of(event: &Event) -> Option<Self> {
        let Event::Entry { entry, origin: Some(ack) } = event else { return None };
        Some(Self { ack: ack.clone(), sent: sent_of(entry, ack), reached: None })
    }

    pub(super) fn connection(&self) -> ConnectionId {
        self.ack.connection()
    }

    /// Sends the ack, unless another part did. Returns true if the caller must call [`Outbox::flush`].
    fn end(self, listener: &Listener) -> bool {
        let takes = listener.dialect.acks() && self.ack.take() == TakenAck::Now;
        let frame = takes.then(|| ack_frame(listener.dialect, &self.ack, self.sent)).flatten();
        let unwritten = listener.outbox.push(frame);
        if let Some(reached) = self.reached {
            let _gone = reached.send(());
        }
        unwritten
    }

    /// True if the ack is sent, or will never be.
    fn is_over(&self) -> bool {
        self.ack.is_settled() && self.reached.as_ref().is_none_or(oneshot::Sender::is_closed)
    }
}

/// The waits in one log on one shard. A socket has at most two for each of its commands in flight: that of delivery, and
/// that of the command.
#[derive(Debug, Default)]
pub(super) struct AckWaits(Vec<AckWait>);

impl AckWaits {
    pub(super) fn extend(&mut self, waits: impl IntoIterator<Item = AckWait>) {
        self.0.extend(waits);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The deliveries, in which entries without an ack have the one that waits for them.
    pub(super) fn place(&self, deliveries: Arc<[Delivery]>) -> Arc<[Delivery]> {
        let ack_of = |delivery: &Delivery| {
            let seq = delivery.seq().filter(|_| delivery.event.origin().is_none())?;
            let wait = self.0.iter().find(|wait| wait.sent.seq == seq && !wait.ack.is_settled())?;
            Some((wait.ack.clone(), wait.sent.clone()))
        };
        if self.0.is_empty() || !deliveries.iter().any(|delivery| ack_of(delivery).is_some()) {
            return deliveries;
        }
        deliveries.iter().map(|delivery| delivery.with_ack(ack_of(delivery))).collect()
    }

    /// Ends the waits of sockets that no longer listen, and of those that have their entries, in the order of the log.
    /// `delivered` is the newest entry that all live listeners received. Outboxes to flush are appended to `unflushed`.
    pub(super) fn settle(&mut self, listeners: &[Listener], delivered: Seq, unflushed: &mut Vec<Arc<Outbox>>) {
        if self.0.is_empty() {
            return;
        }
        let mut waits = std::mem::take(&mut self.0);
        waits.sort_by_key(|wait| wait.sent.seq);
        for wait in waits {
            let Some(listener) = listeners.iter().find(|one| one.connection == wait.connection()) else { continue };
            // A listener that a replay still sends missed entries has none for certain.
            let has = listener.live_after.map_or(0, |has| has.max(delivered));
            if has < wait.sent.seq {
                if !wait.is_over() {
                    self.0.push(wait);
                }
            } else if wait.end(listener) {
                unflushed.push(listener.outbox.clone());
            }
        }
    }
}
