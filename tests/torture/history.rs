//! What happened, as clients saw it, in the order in which they wrote it down.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// A short text that many records share: a conversation, a client's id for an operation.
pub type Name = Arc<str>;

/// One connection of one client, the first being 1; 0 stands for the client between connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Session {
    pub client: usize,
    pub number: u32,
}

/// What a log's entry is; the numbers are the store's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Message = 0,
    Edited = 1,
    Deleted = 2,
    Reaction = 3,
}

impl Kind {
    /// The kind that the store knows by this number.
    pub fn of(number: i16) -> Option<Self> {
        [Self::Message, Self::Edited, Self::Deleted, Self::Reaction].into_iter().find(|kind| *kind as i16 == number)
    }

    /// The kind of a frame of this `type`.
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

/// An entry as it was delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    pub seq: i64,
    pub kind: Kind,
    pub sender: Name,
    /// The sender's own id for it, where the frame says one.
    pub id: Option<Name>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A connection to a node is open.
    Open { node: usize },
    /// The client no longer reads from its connection.
    Close { why: String },
    /// The connection listens: deliveries go on after `from`. `since`: what the client said that it has.
    Resume { conversation: Name, since: Option<i64>, from: i64, resync: bool },
    /// An operation is tried, perhaps again.
    Invoke { conversation: Name, id: Name, kind: Kind },
    /// It is acked. `duplicate`: an earlier try had been stored.
    Ok { conversation: Name, id: Name, seq: i64, duplicate: bool },
    /// This try was refused: it was not stored. `last`: the client gives it up.
    Fail { id: Name, code: String, last: bool },
    /// Nobody knows what became of this try.
    Unknown { id: Name },
    /// An entry arrived.
    Deliver { conversation: Name, entry: Delivered },
    /// The client stops reading, and goes on.
    Stall { begins: bool },
    /// A fault begins or ends.
    Fault { fault: String, begins: bool },
}

/// One line of a history.
#[derive(Debug, Clone)]
pub struct Record {
    /// Since the beginning.
    pub at: Duration,
    /// Whose; none for faults.
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

/// Where everybody writes; clones write into the same history.
#[derive(Debug, Clone)]
pub struct Recorder {
    begun: Instant,
    records: Arc<Mutex<Vec<Record>>>,
}

impl Recorder {
    /// An empty history that begins now.
    pub fn new() -> Self {
        Self { begun: Instant::now(), records: Arc::default() }
    }

    /// Writes a line.
    pub fn note(&self, session: Option<Session>, what: What) {
        let mut records = self.records.lock().unwrap();
        // The clock is read under the lock, so that the lines are in order.
        records.push(Record { at: self.begun.elapsed(), session, what });
    }

    /// All lines so far.
    pub fn history(&self) -> Vec<Record> {
        self.records.lock().unwrap().clone()
    }
}
