//! Input and output of the checker.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::history::{About, Kind, Name, Record, Session};

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
    /// What each socket was last shown of others, at the end of the run.
    pub shown: Vec<Shown>,
    /// Whole conversations, read anew at the end of the run.
    pub views: Vec<View>,
    /// Figures that must return to their values before the run.
    pub figures: Vec<Figure>,
    /// Nodes and servers that did not recover, or did not exit properly.
    pub lost: Vec<String>,
    /// Maximum time from an ack until every listener has the entry.
    pub delivered_within: Duration,
    /// Time from the end of the last fault until presence was right and had stayed so for a while.
    pub right_after: Duration,
    /// On a Redis Cluster, the shard that each user's sends ask.
    pub shards: BTreeMap<Name, usize>,
}

/// A conversation's log in the store.
#[derive(Debug, Default)]
pub struct Log {
    pub head: i64,
    pub rows: BTreeMap<i64, Row>,
    /// The members at the end.
    pub members: BTreeSet<Name>,
    /// True for a conversation of two users that belongs to the pair.
    pub direct: bool,
}

/// An entry in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub kind: Kind,
    pub sender: Name,
    pub id: Name,
    pub about: About,
    /// Hash of the present text; 0 if it has none, or was deleted.
    pub text: u64,
}

/// Users shown online by one source, and the users with a socket.
#[derive(Debug)]
pub struct Presence {
    pub place: String,
    pub reported: BTreeSet<Name>,
    pub live: BTreeSet<Name>,
}

/// The users that one socket believes to be in a conversation or online, from the frames that it got.
#[derive(Debug)]
pub struct Shown {
    pub session: Session,
    pub place: String,
    /// Users whom it was last shown as present, and as absent.
    pub present: BTreeSet<Name>,
    pub absent: BTreeSet<Name>,
    /// True if it was shown a list of all who are present.
    pub complete: bool,
    /// Users who are present.
    pub truth: BTreeSet<Name>,
}

/// A conversation as one way of reading it shows it from its first entry: per seq, the hash of the text.
#[derive(Debug)]
pub struct View {
    pub place: String,
    pub conversation: Name,
    /// True if it shows every entry, false if only messages that were not deleted.
    pub whole: bool,
    pub texts: BTreeMap<i64, u64>,
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
    /// The greeting is the first frame.
    GreetedFirst,
    /// The head in the answer to a join is not below the seq that the client named.
    HeadIsNotBehind,
    /// A removed member hears nothing after the removal, and neither reads, joins nor writes after its ack.
    RemovedIsOut,
    /// The sockets of a member listen: those that join by themselves were told of every conversation.
    MembersListen,
    /// A text is not shown to anybody who asks after the deletion was acked.
    DeletedIsGone,
    /// Whoever reads a conversation from its first entry sees what is stored, on every node.
    SameEverywhere,
    /// The users shown online are those with a socket.
    PresenceIsTrue,
    /// What a socket was last shown of other users is the truth.
    ShownIsTrue,
    /// Memory, open files and keys return to their values before the run.
    NothingLeaks,
    /// A server or node that a fault ended works again, and a node that got SIGTERM exited with 0.
    EverythingComesBack,
}
