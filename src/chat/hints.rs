//! Hints: a socket that gave up automatic joins for room learns of new messages there, and joins again.
//!
//! Only users with such a socket cost anything. Their node asks for hints in Redis, and the node that stores a message
//! sends a hint to the inbox of each member who asked. A hint may be lost, and while Redis is down other nodes send none.
//! Therefore the node also compares the conversations that its sockets gave up with the store: rarely, and every second
//! while nodes relay through the store.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{connection::Connection, router::Router};
use crate::{
    backplane::Backplane,
    degrade::Degrade,
    dialect::AutoJoin,
    metrics::Metrics,
    model::{ConnectionId, ConversationId, Ephemeral, LogId, Seq, UserId},
    outbox::Signal,
    store::{Store, StoreError},
};

/// Interval at which requests for hints are repeated, and conversations are compared with the store.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// The same interval while nodes relay through the store.
const RELAYED_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Logs per read.
const PAGE: usize = 500;

/// Asks for hints, sends them, and finds those that were lost.
pub(super) struct Hints {
    pub(super) store: Arc<dyn Store>,
    pub(super) backplane: Arc<Backplane>,
    pub(super) router: Arc<Router>,
    pub(super) degrade: Arc<Degrade>,
    pub(super) metrics: Arc<Metrics>,
    /// Conversations that a socket joins by itself at most.
    pub(super) limit: usize,
    /// The sockets of this node that need hints.
    pub(super) connections: Mutex<HashMap<ConnectionId, Arc<Connection>>>,
    pub(super) check: Notify,
}

impl Hints {
    /// Asks for hints for a connection. After it returns, every message that is stored in a conversation of its user
    /// causes a hint, while Redis works.
    pub(super) async fn need(&self, connection: &Arc<Connection>) {
        let known = self.lock().insert(connection.id(), connection.clone()).is_some();
        if !known {
            self.metrics.hinted_sockets.inc();
            self.backplane.ask_for_hints(std::slice::from_ref(&connection.user)).await;
        }
    }

    /// Ends the need of a connection that is closed.
    pub(super) fn forget(&self, connection: ConnectionId) {
        if self.lock().remove(&connection).is_some() {
            self.metrics.hinted_sockets.dec();
        }
    }

    /// Requests a comparison with the store, because hints may have been lost.
    pub(super) fn check_soon(&self) {
        self.check.notify_one();
    }

    /// Sends a hint of a conversation's message `seq` to those of `members` who asked for hints.
    pub(super) async fn send(&self, conversation: &ConversationId, seq: Seq, members: Vec<UserId>) {
        let here = self.users();
        let (mut asked, others): (Vec<UserId>, Vec<UserId>) = members.into_iter().partition(|user| here.contains(user));
        let elsewhere = self.backplane.asked_for_hints(&others).await;
        asked.extend(others.into_iter().zip(elsewhere).filter_map(|(user, asked)| asked.then_some(user)));
        for user in asked {
            self.metrics.hints.inc();
            let hint = Ephemeral::Hint { conversation: conversation.clone(), seq };
            self.router.send_ephemeral(&LogId::inbox(&user), None, [hint]);
        }
    }

    /// Repeats the requests and compares with the store until its task is stopped.
    pub(super) async fn run(self: Arc<Self>) {
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
            self.forget_closed();
            let users: Vec<UserId> = self.users().into_iter().collect();
            if users.is_empty() {
                continue;
            }
            self.backplane.ask_for_hints(&users).await;
            let connections: Vec<_> = self.lock().values().cloned().collect();
            for connection in connections {
                if let Err(error) = self.compare(&connection).await {
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
        for page in logs.chunks(PAGE) {
            for (log, ends) in self.store.ends(page).await? {
                if let Some((conversation, _)) = dropped.get(&log).filter(|(_, has)| ends.head > *has) {
                    hint(connection, conversation, ends.head);
                }
            }
        }
        if connection.dialect.joins() == AutoJoin::Directs {
            // Those that were never joined: the most recently active ones come first.
            let limit = u32::try_from(self.limit).unwrap_or(u32::MAX);
            for direct in self.store.directs(&connection.user, limit).await? {
                if direct.head > direct.delivered && connection.lacks(&direct.conversation) {
                    hint(connection, &direct.conversation, direct.head);
                }
            }
        }
        Ok(())
    }

    /// Forgets connections whose end came while they asked for hints.
    fn forget_closed(&self) {
        let closed: Vec<_> = self.lock().values().filter(|one| one.outbox.is_closed()).map(|one| one.id()).collect();
        closed.into_iter().for_each(|connection| self.forget(connection));
    }

    /// The users of this node's sockets that need hints.
    fn users(&self) -> HashSet<UserId> {
        self.lock().values().map(|connection| connection.user.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ConnectionId, Arc<Connection>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives a connection a hint.
pub(super) fn hint(connection: &Connection, conversation: &ConversationId, seq: Seq) {
    connection.outbox.signal(Signal::Hint { conversation: conversation.clone(), seq });
}
