//! What a store can do, one trait for each subject. [`Store`] is their sum.
//!
//! Code that needs one subject takes that trait (`Arc<dyn Logs>`), so that its tests can do with a fake of a few methods.
//! Every method may be called at any time from any task; each has a bounded wait.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{Access, Direct, Ends, MessagesPage, NewEntry, Outcome, SearchScope, StoreError, Waiting};
use crate::model::{
    Conversation, ConversationId, Entry, LogId, Message, NewConversation, NodeId, Notification, Page, Pair,
    SearchTerms, Seq, Status, Timestamp, UserId,
};

/// All that a node asks of its store.
pub trait Store: Lifecycle + Logs + Messages + Conversations + Members + Users + Notifications + Relay {}

impl<S: Lifecycle + Logs + Messages + Conversations + Members + Users + Notifications + Relay> Store for S {}

/// Preparing a store, and whether it answers.
#[async_trait]
pub trait Lifecycle: Send + Sync + 'static {
    /// Applies pending migrations, once, under a lock. Returns how many there were.
    async fn migrate(&self) -> Result<usize, StoreError>;
    /// Asks for a sign of life; true where some node can reach others [through the store alone](Relay::give_notice).
    async fn ping(&self) -> Result<bool, StoreError>;
}

/// The logs: of conversations, and of users' inboxes.
#[async_trait]
pub trait Logs: Send + Sync + 'static {
    /// Appends a batch in one transaction: any number of messages, or exactly one entry of another kind (which may
    /// write members, its target's row and inboxes as well). Only the [`Writer`](super::Writer) calls this.
    /// No two entries of the batch have the same log, sender and `dedupe`.
    async fn append(&self, batch: &[NewEntry]) -> Result<Vec<Outcome>, StoreError>;
    /// The ends of those logs that exist.
    async fn ends(&self, logs: &[LogId]) -> Result<Vec<(LogId, Ends)>, StoreError>;
    /// Entries after `after`, oldest first, at most `limit`.
    async fn entries(&self, log: &LogId, after: Seq, limit: u32) -> Result<Vec<Entry>, StoreError>;
}

/// Messages as they stand now: with edits, deletion, reactions and replies.
#[async_trait]
pub trait Messages: Send + Sync + 'static {
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
    /// Messages in which all `terms` occur (the last one may be the beginning of a word), newest first. Deleted ones are
    /// not found. PostgreSQL looks through the newest 10,000 entries of each of the 200 conversations last active, or
    /// 100,000 of the one named.
    async fn search(&self, scope: &SearchScope, terms: &SearchTerms, page: Page) -> Result<Vec<Entry>, StoreError>;
}

/// Conversations: making, showing and listing them.
#[async_trait]
pub trait Conversations: Send + Sync + 'static {
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
        page: Page,
    ) -> Result<(Vec<Conversation>, i64), StoreError>;
    /// Puts a conversation out of its member's sight, or back; false where the user is no member.
    async fn archive(&self, conversation: &ConversationId, user: &UserId, archived: bool) -> Result<bool, StoreError>;
    /// A user's direct conversations, the last active first, at most `limit`.
    async fn directs(&self, user: &UserId, limit: u32) -> Result<Vec<Direct>, StoreError>;
    /// The two members of a direct conversation; `None` where it is none.
    async fn pair(&self, conversation: &ConversationId) -> Result<Option<Pair>, StoreError>;
}

/// Who belongs to a conversation, and how far they are.
#[async_trait]
pub trait Members: Send + Sync + 'static {
    /// What `user` may do with `conversation`; `None` where it doesn't exist.
    async fn access(&self, conversation: &ConversationId, user: &UserId) -> Result<Option<Access>, StoreError>;
    /// Members of a conversation, in pages by id: those whose id sorts after `after`.
    async fn members(
        &self,
        conversation: &ConversationId,
        after: Option<&UserId>,
        limit: u32,
    ) -> Result<Vec<UserId>, StoreError>;
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
}

/// Users: their names, statuses, and when they were last there.
#[async_trait]
pub trait Users: Send + Sync + 'static {
    /// Makes users known, or updates their display names.
    async fn know(&self, users: &[(UserId, Arc<str>)]) -> Result<(), StoreError>;
    /// Keeps a user's status.
    async fn set_status(&self, user: &UserId, status: Status) -> Result<(), StoreError>;
    /// Notes when users were last there.
    async fn seen(&self, users: &[UserId], at: Timestamp) -> Result<(), StoreError>;
    /// Statuses and last-seen times of those users that are known.
    async fn statuses(&self, users: &[UserId]) -> Result<Vec<(UserId, Status, Option<Timestamp>)>, StoreError>;
}

/// Notes that messages wait for users who are away.
#[async_trait]
pub trait Notifications: Send + Sync + 'static {
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
    async fn notifications(&self, user: &UserId, page: Page) -> Result<Vec<Notification>, StoreError>;
    /// Marks a user's notifications read, those named or all; how many there were.
    async fn read_notifications(&self, user: &UserId, ids: Option<&[i64]>) -> Result<u64, StoreError>;
}

/// Notices through which nodes reach each other while Redis is away.
#[async_trait]
pub trait Relay: Send + Sync + 'static {
    /// Gives notice of logs that grew, and how far they reach; and that `node` can reach others through the store alone,
    /// for so long as `alone` says, zero where it can reach them otherwise.
    async fn give_notice(&self, node: &NodeId, alone: Duration, grown: &[(LogId, Seq)]) -> Result<(), StoreError>;
    /// Says that `node` can reach others otherwise again.
    async fn withdraw_notice(&self, node: &NodeId) -> Result<(), StoreError>;
    /// The logs of which notice was given within the last `span`, and how far they reach.
    async fn notices(&self, span: Duration) -> Result<Vec<(LogId, Seq)>, StoreError>;
}
