//! The users who type: on this node's sockets, and on other nodes according to their events.

use std::{
    collections::{BTreeSet, HashMap},
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::model::{Body, ConnectionId, ConversationId, Ephemeral, Event, UserId};

/// Minimum interval between two events for a user who keeps typing.
pub(super) const REPEAT_INTERVAL: Duration = Duration::from_secs(1);
/// Additional time until a user who types on another node counts as stopped, for the way of that node's events.
const ELSEWHERE_SLACK: Duration = Duration::from_secs(1);
/// Maximum number of users, counted for each conversation, whose typing is kept. Beyond it nobody is shown as typing.
const TYPISTS_MAX: usize = 100_000;
/// Number of locks that the turns of all conversations share.
const TURNS: usize = 64;

/// A user in a conversation.
pub(super) type Place = (ConversationId, UserId);

/// The right to change who types in some conversations. It is held until listeners were told of the change: they are
/// then told in the order of the changes. Nothing is awaited meanwhile.
#[must_use]
pub(super) struct Turn<'a> {
    turns: BTreeSet<usize>,
    _held: Vec<MutexGuard<'a, ()>>,
}

/// A change that an event of another part caused, and that listeners must be told after it.
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
    pub(super) name: Arc<str>,
    /// The last source, if the user typed here; other nodes must be told then.
    pub(super) here: Option<Option<ConnectionId>>,
}

/// The users who type. Who changes them or passes events to them has the turn of the conversation.
#[derive(Debug)]
pub(super) struct Typists {
    timeout: Duration,
    typing: Mutex<HashMap<Place, Typist>>,
    turns: [Mutex<()>; TURNS],
    hasher: RandomState,
}

impl Typists {
    /// A source without a new indicator for `timeout` counts as stopped.
    pub(super) fn new(timeout: Duration) -> Self {
        let turns = std::array::from_fn(|_| Mutex::default());
        Self { timeout, typing: Mutex::default(), turns, hasher: RandomState::new() }
    }

    /// Waits for the turn of a conversation.
    pub(super) fn turn(&self, conversation: &ConversationId) -> Turn<'_> {
        self.take(BTreeSet::from([self.turn_of(conversation)]))
    }

    /// Waits for the turns of all conversations in which these events may change who types; `None` if there are none.
    pub(super) fn turns(&self, events: &[Event]) -> Option<Turn<'_>> {
        let turns: BTreeSet<_> = events.iter().filter_map(|event| self.concerned(event)).collect();
        (!turns.is_empty()).then(|| self.take(turns))
    }

    fn concerned(&self, event: &Event) -> Option<usize> {
        let conversation = event.log().conversation()?;
        let concerned = match event {
            Event::Entry { entry, .. } => {
                matches!(entry.body, Body::Message { .. })
                    && self.lock().contains_key(&(conversation.clone(), entry.sender.clone()))
            }
            Event::Ephemeral { ephemeral, .. } => matches!(ephemeral.what, Ephemeral::Typing { .. }),
        };
        concerned.then(|| self.turn_of(&conversation))
    }

    fn turn_of(&self, conversation: &ConversationId) -> usize {
        // A remainder below the small number of turns.
        usize::try_from(self.hasher.hash_one(conversation) % TURNS as u64).unwrap_or_default()
    }

    /// Takes turns in ascending order, so that two that need the same ones never wait for each other.
    fn take(&self, turns: BTreeSet<usize>) -> Turn<'_> {
        let locks = turns.iter().filter_map(|turn| self.turns.get(*turn));
        let held = locks.map(|turn| turn.lock().unwrap_or_else(PoisonError::into_inner)).collect();
        Turn { turns, _held: held }
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

    /// Records messages, which end their senders' typing, and what other nodes tell. Returns what must be told after
    /// the events.
    pub(super) fn observe(&self, turn: &Turn<'_>, events: &[Event]) -> Vec<Change> {
        events.iter().filter_map(|event| self.observe_one(turn, event)).collect()
    }

    fn observe_one(&self, turn: &Turn<'_>, event: &Event) -> Option<Change> {
        let conversation = event.log().conversation()?;
        match event {
            // Its sender began to type after the turns were taken.
            _ if !turn.turns.contains(&self.turn_of(&conversation)) => None,
            Event::Entry { entry, .. } if matches!(entry.body, Body::Message { .. }) => {
                self.sent((conversation, entry.sender.clone()))
            }
            Event::Entry { .. } => None,
            Event::Ephemeral { ephemeral, .. } => match &ephemeral.what {
                Ephemeral::Typing { user, name, active } => self.heard((conversation, user.clone()), name, *active),
                _ => None,
            },
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

    /// Users of whose typing something expired.
    pub(super) fn expiring(&self) -> Vec<Place> {
        let now = Instant::now();
        let typing = self.lock();
        typing.iter().filter(|(_, typist)| typist.expires(now)).map(|(place, _)| place.clone()).collect()
    }

    /// Removes what expired of a user's typing. Returns it if nothing is left.
    pub(super) fn expire(&self, place: &Place) -> Option<Expired> {
        let now = Instant::now();
        let mut typing = self.lock();
        let typist = typing.get_mut(place)?;
        let here = typist.here.iter().find(|(_, until)| **until <= now).map(|(source, _)| *source);
        typist.here.retain(|_, until| *until > now);
        typist.elsewhere = typist.elsewhere.filter(|until| *until > now);
        if !typist.ended() {
            return None;
        }
        typing.remove(place).map(|typist| Expired { name: typist.name, here })
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

    fn expires(&self, now: Instant) -> bool {
        self.here.values().chain(&self.elsewhere).any(|until| *until <= now)
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

    fn typists(seconds: u64) -> Typists {
        Typists::new(Duration::from_secs(seconds))
    }

    fn observe(typists: &Typists, active: bool) -> Vec<Change> {
        let events = typing(active);
        typists.observe(&typists.turns(&events).unwrap(), &events)
    }

    fn expired(typists: &Typists) -> Vec<Expired> {
        typists.expiring().iter().filter_map(|place| typists.expire(place)).collect()
    }

    fn typing(active: bool) -> [Event; 1] {
        let (conversation, user) = place("alice");
        let what = Ephemeral::Typing { user, name: "A".into(), active };
        let (log, at) = (LogId::from(&conversation), Timestamp::from_seconds(1));
        [Event::Ephemeral { ephemeral: Arc::new(EphemeralEvent { log, at, what }), origin: None }]
    }

    #[test]
    fn typing_is_told_once_and_ends_with_its_last_source() {
        let typists = typists(60);
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
        let typists = typists(5);
        typists.start(&place("alice"), &"A".into(), None);
        assert_eq!(observe(&typists, true), []);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(expired(&typists), [], "another node may still tell");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(expired(&typists), [Expired { name: "A".into(), here: None }]);
        typists.start(&place("alice"), &"A".into(), None);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(expired(&typists)[0].here, Some(None));
        assert_eq!(expired(&typists), []);
    }

    #[test]
    fn a_stop_elsewhere_does_not_end_typing_here() {
        let typists = typists(60);
        assert_eq!(observe(&typists, true), []);
        let source = Some(ConnectionId::fresh());
        typists.start(&place("alice"), &"A".into(), source);
        assert_eq!(observe(&typists, false), [Change::StillTypes(place("alice"), "A".into(), source)]);
        assert!(typists.stop(&place("alice"), source));
        assert_eq!(observe(&typists, false), []);
    }
}
