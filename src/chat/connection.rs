//! A connection as commands use it: its user, its outbox, and the conversations that it listens to.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    dialect::Dialect,
    model::{ConnectionId, ConversationId, Pair, Reject, Seq, UserId},
    outbox::Outbox,
};

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    /// The queue of its outgoing frames.
    pub outbox: Arc<Outbox>,
    /// The user of the connection.
    pub user: UserId,
    /// The dialect of its frames.
    pub dialect: Dialect,
    /// The conversation in its route, if the route has one.
    pub bound: Option<ConversationId>,
    joined: Mutex<Joined>,
}

/// The conversations that a connection listens to.
#[derive(Debug, Default)]
struct Joined {
    joins: u64,
    current: HashMap<ConversationId, Join>,
}

/// A conversation that a connection listens to.
#[derive(Debug)]
struct Join {
    /// Number of this join among the connection's joins. A replay of an earlier join has no effect any more.
    join: u64,
    progress: JoinProgress,
    /// The connection receives the entries after this seq; none before the hub has the listener.
    after: Option<Seq>,
    /// The members of a direct conversation, for a dialect that names them.
    pair: Option<Arc<Pair>>,
}

/// The progress of a join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct JoinProgress {
    /// True once the hub has the listener.
    pub(super) attached: bool,
    /// The seq of the last entry that the connection received before it went live.
    pub(super) has: Seq,
}

impl Connection {
    /// Creates a connection without joins.
    pub fn new(outbox: Arc<Outbox>, user: UserId, dialect: Dialect, bound: Option<ConversationId>) -> Self {
        outbox.belongs_to(user.clone());
        Self { outbox, user, dialect, bound, joined: Mutex::default() }
    }

    /// The id of the connection.
    pub fn id(&self) -> ConnectionId {
        self.outbox.connection()
    }

    /// Rejects a join beyond `limit`. A join of a conversation that the connection already listens to is always
    /// allowed.
    pub(super) fn check_join_limit(&self, conversation: &ConversationId, limit: usize) -> Result<(), Reject> {
        let joined = self.lock();
        match joined.current.len() < limit || joined.current.contains_key(conversation) {
            true => Ok(()),
            false => Err(Reject::TooManyConversations),
        }
    }

    /// Records a join. Returns its number, and the progress of the earlier join of the same conversation, which this
    /// one replaces.
    pub(super) fn record_join(
        &self,
        conversation: &ConversationId,
        pair: Option<Arc<Pair>>,
    ) -> (u64, Option<JoinProgress>) {
        let joined = &mut *self.lock();
        joined.joins += 1;
        let current_join =
            Join { join: joined.joins, progress: JoinProgress { attached: false, has: 0 }, after: None, pair };
        let before = joined.current.insert(conversation.clone(), current_join);
        (joined.joins, before.map(|before| before.progress))
    }

    /// Runs `act` for a join under the connection's lock, unless a later join or a leave has replaced it; none can do
    /// so meanwhile. `act` returns the seq up to which the connection then has every entry.
    pub(super) fn update_join(
        &self,
        conversation: &ConversationId,
        join: u64,
        act: impl FnOnce() -> Option<Seq>,
    ) -> Option<Seq> {
        let joined = &mut *self.lock();
        let current_join = joined.current.get_mut(conversation).filter(|current_join| current_join.join == join)?;
        let has = act()?;
        current_join.progress.has = has;
        Some(has)
    }

    /// Records that the hub has the listener, which has every entry up to `has`.
    pub(super) fn record_attached(&self, conversation: &ConversationId, has: Seq) {
        if let Some(current_join) = self.lock().current.get_mut(conversation) {
            current_join.progress = JoinProgress { attached: true, has };
            current_join.after = Some(has);
        }
    }

    /// True if the connection listens to the conversation, but only to entries after `seq`.
    pub(super) fn listens_only_after(&self, conversation: &ConversationId, seq: Seq) -> bool {
        let after = |joined: &Joined| joined.current.get(conversation)?.after;
        after(&self.lock()).is_some_and(|after| seq <= after)
    }

    /// Removes the record of a join. Returns true if the hub has the listener, and none if there was no join.
    pub(super) fn remove_join(&self, conversation: &ConversationId) -> Option<bool> {
        self.lock().current.remove(conversation).map(|current_join| current_join.progress.attached)
    }

    /// True if the connection listens to the conversation.
    pub fn listens_to(&self, conversation: &ConversationId) -> bool {
        self.lock().current.contains_key(conversation)
    }

    /// The members of a direct conversation that the connection listens to, if its dialect names them.
    pub(super) fn pair(&self, conversation: &ConversationId) -> Option<Arc<Pair>> {
        self.lock().current.get(conversation)?.pair.clone()
    }

    /// All conversations that the connection listens to.
    pub fn joined(&self) -> Vec<ConversationId> {
        self.lock().current.keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Joined> {
        self.joined.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
