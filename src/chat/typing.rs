//! Who types where, and until when: a typist who says nothing more has stopped.

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

/// How often typists are looked through.
const SWEEP: Duration = Duration::from_millis(250);
/// A typist who goes on is told of again no sooner than this.
const REPEAT: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Typist {
    name: Arc<str>,
    /// The socket they type on: it need not be told.
    origin: Option<ConnectionId>,
    until: Instant,
    told: Instant,
}

/// The typists of this node.
#[derive(Debug)]
struct Typists {
    timeout: Duration,
    typing: Mutex<HashMap<(ConversationId, UserId), Typist>>,
}

impl Typists {
    fn new(timeout: Duration) -> Self {
        Self { timeout, typing: Mutex::default() }
    }

    /// Notes that somebody types; true where that is news.
    fn start(&self, key: (ConversationId, UserId), name: &Arc<str>, origin: Option<ConnectionId>) -> bool {
        let now = Instant::now();
        let mut typing = self.lock();
        let told = typing.get(&key).map(|typist| typist.told).filter(|told| now.duration_since(*told) < REPEAT);
        let typist = Typist { name: name.clone(), origin, until: now + self.timeout, told: told.unwrap_or(now) };
        typing.insert(key, typist);
        told.is_none()
    }

    /// Notes that somebody stopped; true where they had typed.
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

/// Tells who types.
pub(super) struct Typing {
    typists: Typists,
    router: Arc<Router>,
}

impl Typing {
    /// Nobody types yet; one who says nothing more for `timeout` has stopped.
    pub(super) fn new(timeout: Duration, router: Arc<Router>) -> Self {
        Self { typists: Typists::new(timeout), router }
    }

    /// Somebody types, or stopped.
    pub(super) fn say(&self, caller: &Caller, conversation: &ConversationId, active: bool) -> CommandReply {
        let (user, name) = (&caller.identity.user, &caller.identity.name);
        let key = (conversation.clone(), user.clone());
        let origin = caller.connection.as_ref().map(|connection| connection.id());
        let news = if active { self.typists.start(key, name, origin) } else { self.typists.stop(&key) };
        if news {
            let what = Ephemeral::Typing { user: user.clone(), name: name.clone(), active };
            self.router.tell(&LogId::from(conversation), origin, [what]);
        }
        Reply::Done.into()
    }

    /// Tells that somebody who typed does so no more.
    pub(super) fn stop(&self, conversation: ConversationId, user: UserId, name: Arc<str>) {
        let key = (conversation, user);
        if self.typists.stop(&key) {
            self.router.tell(&LogId::from(&key.0), None, [Ephemeral::Typing { user: key.1, name, active: false }]);
        }
    }

    /// Tells that typists who said nothing more have stopped, until it is stopped itself.
    pub(super) async fn run(self: Arc<Self>) {
        let mut sweep = tokio::time::interval(SWEEP);
        loop {
            sweep.tick().await;
            for ((conversation, user), Typist { name, origin, .. }) in self.typists.expired() {
                self.router.tell(
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
    fn a_typist_is_news_once_and_stops_once() {
        let typists = Typists::new(Duration::from_secs(60));
        let start = |user| typists.start(key(user), &"A".into(), None);
        assert_eq!((start("alice"), start("alice"), start("bob")), (true, false, true));
        assert_eq!((typists.stop(&key("alice")), typists.stop(&key("alice"))), (true, false));
        assert!(typists.expired().is_empty());
    }

    #[test]
    fn one_who_says_nothing_more_has_stopped() {
        let typists = Typists::new(Duration::ZERO);
        typists.start(key("alice"), &"A".into(), None);
        assert_eq!(typists.expired().into_iter().map(|(key, _)| key).collect::<Vec<_>>(), [key("alice")]);
        assert!(typists.expired().is_empty());
    }
}
