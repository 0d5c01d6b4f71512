//! The history of a run: what clients saw, in the order in which they recorded it.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// A short text that many records share: a conversation's id, a user's id, a client's id of an operation.
pub type Name = Arc<str>;

/// One connection of a client; numbers begin at 1, and 0 stands for the client between connections. Requests over REST
/// have sessions too, without a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Session {
    pub client: usize,
    pub number: u32,
}

/// A wire format of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dialect {
    Native,
    Direct,
    Rooms,
    Conversation,
    Personas,
}

impl Dialect {
    /// True if the dialect has frames for edits, deletions, reactions, changes of members, and deleted messages.
    pub fn shows_changes(self) -> bool {
        self == Self::Native
    }

    /// True if a message is also sent to the socket that it came from.
    pub fn echoes(self) -> bool {
        matches!(self, Self::Rooms | Self::Conversation | Self::Personas)
    }

    /// True if a socket listens to the one conversation in its URL.
    pub fn is_bound(self) -> bool {
        matches!(self, Self::Rooms | Self::Conversation)
    }
}

/// Kind of a log's entry; the numbers are the store's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Message = 0,
    Edited = 1,
    Deleted = 2,
    Reaction = 3,
    MemberAdded = 4,
    MemberRemoved = 5,
}

impl Kind {
    const ALL: [Self; 6] =
        [Self::Message, Self::Edited, Self::Deleted, Self::Reaction, Self::MemberAdded, Self::MemberRemoved];

    /// Returns the kind that has this number in the store.
    pub fn of(number: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as i16 == number)
    }

    /// Returns the kind of a native frame of this `type`.
    pub fn of_frame(kind: &str) -> Option<Self> {
        match kind {
            "message" => Some(Self::Message),
            "message_edited" => Some(Self::Edited),
            "message_deleted" => Some(Self::Deleted),
            "reaction" => Some(Self::Reaction),
            "member_added" => Some(Self::MemberAdded),
            "member_removed" => Some(Self::MemberRemoved),
            _ => None,
        }
    }
}

/// What an operation or entry is about, beside its conversation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum About {
    Nothing,
    /// The seq of a message.
    Message(i64),
    /// A member.
    User(Name),
}

/// A delivered entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    pub seq: i64,
    pub kind: Kind,
    pub sender: Name,
    /// The sender's id of the operation, if the frame has one.
    pub id: Option<Name>,
    pub about: About,
    /// Hash of the text ([`hash_of`]); 0 without a text.
    pub text: u64,
}

/// Hash of a text; 0 for an empty one.
pub fn hash_of(text: &str) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    if text.is_empty() { 0 } else { hasher.finish() | 1 }
}

/// An observation of a client or of the fault injector. `asked` is the time at which a client sent the request that the
/// line answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A connection to a node was opened.
    Open { node: usize, dialect: Dialect, asked: Duration },
    /// A frame came before the greeting.
    Early { frame: String },
    /// The client stopped reading from its connection for good.
    Close { why: String },
    /// The connection listens: deliveries go on after `from`. `since` is the seq that the client named, `head` the one
    /// that the node named.
    Resume { conversation: Name, since: Option<i64>, from: i64, head: Option<i64>, resync: bool, asked: Duration },
    /// The node ended the listening.
    Left { conversation: Name },
    /// A try of an operation was sent.
    Invoke { conversation: Name, id: Name, kind: Kind, about: About },
    /// A try was acked. `duplicate`: an earlier try had been, or may have been, stored.
    Ok { conversation: Name, id: Name, seq: i64, duplicate: bool },
    /// A try was acked without a seq.
    Done { id: Name },
    /// A try was refused, so it was not stored. `last`: the client gives the operation up.
    Fail { id: Name, code: String, last: bool },
    /// The outcome of a try is unknown.
    Unknown { id: Name },
    /// An entry arrived.
    Deliver { conversation: Name, entry: Delivered },
    /// A frame showed a user as present or absent: in a conversation, or `online`.
    Shown { place: String, user: Name, present: bool },
    /// A user read the newest messages over REST, or was refused. `shown` are the messages that have a text.
    Read { user: Name, conversation: Name, node: usize, asked: Duration, allowed: bool, shown: Vec<i64> },
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
            What::Open { node, dialect, .. } => write!(f, "open     node {node} {dialect:?}"),
            What::Early { frame } => write!(f, "early    {frame}"),
            What::Close { why } => write!(f, "close    {why}"),
            What::Resume { conversation, since, from, head, resync, asked } => {
                let (how, asked) = (if *resync { "resync" } else { "resume" }, asked.as_secs_f64());
                write!(f, "{how}   {conversation} after {from} (has {since:?}, head {head:?}, asked {asked:.3})")
            }
            What::Left { conversation } => write!(f, "left     {conversation}"),
            What::Invoke { conversation, id, kind, about } => {
                write!(f, "invoke   {conversation} {id} {kind:?} {about:?}")
            }
            What::Ok { conversation, id, seq, duplicate } => {
                write!(f, "ok       {conversation} {id} seq {seq}{}", if *duplicate { " (duplicate)" } else { "" })
            }
            What::Done { id } => write!(f, "done     {id}"),
            What::Fail { id, code, last } => {
                write!(f, "fail     {id} {code}{}", if *last { ", given up" } else { "" })
            }
            What::Unknown { id } => write!(f, "unknown  {id}"),
            What::Deliver { conversation, entry: Delivered { seq, kind, sender, id, about, .. } } => {
                let id = id.as_deref().unwrap_or("-");
                write!(f, "deliver  {conversation} seq {seq} {kind:?} of {sender} {id} {about:?}")
            }
            What::Shown { place, user, present } => {
                write!(f, "shown    {user} {} {place}", if *present { "in" } else { "not in" })
            }
            What::Read { user, conversation, node, asked, allowed, shown } => {
                let (may, asked) = (if *allowed { "reads" } else { "may not read" }, asked.as_secs_f64());
                write!(
                    f,
                    "read     {user} {may} {conversation} on node {node}, {} messages, asked {asked:.3}",
                    shown.len()
                )
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

    /// Time since the begin of the history.
    pub fn now(&self) -> Duration {
        self.begun.elapsed()
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
