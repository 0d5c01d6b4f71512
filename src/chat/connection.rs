//! A connection as commands use it: its user, its outbox, and the conversations that it listens to.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use tokio::{sync::oneshot, time::Instant};

use crate::{
    dialect::{AutoJoin, Dialect},
    model::{ConnectionId, ConversationId, Pair, Reject, Seq, Unread, UserId},
    outbox::{Frame, Outbox},
};

#[cfg(test)]
pub(super) mod fixture;
mod former;

use former::Former;

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    /// The queue of its outgoing frames.
    pub outbox: Arc<Outbox>,
    /// The user of the connection.
    pub user: UserId,
    /// The dialect of its frames.
    pub dialect: Dialect,
    /// The conversation in its route, if the route has one.
    pub bound: Option<ConversationId>,
    joined: Mutex<Joined>,
    /// The hub's past when the connection was registered. The seqs that its client has may be lost in another one.
    past: OnceLock<u64>,
    /// Number of replays under way, and since when there is one.
    replays: Mutex<(usize, Option<Instant>)>,
}

/// A replay under way.
#[derive(Debug)]
pub(super) struct Replaying<'a>(&'a Connection);

impl Drop for Replaying<'_> {
    fn drop(&mut self) {
        let mut replays = self.0.replays.lock().unwrap_or_else(PoisonError::into_inner);
        replays.0 = replays.0.saturating_sub(1);
        if replays.0 == 0 {
            replays.1 = None;
        }
    }
}

/// The conversations that a connection listens to.
#[derive(Debug, Default)]
struct Joined {
    joins: u64,
    current: HashMap<ConversationId, Join>,
    former: Former,
}

/// The cause of a join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JoinedBy {
    /// A command of the client, or the route.
    Client,
    /// The connection itself: the user was added, or the dialect joins it at the start, or a hint came.
    Itself {
        /// The hub's number of the last activity at that time.
        activity: u64,
    },
}

/// The manner of a join.
#[derive(Debug, Clone)]
pub(super) struct Joining {
    /// The members of a direct conversation, for a dialect that names them. The user is one of them.
    pub(super) pair: Option<Arc<Pair>>,
    /// Its cause.
    pub(super) by: JoinedBy,
    /// True if the client wants to be told who begins and stops to listen.
    pub(super) roster: bool,
    /// The head of a direct conversation as its caller read it: the hub may not have heard of the newest entries yet.
    pub(super) known_head: Seq,
}

impl Joining {
    /// A join that the client asked for.
    pub(super) fn asked_for(roster: bool) -> Self {
        Self { pair: None, by: JoinedBy::Client, roster, known_head: 0 }
    }

    /// A join by the connection itself. `activity` is the hub's number of the last activity.
    pub(super) fn by_itself(pair: Option<Arc<Pair>>, activity: u64) -> Self {
        Self { pair, by: JoinedBy::Itself { activity }, roster: false, known_head: 0 }
    }

    /// The same join of a direct conversation whose head is known to be `head` or higher.
    pub(super) fn knowing_head(self, head: Seq) -> Self {
        Self { known_head: head, ..self }
    }
}

/// A conversation that a connection listens to.
#[derive(Debug)]
struct Join {
    /// Number of this join among the connection's joins. A replay of an earlier join has no effect any more.
    join: u64,
    by: JoinedBy,
    progress: JoinProgress,
    /// The connection receives the entries after this seq; none before the hub has the listener.
    after: Option<Seq>,
    /// The members of a direct conversation, for a dialect that names them.
    pair: Option<Arc<Pair>>,
    live: Liveness,
}

/// The state of a join's replay.
#[derive(Debug)]
enum Liveness {
    /// The replay may still bring entries. Each waiter holds a receiver; its sender is dropped when the replay ends, and by a
    /// later join or a leave.
    Replaying(Vec<oneshot::Sender<()>>),
    /// The hub delivers everything that follows.
    Live,
}

/// The progress of a join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct JoinProgress {
    /// True once the hub has the listener.
    pub(super) attached: bool,
    /// The seq of the last entry that the connection received before it went live.
    pub(super) has: Seq,
    /// The hub's past when it was attached; in another one, the seq says nothing.
    pub(super) past: u64,
}

impl Connection {
    /// Creates a connection without joins.
    pub fn new(outbox: Arc<Outbox>, user: UserId, dialect: Dialect, bound: Option<ConversationId>) -> Self {
        outbox.belongs_to(user.clone());
        Self {
            outbox,
            user,
            dialect,
            bound,
            joined: Mutex::default(),
            past: OnceLock::new(),
            replays: Mutex::default(),
        }
    }

    /// The id of the connection.
    pub fn id(&self) -> ConnectionId {
        self.outbox.connection()
    }

    /// Records the hub's past at the time at which the connection is registered.
    pub(super) fn begin_in(&self, past: u64) {
        self.past.get_or_init(|| past);
    }

    /// True if a seq that the client names may be that of a lost entry, because the store was set back since the connection
    /// was registered. A later join of the same conversation, in this past of the hub, told the client where it stands.
    pub(super) fn may_name_lost(&self, conversation: &ConversationId, since: Option<Seq>, past: u64) -> bool {
        if since.is_none_or(|since| since == 0) {
            return false;
        }
        self.past.get().is_some_and(|begun| *begun != past) && !self.lock().former.has_joined_anew(conversation, past)
    }

    /// Records a replay until the returned value is dropped.
    pub(super) fn begin_replay(&self) -> Replaying<'_> {
        let mut replays = self.replays.lock().unwrap_or_else(PoisonError::into_inner);
        replays.0 += 1;
        replays.1.get_or_insert_with(Instant::now);
        Replaying(self)
    }

    /// Since when a replay is under way: what was stored since may not have been handed over; none without a replay.
    pub fn replays_since(&self) -> Option<Instant> {
        self.replays.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    /// Rejects a join by the client beyond `limit`. A join of a conversation that the client joined already is always
    /// allowed, and automatic joins don't count.
    pub(super) fn check_join_limit(&self, conversation: &ConversationId, limit: usize) -> Result<(), Reject> {
        let joined = self.lock();
        let others = joined.current.iter().filter(|(id, join)| join.by == JoinedBy::Client && *id != conversation);
        match others.count() < limit {
            true => Ok(()),
            false => Err(Reject::TooManyConversations),
        }
    }

    /// The number of conversations that the client may join in addition, of `limit` in all.
    pub(super) fn free_places(&self, limit: usize) -> usize {
        limit.saturating_sub(self.lock().current.values().filter(|join| join.by == JoinedBy::Client).count())
    }

    /// The automatic join that was active least recently, if there are `limit` of them without `conversation`.
    /// `activity_of` is the hub's number of a conversation's last activity.
    pub(super) fn least_active(
        &self,
        conversation: &ConversationId,
        limit: usize,
        activity_of: impl Fn(&ConversationId) -> u64,
    ) -> Option<ConversationId> {
        let joined = self.lock();
        let automatic = joined.current.iter().filter(|(id, _)| *id != conversation);
        let automatic: Vec<_> = automatic
            .filter_map(|(id, join)| match join.by {
                JoinedBy::Itself { activity } => Some((activity.max(activity_of(id)), join.join, id)),
                JoinedBy::Client => None,
            })
            .collect();
        if automatic.len() < limit {
            return None;
        }
        automatic.into_iter().min().map(|(.., id)| id.clone())
    }

    /// Gives up an automatic join, of which at most `limit` are remembered. Returns its progress.
    pub(super) fn drop_join(&self, conversation: &ConversationId, limit: usize) -> Option<JoinProgress> {
        let joined = &mut *self.lock();
        let dropped = joined.current.remove(conversation)?;
        joined.former.remember(conversation, (dropped.progress.has, dropped.progress.past), joined.joins, limit);
        Some(dropped.progress)
    }

    /// Records the seq of the last entry that the connection received of a join that was given up, and the hub's past; none
    /// if that is not known, so that the client must read the conversation anew.
    pub(super) fn record_dropped(&self, conversation: &ConversationId, has: Option<(Seq, u64)>) {
        let former = &mut self.lock().former;
        match has {
            Some(has) => {
                if let Some(dropped) = former.dropped_mut(conversation) {
                    (dropped.has, dropped.past) = has;
                }
            }
            None => former.forgot |= former.forget_dropped(conversation),
        }
    }

    /// Records an automatic join that was never made: the client has every entry up to this seq, in this past of the hub.
    pub(super) fn record_missed(&self, conversation: &ConversationId, since: (Seq, u64), limit: usize) {
        let joined = &mut *self.lock();
        if !joined.current.contains_key(conversation) && joined.former.dropped(conversation).is_none() {
            joined.former.remember(conversation, since, joined.joins, limit);
        }
    }

    /// The seq of the last entry that the connection received of a join that was given up in this past of the hub.
    pub(super) fn dropped_at(&self, conversation: &ConversationId, past: u64) -> Option<Seq> {
        self.lock().former.dropped(conversation).filter(|dropped| dropped.past == past).map(|dropped| dropped.has)
    }

    /// All joins that were given up, each with the seq of the last entry that the connection received.
    pub(super) fn dropped(&self) -> Vec<(ConversationId, Seq)> {
        self.lock().former.all_dropped().map(|(id, dropped)| (id.clone(), dropped.has)).collect()
    }

    /// Forgets a join that was given up, since the user left.
    pub(super) fn forget_dropped(&self, conversation: &ConversationId) {
        self.lock().former.forget_dropped(conversation);
    }

    /// True if the connection must join the conversation when it hears of a message there: it gave up an automatic join of
    /// it, or never made one.
    pub fn lacks(&self, conversation: &ConversationId) -> bool {
        let joined = self.lock();
        let lacks = match self.dialect.joins() {
            AutoJoin::Nothing => false,
            AutoJoin::Added => joined.former.forgot || joined.former.dropped(conversation).is_some(),
            AutoJoin::Directs => true,
        };
        lacks && !joined.current.contains_key(conversation)
    }

    /// Gives the client a hint of what is unread in a conversation to which it does not listen, if its dialect shows hints.
    /// Returns true if it got one.
    pub(super) fn hint_unless_joined(&self, unread: &Unread) -> bool {
        let mut shown = false;
        // A join that comes later drops a hint that waits.
        self.send_unless_joined(&unread.conversation, || {
            let frame = self.dialect.hint(unread);
            shown = frame.is_some();
            frame
        });
        shown
    }

    /// Sends a frame before those of any later join of this conversation; false, and nothing is sent, if the connection listens
    /// there.
    pub(super) fn send_unless_joined(
        &self,
        conversation: &ConversationId,
        frame: impl FnOnce() -> Option<Frame>,
    ) -> bool {
        let joined = self.lock();
        let alone = !joined.current.contains_key(conversation);
        if alone {
            // Under the lock: a join that comes now is answered later.
            self.outbox.send(frame());
        }
        alone
    }

    /// Records a join. Returns its number, and the progress of the earlier join of the same conversation, which this
    /// one replaces.
    pub(super) fn record_join(
        &self,
        conversation: &ConversationId,
        pair: Option<Arc<Pair>>,
        by: JoinedBy,
    ) -> (u64, Option<JoinProgress>) {
        let joined = &mut *self.lock();
        joined.joins += 1;
        // A conversation that the client joined stays its own.
        let by =
            joined.current.get(conversation).filter(|before| before.by == JoinedBy::Client).map_or(by, |own| own.by);
        let progress = JoinProgress { attached: false, has: 0, past: 0 };
        let current_join =
            Join { join: joined.joins, by, progress, after: None, pair, live: Liveness::Replaying(Vec::new()) };
        let before = joined.current.insert(conversation.clone(), current_join);
        self.outbox.drop_hint(conversation);
        (joined.joins, before.map(|before| before.progress))
    }

    /// Runs `act` for a join under the connection's lock, unless a later join or a leave has replaced it; none can do
    /// so meanwhile. `act` returns the seq up to which the connection then has every entry.
    pub(super) fn update_join(
        &self,
        conversation: &ConversationId,
        join: u64,
        act: impl FnOnce() -> Option<Seq>,
    ) -> Option<Seq> {
        let joined = &mut *self.lock();
        let current_join = joined.current.get_mut(conversation).filter(|current_join| current_join.join == join)?;
        let has = act()?;
        current_join.progress.has = has;
        Some(has)
    }

    /// Records that a join's replay ended, and that the hub delivers what follows.
    pub(super) fn record_live(&self, conversation: &ConversationId, join: u64) {
        if let Some(current_join) = self.lock().current.get_mut(conversation).filter(|one| one.join == join) {
            current_join.live = Liveness::Live;
        }
    }

    /// Waits until no replay brings the connection entries of this conversation any more. Returns at once without a join.
    pub(super) async fn live(&self, conversation: &ConversationId) {
        while let Some(end) = self.end_of_replay(conversation) {
            // The sender was dropped: the replay ended, or another join replaced this one.
            let _ended = end.await;
        }
    }

    /// The end of the replay of the current join, if one is under way.
    fn end_of_replay(&self, conversation: &ConversationId) -> Option<oneshot::Receiver<()>> {
        match &mut self.lock().current.get_mut(conversation)?.live {
            Liveness::Replaying(waiting) => {
                let (end, ended) = oneshot::channel();
                waiting.retain(|one| !one.is_closed());
                waiting.push(end);
                Some(ended)
            }
            Liveness::Live => None,
        }
    }

    /// Records that the hub has the listener, which has every entry up to `has` in this past of the hub.
    pub(super) fn record_attached(&self, conversation: &ConversationId, has: Seq, past: u64) {
        let joined = &mut *self.lock();
        if self.past.get().is_some_and(|begun| *begun != past) {
            joined.former.join_anew(conversation, past);
        }
        if let Some(current_join) = joined.current.get_mut(conversation) {
            current_join.progress = JoinProgress { attached: true, has, past };
            current_join.after = Some(has);
            joined.former.forget_dropped(conversation);
        }
    }

    /// True if the connection listens to the conversation, but only to entries after `seq`.
    pub(super) fn listens_only_after(&self, conversation: &ConversationId, seq: Seq) -> bool {
        let after = |joined: &Joined| joined.current.get(conversation)?.after;
        after(&self.lock()).is_some_and(|after| seq <= after)
    }

    /// The seq of the last entry that a replay is known to have given to the connection since it joined.
    pub(super) fn received(&self, conversation: &ConversationId) -> Option<Seq> {
        self.lock().current.get(conversation).map(|current_join| current_join.progress.has)
    }

    /// Records that the client left a conversation. At most `limit` of those that are [young](Self::is_to_join) are remembered.
    pub(super) fn record_left(&self, conversation: &ConversationId, limit: usize) {
        if self.is_older_than(conversation) {
            self.lock().former.leave(conversation, limit);
        }
    }

    /// True if the connection's inbox tells it, or has told it, of this direct conversation, which its dialect joins then, and
    /// the connection neither listens there, nor gave the join up, nor left: the join is on its way.
    pub(super) fn is_to_join(&self, conversation: &ConversationId) -> bool {
        let joined = self.lock();
        let Joined { former, current, .. } = &*joined;
        let gave_up = former.forgot || former.dropped(conversation).is_some();
        let is_absent = !gave_up && !current.contains_key(conversation) && !former.has_left(conversation);
        is_absent && self.dialect.joins() != AutoJoin::Nothing && self.is_older_than(conversation)
    }

    /// True if the conversation was created after the connection was opened.
    fn is_older_than(&self, conversation: &ConversationId) -> bool {
        conversation
            .generated_at()
            .is_some_and(|created| self.id().generated_at().is_some_and(|opened| created >= opened))
    }

    /// Removes the record of a join. Returns true if the hub has the listener, and none if there was no join.
    pub(super) fn remove_join(&self, conversation: &ConversationId) -> Option<bool> {
        self.lock().current.remove(conversation).map(|current_join| current_join.progress.attached)
    }

    /// True if the connection listens to the conversation.
    pub fn listens_to(&self, conversation: &ConversationId) -> bool {
        self.lock().current.contains_key(conversation)
    }

    /// The members of a direct conversation that the connection listens to, if its dialect names them.
    pub(super) fn pair(&self, conversation: &ConversationId) -> Option<Arc<Pair>> {
        self.lock().current.get(conversation)?.pair.clone()
    }

    /// All conversations that the connection listens to.
    pub fn joined(&self) -> Vec<ConversationId> {
        self.lock().current.keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Joined> {
        self.joined.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
