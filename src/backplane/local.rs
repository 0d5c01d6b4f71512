//! What this node holds itself: its connections, whom they belong to, what they listen to.
//!
//! With Redis Off or Down this is all there is, and decides; with Redis Up it is what gets registered anew when Redis
//! lost it. Either way it is kept up to date the same way, before Redis is asked.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::types::{Departure, Registration, Scope, TooMany};
use crate::model::{ConnectionId, ConversationId, Timestamp, UserId};

/// How many of what a user may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caps {
    /// User-scoped sockets; and conversation-scoped ones, per conversation.
    pub(super) connections: u32,
    /// All sockets.
    pub(super) sockets: u32,
}

/// A connection of a user.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) id: ConnectionId,
    pub(super) scope: Scope,
    pub(super) since: Timestamp,
}

#[derive(Debug, Default)]
struct Room {
    listeners: Vec<ConnectionId>,
    /// When it may be told that nobody listens any more.
    due: Option<Instant>,
}

#[derive(Debug)]
struct Person {
    name: Arc<str>,
    connections: Vec<Held>,
    rooms: HashMap<ConversationId, Room>,
    /// When it may be told that they are offline.
    due: Option<Instant>,
    /// Counts changes.
    version: u64,
}

#[derive(Debug, Default)]
struct State {
    people: BTreeMap<UserId, Person>,
    owners: HashMap<ConnectionId, UserId>,
    audiences: HashMap<ConversationId, HashSet<UserId>>,
    due: VecDeque<(Instant, UserId)>,
    version: u64,
}

/// What a user's share in this node is, for Redis.
#[derive(Debug, Clone)]
pub(super) struct Share {
    pub(super) user: UserId,
    pub(super) name: Arc<str>,
    pub(super) connections: Vec<Held>,
    pub(super) rooms: Vec<(ConversationId, Vec<ConnectionId>)>,
    pub(super) version: u64,
}

/// A connection that has gone.
#[derive(Debug)]
pub(super) struct Gone {
    pub(super) user: UserId,
    /// What it listened to.
    pub(super) rooms: Vec<ConversationId>,
    /// It was the user's last one on this node.
    pub(super) last: bool,
}

/// The node's own connections.
#[derive(Debug)]
pub(super) struct Local {
    caps: Caps,
    grace: Duration,
    state: Mutex<State>,
}

impl Local {
    pub(super) fn new(caps: Caps, grace: Duration) -> Self {
        Self { caps, grace, state: Mutex::default() }
    }

    /// Adds a connection. True where the user thereby came online, as far as this node knows.
    pub(super) fn register(&self, new: &Registration) -> Result<bool, TooMany> {
        let state = &mut *self.state();
        let held = state.people.get(&new.user).map_or(&[][..], |person| &person.connections);
        let others = || held.iter().filter(|one| one.id != new.connection);
        let same = others().filter(|one| one.scope == new.scope).count();
        if same >= self.caps.connections as usize || others().count() >= self.caps.sockets as usize {
            return Err(TooMany { perhaps: false });
        }
        let person = state.people.entry(new.user.clone()).or_insert_with(|| Person {
            name: new.name.clone(),
            connections: Vec::with_capacity(1),
            rooms: HashMap::new(),
            due: None,
            version: 0,
        });
        let first = person.connections.is_empty() && person.due.take().is_none();
        person.name = new.name.clone();
        person.connections.retain(|one| one.id != new.connection);
        person.connections.push(Held { id: new.connection, scope: new.scope.clone(), since: new.connected_at });
        state.owners.insert(new.connection, new.user.clone());
        state.touch(&new.user);
        Ok(first)
    }

    /// Removes a connection and all its listening; `None` where it is not held.
    pub(super) fn unregister(&self, connection: ConnectionId) -> Option<Gone> {
        let due = Instant::now() + self.grace;
        let state = &mut *self.state();
        let user = state.owners.remove(&connection)?;
        let person = state.people.get_mut(&user)?;
        person.connections.retain(|one| one.id != connection);
        let rooms = person.rooms.iter().filter(|(_, room)| room.listeners.contains(&connection));
        let rooms: Vec<_> = rooms.map(|(id, _)| id.clone()).collect();
        for id in &rooms {
            person.part(id, connection, due);
        }
        let last = person.connections.is_empty();
        person.due = last.then_some(due);
        state.due.push_back((due, user.clone()));
        state.touch(&user);
        Some(Gone { user, rooms, last })
    }

    /// Notes that a connection listens: whose it is, and whether it is the user's first as far as this node knows.
    pub(super) fn listen(&self, connection: ConnectionId, conversation: &ConversationId) -> Option<(UserId, bool)> {
        let state = &mut *self.state();
        let user = state.owners.get(&connection)?.clone();
        let room = state.people.get_mut(&user)?.rooms.entry(conversation.clone()).or_default();
        let first = room.listeners.is_empty() && room.due.take().is_none();
        if !room.listeners.contains(&connection) {
            room.listeners.push(connection);
        }
        state.audiences.entry(conversation.clone()).or_default().insert(user.clone());
        state.touch(&user);
        Some((user, first))
    }

    /// Notes that a connection no longer listens: whose it is; `None` where it did not.
    pub(super) fn unlisten(&self, connection: ConnectionId, conversation: &ConversationId) -> Option<UserId> {
        let due = Instant::now() + self.grace;
        let state = &mut *self.state();
        let user = state.owners.get(&connection)?.clone();
        if !state.people.get_mut(&user)?.part(conversation, connection, due) {
            return None;
        }
        state.due.push_back((due, user.clone()));
        state.touch(&user);
        Some(user)
    }

    /// Takes the departures that have become due.
    pub(super) fn departures(&self, now: Instant) -> Vec<Departure> {
        let state = &mut *self.state();
        let mut departures = Vec::new();
        while state.due.front().is_some_and(|(due, _)| *due <= now) {
            let Some((_, user)) = state.due.pop_front() else { break };
            let Some(person) = state.people.get_mut(&user) else { continue };
            let offline = person.due.is_some_and(|due| due <= now);
            let left = person.rooms.extract_if(|_, room| offline || room.due.is_some_and(|due| due <= now));
            let left: Vec<_> = left.map(|(id, _)| id).collect();
            let name = person.name.clone();
            if offline {
                state.people.remove(&user);
            }
            for id in &left {
                state.leave(id, &user);
            }
            if offline || !left.is_empty() {
                departures.push(Departure { user, name, left, offline, told_here: false });
            }
        }
        departures
    }

    /// A user's share; `None` where they have no connection here.
    pub(super) fn share(&self, user: &UserId) -> Option<Share> {
        let state = self.state();
        let person = state.people.get(user).filter(|person| !person.connections.is_empty())?;
        let listened = person.rooms.iter().filter(|(_, room)| !room.listeners.is_empty());
        Some(Share {
            user: user.clone(),
            name: person.name.clone(),
            connections: person.connections.clone(),
            rooms: listened.map(|(id, room)| (id.clone(), room.listeners.clone())).collect(),
            version: person.version,
        })
    }

    /// The version of a user's share, to see whether it changed; `None` where they have no connection here.
    pub(super) fn version(&self, user: &UserId) -> Option<u64> {
        self.state().people.get(user).filter(|person| !person.connections.is_empty()).map(|person| person.version)
    }

    /// Users with a connection here, in order of their ids.
    pub(super) fn users_after(&self, after: Option<&UserId>, limit: usize) -> Vec<UserId> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let state = self.state();
        let users = state.people.range::<UserId, _>((from, Bound::Unbounded));
        users.filter(|(_, person)| !person.connections.is_empty()).take(limit).map(|(user, _)| user.clone()).collect()
    }

    /// Whether a user is online here, counting the grace.
    pub(super) fn online(&self, user: &UserId) -> bool {
        self.state().people.contains_key(user)
    }

    /// How many users are online here.
    pub(super) fn online_count(&self) -> u64 {
        self.state().people.len() as u64
    }

    /// A page of the users online here: how many were passed over is the cursor.
    pub(super) fn online_page(&self, cursor: u64, limit: u32) -> (Vec<UserId>, u64) {
        let state = self.state();
        let skip = usize::try_from(cursor).unwrap_or(usize::MAX);
        let users: Vec<_> = state.people.keys().skip(skip).take(limit as usize).cloned().collect();
        let next = cursor.saturating_add(users.len() as u64);
        let more = next < state.people.len() as u64 && !users.is_empty();
        (users, if more { next } else { 0 })
    }

    /// Users here who listen to a conversation.
    pub(super) fn audience(&self, conversation: &ConversationId, limit: usize) -> Vec<UserId> {
        let state = self.state();
        state.audiences.get(conversation).map_or_else(Vec::new, |users| users.iter().take(limit).cloned().collect())
    }

    /// A user's connections here.
    pub(super) fn connections_of(&self, user: &UserId) -> Vec<Held> {
        self.state().people.get(user).map_or_else(Vec::new, |person| person.connections.clone())
    }

    /// Whether a user has a connection here.
    pub(super) fn is_connected(&self, user: &UserId) -> bool {
        self.state().people.get(user).is_some_and(|person| !person.connections.is_empty())
    }

    /// What a user listens to here.
    pub(super) fn joined(&self, user: &UserId) -> Vec<ConversationId> {
        self.state().people.get(user).map_or_else(Vec::new, |person| person.rooms.keys().cloned().collect())
    }

    /// How many connections are held.
    pub(super) fn connections(&self) -> usize {
        self.state().owners.len()
    }

    /// Whether no connection is held.
    pub(super) fn is_empty(&self) -> bool {
        self.state().owners.is_empty()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Person {
    fn part(&mut self, conversation: &ConversationId, connection: ConnectionId, due: Instant) -> bool {
        let Some(room) = self.rooms.get_mut(conversation) else { return false };
        let before = room.listeners.len();
        room.listeners.retain(|one| *one != connection);
        let parted = room.listeners.len() < before;
        if parted && room.listeners.is_empty() {
            room.due = Some(due);
        }
        parted
    }
}

impl State {
    /// Versions come from one counter, so that a user who went and came back never repeats one.
    fn touch(&mut self, user: &UserId) {
        self.version += 1;
        if let Some(person) = self.people.get_mut(user) {
            person.version = self.version;
        }
    }

    fn leave(&mut self, conversation: &ConversationId, user: &UserId) {
        if let Some(users) = self.audiences.get_mut(conversation) {
            users.remove(user);
            if users.is_empty() {
                self.audiences.remove(conversation);
            }
        }
    }
}
