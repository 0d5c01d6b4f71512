//! The users who type: on this node's sockets, and on other nodes according to their events.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::mpsc, time::Instant};

use crate::model::{Body, ConnectionId, ConversationId, Ephemeral, Event, UserId};

/// Minimum interval between two events for a user who keeps typing.
pub(super) const REPEAT_INTERVAL: Duration = Duration::from_secs(1);
/// Additional time until a user who types on another node counts as stopped, for the way of that node's events.
const ELSEWHERE_SLACK: Duration = Duration::from_secs(1);
/// Maximum number of users, counted for each conversation, whose typing is kept. Beyond it nobody is shown as typing.
const TYPISTS_MAX: usize = 100_000;
/// Maximum number of changes that wait to be told.
const CHANGES_MAX: usize = 10_000;

/// A user in a conversation.
pub(super) type Place = (ConversationId, UserId);

/// A change that an event of another part caused, and that listeners must be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// The user stopped. Every node tells its own listeners, except the source on this node.
    Stopped(Place, Arc<str>, Option<ConnectionId>),
    /// The user stopped on another node, and still types here.
    StillTypes(Place, Arc<str>, Option<ConnectionId>),
}

/// A user's typing in one conversation.
#[derive(Debug)]
struct Typist {
    name: Arc<str>,
    /// The sources on this node, with the time at which each counts as stopped. A source is a socket, or REST.
    here: HashMap<Option<ConnectionId>, Instant>,
    /// Time at which the user counts as stopped on other nodes.
    elsewhere: Option<Instant>,
    published_at: Option<Instant>,
}

/// A user whose typing expired.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Expired {
    pub(super) place: Place,
    pub(super) name: Arc<str>,
    /// The last source, if the user typed here; other nodes must be told then.
    pub(super) here: Option<Option<ConnectionId>>,
}

/// The users who type.
#[derive(Debug)]
pub(super) struct Typists {
    timeout: Duration,
    typing: Mutex<HashMap<Place, Typist>>,
    changes: mpsc::Sender<Change>,
}

impl Typists {
    /// A source without a new indicator for `timeout` counts as stopped.
    pub(super) fn new(timeout: Duration) -> (Self, mpsc::Receiver<Change>) {
        let (changes, changed) = mpsc::channel(CHANGES_MAX);
        (Self { timeout, typing: Mutex::default(), changes }, changed)
    }

    /// Records that a user types at a source. Returns true if listeners must be told.
    pub(super) fn start(&self, place: &Place, name: &Arc<str>, source: Option<ConnectionId>) -> bool {
        let now = Instant::now();
        let mut typing = self.lock();
        if typing.len() >= TYPISTS_MAX && !typing.contains_key(place) {
            return false;
        }
        let typist = typing.entry(place.clone()).or_insert_with(|| Typist::new(name));
        typist.here.insert(source, now + self.timeout);
        let repeated = typist.published_at.is_some_and(|at| now.duration_since(at) < REPEAT_INTERVAL);
        if !repeated {
            typist.published_at = Some(now);
        }
        !repeated
    }

    /// Records that a user stopped at a source. Returns true if listeners must be told, because no other source is left.
    pub(super) fn stop(&self, place: &Place, source: Option<ConnectionId>) -> bool {
        let mut typing = self.lock();
        let Some(typist) = typing.get_mut(place) else { return false };
        let stopped = typist.here.remove(&source).is_some() && typist.here.is_empty();
        if stopped {
            typist.published_at = None;
        }
        if typist.ended() {
            typing.remove(place);
        }
        stopped
    }

    /// Records messages, which end their senders' typing, and what other nodes tell if the events are `remote`.
    pub(super) fn observe(&self, events: &[Event], remote: bool) {
        for event in events {
            let Some(conversation) = event.log().conversation() else { continue };
            let change = match event {
                Event::Entry { entry, .. } if matches!(entry.body, Body::Message { .. }) => {
                    self.sent((conversation, entry.sender.clone()))
                }
                Event::Ephemeral { ephemeral, .. } if remote => match &ephemeral.what {
                    Ephemeral::Typing { user, name, active } => self.heard((conversation, user.clone()), name, *active),
                    _ => None,
                },
                _ => None,
            };
            if let Some(change) = change {
                // If too many wait, the typing expires.
                let _full = self.changes.try_send(change);
            }
        }
    }

    /// A message ends all typing of its sender in its conversation.
    fn sent(&self, place: Place) -> Option<Change> {
        let typist = self.lock().remove(&place)?;
        let source = typist.source();
        Some(Change::Stopped(place, typist.name, source))
    }

    /// Another node tells that a user types or stopped there.
    fn heard(&self, place: Place, name: &Arc<str>, active: bool) -> Option<Change> {
        let mut typing = self.lock();
        if active {
            if typing.len() < TYPISTS_MAX || typing.contains_key(&place) {
                let until = Instant::now() + self.timeout + REPEAT_INTERVAL + ELSEWHERE_SLACK;
                typing.entry(place).or_insert_with(|| Typist::new(name)).elsewhere = Some(until);
            }
            return None;
        }
        let typist = typing.get_mut(&place)?;
        typist.elsewhere = None;
        if typist.ended() {
            typing.remove(&place);
            return None;
        }
        let source = typist.source();
        Some(Change::StillTypes(place, typist.name.clone(), source))
    }

    /// Removes and returns the users whose typing expired.
    pub(super) fn expired(&self) -> Vec<Expired> {
        let now = Instant::now();
        let mut expired = Vec::new();
        self.lock().retain(|place, typist| {
            let mut last = None;
            typist.here.retain(|source, until| {
                let types = *until > now;
                if !types {
                    last = Some(*source);
                }
                types
            });
            typist.elsewhere = typist.elsewhere.filter(|until| *until > now);
            let ended = typist.ended();
            if ended {
                expired.push(Expired { place: place.clone(), name: typist.name.clone(), here: last });
            }
            !ended
        });
        expired
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Place, Typist>> {
        self.typing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Typist {
    fn new(name: &Arc<str>) -> Self {
        Self { name: name.clone(), here: HashMap::with_capacity(1), elsewhere: None, published_at: None }
    }

    /// A socket of this node on which the user types.
    fn source(&self) -> Option<ConnectionId> {
        self.here.keys().next().copied().flatten()
    }

    fn ended(&self) -> bool {
        self.here.is_empty() && self.elsewhere.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EphemeralEvent, LogId, Timestamp};

    fn place(user: &str) -> Place {
        (ConversationId::parse("team").unwrap(), UserId::parse(user).unwrap())
    }

    fn typists(seconds: u64) -> (Typists, mpsc::Receiver<Change>) {
        Typists::new(Duration::from_secs(seconds))
    }

    fn typing(active: bool) -> [Event; 1] {
        let (conversation, user) = place("alice");
        let what = Ephemeral::Typing { user, name: "A".into(), active };
        let (log, at) = (LogId::from(&conversation), Timestamp::from_seconds(1));
        [Event::Ephemeral { ephemeral: Arc::new(EphemeralEvent { log, at, what }), origin: None }]
    }

    #[test]
    fn typing_is_told_once_and_ends_with_its_last_source() {
        let (typists, _) = typists(60);
        let (phone, laptop) = (Some(ConnectionId::fresh()), Some(ConnectionId::fresh()));
        let start = |source| typists.start(&place("alice"), &"A".into(), source);
        assert_eq!((start(phone), start(phone), start(laptop)), (true, false, false));
        assert!(!typists.stop(&place("alice"), phone), "the laptop goes on");
        assert!(!typists.stop(&place("alice"), phone));
        assert!(typists.stop(&place("alice"), laptop));
        assert!(start(phone), "a new start is told at once");
    }

    #[tokio::test(start_paused = true)]
    async fn typing_expires_here_and_elsewhere() {
        let (typists, _) = typists(5);
        typists.start(&place("alice"), &"A".into(), None);
        typists.observe(&typing(true), true);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(typists.expired(), [], "another node may still tell");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(typists.expired(), [Expired { place: place("alice"), name: "A".into(), here: None }]);
        typists.start(&place("alice"), &"A".into(), None);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(typists.expired()[0].here, Some(None));
        assert_eq!(typists.expired(), []);
    }

    #[test]
    fn a_stop_elsewhere_does_not_end_typing_here() {
        let (typists, mut changes) = typists(60);
        typists.observe(&typing(true), true);
        let source = Some(ConnectionId::fresh());
        typists.start(&place("alice"), &"A".into(), source);
        typists.observe(&typing(false), true);
        assert_eq!(changes.try_recv().unwrap(), Change::StillTypes(place("alice"), "A".into(), source));
        assert!(typists.stop(&place("alice"), source));
        typists.observe(&typing(false), true);
        assert!(changes.try_recv().is_err());
    }
}
