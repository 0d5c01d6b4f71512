//! Who types where, and until when: a typist who says nothing more has stopped.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{Answer, Caller, Chat};
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
pub(super) struct Typists {
    timeout: Duration,
    typing: Mutex<HashMap<(ConversationId, UserId), Typist>>,
}

impl Typists {
    pub(super) fn new(timeout: Duration) -> Self {
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

impl Chat {
    pub(super) fn typing(&self, caller: &Caller, conversation: &ConversationId, active: bool) -> Answer {
        let (user, name) = (&caller.identity.user, &caller.identity.name);
        let key = (conversation.clone(), user.clone());
        let origin = caller.connection.as_ref().map(|connection| connection.id());
        let news = if active { self.typists.start(key, name, origin) } else { self.typists.stop(&key) };
        if news {
            let what = Ephemeral::Typing { user: user.clone(), name: name.clone(), active };
            self.tell(&LogId::from(conversation), origin, [what]);
        }
        Reply::Done.into()
    }

    /// Tells that somebody who typed does so no more.
    pub(super) fn stop_typing(&self, conversation: ConversationId, user: UserId, name: Arc<str>) {
        let key = (conversation, user);
        if self.typists.stop(&key) {
            self.tell(&LogId::from(&key.0), None, [Ephemeral::Typing { user: key.1, name, active: false }]);
        }
    }

    pub(super) async fn expire_typing(self: Arc<Self>) {
        let mut sweep = tokio::time::interval(SWEEP);
        loop {
            sweep.tick().await;
            for ((conversation, user), Typist { name, origin, .. }) in self.typists.expired() {
                self.tell(&LogId::from(&conversation), origin, [Ephemeral::Typing { user, name, active: false }]);
            }
        }
    }
}
