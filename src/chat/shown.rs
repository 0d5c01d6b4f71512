//! The presence of other users as this node's listeners were told it, for each conversation that the node follows.
//! Events of presence are ephemeral: one that is lost is never sent again. The
//! [comparison](super::presence_check::PresenceCheck) of this state with the registry finds what the listeners lack.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::mpsc, time::Instant};

use crate::{
    metrics::Metrics,
    model::{ConversationId, Ephemeral, Event, LogId, Status, UserId},
};

/// Maximum number of users that are kept for one conversation. No client can show more, and a roster names at most as many.
const USERS_MAX: usize = 1_000;
/// Maximum number of users that are kept for all conversations together.
const TOTAL_MAX: usize = 1_000_000;
/// Maximum number of conversations that wait to be read for the first time.
const NEW_MAX: usize = 10_000;

/// Time for which a departure that a comparison told is not told again. Another node may tell it as well: at the latest
/// one lease after it reached Redis again.
const TOLD_FOR: Duration = Duration::from_secs(60);

/// The presence of one conversation's listeners.
#[derive(Debug, Default)]
struct Room {
    /// Users shown as present, with the status that was shown; `None` if it is not known.
    users: HashMap<UserId, Option<Status>>,
    /// Users with an event since [`Shown::begin_read`]; `None` while nothing is read.
    touched: Option<HashSet<UserId>>,
    /// Users whose departure a comparison told, with the time until which it is not told again.
    told: HashMap<UserId, Instant>,
}

/// The shown presence of all conversations.
pub(super) struct Shown {
    rooms: Mutex<HashMap<ConversationId, Room>>,
    metrics: Arc<Metrics>,
    new: mpsc::Sender<ConversationId>,
}

impl Shown {
    /// The receiver gets each conversation whose listeners must be read from the registry.
    pub(super) fn new(metrics: Arc<Metrics>) -> (Self, mpsc::Receiver<ConversationId>) {
        let (new, added) = mpsc::channel(NEW_MAX);
        (Self { rooms: Mutex::default(), metrics, new }, added)
    }

    /// Begins to keep the presence of a conversation that this node follows from now on.
    pub(super) fn follow(&self, log: &LogId) {
        let Some(conversation) = log.conversation() else { return };
        self.rooms().insert(conversation.clone(), Room { touched: Some(HashSet::new()), ..Room::default() });
        if self.new.try_send(conversation.clone()).is_err() {
            // Differences are then found for those users only whose events pass by.
            self.end_read(&conversation);
        }
    }

    /// Forgets a conversation that this node no longer follows.
    pub(super) fn unfollow(&self, log: &LogId) {
        let Some(conversation) = log.conversation() else { return };
        if let Some(room) = self.rooms().remove(&conversation) {
            self.count(room.users.len(), 0);
        }
    }

    /// The users whom the listeners of a conversation were shown as present.
    pub(super) fn present(&self, conversation: &ConversationId) -> Vec<UserId> {
        self.rooms().get(conversation).map(|room| room.users.keys().cloned().collect()).unwrap_or_default()
    }

    /// Records users whose departure a comparison is about to tell.
    pub(super) fn departed(&self, conversation: &ConversationId, users: impl Iterator<Item = UserId>) {
        let now = Instant::now();
        if let Some(room) = self.rooms().get_mut(conversation) {
            room.told.retain(|_, until| *until > now);
            room.told.extend(users.map(|user| (user, now + TOLD_FOR)));
        }
    }

    /// True for an event that tells a departure which a comparison told before.
    pub(super) fn is_told(&self, event: &Event) -> bool {
        let Event::Ephemeral { ephemeral, .. } = event else { return false };
        let user = match &ephemeral.what {
            Ephemeral::Listening { user, active: false, .. } | Ephemeral::Presence { user, online: false, .. } => user,
            _ => return false,
        };
        let Some(conversation) = ephemeral.log.conversation() else { return false };
        let rooms = self.rooms();
        let until = rooms.get(&conversation).and_then(|room| room.told.get(user));
        until.is_some_and(|until| *until > Instant::now())
    }

    /// Records events before listeners receive them.
    pub(super) fn observe(&self, events: &[Event]) {
        let presence = events.iter().filter_map(|event| match event {
            Event::Ephemeral { ephemeral, .. } => Some(&**ephemeral),
            Event::Entry { .. } => None,
        });
        for event in presence {
            match &event.what {
                Ephemeral::Listening { user, active, .. } => self.record(&event.log, user, |room| match active {
                    true => {
                        room.told.remove(user);
                        room.users.entry(user.clone()).or_default();
                    }
                    false => {
                        room.users.remove(user);
                    }
                }),
                Ephemeral::Presence { user, online: true, status } => self.record(&event.log, user, |room| {
                    room.users.entry(user.clone()).and_modify(|shown| *shown = Some(*status));
                }),
                Ephemeral::Presence { online: false, .. }
                | Ephemeral::Typing { .. }
                | Ephemeral::Audience { .. }
                | Ephemeral::Probe { .. }
                | Ephemeral::Custom { .. }
                | Ephemeral::Receipt { .. } => {}
            }
        }
    }

    fn record(&self, log: &LogId, user: &UserId, change: impl FnOnce(&mut Room)) {
        let Some(conversation) = log.conversation() else { return };
        let mut rooms = self.rooms();
        let Some(room) = rooms.get_mut(&conversation) else { return };
        if let Some(touched) = &mut room.touched {
            touched.insert(user.clone());
        }
        let before = room.users.len();
        let known = room.users.contains_key(user);
        if known || self.has_room(before) {
            change(room);
        }
        let after = room.users.len();
        drop(rooms);
        self.count(before, after);
    }

    /// All conversations whose presence is kept.
    pub(super) fn conversations(&self) -> Vec<ConversationId> {
        self.rooms().keys().cloned().collect()
    }

    /// Begins to compare a conversation: returns the users shown as present, and marks from now on who has an event. `None`
    /// if the conversation is no longer followed, or is read already.
    pub(super) fn begin_read(&self, conversation: &ConversationId) -> Option<HashMap<UserId, Option<Status>>> {
        let mut rooms = self.rooms();
        let room = rooms.get_mut(conversation).filter(|room| room.touched.is_none())?;
        room.touched = Some(HashSet::new());
        Some(room.users.clone())
    }

    /// Ends what [`Self::begin_read`] or [`Self::follow`] began. Returns the users who had an event meanwhile: what was
    /// read about them may be older than the event.
    pub(super) fn end_read(&self, conversation: &ConversationId) -> HashSet<UserId> {
        let touched = self.rooms().get_mut(conversation).and_then(|room| room.touched.take());
        touched.unwrap_or_default()
    }

    /// Those of `users` who had no event since the read of the conversation began.
    pub(super) fn without_event(&self, conversation: &ConversationId, mut users: Vec<UserId>) -> Vec<UserId> {
        if let Some(touched) = self.rooms().get(conversation).and_then(|room| room.touched.as_ref()) {
            users.retain(|user| !touched.contains(user));
        }
        users
    }

    /// Adds the users who were present when this node began to follow the conversation.
    pub(super) fn add_present(&self, conversation: &ConversationId, present: Vec<UserId>) {
        let touched = self.end_read(conversation);
        let mut rooms = self.rooms();
        let Some(room) = rooms.get_mut(conversation) else { return };
        let before = room.users.len();
        for user in present.into_iter().filter(|user| !touched.contains(user)) {
            if self.has_room(room.users.len()) {
                room.users.entry(user).or_default();
            }
        }
        let after = room.users.len();
        drop(rooms);
        self.count(before, after);
    }

    /// True if one more user can be kept for a conversation for which `users` are kept.
    pub(super) fn has_room(&self, users: usize) -> bool {
        users < USERS_MAX && usize::try_from(self.metrics.presence_shown.get()).unwrap_or(0) < TOTAL_MAX
    }

    fn count(&self, before: usize, after: usize) {
        let change = i64::try_from(after).unwrap_or(0) - i64::try_from(before).unwrap_or(0);
        if change != 0 {
            self.metrics.presence_shown.add(change);
        }
    }

    fn rooms(&self) -> MutexGuard<'_, HashMap<ConversationId, Room>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
