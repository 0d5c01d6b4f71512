//! A connection, as commands see it: who listens to what over which outbox.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    dialect::Dialect,
    model::{ConnectionId, ConversationId, Pair, Reject, UserId},
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

/// Which of the connection's joins it was: what an earlier one still has to bring is void. Whether the hub knows of it
/// yet. And the members of a direct conversation, for a dialect that says them.
#[derive(Debug)]
struct Entered {
    join: u64,
    attached: bool,
    pair: Option<Arc<Pair>>,
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

    /// Notes that it listens to a conversation: which join this is, and whether it listened already.
    pub(super) fn enter(
        &self,
        conversation: &ConversationId,
        pair: Option<Arc<Pair>>,
        limit: usize,
    ) -> Result<(u64, bool), Reject> {
        let joined = &mut *self.lock();
        let again = joined.current.contains_key(conversation);
        if !again && joined.current.len() >= limit {
            return Err(Reject::TooManyConversations);
        }
        joined.joins += 1;
        joined.current.insert(conversation.clone(), Entered { join: joined.joins, attached: false, pair });
        Ok((joined.joins, again))
    }

    /// Does something for a join, unless another one or a leave came after it: none can come meanwhile.
    pub(super) fn during<T>(&self, conversation: &ConversationId, join: u64, act: impl FnOnce() -> T) -> Option<T> {
        let joined = self.lock();
        joined.current.get(conversation).is_some_and(|entered| entered.join == join).then(act)
    }

    /// Notes that the hub delivers to it.
    pub(super) fn attached(&self, conversation: &ConversationId) {
        if let Some(entered) = self.lock().current.get_mut(conversation) {
            entered.attached = true;
        }
    }

    /// Notes that it no longer listens: whether the hub delivered to it, or none where it did not listen.
    pub(super) fn exit(&self, conversation: &ConversationId) -> Option<bool> {
        self.lock().current.remove(conversation).map(|entered| entered.attached)
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
