//! What lasts: users, conversations, members, the logs, read state, notifications.
//!
//! `traits` has one trait for each subject and [`Store`], their sum. Two backends implement them, with one file for each
//! subject, and one contract suite tests both (`tests/it/store.rs`). Entries go in through the [`Writer`], which gathers what
//! waits into group commits. Imports `model`, `config`, `metrics`; never the backplane or the hub.

use std::sync::Arc;

use crate::model::{Body, ClientId, ConversationId, Entry, LogId, Page, Pair, Seq, Timestamp, UserId};

mod codes;
mod migrations;
mod postgres;
mod row;
mod sqlite;
mod traits;
mod writer;

pub use postgres::{Postgres, diagnose};
pub use sqlite::Sqlite;
pub use traits::{Conversations, Lifecycle, Logs, Members, Messages, Notifications, Relay, Store, Users};
pub use writer::{AppendError, Committed, Writer, WriterSettings, watch};

/// By what right an entry is appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// The sender must be a member of the conversation.
    Member,
    /// The sender is an admin: need not be a member, may delete anybody's message.
    Admin,
    /// The broker itself: joins to open conversations, personas, inboxes.
    System,
}

/// An entry that is to be appended.
#[derive(Debug, Clone)]
pub struct NewEntry {
    /// To which log.
    pub log: LogId,
    /// Who does it.
    pub sender: UserId,
    /// That user's display name.
    pub sender_name: Arc<str>,
    /// What makes it idempotent: the client's id, else one the node made.
    pub dedupe: ClientId,
    /// Whether `dedupe` is the client's, and to be shown.
    pub client_gave_id: bool,
    /// By what right.
    pub authority: Authority,
    /// What it says.
    pub body: Body,
}

/// What became of one appended entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Its seq.
    pub seq: Seq,
    /// Messages up to and with it.
    pub message_no: i64,
    /// When it was stored.
    pub at: Timestamp,
    /// It had been stored before, by an earlier try with the same id; nothing new was written.
    pub duplicate: bool,
    /// Entries that this one put into other logs in the same transaction (inboxes of members).
    pub also: Vec<Entry>,
}

/// Why one entry was not taken; its neighbours in the batch are not touched by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendRefused {
    /// The sender is not a member.
    #[error("not a member")]
    NotMember,
    /// There is no such log.
    #[error("no such conversation")]
    NoSuchLog,
    /// The message it is about doesn't exist, or was deleted.
    #[error("no such message")]
    NoSuchTarget,
    /// The message it is about is somebody else's.
    #[error("not the sender's own")]
    NotYours,
    /// It would change nothing: already a member, already no member, that reaction stands.
    #[error("nothing to change")]
    Unchanged,
}

/// The store could not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// It can't be reached; surely nothing was written.
    #[error("store unavailable: {0}")]
    Unavailable(String),
    /// The link broke before the answer came: it may or may not have been written.
    #[error("store outcome unknown: {0}")]
    Unknown(String),
    /// It said no (a timeout of a lock, a full disk, a fault in the query); nothing was written.
    #[error("store failed: {0}")]
    Failed(String),
}

/// What [`Logs::append`] gives for each entry, in the batch's order.
pub type Outcome = Result<Appended, AppendRefused>;

/// The ends of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ends {
    /// The first seq still stored; 1 unless retention took some.
    pub first: Seq,
    /// The newest seq; 0 where the log is empty.
    pub head: Seq,
}

/// What one user may do with one conversation, and where its log ends: all that a join needs, in one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Whether the user is a member.
    pub member: bool,
    /// Whether anyone may join.
    pub open: bool,
    /// The ends of its log.
    pub ends: Ends,
}

/// Which of a conversation's messages to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MessagesPage {
    /// Only those before this seq.
    pub before: Option<Seq>,
    /// Only replies to this message.
    pub thread: Option<Seq>,
    /// Which part of them.
    pub page: Page,
}

/// A user's direct conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Direct {
    /// Which.
    pub conversation: ConversationId,
    /// Its two members.
    pub pair: Pair,
    /// All up to here was delivered to the user.
    pub delivered: Seq,
    /// Its newest seq.
    pub head: Seq,
}

/// Where a search looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SearchScope {
    /// In those conversations of which this user is a member.
    Own(UserId),
    /// In this conversation. The caller has checked that the user may read it.
    One(ConversationId),
}

impl SearchScope {
    /// The user and the conversation as parameters of a statement; one of them is `None`.
    fn parts(&self) -> (Option<&str>, Option<&str>) {
        match self {
            Self::Own(user) => (Some(user.as_str()), None),
            Self::One(conversation) => (None, Some(conversation.as_str())),
        }
    }
}

/// Messages that wait for those who are away: all of a conversation from the first one to the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// The first one's seq.
    pub first: Seq,
    /// The last one's seq.
    pub last: Seq,
}

/// What is asked of a store, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Append,
    Read,
    Write,
    Ping,
}

impl Operation {
    fn label(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Read => "read",
            Self::Write => "write",
            Self::Ping => "ping",
        }
    }
}
