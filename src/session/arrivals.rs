//! The entries that have arrived at a client that can't acknowledge them: those that left before a ping that it answered.

use std::collections::{HashMap, VecDeque};

use tokio::time::Instant;

use crate::model::{ConversationId, Seq};

/// Maximum number of hand-overs that wait for a ping. Beyond it every second one is forgotten, which a later one of the same
/// conversation makes up for; else the client gets the entries again when it reconnects.
const HANDED_MAX: usize = 1_024;
/// Maximum number of pings that wait for their pong.
const PINGS_MAX: usize = 64;

/// Entries of a conversation that were handed to the outbox.
#[derive(Debug)]
struct Handed {
    conversation: ConversationId,
    /// The newest entry.
    seq: Seq,
    /// The number of durable frames that the outbox had got by then.
    position: u64,
}

/// A ping that waits for its pong.
#[derive(Debug)]
struct Ping {
    number: u32,
    /// The number of durable frames that left before it.
    position: u64,
    /// Entries that were handed over until then left before the ping.
    complete_until: Instant,
}

/// The entries that were handed over, and the pings that confirm them.
#[derive(Debug)]
pub(super) struct Arrivals {
    /// In the order of their positions.
    handed: VecDeque<Handed>,
    /// In the order of their numbers.
    pings: VecDeque<Ping>,
    newest_ping: u32,
    /// The client has what was handed over until then.
    confirmed_at: Instant,
}

impl Arrivals {
    pub(super) fn new() -> Self {
        Self { handed: VecDeque::new(), pings: VecDeque::new(), newest_ping: 0, confirmed_at: Instant::now() }
    }

    /// The client has what was handed over until then.
    pub(super) fn confirmed_at(&self) -> Instant {
        self.confirmed_at
    }

    /// Records that the client has what was handed over until then.
    pub(super) fn confirm_until(&mut self, at: Instant) {
        self.confirmed_at = self.confirmed_at.max(at);
    }

    /// Records that all entries of a conversation up to `seq` are among the first `position` durable frames.
    pub(super) fn record(&mut self, conversation: ConversationId, seq: Seq, position: u64) {
        if self.handed.len() >= HANDED_MAX {
            let mut keep = false;
            self.handed.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.handed.push_back(Handed { conversation, seq, position });
    }

    /// Forgets what was handed over of a conversation whose entries were lost.
    pub(super) fn forget(&mut self, conversation: &ConversationId) {
        self.handed.retain(|handed| handed.conversation != *conversation);
    }

    /// The number of the next ping.
    pub(super) fn next_ping(&mut self) -> u32 {
        self.newest_ping = self.newest_ping.wrapping_add(1);
        self.newest_ping
    }

    /// Records that `position` durable frames leave before a ping: all that was handed over until `complete_until`.
    pub(super) fn pinged(&mut self, number: u32, position: u64, complete_until: Instant) {
        if self.pings.len() >= PINGS_MAX {
            self.pings.pop_front();
        }
        // As a rule one ping waits.
        if self.pings.is_empty() {
            self.pings.reserve_exact(1);
        }
        self.pings.push_back(Ping { number, position, complete_until });
    }

    /// True if some entries wait for a ping that is still to be sent.
    pub(super) fn needs_ping(&self) -> bool {
        let pinged = self.pings.back().map_or(0, |ping| ping.position);
        self.handed.back().is_some_and(|handed| handed.position > pinged)
    }

    /// The entries that a pong confirms, for each conversation the newest one.
    pub(super) fn confirm(&mut self, number: u32) -> HashMap<ConversationId, Seq> {
        let Some(at) = self.pings.iter().position(|ping| ping.number == number) else { return HashMap::new() };
        let Some(ping) = self.pings.drain(..=at).next_back() else { return HashMap::new() };
        // An idle connection keeps no room for pings.
        if self.pings.is_empty() {
            self.pings = VecDeque::new();
        }
        self.confirm_until(ping.complete_until);
        let position = ping.position;
        let arrived = self.handed.partition_point(|handed| handed.position <= position);
        self.handed.drain(..arrived).map(|handed| (handed.conversation, handed.seq)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(id: &str) -> ConversationId {
        ConversationId::parse(id).unwrap()
    }

    fn handed(arrivals: &mut Arrivals, id: &str, seq: Seq) {
        arrivals.record(conversation(id), seq, seq as u64);
    }

    /// Sends a ping after `position` durable frames.
    fn ping(arrivals: &mut Arrivals, position: u64) -> u32 {
        let number = arrivals.next_ping();
        arrivals.pinged(number, position, Instant::now());
        number
    }

    #[test]
    fn a_pong_confirms_what_left_before_its_ping() {
        let mut arrivals = Arrivals::new();
        assert!(!arrivals.needs_ping());
        for (id, seq) in [("a", 1), ("b", 2), ("a", 3), ("a", 4)] {
            handed(&mut arrivals, id, seq);
        }
        let first = ping(&mut arrivals, 3);
        assert!(arrivals.needs_ping(), "one entry leaves later");
        let second = ping(&mut arrivals, 4);
        assert!(!arrivals.needs_ping());
        assert_eq!(arrivals.confirm(first), [(conversation("a"), 3), (conversation("b"), 2)].into());
        assert_eq!(arrivals.confirm(first), [].into());
        assert_eq!(arrivals.confirm(second), [(conversation("a"), 4)].into());
        assert_eq!(arrivals.pings.capacity(), 0, "an idle connection keeps no room for pings");
    }

    #[test]
    fn a_late_pong_counts_and_stands_for_those_before_it() {
        let mut arrivals = Arrivals::new();
        let pings: Vec<u32> = (1..=5)
            .map(|seq| {
                handed(&mut arrivals, "a", seq);
                ping(&mut arrivals, seq as u64)
            })
            .collect();
        assert_eq!(arrivals.confirm(pings[2]), [(conversation("a"), 3)].into(), "others were sent since");
        assert_eq!(arrivals.confirm(pings[0]), [].into());
        assert_eq!(arrivals.confirm(7), [].into(), "no ping of this node");
        assert_eq!(arrivals.confirm(pings[4]), [(conversation("a"), 5)].into());
    }

    #[test]
    fn both_queues_are_bounded() {
        let mut arrivals = Arrivals::new();
        for seq in 1..=3 * HANDED_MAX as Seq {
            handed(&mut arrivals, "a", seq);
            assert!(arrivals.handed.len() <= HANDED_MAX);
        }
        let last = (0..2 * PINGS_MAX).map(|_| ping(&mut arrivals, u64::MAX)).last().unwrap();
        assert_eq!(arrivals.pings.len(), PINGS_MAX);
        assert_eq!(arrivals.confirm(last), [(conversation("a"), 3 * HANDED_MAX as Seq)].into());
        assert_eq!((arrivals.pings.len(), arrivals.handed.len()), (0, 0));
    }
}
