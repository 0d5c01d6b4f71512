//! Input and output of the checker.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::history::{Kind, Name, Record};

/// All evidence of a run.
#[derive(Debug, Default)]
pub struct Evidence {
    /// The user of each client.
    pub users: Vec<Name>,
    /// The history that clients wrote.
    pub history: Vec<Record>,
    /// The store's logs of conversations.
    pub store: BTreeMap<Name, Log>,
    /// Users shown online at the end of the run.
    pub presence: Vec<Presence>,
    /// Figures that must return to their values before the run.
    pub figures: Vec<Figure>,
    /// Nodes and servers that did not recover, or did not exit properly.
    pub lost: Vec<String>,
    /// Maximum time from an ack until every listener has the entry.
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

/// Users shown online by one source, and the users with a socket.
#[derive(Debug)]
pub struct Presence {
    pub place: String,
    pub reported: BTreeSet<Name>,
    pub live: BTreeSet<Name>,
}

/// A number before and after the run.
#[derive(Debug)]
pub struct Figure {
    pub name: String,
    pub before: u64,
    pub after: u64,
    /// Allowed growth.
    pub slack: u64,
}

impl Figure {
    /// True if it has grown by no more than the slack.
    pub fn is_well(&self) -> bool {
        self.after <= self.before + self.slack
    }
}

/// A violation of a rule.
#[derive(Debug)]
pub struct Violation {
    /// The broken rule.
    pub rule: Rule,
    /// Description.
    pub what: String,
    /// Lines of the history that show it.
    pub lines: Vec<usize>,
}

/// A rule that the cluster must keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// An acked operation is in the store, at the seq that the ack names.
    AckedIsStored,
    /// A refused operation is not in the store, and no client got it.
    RefusedNeverWas,
    /// A log is numbered 1, 2, 3 … up to its head.
    SeqsHaveNoGap,
    /// The store has each operation once, and only operations that clients sent.
    StoredOnce,
    /// A connection gets a log's entries strictly +1, as they are stored, each once, up to the last.
    DeliveredByOne,
    /// Listeners get entries soon after the ack.
    DeliveredInTime,
    /// One sender's acks and seqs follow the order of the sends.
    AcksInOrder,
    /// Every operation has an outcome in the end.
    Settled,
    /// The users shown online are those with a socket.
    PresenceIsTrue,
    /// Memory, open files and keys return to their values before the run.
    NothingLeaks,
    /// A server or node that a fault ended works again, and a node that got SIGTERM exited with 0.
    EverythingComesBack,
}
