//! A connection, as commands see it: who listens to what over which outbox.

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
    /// Where its frames go.
    pub outbox: Arc<Outbox>,
    /// Whose it is.
    pub user: UserId,
    /// What it speaks.
    pub dialect: Dialect,
    /// The conversation its route is bound to.
    pub bound: Option<ConversationId>,
    joined: Mutex<Joined>,
}

/// What a connection listens to.
#[derive(Debug, Default)]
struct Joined {
    joins: u64,
    current: HashMap<ConversationId, Entered>,
}

/// A conversation that a connection listens to.
#[derive(Debug)]
struct Entered {
    /// Which of the connection's joins it was: what an earlier one still has to bring is void.
    join: u64,
    reached: Reached,
    /// The members of a direct conversation, for a dialect that says them.
    pair: Option<Arc<Pair>>,
}

/// How far a join got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reached {
    /// The hub knows of it.
    pub(super) attached: bool,
    /// The seq of the last entry that was handed over before it went live.
    pub(super) has: Seq,
}

impl Connection {
    /// A connection that listens to nothing yet.
    pub fn new(outbox: Arc<Outbox>, user: UserId, dialect: Dialect, bound: Option<ConversationId>) -> Self {
        outbox.belongs_to(user.clone());
        Self { outbox, user, dialect, bound, joined: Mutex::default() }
    }

    /// Its id.
    pub fn id(&self) -> ConnectionId {
        self.outbox.connection()
    }

    /// Whether it may listen to this conversation beside those it listens to already.
    pub(super) fn has_place_for(&self, conversation: &ConversationId, limit: usize) -> Result<(), Reject> {
        let joined = self.lock();
        match joined.current.len() < limit || joined.current.contains_key(conversation) {
            true => Ok(()),
            false => Err(Reject::TooManyConversations),
        }
    }

    /// Notes that it listens to a conversation. Returns the number of this join, and how far an earlier one got, which
    /// is void from now on.
    pub(super) fn enter(&self, conversation: &ConversationId, pair: Option<Arc<Pair>>) -> (u64, Option<Reached>) {
        let joined = &mut *self.lock();
        joined.joins += 1;
        let entered = Entered { join: joined.joins, reached: Reached { attached: false, has: 0 }, pair };
        let before = joined.current.insert(conversation.clone(), entered);
        (joined.joins, before.map(|before| before.reached))
    }

    /// Hands entries over for a join, unless another one or a leave came after it: none can come meanwhile. `act` returns
    /// the seq up to which the connection has everything then.
    pub(super) fn during(
        &self,
        conversation: &ConversationId,
        join: u64,
        act: impl FnOnce() -> Option<Seq>,
    ) -> Option<Seq> {
        let joined = &mut *self.lock();
        let entered = joined.current.get_mut(conversation).filter(|entered| entered.join == join)?;
        let has = act()?;
        entered.reached.has = has;
        Some(has)
    }

    /// Notes that the hub delivers to it once it has caught up from `has`.
    pub(super) fn attached(&self, conversation: &ConversationId, has: Seq) {
        if let Some(entered) = self.lock().current.get_mut(conversation) {
            entered.reached = Reached { attached: true, has };
        }
    }

    /// Notes that it no longer listens: whether the hub delivered to it, or none where it did not listen.
    pub(super) fn exit(&self, conversation: &ConversationId) -> Option<bool> {
        self.lock().current.remove(conversation).map(|entered| entered.reached.attached)
    }

    /// Whether it listens to a conversation.
    pub fn listens_to(&self, conversation: &ConversationId) -> bool {
        self.lock().current.contains_key(conversation)
    }

    /// The members of a direct conversation it listens to, where its dialect says them.
    pub(super) fn pair(&self, conversation: &ConversationId) -> Option<Arc<Pair>> {
        self.lock().current.get(conversation)?.pair.clone()
    }

    /// All it listens to.
    pub fn joined(&self) -> Vec<ConversationId> {
        self.lock().current.keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Joined> {
        self.joined.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
