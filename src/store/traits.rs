//! The store's interface: one trait for each subject, and [`Store`], their sum.
//!
//! Code that needs one subject takes that trait (`Arc<dyn Logs>`), so that a test can replace it with a small fake.
//! Every method may be called at any time from any task, and each has a bounded wait.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::sync::watch;

use super::{
    Access, AgedLog, AgedPage, Direct, Ends, FoundDirect, Job, JobTurn, LivingNode, MessagesPage, NewEntry, Notices,
    NotificationPost, Notified, NotifyOptions, Outcome, Pulse, ReadMessages, RelaySign, RemovedEntries,
    RestrictOutcome, RestrictionRow, SearchScope, Started, StoreError, StoredCommand, TakenWatch, Waiting,
    WaitingPosts,
};
use crate::model::{
    ClientId, Conversation, ConversationId, Deployment, Entry, EntryStamp, Erasure, LogId, Membership, Message,
    NewConversation, NodeKeys, Notification, Page, Pair, RestrictionChange, RestrictionRequest, RetentionDays,
    SearchTerms, Seq, Status, Timestamp, Unread, UserId,
};

/// Everything that a node needs from its store.
pub trait Store:
    Lifecycle
    + Logs
    + Messages
    + Conversations
    + Members
    + Users
    + Blocks
    + Restrictions
    + Retention
    + PersonalData
    + Notifications
    + Watches
    + Relay
{
}

impl<S> Store for S where
    S: Lifecycle
        + Logs
        + Messages
        + Conversations
        + Members
        + Users
        + Blocks
        + Restrictions
        + Retention
        + PersonalData
        + PersonalData
        + Notifications
        + Watches
        + Relay
{
}

/// Start, migrations and health checks.
#[async_trait]
pub trait Lifecycle: Send + Sync + 'static {
    /// Connects, applies pending migrations if `migrate` is true, and reads the deployment and the keys of the nodes. Until it has succeeded
    /// once, other calls may be refused as unavailable. A fault that only an operator can end is [`StoreError::Failed`];
    /// after another error, a later try may succeed.
    async fn start(&self, migrate: bool) -> Result<Started, StoreError>;
    /// Applies pending migrations under a lock. Returns the number of migrations applied.
    async fn migrate(&self) -> Result<usize, StoreError>;
    /// Checks that the store answers.
    async fn ping(&self) -> Result<Pulse, StoreError>;
    /// Returns the keys with which nodes sign what they write into Redis. The migrations make the first one.
    async fn node_keys(&self) -> Result<NodeKeys, StoreError>;
    /// Returns the identity of this deployment, which the migrations make.
    async fn deployment(&self) -> Result<Deployment, StoreError>;
    /// Gives the deployment a new epoch, unless it has one after `known` already. Returns its epoch, which no state of the
    /// store had before if it is new.
    async fn next_epoch(&self, known: i64) -> Result<i64, StoreError>;
    /// Changes whenever the store may have been replaced by an earlier state of itself: after the loss of a connection, and
    /// if a new one leads to another server.
    fn reconnects(&self) -> watch::Receiver<u64>;
    /// True if a heavy read was refused within the last `span` because too many waited.
    fn refused_heavy_reads(&self, span: Duration) -> bool;
}

/// The logs of conversations and of users' inboxes.
#[async_trait]
pub trait Logs: Send + Sync + 'static {
    /// Appends a batch in one transaction: any number of messages, or exactly one entry of another kind (which may
    /// write members, its target's row and inboxes as well). Only the [`Writer`](super::Writer) calls this.
    /// No two entries of the batch have the same log, sender and `dedupe`. `retried`: an earlier try may have stored some
    /// of it. Only then does an entry that is stored already keep its result although its sender may no longer append;
    /// otherwise the sender's rights are judged first. An entry whose id another command used is refused.
    async fn append(&self, batch: &[NewEntry], retried: bool) -> Result<Vec<Outcome>, StoreError>;
    /// Returns the ends of those logs that exist.
    async fn ends(&self, logs: &[LogId]) -> Result<Vec<(LogId, Ends)>, StoreError>;
    /// Returns the identities of those entries that exist.
    async fn stamps(&self, entries: &[(LogId, Seq)]) -> Result<Vec<(LogId, EntryStamp)>, StoreError>;
    /// Returns for each of those logs that exist the newest of its last 1,000 entries that was stored at this time or
    /// before; the head if all of them are newer and there are more.
    async fn ends_at(&self, logs: &[(LogId, Timestamp)]) -> Result<Vec<(LogId, Seq)>, StoreError>;
    /// Returns the newest entry of each of those logs that have one.
    async fn newest(&self, logs: &[LogId]) -> Result<Vec<Entry>, StoreError>;
    /// Returns what a command with this sender and `client_id` stored; `None` if there is none.
    async fn stored(
        &self,
        log: &LogId,
        sender: &UserId,
        client_id: &ClientId,
    ) -> Result<Option<StoredCommand>, StoreError>;
    /// Returns entries after `after`, oldest first, at most `limit`.
    async fn entries(&self, log: &LogId, after: Seq, limit: u32) -> Result<Vec<Entry>, StoreError>;
    /// Returns these entries, those of one log in the order of their seqs. Only the [`Writer`](super::Writer) calls this,
    /// so it never waits for other reads.
    async fn read_back(&self, entries: &[(LogId, Seq)]) -> Result<Vec<Entry>, StoreError>;
}

/// Messages in their current state: with edits, deletion, reactions and replies.
#[async_trait]
pub trait Messages: Send + Sync + 'static {
    /// Returns a page of a conversation's messages as `reader` sees them, read in one snapshot. Deleted messages stay in
    /// the list with empty content.
    async fn messages(
        &self,
        conversation: &ConversationId,
        reader: &UserId,
        page: MessagesPage,
    ) -> Result<ReadMessages, StoreError>;
    /// Returns one message as `reader` sees it; `None` if no message has that seq.
    async fn message(
        &self,
        conversation: &ConversationId,
        seq: Seq,
        reader: &UserId,
    ) -> Result<Option<Message>, StoreError>;
    /// Finds messages that contain all `terms` (the last term may be the beginning of a word), newest first. Deleted
    /// messages are not found, edited ones by their new text. PostgreSQL searches the user's 1,000 most recently active
    /// conversations, and of each what the search index covers and the newest 10,000 entries.
    /// [`SearchTerms::find`] alone decides; the index only leaves out messages without a token of [`SearchTerms::tokens`].
    async fn search(&self, scope: &SearchScope, terms: &SearchTerms, page: Page) -> Result<Vec<Entry>, StoreError>;
    /// Adds a log's full segments of messages to the search index, and those that a changed message has emptied; a few
    /// per call. Returns the number of segments added; 0 if there is nothing to add now.
    async fn index(&self, log: &LogId) -> Result<u32, StoreError>;
    /// Returns conversations that have enough entries for a new segment, or an emptied one. It looks at the next 1,000 in
    /// order of their names after `after`, and also returns the last name that it looked at; `None` after the last one.
    async fn unindexed(&self, after: Option<&LogId>) -> Result<(Vec<LogId>, Option<LogId>), StoreError>;
}

/// Conversations: create, show and list.
#[async_trait]
pub trait Conversations: Send + Sync + 'static {
    /// Creates a conversation with its creator and members, and adds an entry to each member's inbox. Returns it with
    /// the inbox entries; `None` if the id is taken.
    async fn create(
        &self,
        new: &NewConversation,
        id: &ConversationId,
        creator: &UserId,
    ) -> Result<Option<(Conversation, Vec<Entry>)>, StoreError>;
    /// Returns the direct conversation of two users (or of one user with themselves), and creates it if needed.
    async fn direct(&self, one: &UserId, other: &UserId) -> Result<FoundDirect, StoreError>;
    /// Returns the direct conversation of two users, if it exists.
    async fn known_direct(&self, one: &UserId, other: &UserId) -> Result<Option<ConversationId>, StoreError>;
    /// Returns a conversation with its members (at most 1,000), as `reader` sees it; `None` if it doesn't exist.
    async fn conversation(&self, id: &ConversationId, reader: &UserId) -> Result<Option<Conversation>, StoreError>;
    /// Returns the conversations of which `user` is a member, either the archived ones or the others, most recently
    /// active first, each with its first 100 members and its newest message; and their total number.
    async fn conversations(
        &self,
        user: &UserId,
        archived: bool,
        page: Page,
    ) -> Result<(Vec<Conversation>, i64), StoreError>;
    /// Archives a conversation for one member, or restores it. Returns false if the user is not a member.
    async fn archive(&self, conversation: &ConversationId, user: &UserId, archived: bool) -> Result<bool, StoreError>;
    /// Returns a user's direct conversations, most recently active first, at most `limit`.
    async fn directs(&self, user: &UserId, limit: u32) -> Result<Vec<Direct>, StoreError>;
    /// Returns the two members of a direct conversation; `None` if the conversation is not direct.
    async fn pair(&self, conversation: &ConversationId) -> Result<Option<Pair>, StoreError>;
}

/// The members of conversations, and their delivered and read marks.
#[async_trait]
pub trait Members: Send + Sync + 'static {
    /// Returns a user's access to a conversation; `None` if it doesn't exist.
    async fn access(&self, conversation: &ConversationId, user: &UserId) -> Result<Option<Access>, StoreError>;
    /// As [`access`](Self::access), before a heavy read: waits in the pool of such reads, and not in that of joins.
    async fn reader_access(&self, conversation: &ConversationId, user: &UserId) -> Result<Option<Access>, StoreError>;
    /// Returns the head of a conversation in which the user may speak now: a member, whom the other member of a direct
    /// conversation does not block. `None` otherwise.
    async fn speaks(&self, conversation: &ConversationId, user: &UserId) -> Result<Option<Seq>, StoreError>;
    /// True if two users share a conversation and neither blocks the other.
    async fn acquainted(&self, one: &UserId, other: &UserId) -> Result<bool, StoreError>;
    /// Returns members of a conversation in pages by id: those whose id sorts after `after`.
    async fn members(
        &self,
        conversation: &ConversationId,
        after: Option<&UserId>,
        limit: u32,
    ) -> Result<Vec<UserId>, StoreError>;
    /// Returns a page of the members of each of these conversations, in order of their ids: those whose id sorts after the
    /// given one, at most `limit` of each.
    async fn members_of(
        &self,
        conversations: &[(ConversationId, Option<UserId>)],
        limit: u32,
    ) -> Result<Vec<(ConversationId, UserId)>, StoreError>;
    /// Returns those of these users who are members of that conversation.
    async fn members_among(&self, of: &[(ConversationId, UserId)])
    -> Result<Vec<(ConversationId, UserId)>, StoreError>;
    /// Returns what waits for each of these users in that conversation; nothing for one who is no member.
    async fn unread(&self, of: &[(ConversationId, UserId)]) -> Result<Vec<Unread>, StoreError>;
    /// Returns users who share a conversation with `user`, without `user`, at most `limit`.
    async fn acquaintances(&self, user: &UserId, limit: u32) -> Result<Vec<UserId>, StoreError>;
    /// Moves a member's delivered and read marks forward, never back and never past the head; a read entry counts as
    /// delivered. A message of the member moves the read mark as well, with its append. Returns the new marks, or `None` if nothing moved or the user is not a member.
    async fn mark(
        &self,
        conversation: &ConversationId,
        user: &UserId,
        delivered: Seq,
        read: Seq,
    ) -> Result<Option<(Seq, Seq)>, StoreError>;
}

/// Users: display names, statuses and last-seen times.
#[async_trait]
pub trait Users: Send + Sync + 'static {
    /// Inserts users, or updates their display names.
    async fn know(&self, users: &[(UserId, Arc<str>)]) -> Result<(), StoreError>;
    /// Returns the display names of those users that are stored.
    async fn names(&self, users: &[UserId]) -> Result<Vec<(UserId, Arc<str>)>, StoreError>;
    /// Stores a user's status.
    async fn set_status(&self, user: &UserId, status: Status) -> Result<(), StoreError>;
    /// Records when users were last online.
    async fn seen(&self, users: &[UserId], at: Timestamp) -> Result<(), StoreError>;
    /// Returns the statuses and last-seen times of those users that are stored.
    async fn statuses(&self, users: &[UserId]) -> Result<Vec<(UserId, Status, Option<Timestamp>)>, StoreError>;
}

/// Blocks between users. A user who is blocked can't add the other one, nor write to them directly.
#[async_trait]
pub trait Blocks: Send + Sync + 'static {
    /// Blocks `other` for `user`. Returns false if `user` blocks `limit` users already.
    async fn block(&self, user: &UserId, other: &UserId, limit: u32) -> Result<bool, StoreError>;
    /// Ends a block, if there is one.
    async fn unblock(&self, user: &UserId, other: &UserId) -> Result<(), StoreError>;
    /// Returns the users whom `user` blocks, by id.
    async fn blocked(&self, user: &UserId) -> Result<Vec<UserId>, StoreError>;
    /// Returns true if one of `users` blocks `other`.
    async fn any_blocks(&self, users: &[UserId], other: &UserId) -> Result<bool, StoreError>;
}

/// Restrictions: what admins do to keep users out.
#[async_trait]
pub trait Restrictions: Send + Sync + 'static {
    /// Stores a change of restrictions, at most `limit` of which stand. `by` says who makes it. A change that is in
    /// force already is not stored again.
    async fn restrict(
        &self,
        user: &UserId,
        request: &RestrictionRequest,
        by: &str,
        limit: u32,
    ) -> Result<RestrictOutcome, StoreError>;
    /// Returns the changes from this number on, in their order, at most `limit`.
    async fn restriction_changes(&self, from: i64, limit: u32) -> Result<Vec<RestrictionRow>, StoreError>;
    /// Returns the standing restrictions after this number, in the order of their numbers, at most `limit`.
    async fn standing_restrictions(&self, after: i64, limit: u32) -> Result<Vec<RestrictionRow>, StoreError>;
    /// Returns the block of a user by an admin.
    async fn block_of(&self, user: &UserId) -> Result<Option<RestrictionChange>, StoreError>;
    /// Returns the blocks by admins, by user id, and their total number.
    async fn blocked_users(&self, page: Page) -> Result<(Vec<RestrictionChange>, i64), StoreError>;
    /// Removes changes that were over before `over`, and revocations that were made before `made_before`. The newest change
    /// stays. Returns the number of changes removed.
    async fn prune_restrictions(&self, over: Timestamp, made_before: Timestamp) -> Result<u64, StoreError>;
}

/// Retention: the removal of entries that are older than they are kept. One node does it for all.
#[async_trait]
pub trait Retention: Send + Sync + 'static {
    /// Takes a job for the duration `span`, or renews it, if no other process has it and it was not done within `every`. A row
    /// with a time says who has it, so it holds over a failover; after one, two processes may have a job for a `span`, so what it
    /// does must have the same outcome if done twice.
    async fn take_job(&self, job: Job, holder: &str, span: Duration, every: Duration) -> Result<JobTurn, StoreError>;
    /// Records that a job was done to its end. Returns false if another process has it meanwhile.
    async fn finish_job(&self, job: Job, holder: &str) -> Result<bool, StoreError>;
    /// Looks at the next logs in order of their names after `after`, at most `limit`, and finds those whose first entries are
    /// older at the time `at` than they are kept: for `default`, or as the conversation's own rule says. If `default` is for
    /// ever, it looks at the conversations with a rule only.
    async fn aged(
        &self,
        default: RetentionDays,
        at: Timestamp,
        after: Option<&LogId>,
        limit: u32,
    ) -> Result<AgedPage, StoreError>;
    /// Removes the aged entries of these logs in one transaction, at most `limit` in all, in the order of the logs, which is that
    /// of their names. They are all conversations, or all inboxes. With entries go their reactions, their part of the search
    /// index, and notifications that are about nothing else. Returns the logs from which something was removed.
    async fn remove_aged(&self, logs: &[AgedLog], limit: u32) -> Result<Vec<RemovedEntries>, StoreError>;
    /// Returns a conversation's own rule, if it has one; `None` if there is no such conversation.
    async fn retention(&self, conversation: &ConversationId) -> Result<Option<Option<RetentionDays>>, StoreError>;
    /// Sets a conversation's own rule, or removes it. Returns false if there is no such conversation.
    async fn set_retention(
        &self,
        conversation: &ConversationId,
        days: Option<RetentionDays>,
    ) -> Result<bool, StoreError>;
}

/// The data of one user: reads for its export, and the steps of its erasure. Each step is small, and has the same outcome if it
/// is done twice.
#[async_trait]
pub trait PersonalData: Send + Sync + 'static {
    /// Looks at the next logs in order of their names after `after`, at most `limit`. Returns those with entries of the user, and
    /// the last name that it looked at; `None` after the last one.
    async fn authored_logs(
        &self,
        user: &UserId,
        after: Option<&LogId>,
        limit: u32,
    ) -> Result<(Vec<LogId>, Option<LogId>), StoreError>;
    /// Returns the user's entries in a log with the keys of their appends, in the order of these keys after `after`.
    async fn authored(
        &self,
        log: &LogId,
        user: &UserId,
        after: Option<&ClientId>,
        limit: u32,
    ) -> Result<Vec<(ClientId, Entry)>, StoreError>;
    /// Returns the user's memberships by conversation, after `after`.
    async fn memberships(
        &self,
        user: &UserId,
        after: Option<&ConversationId>,
        limit: u32,
    ) -> Result<Vec<Membership>, StoreError>;
    /// Returns the user's notifications after this one, oldest first.
    async fn notifications_after(&self, user: &UserId, after: i64, limit: u32)
    -> Result<Vec<Notification>, StoreError>;
    /// Stores the request to erase a user. It replaces an earlier one, which begins anew.
    async fn request_erasure(&self, user: &UserId, by: &UserId) -> Result<Erasure, StoreError>;
    /// Returns the newest erasure of a user.
    async fn erasure(&self, user: &UserId) -> Result<Option<Erasure>, StoreError>;
    /// Returns the oldest erasure that is not done.
    async fn pending_erasure(&self) -> Result<Option<Erasure>, StoreError>;
    /// Records up to which log an erasure is done.
    async fn advance_erasure(&self, erasure: &Erasure, position: &LogId) -> Result<(), StoreError>;
    /// Replaces the user's name in these entries of the user by the id, and the emoji of reactions by a sign that says nothing.
    async fn hide_author(&self, log: &LogId, user: &UserId, seqs: &[Seq]) -> Result<(), StoreError>;
    /// Forgets that the user was a member of the conversations after `after`, up to `upto`.
    async fn forget_former_member(
        &self,
        user: &UserId,
        after: Option<&LogId>,
        upto: Option<&LogId>,
    ) -> Result<(), StoreError>;
    /// Replaces a member's marks by the head of the conversation, and archives it for the member.
    async fn forget_marks(&self, conversation: &ConversationId, user: &UserId) -> Result<(), StoreError>;
    /// Removes notifications of a user and their requests to the webhook, at most `limit`. Returns their number.
    async fn erase_notifications(&self, user: &UserId, limit: u32) -> Result<u64, StoreError>;
    /// Removes the user's blocks, name, status and last-seen time, and records that the erasure is done. Returns false if it was
    /// requested anew meanwhile.
    async fn finish_erasure(&self, erasure: &Erasure) -> Result<bool, StoreError>;
}

/// Notifications: messages wait for users who are away.
#[async_trait]
pub trait Notifications: Send + Sync + 'static {
    /// Records for each of `users` that messages wait: opens a notification (and adds an entry to the inbox) if none is
    /// open, else widens the open one. Skips messages that the user wrote or has read, deleted ones, and those of a
    /// notification that the user marked read. Therefore calls may come in any order and repeatedly. For each notification
    /// that it opens, it queues a request to the webhook.
    async fn notify(
        &self,
        conversation: &ConversationId,
        waiting: Waiting,
        users: &[UserId],
        options: NotifyOptions,
    ) -> Result<Notified, StoreError>;
    /// Returns the conversations of a user with messages of others that were stored within the last `span` and that the
    /// user has neither received nor read; at most 1,000, and of each at most the newest 1,000 entries are considered.
    async fn undelivered(&self, user: &UserId, span: Duration) -> Result<Vec<(ConversationId, Waiting)>, StoreError>;
    /// Takes at most `limit` requests to the webhook that are due, for the duration `claim`: if they are not finished by
    /// then, any node may take them again. Those that waited for longer than `max_age` are expired.
    async fn claim_posts(
        &self,
        limit: usize,
        claim: Duration,
        max_age: Duration,
    ) -> Result<Vec<NotificationPost>, StoreError>;
    /// Removes the requests in `done`, and makes each of `later` due again after its pause.
    async fn finish_posts(&self, done: &[i64], later: &[(i64, Duration)]) -> Result<(), StoreError>;
    /// Returns the requests that wait for the webhook.
    async fn waiting_posts(&self) -> Result<WaitingPosts, StoreError>;
    /// Returns a user's notifications, newest first.
    async fn notifications(&self, user: &UserId, page: Page) -> Result<Vec<Notification>, StoreError>;
    /// Marks a user's notifications read: those in `ids`, or all. Returns the number of notifications marked.
    async fn read_notifications(&self, user: &UserId, ids: Option<&[i64]>) -> Result<u64, StoreError>;
}

/// The signs of life of processes, by which others find what one left undone.
#[async_trait]
pub trait Watches: Send + Sync + 'static {
    /// Stores a sign of life of a process; everything that was stored longer than `behind` ago is done.
    async fn sign_watch(&self, process: &str, behind: Duration) -> Result<(), StoreError>;
    /// Removes the row of a process that left nothing undone.
    async fn end_watch(&self, process: &str) -> Result<(), StoreError>;
    /// Returns the nodes whose processes gave a sign of life within the last `span`, at most [`LIVING_MAX`](super::LIVING_MAX).
    async fn living(&self, span: Duration) -> Result<Vec<LivingNode>, StoreError>;
    /// Takes the row of another process than `by` that gave no sign for the duration `lapse`. Others can't take it for the
    /// duration `claim`.
    async fn take_watch(&self, by: &str, lapse: Duration, claim: Duration) -> Result<Option<TakenWatch>, StoreError>;
    /// Returns conversations with messages that were stored within the last `span`, and these messages, in order of the names
    /// of at most `limit` conversations after `after`; and the last name that it looked at, `None` after the last one.
    async fn grown_within(
        &self,
        span: Duration,
        after: Option<&LogId>,
        limit: u32,
    ) -> Result<(Vec<(ConversationId, Waiting)>, Option<LogId>), StoreError>;
}

/// Notices through which nodes relay new entries while Redis is away.
#[async_trait]
pub trait Relay: Send + Sync + 'static {
    /// Stores a notice of the logs that grew, with their heads. Also records for the duration `valid` that the node of this
    /// sign can reach others only through the store; zero if it can reach them otherwise.
    async fn give_notice(&self, sign: &RelaySign, valid: Duration, grown: &[(LogId, Seq)]) -> Result<(), StoreError>;
    /// Removes a sign: its node can reach others without the store again.
    async fn withdraw_notice(&self, sign: &RelaySign) -> Result<(), StoreError>;
    /// Returns the notices within the last `span`.
    async fn notices(&self, span: Duration) -> Result<Notices, StoreError>;
}
