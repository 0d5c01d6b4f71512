//! A connection, as commands see it: who listens to what over which outbox.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    dialect::Dialect,
    model::{ConnectionId, ConversationId, Reject, UserId},
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
    joined: Mutex<HashSet<ConversationId>>,
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

    /// Notes that it listens to a conversation; false where it did already.
    pub(super) fn enter(&self, conversation: &ConversationId, limit: usize) -> Result<bool, Reject> {
        let mut joined = self.lock();
        if joined.contains(conversation) {
            return Ok(false);
        }
        if joined.len() >= limit {
            return Err(Reject::TooManyConversations);
        }
        Ok(joined.insert(conversation.clone()))
    }

    /// Notes that it no longer listens; false where it did not.
    pub(super) fn exit(&self, conversation: &ConversationId) -> bool {
        self.lock().remove(conversation)
    }

    /// Whether it listens to a conversation.
    pub fn listens_to(&self, conversation: &ConversationId) -> bool {
        self.lock().contains(conversation)
    }

    /// All it listens to.
    pub fn joined(&self) -> Vec<ConversationId> {
        self.lock().iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<ConversationId>> {
        self.joined.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
