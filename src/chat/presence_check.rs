//! Comparison of the presence that listeners were told with the presence that is true.
//!
//! Other nodes tell comings and goings once, through Redis. While this node lacks Redis it hears none of them. Afterwards,
//! and once a minute, it compares for each conversation that it follows, and tells its listeners the difference.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, stream};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use super::{
    presence::arrival_events,
    present::PresentUsers,
    router::{Origin, Router},
    shown::Shown,
};
use crate::{
    backplane::{Backplane, Listeners},
    degrade::{Degrade, Feature, Mode},
    metrics::Metrics,
    model::{Clock, ConversationId, Ephemeral, EphemeralEvent, Event, LogId, Status, UserId},
    store::Store,
};

/// Interval between two comparisons without a reason. They find events that were lost on their way.
const EVERY: Duration = Duration::from_secs(60);
/// Time for which a difference must last until it is told. An event on its way arrives before.
const SETTLE: Duration = Duration::from_secs(1);
/// Pause between two looks whether every node has registered its users again, and whether the store is back.
const WAIT: Duration = Duration::from_millis(250);
/// Pause before a comparison that failed in part is repeated.
const RETRY: Duration = Duration::from_secs(1);
/// Conversations that are read alone, concurrently.
const AT_ONCE: usize = 8;
/// Conversations whose listeners are read together, and such groups that are read concurrently.
const GROUP: usize = 32;
const GROUPS_AT_ONCE: usize = 2;
/// Users whose statuses are read together.
const STATUSES: usize = 2_000;

/// Compares the shown presence with the registry.
pub(super) struct PresenceCheck {
    pub(super) present: Arc<PresentUsers>,
    pub(super) backplane: Arc<Backplane>,
    pub(super) store: Arc<dyn Store>,
    pub(super) router: Arc<Router>,
    pub(super) degrade: Arc<Degrade>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Clock,
}

/// The possible differences in one conversation.
struct Doubt {
    conversation: ConversationId,
    /// Users shown as present, with their status.
    shown: HashMap<UserId, Option<Status>>,
    /// Users whom the list of listeners has, and who are not shown.
    unseen: Vec<UserId>,
    /// True if the list lacks users who are shown.
    lacks: bool,
}

impl Doubt {
    /// True if other users may be present than those who are shown.
    fn is_of_users(&self) -> bool {
        self.lacks || !self.unseen.is_empty()
    }

    /// True if a user's status differs from the one that was shown.
    fn is_of_status(&self, statuses: &HashMap<UserId, Status>) -> bool {
        self.shown.iter().any(|(user, shown)| differs(*shown, status_of(statuses, user)))
    }
}

impl PresenceCheck {
    /// Compares until its task is stopped. `added` has the conversations that this node began to follow.
    pub(super) async fn run(&self, added: &mut mpsc::Receiver<ConversationId>) {
        tokio::join!(self.read_added(added), self.compare_when_asked(), self.shown().doubt_told_offline(SETTLE));
    }

    /// Reads who is present in conversations that this node began to follow, unless a greeting did.
    async fn read_added(&self, added: &mut mpsc::Receiver<ConversationId>) {
        let added = stream::poll_fn(|context| added.poll_recv(context));
        let read = async |conversation: ConversationId| self.present.read_first(&conversation).await;
        added.for_each_concurrent(AT_ONCE, read).await;
    }

    fn shown(&self) -> &Shown {
        &self.present.shown
    }

    async fn compare_when_asked(&self) {
        let mut next_at = Instant::now() + EVERY;
        loop {
            tokio::select! {
                // Nothing is asked for in an ordinary minute.
                () = sleep_until(next_at) => self.compare_until_done().await,
                () = self.present.comparison_asked() => self.compare_until_done().await,
                doubtful = self.shown().doubtful() => {
                    // What can't be compared now is compared with all the rest.
                    let _compared = self.compare(doubtful, self.backplane.registry_is_complete()).await;
                    continue;
                }
            }
            next_at = Instant::now() + EVERY;
        }
    }

    /// Compares every conversation, and again until the registry is complete and nothing lacked.
    async fn compare_until_done(&self) {
        loop {
            let complete = self.backplane.registry_is_complete();
            let compared = self.compare(self.shown().conversations(), complete).await;
            if complete && compared {
                break;
            }
            if complete {
                sleep(RETRY).await;
            }
            while !self.backplane.registry_is_complete() || self.lacks_store() {
                sleep(WAIT).await;
            }
        }
    }

    fn lacks_store(&self) -> bool {
        self.degrade.mode(Feature::History) == Mode::Refused
    }

    /// Compares conversations. Departures are told only if the registry is `complete`, and arrivals unless it may name users who
    /// left. Returns false if a difference could
    /// not be settled, for want of Redis or of the store.
    async fn compare(&self, conversations: Vec<ConversationId>, complete: bool) -> bool {
        #[cfg(feature = "faults")]
        if crate::faults::has(crate::faults::Fault::PresenceNotCompared) {
            return true;
        }
        if self.lacks_store() {
            return false;
        }
        let groups: Vec<_> = conversations.chunks(GROUP).map(<[_]>::to_vec).collect();
        let doubts = stream::iter(groups).map(|group| self.doubts(group, complete)).buffer_unordered(GROUPS_AT_ONCE);
        let doubts: Vec<Doubt> = doubts.concat().await;
        if doubts.is_empty() {
            return true;
        }
        sleep(SETTLE).await;
        let settled = stream::iter(doubts).map(|doubt| self.settle(doubt, complete)).buffer_unordered(AT_ONCE);
        settled.fold(true, async |all, settled| all && settled).await
    }

    /// Looks for possible differences in a group of conversations. Those that are returned must be
    /// [settled](Self::settle).
    async fn doubts(&self, group: Vec<ConversationId>, complete: bool) -> Vec<Doubt> {
        let begin = |conversation: ConversationId| {
            let shown = self.shown().begin_read(&conversation)?;
            Some((conversation, shown))
        };
        let (conversations, shown): (Vec<_>, Vec<_>) = group.into_iter().filter_map(begin).unzip();
        let listeners = self.backplane.audiences(&conversations).await;
        let mut found: Vec<Doubt> = Vec::with_capacity(conversations.len());
        for ((conversation, shown), Listeners { users, .. }) in conversations.into_iter().zip(shown).zip(listeners) {
            let present: HashSet<UserId> = users.into_iter().collect();
            let lacks = complete && shown.keys().any(|user| !present.contains(user));
            let mut unseen: Vec<_> = present.into_iter().filter(|user| !shown.contains_key(user)).collect();
            if !self.shown().has_room(shown.len()) || self.backplane.registry_may_be_old() {
                // Users who can't be kept would be told again in each comparison.
                unseen.clear();
            }
            found.push(Doubt { conversation, shown, unseen, lacks });
        }
        // The statuses of the others are read when they are settled.
        let of_same_users = found.iter().filter(|doubt| !doubt.is_of_users());
        let users: HashSet<UserId> = of_same_users.flat_map(|doubt| doubt.shown.keys().cloned()).collect();
        let statuses = self.statuses(&users.into_iter().collect::<Vec<_>>()).await;
        found.retain(|doubt| {
            let stays = doubt.is_of_users() || statuses.as_ref().is_none_or(|statuses| doubt.is_of_status(statuses));
            if !stays {
                self.shown().end_read(&doubt.conversation);
            }
            stays
        });
        found
    }

    /// Reads the truth about one conversation, and tells the difference to this node's listeners. Returns false if it can't
    /// be read.
    async fn settle(&self, doubt: Doubt, complete: bool) -> bool {
        let Doubt { conversation, shown, unseen, .. } = doubt;
        let users: Vec<UserId> = shown.keys().cloned().chain(unseen).collect();
        let listening = self.backplane.listening(&conversation, &users).await;
        let (online, statuses) = (self.backplane.online(&users).await, self.statuses(&users).await);
        let names = self.names(&users).await;
        let touched = self.shown().end_read(&conversation);
        let (Some(listening), Some(statuses)) = (listening, statuses) else { return false };
        let mut events = Vec::new();
        for ((user, listening), online) in users.into_iter().zip(listening).zip(online) {
            // Of users whose shard is down, nothing is known; all are compared again when it is back.
            let Some(listening) = listening.filter(|_| !touched.contains(&user)) else { continue };
            let (status, name) = (status_of(&statuses, &user), names.get(&user).cloned());
            let name = name.unwrap_or_else(|| user.as_str().into());
            let present = listening && status != Status::Invisible;
            match shown.get(&user) {
                None if present => events.extend(arrival_events(user, name, status)),
                Some(_) if !present && (complete || listening) => {
                    events.push(Ephemeral::Listening { user: user.clone(), name, active: false });
                    if !online || status == Status::Invisible {
                        events.push(Ephemeral::Presence { user, online: false, status: Status::Online });
                    }
                }
                Some(shown) if present && differs(*shown, status) => {
                    events.push(Ephemeral::Presence { user, online: true, status });
                }
                None | Some(_) => {}
            }
        }
        self.tell(&conversation, events);
        true
    }

    /// Tells listeners on this node, as if another node had told it.
    fn tell(&self, conversation: &ConversationId, events: Vec<Ephemeral>) {
        self.metrics.presence_corrected.inc_by(events.len() as u64);
        let (log, at) = (LogId::from(conversation), self.clock.now());
        let event = |what| Event::Ephemeral {
            ephemeral: Arc::new(EphemeralEvent { log: log.clone(), at, what }),
            origin: None,
        };
        self.router.dispatch(events.into_iter().map(event).collect(), Origin::Remote);
    }

    /// The statuses of users who have one; `None` if the store is unavailable.
    async fn statuses(&self, users: &[UserId]) -> Option<HashMap<UserId, Status>> {
        let mut all = HashMap::with_capacity(users.len());
        for some in users.chunks(STATUSES) {
            let statuses = self.store.statuses(some).await.ok()?;
            all.extend(statuses.into_iter().map(|(user, status, _)| (user, status)));
        }
        Some(all)
    }

    async fn names(&self, users: &[UserId]) -> HashMap<UserId, Arc<str>> {
        self.store.names(users).await.unwrap_or_default().into_iter().collect()
    }
}

fn status_of(statuses: &HashMap<UserId, Status>, user: &UserId) -> Status {
    statuses.get(user).copied().unwrap_or_default()
}

/// True if listeners must be told `status`. Users whose status was never told are shown with the default.
fn differs(shown: Option<Status>, status: Status) -> bool {
    shown.unwrap_or_default() != status
}
