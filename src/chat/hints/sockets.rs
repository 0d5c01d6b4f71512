//! The sockets of this node that get hints.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::super::connection::Connection;
use crate::{
    metrics::Metrics,
    model::{ConnectionId, UserId},
};

/// Sockets by their user.
pub(super) struct HintedSockets {
    users: Mutex<HashMap<UserId, Vec<Arc<Connection>>>>,
    metrics: Arc<Metrics>,
}

impl HintedSockets {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { users: Mutex::default(), metrics }
    }

    /// Adds a socket, unless it was added before.
    pub(super) fn add(&self, connection: &Arc<Connection>) {
        let mut users = self.lock();
        // A user has one socket as a rule.
        let sockets = users.entry(connection.user.clone()).or_insert_with(|| Vec::with_capacity(1));
        if !sockets.iter().any(|known| known.id() == connection.id()) {
            sockets.push(connection.clone());
            self.metrics.hinted_sockets.inc();
        }
    }

    /// Removes a socket, if it was added.
    pub(super) fn remove(&self, user: &UserId, connection: ConnectionId) {
        if let Entry::Occupied(mut sockets) = self.lock().entry(user.clone()) {
            let before = sockets.get().len();
            sockets.get_mut().retain(|known| known.id() != connection);
            let removed = before - sockets.get().len();
            self.metrics.hinted_sockets.sub(i64::try_from(removed).unwrap_or(0));
            if sockets.get().is_empty() {
                sockets.remove();
            }
        }
    }

    /// True if the user has such a socket.
    pub(super) fn has(&self, user: &UserId) -> bool {
        self.lock().contains_key(user)
    }

    /// The sockets of a user.
    pub(super) fn of(&self, user: &UserId) -> Vec<Arc<Connection>> {
        self.lock().get(user).cloned().unwrap_or_default()
    }

    /// All sockets.
    pub(super) fn all(&self) -> Vec<Arc<Connection>> {
        self.lock().values().flatten().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UserId, Vec<Arc<Connection>>>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
