//! What lasts: users, conversations, members, the logs, read state, notifications.
//!
//! One trait, two backends, one contract suite for both (`tests/it/store.rs`). Entries go in through the [`Writer`],
//! which gathers what waits into group commits. Imports `model`, `config`, `metrics`; never the backplane or the hub.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::model::{
    Body, ClientId, Conversation, ConversationId, Entry, LogId, Message, NewConversation, NodeId, Notification, Pair,
    Seq, Status, Timestamp, UserId,
};

mod migrations;
mod postgres;
mod row;
mod sqlite;
mod words;
mod writer;

pub use postgres::{Postgres, examine};
pub use sqlite::Sqlite;
use words::words;
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

/// What `Store::append` gives for each entry, in the batch's order.
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
    /// How many at most.
    pub limit: u32,
    /// How many to pass over.
    pub offset: u32,
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
pub enum Within {
    /// In those conversations of which this user is a member.
    Own(UserId),
    /// In this conversation, whoever asks: whether they may was settled before.
    One(ConversationId),
}

impl Within {
    /// The user and the conversation, of which there is one.
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

/// What lasts. Every method may be called at any time from any task; each has a bounded wait.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Applies pending migrations, once, under a lock. Returns how many there were.
    async fn migrate(&self) -> Result<usize, StoreError>;
    /// Asks for a sign of life; true where some node can reach others [through here alone](Store::give_notice).
    async fn ping(&self) -> Result<bool, StoreError>;

    /// Gives notice of logs that grew, and how far they reach; and that `node` can reach others through the store alone, for
    /// so long as `alone` says, zero where it can reach them otherwise.
    async fn give_notice(&self, node: &NodeId, alone: Duration, grown: &[(LogId, Seq)]) -> Result<(), StoreError>;
    /// Says that `node` can reach others otherwise again.
    async fn withdraw_notice(&self, node: &NodeId) -> Result<(), StoreError>;
    /// The logs of which notice was given within the last `span`, and how far they reach.
    async fn notices(&self, span: Duration) -> Result<Vec<(LogId, Seq)>, StoreError>;

    /// Appends a batch in one transaction: any number of messages, or exactly one entry of another kind (which may
    /// write members, its target's row and inboxes as well). Only the [`Writer`] calls this.
    /// No two entries of the batch have the same log, sender and `dedupe`.
    async fn append(&self, batch: &[NewEntry]) -> Result<Vec<Outcome>, StoreError>;

    /// The ends of those logs that exist.
    async fn ends(&self, logs: &[LogId]) -> Result<Vec<(LogId, Ends)>, StoreError>;
    /// Entries after `after`, oldest first, at most `limit`.
    async fn entries(&self, log: &LogId, after: Seq, limit: u32) -> Result<Vec<Entry>, StoreError>;
    /// A conversation's messages, newest first, as `reader` sees them, and how many it has in all. Deleted ones stay,
    /// emptied.
    async fn messages(
        &self,
        conversation: &ConversationId,
        reader: &UserId,
        page: MessagesPage,
    ) -> Result<(Vec<Message>, i64), StoreError>;
    /// One message as `reader` sees it; `None` where there is none of that seq.
    async fn message(
        &self,
        conversation: &ConversationId,
        seq: Seq,
        reader: &UserId,
    ) -> Result<Option<Message>, StoreError>;
    /// Messages in which all `words` occur (the last one may be the beginning of a word), newest first. Deleted ones are
    /// not found. PostgreSQL looks through the newest 10,000 entries of each of the 200 conversations last active, or
    /// 100,000 of the one named.
    async fn search(&self, within: &Within, words: &str, limit: u32, offset: u32) -> Result<Vec<Entry>, StoreError>;

    /// What `user` may do with `conversation`; `None` where it doesn't exist.
    async fn access(&self, conversation: &ConversationId, user: &UserId) -> Result<Option<Access>, StoreError>;
    /// Makes a conversation with its creator and members, tells their inboxes, and returns it with the inbox entries.
    /// `None` where the id is taken.
    async fn create(
        &self,
        new: &NewConversation,
        id: &ConversationId,
        creator: &UserId,
    ) -> Result<Option<(Conversation, Vec<Entry>)>, StoreError>;
    /// The direct conversation of two users (or of one with themselves), made if need be, with the inbox entries that
    /// made it known.
    async fn direct(&self, one: &UserId, other: &UserId) -> Result<(ConversationId, Vec<Entry>), StoreError>;
    /// A conversation with its members (at most 1,000), as `reader` sees it; `None` where it doesn't exist.
    async fn conversation(&self, id: &ConversationId, reader: &UserId) -> Result<Option<Conversation>, StoreError>;
    /// The conversations `user` is a member of, archived ones or the others, the last active first, with their first
    /// hundred members; and how many there are.
    async fn conversations(
        &self,
        user: &UserId,
        archived: bool,
        limit: u32,
        offset: u32,
    ) -> Result<(Vec<Conversation>, i64), StoreError>;
    /// Puts a conversation out of its member's sight, or back; false where the user is no member.
    async fn archive(&self, conversation: &ConversationId, user: &UserId, archived: bool) -> Result<bool, StoreError>;
    /// A user's direct conversations, the last active first, at most `limit`.
    async fn directs(&self, user: &UserId, limit: u32) -> Result<Vec<Direct>, StoreError>;
    /// The two members of a direct conversation; `None` where it is none.
    async fn pair(&self, conversation: &ConversationId) -> Result<Option<Pair>, StoreError>;
    /// Users who share a conversation with `user`, at most `limit` of them, not `user` themselves.
    async fn acquaintances(&self, user: &UserId, limit: u32) -> Result<Vec<UserId>, StoreError>;

    /// Moves a member's delivered and read marks forward, never back and never past the head; reading is delivery.
    /// The marks as they stand then, or `None` where nothing moved or the user is no member.
    async fn mark(
        &self,
        conversation: &ConversationId,
        user: &UserId,
        delivered: Seq,
        read: Seq,
    ) -> Result<Option<(Seq, Seq)>, StoreError>;

    /// Makes users known, or updates their display names.
    async fn know(&self, users: &[(UserId, Arc<str>)]) -> Result<(), StoreError>;
    /// Keeps a user's status.
    async fn set_status(&self, user: &UserId, status: Status) -> Result<(), StoreError>;
    /// Notes when users were last there.
    async fn seen(&self, users: &[UserId], at: Timestamp) -> Result<(), StoreError>;
    /// Statuses and last-seen times of those users that are known.
    async fn statuses(&self, users: &[UserId]) -> Result<Vec<(UserId, Status, Option<Timestamp>)>, StoreError>;

    /// Members of a conversation other than `except`, in pages by id.
    async fn members(
        &self,
        conversation: &ConversationId,
        after: Option<&UserId>,
        limit: u32,
    ) -> Result<Vec<UserId>, StoreError>;
    /// Notes for each of `users` that messages wait: opens a run (and tells the inbox) where none is open, else widens
    /// it. What they read, or were told of in a run that they put away, is passed over; so this may be told in any order
    /// and any number of times. Returns the inbox entries.
    async fn notify(
        &self,
        conversation: &ConversationId,
        waiting: Waiting,
        users: &[UserId],
    ) -> Result<Vec<Entry>, StoreError>;
    /// A user's notifications, newest first.
    async fn notifications(&self, user: &UserId, limit: u32, offset: u32) -> Result<Vec<Notification>, StoreError>;
    /// Marks a user's notifications read, those named or all; how many there were.
    async fn read_notifications(&self, user: &UserId, ids: Option<&[i64]>) -> Result<u64, StoreError>;
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
