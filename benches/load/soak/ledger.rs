//! [`Ledger`]: the messages of a run that were acked, and those that reached their witnesses.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// A message of the run.
pub type Number = u64;

/// The witness of direct messages: their recipients, all together.
pub const RECIPIENTS: usize = usize::MAX;

/// The receivers of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Audience {
    /// A room, to which every witness listens.
    Room,
    /// Another user.
    User,
}

/// The messages that a witness received.
#[derive(Debug, Default)]
struct Received {
    messages: HashSet<Number>,
    repeated: u64,
}

/// Acks and deliveries.
#[derive(Debug, Default)]
pub struct Ledger {
    pub sent: u64,
    acked: HashMap<Number, Audience>,
    received: BTreeMap<usize, Received>,
    /// Refusals by code; each is tried again, or given up.
    pub refused: BTreeMap<String, u64>,
    pub resyncs: u64,
    /// Connections that ended without being asked, by reason.
    pub ended: BTreeMap<String, u64>,
    pub connects: u64,
    pub reads: BTreeMap<u16, u64>,
}

impl Ledger {
    /// A ledger with these many witnesses of rooms.
    pub fn new(witnesses: usize) -> Self {
        let received = (0..witnesses).chain([RECIPIENTS]).map(|witness| (witness, Received::default())).collect();
        Self { received, ..Self::default() }
    }

    pub fn ack(&mut self, message: Number, audience: Audience) {
        self.acked.insert(message, audience);
    }

    /// Records that a message reached a witness.
    pub fn receive(&mut self, witness: usize, message: Number) {
        let received = self.received.entry(witness).or_default();
        if !received.messages.insert(message) {
            received.repeated += 1;
        }
    }

    pub fn refuse(&mut self, code: &str) {
        *self.refused.entry(code.to_owned()).or_default() += 1;
    }

    /// Records the end of a connection that its client did not end.
    pub fn end(&mut self, why: &str) {
        *self.ended.entry(why.to_owned()).or_default() += 1;
    }

    /// Number of acked messages.
    pub fn acked(&self) -> u64 {
        self.acked.len() as u64
    }

    /// Acked messages that did not reach one of their witnesses.
    pub fn lost(&self) -> BTreeSet<Number> {
        let missing = |witness: usize, received: &Received| {
            let of_this = if witness == RECIPIENTS { Audience::User } else { Audience::Room };
            let acked = self.acked.iter().filter(move |(_, audience)| **audience == of_this);
            acked
                .map(|(message, _)| *message)
                .filter(|message| !received.messages.contains(message))
                .collect::<Vec<_>>()
        };
        self.received.iter().flat_map(|(witness, received)| missing(*witness, received)).collect()
    }

    /// Messages that a witness of rooms received again, although it named the last entry that it had.
    pub fn repeated(&self) -> u64 {
        self.received.iter().filter(|(witness, _)| **witness != RECIPIENTS).map(|(_, received)| received.repeated).sum()
    }

    /// Messages that recipients received again: their dialect can't name the last entry.
    pub fn repeated_direct(&self) -> u64 {
        self.received.get(&RECIPIENTS).map_or(0, |received| received.repeated)
    }
}
