//! Values that go in and out of the store.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use super::pools::Pool;
use crate::degrade::{Degrade, Fault, Finding, Work};
use crate::model::{
    Body, ClientId, ConversationId, Deployment, Entry, EntryStamp, LogId, NodeKeys, Pair, RestrictionChange,
    RestrictionMark, Seq, Timestamp, UserId,
};

/// The right under which an entry is appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// The sender must be a member of the conversation.
    Member,
    /// The sender is an admin, who need not be a member and may delete any user's message.
    Admin,
    /// The broker itself appends: joins to open conversations, personas, inboxes.
    System,
}

/// Maximum number of reactions of one user to one message. PostgreSQL has the same three numbers in `reactions_full`.
pub(super) const REACTIONS_OF_USER: i64 = 20;
/// Maximum number of different reactions to one message.
pub(super) const REACTIONS_DIFFERENT: i64 = 50;
/// Maximum number of reactions to one message.
pub(super) const REACTIONS_IN_ALL: i64 = 10_000;

/// An entry to append.
#[derive(Debug, Clone)]
pub struct NewEntry {
    /// The log to append to.
    pub log: LogId,
    /// The user who makes the entry.
    pub sender: UserId,
    /// The sender's display name.
    pub sender_name: Arc<str>,
    /// The key that makes the append idempotent: the client's id, or one that the node made.
    pub dedupe: ClientId,
    /// True if `dedupe` is the client's own id; it is then shown with the entry.
    pub client_gave_id: bool,
    /// The right under which it is appended.
    pub authority: Authority,
    /// The content of the entry.
    pub body: Body,
}

/// The result of an append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// The entry's seq.
    pub seq: Seq,
    /// Number of messages in the log up to and including this entry.
    pub message_no: i64,
    /// Time at which the entry was stored.
    pub at: Timestamp,
    /// True if an earlier append with the same id stored the entry; nothing new was written.
    pub duplicate: bool,
    /// Entries that the same transaction put into other logs (inboxes of members).
    pub also: Vec<Entry>,
}

/// The reason for which one entry was refused. Other entries of the batch are not affected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendRefused {
    /// The sender is not a member.
    #[error("not a member")]
    NotMember,
    /// The log does not exist.
    #[error("no such conversation")]
    NoSuchLog,
    /// The target message does not exist, or was deleted.
    #[error("no such message")]
    NoSuchTarget,
    /// The target message belongs to another user.
    #[error("not the sender's own")]
    NotYours,
    /// The entry would change nothing: already a member, already not a member, or that reaction is already set.
    #[error("nothing to change")]
    Unchanged,
    /// The sender used the `client_id` for another command before.
    #[error("the client_id was used for another command")]
    IdReused,
    /// The target message has as many reactions as it may have: of the sender, different ones, or in all.
    #[error("too many reactions")]
    TooManyReactions,
    /// The user can't be added or reached: they blocked the sender, or they left, or were removed and may only be added
    /// by the creator or an admin. The reason is not told apart.
    #[error("this user can't be added or reached")]
    Barred,
}

/// A failed call to the store.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The store can't be reached; nothing was written.
    #[error("store unavailable: {0}")]
    Unavailable(Cause),
    /// The connection broke before the answer arrived; the call may or may not have been written.
    #[error("store outcome unknown: {0}")]
    Unknown(String),
    /// The store refused the call (a lock timeout, a full disk, an error in the query); nothing was written.
    #[error("store failed: {0}")]
    Failed(Cause),
    /// Too many calls of this class wait, or wait too long; nothing was written. The store itself may be well.
    #[error("too many calls wait for the pool \"{}\"", pool.label())]
    Busy {
        /// The pool of the call.
        pool: Pool,
    },
    /// A heavy read took longer than it may.
    #[error("the read took too long")]
    TooSlow,
}

/// The reason of a failed call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// The fault of the server, if it is one that `docs/operations/failure-modes.md` names.
    pub fault: Option<Fault>,
    /// The reason in words; never a secret.
    pub detail: String,
    /// Its reach.
    pub scope: Scope,
}

/// The reach of the reason for which a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The call, or the whole server.
    Any,
    /// This statement alone, for a reason that may pass by itself: a lock, a conflict. The server answers others.
    Conflict,
    /// The login or the certificate of new connections: the server lets none in. Open ones may work.
    Entry,
}

impl Cause {
    /// A named fault.
    pub(super) fn named(fault: Fault, detail: impl Into<String>) -> Self {
        Self { fault: Some(fault), detail: detail.into(), scope: Scope::Any }
    }
}

impl<T: Into<String>> From<T> for Cause {
    fn from(detail: T) -> Self {
        Self { fault: None, detail: detail.into(), scope: Scope::Any }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl StoreError {
    /// The fault of the store that the error shows. An error without a name counts as a store that can't be reached.
    pub fn finding(&self) -> Finding {
        let (fault, detail) = match self {
            Self::Unavailable(cause) | Self::Failed(cause) => (cause.fault, cause.detail.clone()),
            Self::Unknown(why) => (Some(Fault::StoreSilent), why.clone()),
            Self::Busy { .. } | Self::TooSlow => (Some(Fault::StoreSilent), self.to_string()),
        };
        Finding::new(fault.unwrap_or(Fault::StoreUnreachable), detail)
    }

    /// True if the server refused this statement alone, for a reason that may pass by itself.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self, Self::Unavailable(Cause { scope: Scope::Conflict, .. }))
    }

    /// True if the store itself gave the error, so that it answers.
    pub(super) fn is_answer(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::TooSlow) || self.is_conflict()
    }

    /// Tells `degrade` of a fault that lasts until an operator acts, which refused this call.
    pub(super) fn tell_refusal(&self, degrade: &Degrade, (work, call): (Work, &'static str), fault: Finding) {
        match self {
            Self::Unavailable(Cause { scope: Scope::Entry, .. }) | Self::Failed(Cause { scope: Scope::Entry, .. }) => {
                degrade.call_kept_out(work, call, fault);
            }
            _ => degrade.call_refused(work, call, fault),
        }
    }

    /// True if a part of the call may succeed where the whole did not, and is worth a try at once: the server answered without
    /// waiting.
    pub(super) fn may_be_of_a_part(&self) -> bool {
        matches!(
            self,
            Self::Failed(_)
                | Self::Unavailable(Cause { scope: Scope::Conflict, fault: Some(Fault::StoreCallsFail), .. })
        )
    }

    /// The fault that an append met, if it lasts until an operator acts and a health check does not see it.
    pub fn lasting_fault(&self) -> Option<Finding> {
        let (Self::Unavailable(cause) | Self::Failed(cause)) = self else { return None };
        let lasting = [Fault::StoreFull, Fault::StoreDeniesAccess, Fault::StoreLacksPart];
        cause.fault.filter(|fault| lasting.contains(fault)).map(|_| self.finding())
    }

    /// The fault that another call than an append met, if it lasts until an operator acts.
    pub fn refused_call(&self) -> Option<Finding> {
        let nameless = || match self {
            Self::Failed(Cause { fault: Some(Fault::StoreCallsFail), .. }) => Some(self.finding()),
            _ => None,
        };
        self.lasting_fault().or_else(nameless)
    }

    /// The fault that the append of a message met, if the store answered with an error that has no name of its own.
    pub(super) fn nameless_refusal(&self) -> Option<Finding> {
        let Self::Failed(Cause { fault: None | Some(Fault::StoreCallsFail), detail, .. }) = self else { return None };
        Some(Finding::new(Fault::StoreAppendsFail, detail.clone()))
    }

    /// The table of node keys is empty.
    pub(super) fn no_node_keys() -> Self {
        let detail = "the table node_keys is empty; add a key: INSERT INTO node_keys DEFAULT VALUES";
        Self::Failed(Cause::named(Fault::StoreLacksPart, detail))
    }

    /// The table of the deployment is empty, or its id is none.
    pub(super) fn no_deployment() -> Self {
        let remedy = "make a new one: DELETE FROM deployment; INSERT INTO deployment DEFAULT VALUES";
        Self::Failed(Cause::named(Fault::StoreLacksPart, format!("the table deployment has no valid id; {remedy}")))
    }
}

/// A store that has started.
#[derive(Debug)]
pub struct Started {
    /// Number of migrations applied.
    pub migrations: usize,
    /// The deployment of this store.
    pub deployment: Deployment,
    /// The keys of the nodes. Only a node with Redis needs them.
    pub keys: Result<NodeKeys, StoreError>,
}

/// The answer to a health check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pulse {
    /// True if some node can reach others only [through the store](super::Relay::give_notice).
    pub relays: bool,
    /// The newest change of restrictions.
    pub restrictions: RestrictionMark,
    /// The store's time.
    pub at: Timestamp,
    /// The epoch of the deployment.
    pub epoch: i64,
}

/// A stored change of restrictions as a node reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestrictionRow {
    /// Its place in the order of changes.
    pub mark: RestrictionMark,
    /// The change; `None` if this version can't read it.
    pub change: Option<RestrictionChange>,
}

/// The result of a change of restrictions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestrictOutcome {
    /// It was stored.
    Changed(RestrictionChange),
    /// It was in force already: the change that made it so. None if there is no block to end.
    Unchanged(Option<RestrictionChange>),
    /// The maximum number of restrictions stands; nothing was stored.
    TooMany,
}

/// Notices that nodes gave each other.
#[derive(Debug, Clone)]
pub struct Notices {
    /// The logs that grew, with their heads.
    pub heads: Vec<(LogId, Seq)>,
    /// No notice given since then is lost. A crash of PostgreSQL empties the table of notices.
    pub complete_since: Instant,
}

/// The result of `Logs::append` for one entry. Results come in the batch's order.
pub type Outcome = Result<Appended, AppendRefused>;

/// The first and the newest seq of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// The first seq still stored; 1 unless retention removed entries, and past the head if it removed all.
    pub first: Seq,
    /// The newest seq that was given out; 0 if there is none.
    pub head: Seq,
    /// Time of the newest entry, also if it was removed; none if there never was one.
    pub head_at: Option<Timestamp>,
}

impl Ends {
    /// The ends of a log with this newest entry, which was stored at this time, and removed up to this seq.
    pub(super) fn of(head: Seq, at: Timestamp, removed: Seq) -> Self {
        Self { first: removed + 1, head, head_at: (head > 0).then_some(at) }
    }

    /// The newest entry; none if the log is empty.
    pub fn newest(&self) -> Option<EntryStamp> {
        self.head_at.map(|at| EntryStamp { seq: self.head, at })
    }
}

/// A log that does not exist.
impl Default for Ends {
    fn default() -> Self {
        Self { first: 1, head: 0, head_at: None }
    }
}

/// A user's access to a conversation, and the ends of its log: everything that a join needs, in one query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// True if the user is a member.
    pub member: bool,
    /// True if any user may join.
    pub open: bool,
    /// A device of the user confirmed every entry up to this seq; 0 if the user is not a member.
    pub delivered: Seq,
    /// The ends of its log.
    pub ends: Ends,
}

/// A user's direct conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Direct {
    /// The conversation.
    pub conversation: ConversationId,
    /// The two members.
    pub pair: Pair,
    /// A device of the user confirmed every entry up to this seq.
    pub delivered: Seq,
    /// The entries up to this seq were removed.
    pub removed: Seq,
    /// The newest seq of the conversation.
    pub head: Seq,
}

/// The direct conversation of two users, found or created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundDirect {
    /// The conversation.
    pub conversation: ConversationId,
    /// The newest seq of the conversation; 0 if nobody wrote yet.
    pub head: Seq,
    /// The inbox entries that the creation added; empty if the conversation was found.
    pub inbox_entries: Vec<Entry>,
}

/// The conversations that a search covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SearchScope {
    /// The conversations of which this user is a member.
    Own(UserId),
    /// This conversation. The caller has checked that the user may read it.
    One(ConversationId),
}

impl SearchScope {
    /// The user and the conversation as statement parameters; one of them is `None`.
    pub(super) fn parts(&self) -> (Option<&str>, Option<&str>) {
        match self {
            Self::Own(user) => (Some(user.as_str()), None),
            Self::One(conversation) => (None, Some(conversation.as_str())),
        }
    }
}

/// A range of messages that wait for users who are away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// Seq of the first message.
    pub first: Seq,
    /// Seq of the last message.
    pub last: Seq,
}

/// The manner of `Notifications::notify`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotifyOptions {
    /// Messages that the user received open nothing, even if the user has not read them.
    pub undelivered_only: bool,
    /// Maximum number of requests to the webhook that wait, over all nodes; 0 if there is no webhook.
    pub post_queue: usize,
}

/// The result of `Notifications::notify`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notified {
    /// The inbox entries of the notifications that were opened.
    pub entries: Vec<Entry>,
    /// Number of requests to the webhook that were queued. For the other notifications none is sent.
    pub queued: usize,
}

/// A request to the webhook of notifications.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotificationPost {
    /// The notification.
    pub id: i64,
    /// The user who is away.
    pub user: UserId,
    /// The conversation in which messages wait.
    pub conversation: ConversationId,
    /// Seq of the first unread message.
    pub from_seq: Seq,
    /// Time at which the notification was opened.
    pub created_at: Timestamp,
    /// Number of times that the request was taken, this time included.
    pub tries: u32,
    /// True if it waited for longer than it may.
    pub expired: bool,
    /// The first message that is not the user's own; none if the user has read all, or if they were deleted.
    pub message: Option<Entry>,
}

/// The requests that wait for the webhook of notifications.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WaitingPosts {
    /// Number of requests.
    pub count: u64,
    /// Time since the first of them was queued; zero if none waits.
    pub oldest: Duration,
}

/// A row of a process that gave no sign of life any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenWatch {
    /// The process.
    pub process: String,
    /// Time before now up to which everything that was stored is done.
    pub behind: Duration,
}
