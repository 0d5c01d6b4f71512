//! The history of a run: what clients saw, in the order in which they recorded it.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// A short text that many records share: a conversation's id, a user's id, a client's id of an operation.
pub type Name = Arc<str>;

/// One connection of a client; numbers begin at 1, and 0 stands for the client between connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Session {
    pub client: usize,
    pub number: u32,
}

/// Kind of a log's entry; the numbers are the store's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Message = 0,
    Edited = 1,
    Deleted = 2,
    Reaction = 3,
}

impl Kind {
    /// Returns the kind that has this number in the store.
    pub fn of(number: i16) -> Option<Self> {
        [Self::Message, Self::Edited, Self::Deleted, Self::Reaction].into_iter().find(|kind| *kind as i16 == number)
    }

    /// Returns the kind of a frame of this `type`.
    pub fn of_frame(kind: &str) -> Option<Self> {
        match kind {
            "message" => Some(Self::Message),
            "message_edited" => Some(Self::Edited),
            "message_deleted" => Some(Self::Deleted),
            "reaction" => Some(Self::Reaction),
            _ => None,
        }
    }
}

/// A delivered entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    pub seq: i64,
    pub kind: Kind,
    pub sender: Name,
    /// The sender's id of the operation, if the frame has one.
    pub id: Option<Name>,
}

/// An observation of a client or of the fault injector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A connection to a node was opened.
    Open { node: usize },
    /// The client stopped reading from its connection for good.
    Close { why: String },
    /// The connection listens: deliveries go on after `from`. `since` is the seq that the client named.
    Resume { conversation: Name, since: Option<i64>, from: i64, resync: bool },
    /// A try of an operation was sent.
    Invoke { conversation: Name, id: Name, kind: Kind },
    /// A try was acked. `duplicate`: an earlier try had been stored.
    Ok { conversation: Name, id: Name, seq: i64, duplicate: bool },
    /// A try was refused, so it was not stored. `last`: the client gives the operation up.
    Fail { id: Name, code: String, last: bool },
    /// The outcome of a try is unknown.
    Unknown { id: Name },
    /// An entry arrived.
    Deliver { conversation: Name, entry: Delivered },
    /// The client stopped or resumed reading.
    Stall { begins: bool },
    /// A fault began or ended.
    Fault { fault: String, begins: bool },
}

/// One line of a history.
#[derive(Debug, Clone)]
pub struct Record {
    /// Time since the begin of the run.
    pub at: Duration,
    /// The session; none for faults.
    pub session: Option<Session>,
    pub what: What,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:9.3} ", self.at.as_secs_f64())?;
        match self.session {
            Some(Session { client, number }) => write!(f, "client {client:2}/{number:<3} ")?,
            None => write!(f, "{:14}", "")?,
        }
        match &self.what {
            What::Open { node } => write!(f, "open     node {node}"),
            What::Close { why } => write!(f, "close    {why}"),
            What::Resume { conversation, since, from, resync } => {
                let how = if *resync { "resync" } else { "resume" };
                write!(f, "{how}   {conversation} after {from} (has {since:?})")
            }
            What::Invoke { conversation, id, kind } => write!(f, "invoke   {conversation} {id} {kind:?}"),
            What::Ok { conversation, id, seq, duplicate } => {
                write!(f, "ok       {conversation} {id} seq {seq}{}", if *duplicate { " (duplicate)" } else { "" })
            }
            What::Fail { id, code, last } => {
                write!(f, "fail     {id} {code}{}", if *last { ", given up" } else { "" })
            }
            What::Unknown { id } => write!(f, "unknown  {id}"),
            What::Deliver { conversation, entry: Delivered { seq, kind, sender, id } } => {
                write!(f, "deliver  {conversation} seq {seq} {kind:?} of {sender} {}", id.as_deref().unwrap_or("-"))
            }
            What::Stall { begins } => write!(f, "{}", if *begins { "stops reading" } else { "reads again" }),
            What::Fault { fault, begins } => write!(f, "──── {fault} {}", if *begins { "begins" } else { "ends" }),
        }
    }
}

/// Writer of a history; its clones write into the same history.
#[derive(Debug, Clone)]
pub struct Recorder {
    begun: Instant,
    records: Arc<Mutex<Vec<Record>>>,
}

impl Recorder {
    /// Makes an empty history that begins now.
    pub fn new() -> Self {
        Self { begun: Instant::now(), records: Arc::default() }
    }

    /// Appends a line.
    pub fn record(&self, session: Option<Session>, what: What) {
        let mut records = self.records.lock().unwrap();
        // Read the clock under the lock, so that the lines are in order.
        records.push(Record { at: self.begun.elapsed(), session, what });
    }

    /// Returns all lines so far.
    pub fn history(&self) -> Vec<Record> {
        self.records.lock().unwrap().clone()
    }
}
