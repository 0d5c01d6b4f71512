//! This node's own connections: their users, and the conversations that they listen to.
//!
//! While Redis is Off or Down, this state alone decides. While Redis is Up, the registry writes it to Redis again after
//! Redis lost it. In both cases it is updated before Redis is called.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::types::{Departure, Registration, Scope, TooMany};
use crate::model::{ConnectionId, ConversationId, Timestamp, UserId};

/// Maximum number of conversations that a user left and whose listeners are told that the user went offline, as in `claim.lua`.
const LEFT_MAX: usize = 32;

/// Connection limits per user.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caps {
    /// Maximum number of user-scoped sockets, and of conversation-scoped sockets per conversation.
    pub(super) connections: u32,
    /// Maximum number of sockets of both scopes together.
    pub(super) sockets: u32,
}

/// A connection of a user.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) id: ConnectionId,
    pub(super) scope: Scope,
    pub(super) since: Timestamp,
    /// The label of its dialect.
    pub(super) dialect: &'static str,
    /// Time at which it fell silent; `None` while its client gives signs of life.
    silent_since: Option<Instant>,
    /// It was silent when a newer socket needed room, and counts against no cap any more. It ends soon.
    gave_way: bool,
}

#[derive(Debug, Default)]
struct Room {
    listeners: Vec<ConnectionId>,
    /// End of the grace after the last listener left; set while there is no listener.
    due: Option<Instant>,
}

#[derive(Debug)]
struct LocalUser {
    name: Arc<str>,
    connections: Vec<Held>,
    #[expect(
        clippy::box_collection,
        reason = "most users listen to their inboxes only; a map in place takes 48 bytes"
    )]
    rooms: Option<Box<HashMap<ConversationId, Room>>>,
    /// The conversations that were left while the user stayed online, the newest [`LEFT_MAX`].
    left: Box<[ConversationId]>,
    /// End of the grace after the last connection ended; set while there is no connection.
    due: Option<Instant>,
    /// Value of [`State::version`] at this user's last change.
    version: u64,
}

#[derive(Debug, Default)]
struct State {
    users: BTreeMap<UserId, LocalUser>,
    owners: HashMap<ConnectionId, UserId>,
    audiences: HashMap<ConversationId, HashSet<UserId>>,
    due: VecDeque<(Instant, UserId)>,
    version: u64,
}

/// A user's part of this node's state, as it is written to Redis.
#[derive(Debug, Clone)]
pub(super) struct Share {
    pub(super) user: UserId,
    pub(super) name: Arc<str>,
    pub(super) connections: Vec<Held>,
    pub(super) rooms: Vec<(ConversationId, Vec<ConnectionId>)>,
    pub(super) version: u64,
}

/// A connection that was added.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Registered {
    /// True if its user came online by it, as far as this node knows.
    pub(super) first: bool,
    /// Silent connections of its user that gave way to it.
    pub(super) gave_way: Vec<ConnectionId>,
}

/// A connection that was removed.
#[derive(Debug)]
pub(super) struct Removed {
    pub(super) user: UserId,
    /// Conversations that it listened to.
    pub(super) rooms: Vec<ConversationId>,
    /// True if it was the user's last connection on this node.
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

    /// Adds a connection. Silent ones give way if their user is at a cap.
    pub(super) fn register(&self, new: &Registration) -> Result<Registered, TooMany> {
        let state = &mut *self.state();
        let held = state.users.get_mut(&new.user).map_or(&mut [][..], |person| &mut person.connections);
        let gave_way = make_room(held, new, self.caps).ok_or(TooMany { retry_may_succeed: false })?;
        let person = state.users.entry(new.user.clone()).or_insert_with(|| LocalUser {
            name: new.name.clone(),
            connections: Vec::with_capacity(1),
            rooms: None,
            left: Box::default(),
            due: None,
            version: 0,
        });
        let first = person.connections.is_empty() && person.due.take().is_none();
        person.name = new.name.clone();
        person.connections.retain(|one| one.id != new.connection);
        person.connections.push(Held {
            id: new.connection,
            scope: new.scope.clone(),
            since: new.connected_at,
            dialect: new.dialect,
            silent_since: None,
            gave_way: false,
        });
        state.owners.insert(new.connection, new.user.clone());
        state.bump_version(&new.user);
        Ok(Registered { first, gave_way })
    }

    /// Records that a connection is silent, or no longer. Returns its user, unless it gave way to another one.
    pub(super) fn set_silent(&self, connection: ConnectionId, silent: bool) -> Option<UserId> {
        let state = &mut *self.state();
        let user = state.owners.get(&connection)?.clone();
        let held = state.users.get_mut(&user)?.connections.iter_mut().find(|one| one.id == connection)?;
        held.silent_since = silent.then(Instant::now);
        (!held.gave_way).then_some(user)
    }

    /// Records that connections gave way to another one on any node, or that they did not.
    pub(super) fn set_gave_way(&self, user: &UserId, connections: &[ConnectionId], gave_way: bool) {
        if connections.is_empty() {
            return;
        }
        let state = &mut *self.state();
        if let Some(person) = state.users.get_mut(user) {
            let affected = person.connections.iter_mut().filter(|one| connections.contains(&one.id));
            affected.for_each(|one| one.gave_way = gave_way);
            state.bump_version(user);
        }
    }

    /// Removes a connection and all its listening; `None` if this node does not hold it.
    pub(super) fn unregister(&self, connection: ConnectionId) -> Option<Removed> {
        let due = Instant::now() + self.grace;
        let state = &mut *self.state();
        let user = state.owners.remove(&connection)?;
        let person = state.users.get_mut(&user)?;
        person.connections.retain(|one| one.id != connection);
        let rooms =
            person.rooms.iter().flat_map(|rooms| rooms.iter()).filter(|(_, room)| room.listeners.contains(&connection));
        let rooms: Vec<_> = rooms.map(|(id, _)| id.clone()).collect();
        for id in &rooms {
            person.remove_listener(id, connection, due);
        }
        let last = person.connections.is_empty();
        person.due = last.then_some(due);
        state.due.push_back((due, user.clone()));
        state.bump_version(&user);
        Some(Removed { user, rooms, last })
    }

    /// Records that a connection listens to a conversation. Returns its user, and true if it is the user's first
    /// listener there as far as this node knows.
    pub(super) fn listen(&self, connection: ConnectionId, conversation: &ConversationId) -> Option<(UserId, bool)> {
        let state = &mut *self.state();
        let user = state.owners.get(&connection)?.clone();
        let room = state.users.get_mut(&user)?.rooms.get_or_insert_default().entry(conversation.clone()).or_default();
        let first = room.listeners.is_empty() && room.due.take().is_none();
        if !room.listeners.contains(&connection) {
            room.listeners.push(connection);
        }
        state.audiences.entry(conversation.clone()).or_default().insert(user.clone());
        state.bump_version(&user);
        Some((user, first))
    }

    /// Records that a connection no longer listens to a conversation. Returns its user; `None` if it did not listen.
    pub(super) fn unlisten(&self, connection: ConnectionId, conversation: &ConversationId) -> Option<UserId> {
        let due = Instant::now() + self.grace;
        let state = &mut *self.state();
        let user = state.owners.get(&connection)?.clone();
        if !state.users.get_mut(&user)?.remove_listener(conversation, connection, due) {
            return None;
        }
        state.due.push_back((due, user.clone()));
        state.bump_version(&user);
        Some(user)
    }

    /// Removes and returns the departures whose grace is over.
    pub(super) fn take_due_departures(&self, now: Instant) -> Vec<Departure> {
        let state = &mut *self.state();
        let mut departures = Vec::new();
        while state.due.front().is_some_and(|(due, _)| *due <= now) {
            let Some((_, user)) = state.due.pop_front() else { break };
            let Some(person) = state.users.get_mut(&user) else { continue };
            let offline = person.due.is_some_and(|due| due <= now);
            let is_over = |room: &Room| offline || room.due.is_some_and(|due| due <= now);
            let left = person.rooms.iter_mut().flat_map(|rooms| rooms.extract_if(|_, room| is_over(room)));
            let left: Vec<_> = left.map(|(id, _)| id).collect();
            person.rooms.take_if(|rooms| rooms.is_empty());
            let name = person.name.clone();
            let left_before = if offline {
                let gone = state.users.remove(&user);
                gone.map_or_else(Vec::new, |person| person.left.into_vec())
            } else {
                person.remember_left(&left);
                Vec::new()
            };
            for id in &left {
                state.remove_from_audience(id, &user);
            }
            if offline || !left.is_empty() {
                departures.push(Departure { user, name, left, left_before, offline, announced_here: false });
            }
        }
        departures
    }

    /// Those users who are online here and for whom `which` holds; during the grace a user still is.
    pub(super) fn online_users(&self, which: impl Fn(&UserId) -> bool) -> Vec<UserId> {
        self.state().users.keys().filter(|user| which(user)).cloned().collect()
    }

    /// A user's [`Share`]; `None` if the user has no connection here.
    pub(super) fn share(&self, user: &UserId) -> Option<Share> {
        let state = self.state();
        let person = state.users.get(user)?;
        let connections: Vec<_> = person.connections.iter().filter(|one| !one.gave_way).cloned().collect();
        if connections.is_empty() {
            return None;
        }
        let listened =
            person.rooms.iter().flat_map(|rooms| rooms.iter()).filter(|(_, room)| !room.listeners.is_empty());
        Some(Share {
            user: user.clone(),
            name: person.name.clone(),
            connections,
            rooms: listened.map(|(id, room)| (id.clone(), room.listeners.clone())).collect(),
            version: person.version,
        })
    }

    /// The version of a user's share, for detecting changes; `None` if the user has no connection here.
    pub(super) fn version(&self, user: &UserId) -> Option<u64> {
        self.state().users.get(user).filter(|person| !person.connections.is_empty()).map(|person| person.version)
    }

    /// Users with a connection here, in order of their ids, starting after `after`.
    pub(super) fn users_after(&self, after: Option<&UserId>, limit: usize) -> Vec<UserId> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let state = self.state();
        let users = state.users.range::<UserId, _>((from, Bound::Unbounded));
        users.filter(|(_, person)| !person.connections.is_empty()).take(limit).map(|(user, _)| user.clone()).collect()
    }

    /// True if a user is online here; during the grace a user still is.
    pub(super) fn online(&self, user: &UserId) -> bool {
        self.state().users.contains_key(user)
    }

    /// Number of users online here.
    pub(super) fn online_count(&self) -> u64 {
        self.state().users.len() as u64
    }

    /// A page of the users online here. The cursor is the number of users before the page.
    pub(super) fn online_page(&self, cursor: u64, limit: u32) -> (Vec<UserId>, u64) {
        let state = self.state();
        let skip = usize::try_from(cursor).unwrap_or(usize::MAX);
        let users: Vec<_> = state.users.keys().skip(skip).take(limit as usize).cloned().collect();
        let next = cursor.saturating_add(users.len() as u64);
        let more = next < state.users.len() as u64 && !users.is_empty();
        (users, if more { next } else { 0 })
    }

    /// Users on this node who listen to a conversation.
    pub(super) fn audience(&self, conversation: &ConversationId, limit: usize) -> Vec<UserId> {
        let state = self.state();
        state.audiences.get(conversation).map_or_else(Vec::new, |users| users.iter().take(limit).cloned().collect())
    }

    /// A user's connections here, without those that gave way.
    pub(super) fn connections_of(&self, user: &UserId) -> Vec<Held> {
        let state = self.state();
        let connections = state.users.get(user).map_or(&[][..], |person| &person.connections);
        connections.iter().filter(|one| !one.gave_way).cloned().collect()
    }

    /// True if a user has a connection here; there is no grace.
    pub(super) fn is_connected(&self, user: &UserId) -> bool {
        self.state().users.get(user).is_some_and(|person| !person.connections.is_empty())
    }

    /// Conversations that a user listens to here.
    pub(super) fn joined(&self, user: &UserId) -> Vec<ConversationId> {
        let rooms = |person: &LocalUser| Some(person.rooms.as_ref()?.keys().cloned().collect());
        self.state().users.get(user).and_then(rooms).unwrap_or_default()
    }

    /// Number of connections that this node holds.
    pub(super) fn connections(&self) -> usize {
        self.state().owners.len()
    }

    /// True if this node holds no connection.
    pub(super) fn is_empty(&self) -> bool {
        self.state().owners.is_empty()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets silent connections give way, the one first that has been silent for longest, until `new` keeps the caps. Returns
/// those that gave way; none if there is no room.
fn make_room(held: &mut [Held], new: &Registration, caps: Caps) -> Option<Vec<ConnectionId>> {
    let mut gave_way = Vec::new();
    loop {
        let counts = |one: &Held| one.id != new.connection && !one.gave_way;
        let same = held.iter().filter(|one| counts(one) && one.scope == new.scope).count();
        let same_is_full = same >= caps.connections as usize;
        if !same_is_full && held.iter().filter(|one| counts(one)).count() < caps.sockets as usize {
            return Some(gave_way);
        }
        let fits = |one: &&mut Held| counts(one) && (one.scope == new.scope || !same_is_full);
        let silent = held.iter_mut().filter(fits).filter(|one| one.silent_since.is_some());
        let Some(first) = silent.min_by_key(|one| one.silent_since) else {
            held.iter_mut().filter(|one| gave_way.contains(&one.id)).for_each(|one| one.gave_way = false);
            return None;
        };
        first.gave_way = true;
        gave_way.push(first.id);
    }
}

impl LocalUser {
    /// Records conversations that were left while the user stays online.
    fn remember_left(&mut self, left: &[ConversationId]) {
        if left.is_empty() {
            return;
        }
        let before = self.left.iter().filter(|known| !left.contains(known));
        let mut all: Vec<_> = before.chain(left).cloned().collect();
        all.drain(..all.len().saturating_sub(LEFT_MAX));
        self.left = all.into();
    }

    fn remove_listener(&mut self, conversation: &ConversationId, connection: ConnectionId, due: Instant) -> bool {
        let Some(room) = self.rooms.as_mut().and_then(|rooms| rooms.get_mut(conversation)) else { return false };
        let before = room.listeners.len();
        room.listeners.retain(|one| *one != connection);
        let removed = room.listeners.len() < before;
        if removed && room.listeners.is_empty() {
            room.due = Some(due);
        }
        removed
    }
}

impl State {
    /// Gives the user a new version. All versions come from one counter, so that a user who left and returned never
    /// gets an earlier version again.
    fn bump_version(&mut self, user: &UserId) {
        self.version += 1;
        if let Some(person) = self.users.get_mut(user) {
            person.version = self.version;
        }
    }

    fn remove_from_audience(&mut self, conversation: &ConversationId, user: &UserId) {
        if let Some(users) = self.audiences.get_mut(conversation) {
            users.remove(user);
            if users.is_empty() {
                self.audiences.remove(conversation);
            }
        }
    }
}
