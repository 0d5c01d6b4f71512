//! Hints: a socket learns of new messages in conversations to which it doesn't listen. Native sockets get a frame with
//! the conversation's head and what is unread. A socket that gave up automatic joins for room joins again.
//!
//! The node that stores messages goes through the members of their conversation, one page per round ([`grown`]), and
//! passes hints to the nodes with connections of these members. Each node tells its own sockets what the store says then
//! ([`waiting`]): only members get it, and of several messages only the newest state is told. Without Redis, the relay
//! through the store says which conversations grew, and every node goes through the members for its own sockets.
//!
//! A hint may be lost. The next message brings another; given-up joins are also compared with the store: rarely, and every
//! second while nodes relay through the store.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

use super::connection::Connection;
use crate::{
    backplane::{Backplane, Hint},
    degrade::Degrade,
    dialect::AutoJoin,
    metrics::Metrics,
    model::{ConversationId, LogId, Seq, UserId},
    outbox::Signal,
    store::{Store, StoreError},
};

pub(super) mod grown;
mod sockets;
mod waiting;

use grown::{Grown, Pass};
use sockets::HintedSockets;
use waiting::Waiting;

/// Minimum interval between the starts of two rounds of pages.
const ROUND: Duration = Duration::from_millis(500);
/// Members on one page of a conversation, and conversations that one statement reads.
const MEMBERS_PER_PAGE: u32 = 500;
const CONVERSATIONS_PER_READ: usize = 50;
/// Minimum interval between two reads of what is unread for the sockets of this node.
const TELL_INTERVAL: Duration = Duration::from_millis(100);
/// Members per read of what is unread.
const TOLD_PER_READ: usize = 500;
/// Pause after a failed read.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Interval at which given-up joins are compared with the store.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// The same interval while nodes relay through the store.
const RELAYED_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Logs per comparison.
const LOGS_PER_READ: usize = 500;

/// Sends hints, tells them to this node's sockets, and finds those of given-up joins that were lost.
pub(super) struct Hints {
    store: Arc<dyn Store>,
    backplane: Arc<Backplane>,
    degrade: Arc<Degrade>,
    metrics: Arc<Metrics>,
    /// Conversations that a socket joins by itself at most.
    limit: usize,
    grown: Arc<Grown>,
    sockets: HintedSockets,
    waiting: Waiting,
    check: Notify,
}

impl Hints {
    pub(super) fn new(
        (store, backplane): (Arc<dyn Store>, Arc<Backplane>),
        degrade: Arc<Degrade>,
        metrics: Arc<Metrics>,
        limit: usize,
        grown: Arc<Grown>,
    ) -> Self {
        let (sockets, waiting) = (HintedSockets::new(metrics.clone()), Waiting::new(metrics.clone()));
        Self { store, backplane, degrade, metrics, limit, grown, sockets, waiting, check: Notify::new() }
    }

    /// Begins to give hints to a registered connection. Every message that is stored from now on in a conversation of its
    /// user causes one.
    pub(super) fn add(&self, connection: &Arc<Connection>) {
        self.sockets.add(connection);
    }

    /// Ends the hints to a connection that is closed.
    pub(super) fn forget(&self, connection: &Connection) {
        self.sockets.remove(&connection.user, connection.id());
    }

    /// Requests a comparison with the store, because hints may have been lost.
    pub(super) fn check_soon(&self) {
        self.check.notify_one();
    }

    /// Accepts hints for users of this node.
    pub(super) fn receive(&self, hints: Vec<Hint>) {
        for Hint { conversation, users } in hints {
            let here = users.into_iter().filter(|user| self.sockets.has(user));
            self.waiting.add(here.map(|user| (conversation.clone(), user)));
        }
    }

    /// Accepts the heads of logs that nodes announced through the store.
    pub(super) fn relayed(&self, heads: &[(LogId, Seq)]) {
        self.grown.relayed(heads);
    }

    /// Forgets the announced heads, whose seqs the store assigns again.
    pub(super) fn forget_announced(&self) {
        self.grown.forget_announced();
    }

    /// Sends, tells and compares until its task is stopped.
    pub(super) async fn run(self: Arc<Self>) {
        tokio::join!(self.send_rounds(), self.tell_rounds(), self.compare_rounds());
    }

    /// Goes through the members of conversations with new messages, in each round one page of each.
    async fn send_rounds(&self) {
        let mut rounds = interval(ROUND);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let passes = self.grown.next_round(&mut rounds).await;
            for passes in passes.chunks(CONVERSATIONS_PER_READ) {
                if let Err(error) = self.send_pages(passes).await {
                    tracing::debug!(%error, "members were not hinted of new messages; retrying");
                    sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    /// Sends hints to one page of members of each conversation.
    async fn send_pages(&self, passes: &[Pass]) -> Result<(), StoreError> {
        let pages: Vec<_> = passes.iter().map(|pass| (pass.conversation.clone(), pass.after.clone())).collect();
        let mut members: HashMap<ConversationId, Vec<UserId>> = HashMap::new();
        for (conversation, user) in self.store.members_of(&pages, MEMBERS_PER_PAGE).await? {
            members.entry(conversation).or_default().push(user);
        }
        let (mut everywhere, mut here) = (Vec::new(), Vec::new());
        for Pass { conversation, elsewhere, .. } in passes {
            let users = members.remove(conversation).unwrap_or_default();
            let full = users.len() >= MEMBERS_PER_PAGE as usize;
            self.grown.passed(conversation, users.last().filter(|_| full).cloned());
            let hint = Hint { conversation: conversation.clone(), users };
            if *elsewhere { everywhere.push(hint) } else { here.push(hint) }
        }
        self.receive(here);
        self.receive(self.backplane.hint(everywhere).await);
        Ok(())
    }

    /// Tells this node's sockets.
    async fn tell_rounds(&self) {
        loop {
            let users = self.waiting.next().await;
            let told: Vec<_> =
                users.into_iter().filter(|(conversation, user)| self.rejoin(conversation, user)).collect();
            for some in told.chunks(TOLD_PER_READ) {
                if let Err(error) = self.tell(some).await {
                    tracing::debug!(%error, "what is unread can't be read for hints; retrying");
                    self.waiting.add(some.iter().cloned());
                    sleep(RETRY_PAUSE).await;
                }
            }
            sleep(TELL_INTERVAL).await;
        }
    }

    /// Signals to those sockets of a user that must join the conversation again. Returns true if another one gets a frame.
    fn rejoin(&self, conversation: &ConversationId, user: &UserId) -> bool {
        let mut shown = false;
        for connection in self.sockets.of(user) {
            if connection.lacks(conversation) {
                self.metrics.hints.inc();
                hint(&connection, conversation);
            } else {
                shown |= connection.dialect.shows_hints() && !connection.listens_to(conversation);
            }
        }
        shown
    }

    /// Tells sockets that don't listen what is unread. Users who are no members any more are not told.
    async fn tell(&self, users: &[(ConversationId, UserId)]) -> Result<(), StoreError> {
        for unread in self.store.unread(users).await? {
            for connection in self.sockets.of(&unread.user) {
                if connection.hint_unless_joined(&unread) {
                    self.metrics.hints.inc();
                }
            }
        }
        Ok(())
    }

    /// Compares the given-up joins with the store.
    async fn compare_rounds(&self) {
        let mut ticks = interval(RELAYED_CHECK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut checked_at = Instant::now();
        loop {
            let asked = tokio::select! {
                _ = ticks.tick() => false,
                () = self.check.notified() => true,
            };
            if !asked && !self.degrade.relays() && checked_at.elapsed() < CHECK_INTERVAL {
                continue;
            }
            checked_at = Instant::now();
            for connection in self.sockets.all() {
                if connection.outbox.is_closed() {
                    // Its end came while it was added.
                    self.forget(&connection);
                } else if let Err(error) = self.compare(&connection).await {
                    tracing::debug!(%error, "conversations without a listener can't be compared; retrying later");
                }
            }
        }
    }

    /// Compares the conversations that a connection should listen to but does not with the store.
    async fn compare(&self, connection: &Connection) -> Result<(), StoreError> {
        let dropped: HashMap<LogId, (ConversationId, Seq)> =
            connection.dropped().into_iter().map(|(id, has)| (LogId::from(&id), (id, has))).collect();
        let logs: Vec<LogId> = dropped.keys().cloned().collect();
        for page in logs.chunks(LOGS_PER_READ) {
            for (log, ends) in self.store.ends(page).await? {
                // A lower head is that of a store that was set back: the join then makes the client resync.
                if let Some((conversation, _)) = dropped.get(&log).filter(|(_, has)| ends.head != *has) {
                    hint(connection, conversation);
                }
            }
        }
        if connection.dialect.joins() == AutoJoin::Directs {
            // Those that were never joined: the most recently active ones come first.
            let limit = u32::try_from(self.limit).unwrap_or(u32::MAX);
            for direct in self.store.directs(&connection.user, limit).await? {
                if direct.head > direct.delivered && connection.lacks(&direct.conversation) {
                    hint(connection, &direct.conversation);
                }
            }
        }
        Ok(())
    }
}

/// Signals to a connection that it must join a conversation again.
pub(super) fn hint(connection: &Connection, conversation: &ConversationId) {
    connection.outbox.signal(Signal::Hint(conversation.clone()));
}
