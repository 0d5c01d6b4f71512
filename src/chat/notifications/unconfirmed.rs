//! Users whose sockets ended without confirming what they were given. If such a user is away, the messages since then are
//! notified.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{metrics::Metrics, model::UserId};

/// Maximum number of users.
const USERS_MAX: usize = 100_000;
/// Time from the commit of a message until it is handed to sockets, on any node.
pub(super) const DELIVERY_MARGIN: Duration = Duration::from_secs(2);

/// A user whose socket ended.
#[derive(Debug, Clone, Copy)]
struct Unsure {
    /// Messages that were stored since then may not have arrived.
    since: Instant,
    /// Time until which the user may come back.
    due: Instant,
}

/// The users whose sockets ended, until they are looked at.
#[derive(Debug)]
pub(in crate::chat) struct Unconfirmed {
    users: Mutex<HashMap<UserId, Unsure>>,
    grace: Duration,
    metrics: Arc<Metrics>,
}

impl Unconfirmed {
    /// `grace`: the time that a user has to come back.
    pub(in crate::chat) fn new(grace: Duration, metrics: Arc<Metrics>) -> Self {
        Self { users: Mutex::default(), grace, metrics }
    }

    /// Adds a user whose socket ended. Its client had what was handed over until `confirmed_at`.
    pub(in crate::chat) fn add(&self, user: UserId, confirmed_at: Instant) {
        let since = confirmed_at.checked_sub(DELIVERY_MARGIN).unwrap_or(confirmed_at);
        self.put(user, Unsure { since, due: Instant::now() + self.grace });
    }

    /// Adds a user again who could not be looked at; `since` as it was.
    pub(super) fn retry(&self, user: UserId, since: Instant, after: Duration) {
        self.put(user, Unsure { since, due: Instant::now() + after });
    }

    fn put(&self, user: UserId, unsure: Unsure) {
        let mut users = self.lock();
        if users.len() >= USERS_MAX && !users.contains_key(&user) {
            return self.metrics.notifications_dropped.inc();
        }
        let known = users.entry(user).or_insert(unsure);
        *known = Unsure { since: known.since.min(unsure.since), due: known.due.max(unsure.due) };
    }

    /// Removes at most `limit` users whose time is over. Returns each with the time since when messages may not have arrived.
    pub(super) fn take_due(&self, now: Instant, limit: usize) -> Vec<(UserId, Instant)> {
        let mut users = self.lock();
        let due: Vec<_> =
            users.iter().filter(|(_, unsure)| unsure.due <= now).take(limit).map(|(user, _)| user.clone()).collect();
        due.into_iter()
            .filter_map(|user| users.remove_entry(&user))
            .map(|(user, unsure)| (user, unsure.since))
            .collect()
    }

    /// The oldest time since when messages may not have arrived.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.lock().values().map(|unsure| unsure.since).min()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UserId, Unsure>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_user_is_due_after_the_grace_and_keeps_the_oldest_doubt() {
        let unconfirmed = Unconfirmed::new(Duration::from_secs(5), Arc::new(Metrics::new().unwrap()));
        tokio::time::advance(Duration::from_secs(60)).await;
        let (bob, now) = (UserId::parse("bob").unwrap(), Instant::now());
        let before = |seconds| now - Duration::from_secs(seconds);
        unconfirmed.add(bob.clone(), before(10));
        unconfirmed.add(bob.clone(), before(30));
        unconfirmed.add(bob.clone(), before(20));
        assert_eq!(unconfirmed.take_due(now + Duration::from_secs(4), 9), []);
        assert_eq!(unconfirmed.take_due(now + Duration::from_secs(5), 9), [(bob, before(32))]);
        assert_eq!(unconfirmed.take_due(now + Duration::from_secs(50), 9), []);
    }
}
