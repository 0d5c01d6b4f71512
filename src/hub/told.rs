//! [`Told`]: the presence of users that each socket was told lately. A user's presence is published in each conversation to which
//! the user listens, and a socket that shares many of them is told once.

use std::{
    collections::{HashMap, hash_map::Entry},
    mem,
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    metrics::Metrics,
    model::{ConnectionId, Status, UserId},
};

/// Minimum time for which it is remembered what a socket was told; at most twice as long. After that the same is told
/// again: an event in between may have been lost.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Maximum number of users, counted for each socket, that one shard remembers for each minute. Beyond it, a socket is
/// told once for each shared conversation.
const PAIRS_MAX: usize = 100_000;

/// The presence of a user as a socket was told it: online, and the status.
pub(super) type Presence = (bool, Status);

/// The presence that the sockets of one shard were told.
pub(super) struct Told {
    recent: Pairs,
    /// Those of the minute before.
    older: Pairs,
    began_at: Instant,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Pairs {
    sockets: HashMap<ConnectionId, HashMap<UserId, Presence>>,
    count: usize,
}

impl Pairs {
    fn get(&self, socket: ConnectionId, user: &UserId) -> Option<Presence> {
        self.sockets.get(&socket)?.get(user).copied()
    }

    fn remove(&mut self, socket: ConnectionId, user: &UserId) {
        if let Entry::Occupied(mut users) = self.sockets.entry(socket)
            && users.get_mut().remove(user).is_some()
        {
            self.count -= 1;
            if users.get().is_empty() {
                users.remove();
            }
        }
    }

    fn insert(&mut self, socket: ConnectionId, user: &UserId, presence: Presence) {
        if self.sockets.entry(socket).or_default().insert(user.clone(), presence).is_none() {
            self.count += 1;
        }
    }

    fn forget(&mut self, socket: ConnectionId) {
        self.count -= self.sockets.remove(&socket).map_or(0, |users| users.len());
    }
}

impl Told {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { recent: Pairs::default(), older: Pairs::default(), began_at: Instant::now(), metrics }
    }

    /// Records what a socket is told of a user. Returns false if the socket was told the same last.
    pub(super) fn tell(&mut self, socket: ConnectionId, user: &UserId, presence: Presence) -> bool {
        self.turn(Instant::now());
        let known = self.recent.get(socket, user).or_else(|| self.older.get(socket, user));
        if known == Some(presence) {
            return false;
        }
        self.change(|told| {
            told.older.remove(socket, user);
            if told.recent.count < PAIRS_MAX || told.recent.get(socket, user).is_some() {
                told.recent.insert(socket, user, presence);
            }
        });
        true
    }

    /// Records that a user stopped to listen to a conversation of the socket. If the user goes offline elsewhere, the
    /// socket is not told, so it must be told when the user is online again.
    pub(super) fn left(&mut self, socket: ConnectionId, user: &UserId) {
        let known = self.recent.get(socket, user).or_else(|| self.older.get(socket, user));
        if known.is_some_and(|(online, _)| online) {
            self.change(|told| {
                told.recent.remove(socket, user);
                told.older.remove(socket, user);
            });
        }
    }

    /// Forgets what a socket was told, because it listens to one conversation less.
    pub(super) fn forget(&mut self, socket: ConnectionId) {
        self.change(|told| {
            told.recent.forget(socket);
            told.older.forget(socket);
        });
    }

    fn turn(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.began_at);
        if age < REMEMBERED {
            return;
        }
        self.began_at = now;
        self.change(|told| {
            told.older = mem::take(&mut told.recent);
            if age >= 2 * REMEMBERED {
                told.older = Pairs::default();
            }
        });
    }

    /// Makes a change, and counts its effect.
    fn change(&mut self, change: impl FnOnce(&mut Self)) {
        let count = |told: &Self| i64::try_from(told.recent.count + told.older.count).unwrap_or(i64::MAX);
        let before = count(self);
        change(self);
        self.metrics.presence_told.add(count(self) - before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONLINE: Presence = (true, Status::Online);
    const AWAY: Presence = (true, Status::Away);
    const OFFLINE: Presence = (false, Status::Online);

    fn user(id: &str) -> UserId {
        UserId::parse(id).unwrap()
    }

    fn told() -> (Told, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::new().unwrap());
        (Told::new(metrics.clone()), metrics)
    }

    #[tokio::test(start_paused = true)]
    async fn a_socket_is_told_a_change_once() {
        let ((mut told, metrics), bob) = (told(), user("bob"));
        let (one, other) = (ConnectionId::fresh(), ConnectionId::fresh());
        for presence in [ONLINE, AWAY, ONLINE, OFFLINE, ONLINE] {
            for socket in [one, other] {
                assert!(told.tell(socket, &bob, presence));
                assert!(!told.tell(socket, &bob, presence));
            }
        }
        assert!(told.tell(one, &user("carol"), ONLINE));
        assert_eq!(metrics.presence_told.get(), 3);
        told.forget(one);
        assert_eq!(metrics.presence_told.get(), 1);
        assert!(told.tell(one, &bob, ONLINE) && !told.tell(other, &bob, ONLINE));
    }

    #[tokio::test(start_paused = true)]
    async fn who_left_a_conversation_is_told_again_but_who_went_offline_is_not() {
        let ((mut told, _), bob, socket) = (told(), user("bob"), ConnectionId::fresh());
        assert!(told.tell(socket, &bob, ONLINE));
        told.left(socket, &bob);
        assert!(told.tell(socket, &bob, ONLINE), "bob may have been offline meanwhile");
        // The end of bob's listening in each of two conversations.
        told.left(socket, &bob);
        assert!(told.tell(socket, &bob, OFFLINE));
        told.left(socket, &bob);
        assert!(!told.tell(socket, &bob, OFFLINE));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_told_is_forgotten_after_a_while() {
        let ((mut told, metrics), bob, socket) = (told(), user("bob"), ConnectionId::fresh());
        assert!(told.tell(socket, &bob, ONLINE));
        tokio::time::advance(REMEMBERED).await;
        assert!(!told.tell(socket, &bob, ONLINE));
        tokio::time::advance(REMEMBERED).await;
        assert!(told.tell(socket, &bob, ONLINE));
        tokio::time::advance(3 * REMEMBERED).await;
        assert!(told.tell(socket, &bob, ONLINE));
        assert_eq!(metrics.presence_told.get(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn beyond_the_bound_nothing_is_remembered() {
        let ((mut told, metrics), socket) = (told(), ConnectionId::fresh());
        for at in 0..=PAIRS_MAX {
            assert!(told.tell(socket, &user(&format!("u{at}")), ONLINE));
        }
        assert_eq!(metrics.presence_told.get(), i64::try_from(PAIRS_MAX).unwrap());
        let last = user(&format!("u{PAIRS_MAX}"));
        assert!(told.tell(socket, &last, ONLINE) && told.tell(socket, &last, ONLINE));
        assert!(told.tell(socket, &user("u0"), OFFLINE) && !told.tell(socket, &user("u0"), OFFLINE));
    }
}
