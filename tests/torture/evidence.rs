//! What the checker reads, and what it may say.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::history::{Kind, Name, Record};

/// All that is known of a run.
#[derive(Debug, Default)]
pub struct Evidence {
    /// Whose each client is.
    pub users: Vec<Name>,
    /// What clients saw.
    pub history: Vec<Record>,
    /// The store's logs of conversations.
    pub store: BTreeMap<Name, Log>,
    /// Who was said to be online once all was quiet.
    pub presence: Vec<Presence>,
    /// What must have come back to where it was.
    pub figures: Vec<Figure>,
    /// What did not come back, or not in good order, once its fault was over.
    pub lost: Vec<String>,
    /// How soon after its ack an entry must have reached everybody who listens.
    pub delivered_within: Duration,
}

/// A conversation's log in the store.
#[derive(Debug, Default)]
pub struct Log {
    pub head: i64,
    pub rows: BTreeMap<i64, Row>,
}

/// An entry in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub kind: Kind,
    pub sender: Name,
    pub id: Name,
}

/// Who was online according to one place, and who had a socket.
#[derive(Debug)]
pub struct Presence {
    pub place: String,
    pub said: BTreeSet<Name>,
    pub live: BTreeSet<Name>,
}

/// A number before and after the run.
#[derive(Debug)]
pub struct Figure {
    pub name: String,
    pub before: u64,
    pub after: u64,
    /// By how much it may have grown.
    pub slack: u64,
}

impl Figure {
    /// Whether it is back where it was.
    pub fn is_well(&self) -> bool {
        self.after <= self.before + self.slack
    }
}

/// Something that must not be.
#[derive(Debug)]
pub struct Violation {
    /// The rule that is broken.
    pub rule: Rule,
    /// How.
    pub what: String,
    /// The lines of the history that show it.
    pub lines: Vec<usize>,
}

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// What was acked is in the store, where the ack says.
    AckedIsStored,
    /// What was refused is not in the store, and nobody got it.
    RefusedNeverWas,
    /// A log is numbered 1, 2, 3 … up to its head.
    SeqsHaveNoGap,
    /// Nothing is stored twice, nor what nobody sent.
    StoredOnce,
    /// A connection gets a log's entries +1, as they are stored, each once, up to the last.
    DeliveredByOne,
    /// Who listens gets them soon.
    DeliveredInTime,
    /// One sender's acks and seqs come in the order of the sends.
    AcksInOrder,
    /// Every operation has an outcome in the end.
    Settled,
    /// Online is who has a socket.
    PresenceIsTrue,
    /// Memory, files and keys come back to where they were.
    NothingLeaks,
    /// What a fault ended works again, and what was asked to end did so in good order.
    EverythingComesBack,
}
