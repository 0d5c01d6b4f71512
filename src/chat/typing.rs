//! Typing indicators. A user without a new indicator within the timeout counts as stopped.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{
    command::{Caller, CommandReply},
    router::Router,
};
use crate::model::{ConnectionId, ConversationId, Ephemeral, LogId, Reply, UserId};

/// Interval between two checks for expired indicators.
const SWEEP_INTERVAL: Duration = Duration::from_millis(250);
/// Minimum interval between two events for a user who keeps typing.
const REPEAT_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Typist {
    name: Arc<str>,
    /// The socket that the user types on; it does not receive the event.
    origin: Option<ConnectionId>,
    until: Instant,
    published_at: Instant,
}

/// The users who type on this node.
#[derive(Debug)]
struct Typists {
    timeout: Duration,
    typing: Mutex<HashMap<(ConversationId, UserId), Typist>>,
}

impl Typists {
    fn new(timeout: Duration) -> Self {
        Self { timeout, typing: Mutex::default() }
    }

    /// Records that a user types. Returns true if listeners must be informed.
    fn start(&self, key: (ConversationId, UserId), name: &Arc<str>, origin: Option<ConnectionId>) -> bool {
        let now = Instant::now();
        let mut typing = self.lock();
        let published_at = typing
            .get(&key)
            .map(|typist| typist.published_at)
            .filter(|published_at| now.duration_since(*published_at) < REPEAT_INTERVAL);
        let typist =
            Typist { name: name.clone(), origin, until: now + self.timeout, published_at: published_at.unwrap_or(now) };
        typing.insert(key, typist);
        published_at.is_none()
    }

    /// Removes a user. Returns true if the user typed.
    fn stop(&self, key: &(ConversationId, UserId)) -> bool {
        self.lock().remove(key).is_some()
    }

    fn expired(&self) -> Vec<((ConversationId, UserId), Typist)> {
        let now = Instant::now();
        self.lock().extract_if(|_, typist| typist.until <= now).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(ConversationId, UserId), Typist>> {
        self.typing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Publishes typing indicators.
pub(super) struct Typing {
    typists: Typists,
    router: Arc<Router>,
}

impl Typing {
    /// Creates an empty set. A user without a new indicator for `timeout` counts as stopped.
    pub(super) fn new(timeout: Duration, router: Arc<Router>) -> Self {
        Self { typists: Typists::new(timeout), router }
    }

    /// Records that the caller types or stopped, and publishes a change.
    pub(super) fn set_typing(&self, caller: &Caller, conversation: &ConversationId, active: bool) -> CommandReply {
        let (user, name) = (&caller.identity.user, &caller.identity.name);
        let key = (conversation.clone(), user.clone());
        let origin = caller.connection.as_ref().map(|connection| connection.id());
        let news = if active { self.typists.start(key, name, origin) } else { self.typists.stop(&key) };
        if news {
            let what = Ephemeral::Typing { user: user.clone(), name: name.clone(), active };
            self.router.send_ephemeral(&LogId::from(conversation), origin, [what]);
        }
        Reply::Done.into()
    }

    /// Publishes that a user stopped, if the user typed.
    pub(super) fn stop(&self, conversation: ConversationId, user: UserId, name: Arc<str>) {
        let key = (conversation, user);
        if self.typists.stop(&key) {
            self.router.send_ephemeral(
                &LogId::from(&key.0),
                None,
                [Ephemeral::Typing { user: key.1, name, active: false }],
            );
        }
    }

    /// Publishes that users with expired indicators stopped, until its task is stopped.
    pub(super) async fn run(self: Arc<Self>) {
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        loop {
            sweep.tick().await;
            for ((conversation, user), Typist { name, origin, .. }) in self.typists.expired() {
                self.router.send_ephemeral(
                    &LogId::from(&conversation),
                    origin,
                    [Ephemeral::Typing { user, name, active: false }],
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(user: &str) -> (ConversationId, UserId) {
        (ConversationId::parse("team").unwrap(), UserId::parse(user).unwrap())
    }

    #[test]
    fn typing_is_published_once_and_stops_once() {
        let typists = Typists::new(Duration::from_secs(60));
        let start = |user| typists.start(key(user), &"A".into(), None);
        assert_eq!((start("alice"), start("alice"), start("bob")), (true, false, true));
        assert_eq!((typists.stop(&key("alice")), typists.stop(&key("alice"))), (true, false));
        assert!(typists.expired().is_empty());
    }

    #[test]
    fn typing_expires() {
        let typists = Typists::new(Duration::ZERO);
        typists.start(key("alice"), &"A".into(), None);
        assert_eq!(typists.expired().into_iter().map(|(key, _)| key).collect::<Vec<_>>(), [key("alice")]);
        assert!(typists.expired().is_empty());
    }
}
