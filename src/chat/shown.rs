//! The presence of other users as this node's listeners are told it, for each conversation that the node follows. Every
//! list, event and answer about a conversation's listeners comes from here, so all listeners on a node are told the same.
//!
//! Events of presence are ephemeral: one that is lost is never sent again. The
//! [comparison](super::presence_check::PresenceCheck) of this state with the registry finds what the listeners lack.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

use crate::{
    metrics::Metrics,
    model::{ConversationId, Ephemeral, Event, LogId, Status, Timestamp, UserId},
};

#[cfg(test)]
mod tests;
mod told_offline;

use told_offline::ToldOffline;

/// Maximum number of users that are kept for one conversation. No client can show more, and a roster names at most as many.
const USERS_MAX: usize = 1_000;
/// Maximum number of users that are kept for all conversations together.
const TOTAL_MAX: usize = 1_000_000;
/// Maximum number of conversations that wait to be read for the first time.
const NEW_MAX: usize = 10_000;
/// Maximum number of conversations that wait to be compared because of a doubt. Others are compared with all the rest.
const DOUBTFUL_MAX: usize = 1_000;

/// Maximum number of departures that are remembered for one conversation, so that they are told once.
const TOLD_MAX: usize = 1_000;

/// Time for which a departure that was told is not told again. Another node may tell it as well: after a comparison at the
/// latest one lease after that node reached Redis again, or anew after Redis was set back to data from before the departure.
const TOLD_FOR: Duration = Duration::from_secs(60);

/// A user who is shown as present.
#[derive(Debug)]
struct ShownUser {
    /// The status that was shown; `None` if it is not known.
    status: Option<Status>,
    /// Time at which this node was last told that the user arrived, or found the user to be there.
    since: Instant,
    /// Time of that arrival by the clock of the node that told it; `None` if the user was there before.
    at: Option<Timestamp>,
}

impl ShownUser {
    /// True if a departure that is told now can't be the user's next one: between an arrival and a departure lies at least the
    /// grace. The departure may have waited for Redis, so the clocks of the nodes that told the two count as well.
    fn came_after(&self, departure: Timestamp, grace: Duration) -> bool {
        self.since.elapsed() < grace || self.at.is_some_and(|at| departure.since(at) < grace)
    }
}

/// A departure that listeners were told.
#[derive(Debug, Clone, Copy)]
struct ToldGone {
    /// True if the user was told to be offline, not only to listen no longer.
    offline: bool,
    /// Time until which it is not told again.
    until: Instant,
}

/// The presence of one conversation's listeners.
#[derive(Debug, Default)]
struct Room {
    /// Tells this follow of the conversation from earlier ones.
    number: u64,
    /// Users shown as present.
    users: HashMap<UserId, ShownUser>,
    /// Users whose sockets on this node are about to listen, with the number of these sockets.
    arriving: HashMap<UserId, usize>,
    /// Users with an event since [`Shown::begin_read`]; `None` while nothing is read.
    touched: Option<HashSet<UserId>>,
    /// True until the users who were present when this node began to follow the conversation are added.
    unread: bool,
    /// True if users are missing for want of room.
    partial: bool,
    /// Users whose departure was told and who did not arrive since; at most [`TOLD_MAX`].
    told: HashMap<UserId, ToldGone>,
}

#[derive(Debug, Default)]
struct State {
    rooms: HashMap<ConversationId, Room>,
    /// For each user who is shown as present, the number of conversations.
    places: HashMap<UserId, usize>,
    /// Number of follows so far.
    follows: u64,
    /// Conversations to compare with the registry.
    doubtful: HashSet<ConversationId>,
    told_offline: ToldOffline,
}

/// The shown presence of all conversations.
pub(super) struct Shown {
    state: Mutex<State>,
    metrics: Arc<Metrics>,
    new: mpsc::Sender<ConversationId>,
    /// Time from the end of a user's listening until it is told.
    grace: Duration,
    doubted: Notify,
    offline_told: Notify,
}

/// The users whom a conversation's listeners are shown as present.
pub(super) struct Present {
    pub(super) users: Vec<UserId>,
    /// True if users are missing for want of room.
    pub(super) partial: bool,
}

/// A user whose socket is about to listen: until this is dropped, lists name the user.
pub(super) struct Arriving {
    shown: Arc<Shown>,
    conversation: ConversationId,
    user: UserId,
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let mut state = self.shown.state();
        let Some(room) = state.rooms.get_mut(&self.conversation) else { return };
        if let Some(sockets) = room.arriving.get_mut(&self.user) {
            *sockets -= 1;
            if *sockets == 0 {
                room.arriving.remove(&self.user);
            }
        }
    }
}

impl Shown {
    /// The receiver gets each conversation whose listeners must be read from the registry. `grace` is the time from the end
    /// of a user's listening until it is told.
    pub(super) fn new(grace: Duration, metrics: Arc<Metrics>) -> (Self, mpsc::Receiver<ConversationId>) {
        let (new, added) = mpsc::channel(NEW_MAX);
        (
            Self { state: Mutex::default(), metrics, new, grace, doubted: Notify::new(), offline_told: Notify::new() },
            added,
        )
    }

    /// Begins to keep the presence of a conversation that this node follows from now on.
    pub(super) fn follow(&self, log: &LogId) {
        let Some(conversation) = log.conversation() else { return };
        let mut state = self.state();
        state.follows += 1;
        let mut room = Room { number: state.follows, touched: Some(HashSet::new()), unread: true, ..Room::default() };
        if self.new.try_send(conversation.clone()).is_err() {
            // The next comparison adds the users who are present.
            (room.touched, room.unread, room.partial) = (None, false, true);
        }
        self.replace(&mut state, &conversation, Some(room));
    }

    /// Forgets a conversation that this node no longer follows.
    pub(super) fn unfollow(&self, log: &LogId) {
        let Some(conversation) = log.conversation() else { return };
        self.replace(&mut self.state(), &conversation, None);
    }

    fn replace(&self, state: &mut State, conversation: &ConversationId, room: Option<Room>) {
        let before = match room {
            Some(room) => state.rooms.insert(conversation.clone(), room),
            None => state.rooms.remove(conversation),
        };
        let users = before.map(|room| room.users).unwrap_or_default();
        users.keys().for_each(|user| self.count_gone(&mut state.places, user));
    }

    /// The users whom the listeners of a conversation are shown as present.
    pub(super) fn present(&self, conversation: &ConversationId) -> Present {
        let state = self.state();
        let Some(room) = state.rooms.get(conversation) else { return Present { users: Vec::new(), partial: false } };
        let arriving = room.arriving.keys().filter(|user| !room.users.contains_key(user));
        Present { users: room.users.keys().chain(arriving).cloned().collect(), partial: room.partial }
    }

    /// True if a user is shown as present in any conversation that this node follows.
    pub(super) fn is_shown(&self, user: &UserId) -> bool {
        self.state().places.contains_key(user)
    }

    /// Lets lists name a user whose socket is about to listen: one that is made before the user's arrival is told, and
    /// that the socket gets after its greeting, would lack its own user.
    pub(super) fn expect(self: &Arc<Self>, conversation: &ConversationId, user: &UserId) -> Arriving {
        if let Some(room) = self.state().rooms.get_mut(conversation) {
            *room.arriving.entry(user.clone()).or_default() += 1;
        }
        Arriving { shown: self.clone(), conversation: conversation.clone(), user: user.clone() }
    }

    /// Decides whether listeners are told an event: not if it is a departure that they were told, and the user did not arrive
    /// since. Each event is asked about once, in the order of its delivery.
    pub(super) fn tells(&self, event: &Event) -> bool {
        let Event::Ephemeral { ephemeral, .. } = event else { return true };
        let (user, change) = match &ephemeral.what {
            Ephemeral::Listening { user, active: true, .. } => (user, None),
            Ephemeral::Listening { user, active: false, .. } => (user, Some(false)),
            Ephemeral::Presence { user, online: false, .. } => (user, Some(true)),
            _ => return true,
        };
        let Some(conversation) = ephemeral.log.conversation() else { return true };
        let mut state = self.state();
        let Some(room) = state.rooms.get_mut(&conversation) else { return true };
        match change {
            None => {
                room.told.remove(user);
                true
            }
            Some(offline) => room.tells_gone(user, offline),
        }
    }

    /// Records events before listeners receive them.
    pub(super) fn observe(&self, events: &[Event]) {
        let presence = events.iter().filter_map(|event| match event {
            Event::Ephemeral { ephemeral, .. } => Some(&**ephemeral),
            Event::Entry { .. } => None,
        });
        for event in presence {
            let Some(conversation) = event.log.conversation() else { continue };
            match &event.what {
                Ephemeral::Listening { user, active, .. } => self.record(&conversation, user, *active, event.at),
                Ephemeral::Presence { user, online: true, status } => self.record_status(&conversation, user, *status),
                Ephemeral::Presence { user, online: false, .. } => self.record_offline(user),
                Ephemeral::Typing { .. }
                | Ephemeral::Audience { .. }
                | Ephemeral::Probe { .. }
                | Ephemeral::Custom { .. }
                | Ephemeral::Receipt { .. } => {}
            }
        }
    }

    fn record(&self, conversation: &ConversationId, user: &UserId, active: bool, at: Timestamp) {
        let State { rooms, places, doubtful, .. } = &mut *self.state();
        let Some(room) = rooms.get_mut(conversation) else { return };
        room.touch(user);
        if active {
            self.add(room, places, user.clone());
            if let Some(shown) = room.users.get_mut(user) {
                // The user may have left without a word of it so far.
                (shown.since, shown.at) = (Instant::now(), Some(at));
            }
        } else if let Some(gone) = room.users.remove(user) {
            self.count_gone(places, user);
            if gone.came_after(at, self.grace) && doubtful.len() < DOUBTFUL_MAX {
                doubtful.insert(conversation.clone());
                self.doubted.notify_one();
            }
        }
    }

    /// Waits for conversations to compare with the registry, because events may have come in another order than they
    /// happened, and returns them. Cancel-safe.
    pub(super) async fn doubtful(&self) -> Vec<ConversationId> {
        loop {
            let doubtful = std::mem::take(&mut self.state().doubtful);
            if !doubtful.is_empty() {
                return doubtful.into_iter().collect();
            }
            self.doubted.notified().await;
        }
    }

    fn record_status(&self, conversation: &ConversationId, user: &UserId, status: Status) {
        let mut state = self.state();
        let Some(room) = state.rooms.get_mut(conversation) else { return };
        room.touch(user);
        if let Some(shown) = room.users.get_mut(user) {
            shown.status = Some(status);
        }
    }

    fn record_offline(&self, user: &UserId) {
        let State { places, told_offline, .. } = &mut *self.state();
        if places.contains_key(user) {
            told_offline.add(user, &self.offline_told);
        }
    }

    /// Looks for users who were told to be offline in one conversation and are still shown as present in another, each time
    /// after `settle`, and asks for a comparison. Runs until its task is stopped.
    pub(super) async fn doubt_told_offline(&self, settle: Duration) {
        loop {
            if self.state().told_offline.is_empty() {
                self.offline_told.notified().await;
            }
            tokio::time::sleep(settle).await;
            if self.state().doubt_told_offline() {
                self.doubted.notify_one();
            }
        }
    }

    /// All conversations whose presence is kept.
    pub(super) fn conversations(&self) -> Vec<ConversationId> {
        self.state().rooms.keys().cloned().collect()
    }

    /// Begins to compare a conversation: returns the users shown as present, and marks from now on who has an event. `None`
    /// if the conversation is no longer followed, or is read already.
    pub(super) fn begin_read(&self, conversation: &ConversationId) -> Option<HashMap<UserId, Option<Status>>> {
        let mut state = self.state();
        let room = state.rooms.get_mut(conversation).filter(|room| room.touched.is_none())?;
        room.touched = Some(HashSet::new());
        room.forget_told();
        Some(room.users.iter().map(|(user, shown)| (user.clone(), shown.status)).collect())
    }

    /// Ends what [`Self::begin_read`] began. Returns the users who had an event meanwhile: what was read about them may be
    /// older than the event.
    pub(super) fn end_read(&self, conversation: &ConversationId) -> HashSet<UserId> {
        let touched = self.state().rooms.get_mut(conversation).and_then(|room| room.touched.take());
        touched.unwrap_or_default()
    }

    /// The number of a conversation's follow, if the users who were present at its beginning are not added yet.
    pub(super) fn unread(&self, conversation: &ConversationId) -> Option<u64> {
        self.state().rooms.get(conversation).filter(|room| room.unread).map(|room| room.number)
    }

    /// Those of `users` who had no event since the read of the conversation began.
    pub(super) fn without_event(&self, conversation: &ConversationId, mut users: Vec<UserId>) -> Vec<UserId> {
        if let Some(touched) = self.state().rooms.get(conversation).and_then(|room| room.touched.as_ref()) {
            users.retain(|user| !touched.contains(user));
        }
        users
    }

    /// Adds the users who were present at the beginning of a follow, unless that was done.
    pub(super) fn add_present(&self, conversation: &ConversationId, follow: u64, present: Vec<UserId>) {
        let State { rooms, places, .. } = &mut *self.state();
        let Some(room) = rooms.get_mut(conversation).filter(|room| room.unread && room.number == follow) else {
            return;
        };
        room.unread = false;
        let touched = room.touched.take().unwrap_or_default();
        for user in present.into_iter().filter(|user| !touched.contains(user)) {
            self.add(room, places, user);
        }
    }

    /// True if one more user can be kept for a conversation for which `users` are kept.
    pub(super) fn has_room(&self, users: usize) -> bool {
        users < USERS_MAX && usize::try_from(self.metrics.presence_shown.get()).unwrap_or(0) < TOTAL_MAX
    }

    fn add(&self, room: &mut Room, places: &mut HashMap<UserId, usize>, user: UserId) {
        if room.users.contains_key(&user) {
            return;
        }
        if !self.has_room(room.users.len()) {
            room.partial = true;
            return;
        }
        *places.entry(user.clone()).or_default() += 1;
        room.users.insert(user, ShownUser { status: None, since: Instant::now(), at: None });
        self.metrics.presence_shown.inc();
    }

    /// Counts a user who was removed from a conversation.
    fn count_gone(&self, places: &mut HashMap<UserId, usize>, user: &UserId) {
        self.metrics.presence_shown.dec();
        if let Some(count) = places.get_mut(user) {
            *count -= 1;
            if *count == 0 {
                places.remove(user);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Looks at the users who were told before the last look. Where one is still shown as present, its shown status becomes
    /// [`Status::Invisible`], which listeners can't tell from being offline: the comparison of the conversation, which this
    /// asks for, then tells that the user is online. Returns true if it asks for one.
    fn doubt_told_offline(&mut self) -> bool {
        let mut users = self.told_offline.next();
        users.retain(|user| self.places.contains_key(user));
        if users.is_empty() {
            return false;
        }
        let mut doubts = false;
        for (conversation, room) in &mut self.rooms {
            for (user, shown) in &mut room.users {
                if users.contains(user) {
                    shown.status = Some(Status::Invisible);
                    if self.doubtful.len() < DOUBTFUL_MAX {
                        doubts |= self.doubtful.insert(conversation.clone());
                    }
                }
            }
        }
        doubts
    }
}

impl Room {
    /// Records that a user left, or is `offline`; false if that was told before.
    fn tells_gone(&mut self, user: &UserId, offline: bool) -> bool {
        let now = Instant::now();
        let known = self.told.get(user).filter(|told| told.until > now).map(|told| told.offline);
        if known.is_some_and(|known| known || !offline) {
            return false;
        }
        if self.told.len() >= TOLD_MAX {
            self.forget_told();
        }
        if self.told.len() < TOLD_MAX || known.is_some() {
            self.told.insert(user.clone(), ToldGone { offline, until: now + TOLD_FOR });
        }
        true
    }

    fn forget_told(&mut self) {
        let now = Instant::now();
        self.told.retain(|_, told| told.until > now);
    }

    /// Marks a user who has an event while the room is read.
    fn touch(&mut self, user: &UserId) {
        if let Some(touched) = &mut self.touched {
            touched.insert(user.clone());
        }
    }
}
