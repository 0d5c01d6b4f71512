//! Users of this node who must be told of new messages, until the store says what is unread for them. However many hints
//! of a conversation come, it is told once, in its newest state.

use std::{
    collections::HashSet,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::{
    metrics::Metrics,
    model::{ConversationId, UserId},
};

/// Maximum number of users that wait, counted for each conversation.
const WAITING_MAX: usize = 100_000;

/// The waiting users.
pub(super) struct Waiting {
    users: Mutex<HashSet<(ConversationId, UserId)>>,
    added: Notify,
    metrics: Arc<Metrics>,
}

impl Waiting {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { users: Mutex::default(), added: Notify::new(), metrics }
    }

    /// Adds users. Beyond the maximum they are dropped.
    pub(super) fn add(&self, users: impl Iterator<Item = (ConversationId, UserId)>) {
        let mut waiting = self.lock();
        for user in users {
            if waiting.len() < WAITING_MAX || waiting.contains(&user) {
                waiting.insert(user);
            } else {
                self.metrics.hints_dropped.inc();
            }
        }
        self.metrics.hints_waiting.set(i64::try_from(waiting.len()).unwrap_or(i64::MAX));
        if !waiting.is_empty() {
            self.added.notify_one();
        }
    }

    /// Waits for users, and takes all.
    pub(super) async fn next(&self) -> HashSet<(ConversationId, UserId)> {
        loop {
            let users = mem::take(&mut *self.lock());
            if !users.is_empty() {
                self.metrics.hints_waiting.set(0);
                return users;
            }
            self.added.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<(ConversationId, UserId)>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(at: usize) -> (ConversationId, UserId) {
        (ConversationId::parse("team").unwrap(), UserId::parse(&format!("u{at}")).unwrap())
    }

    #[tokio::test]
    async fn a_user_waits_once_and_surplus_ones_are_dropped() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let waiting = Waiting::new(metrics.clone());
        waiting.add([user(1), user(2), user(1)].into_iter());
        assert_eq!((waiting.next().await.len(), metrics.hints_waiting.get()), (2, 0));
        waiting.add((0..WAITING_MAX + 3).map(user));
        waiting.add([user(0)].into_iter());
        assert_eq!((metrics.hints_waiting.get(), metrics.hints_dropped.get()), (WAITING_MAX as i64, 3));
    }
}
