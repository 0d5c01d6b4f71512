//! The restrictions of all users in this node's memory, and the open sockets that they may end.
//!
//! [`Auth`](crate::auth::Auth) asks here for every token. Until the node has read the store's restrictions, no token is
//! accepted. The rules and the list of sockets have one lock: a socket is listed only if no rule forbids it, and a new
//! rule ends every listed socket that it forbids, so no socket slips in between.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use prometheus::IntGauge;
use tokio::sync::oneshot;

use crate::{
    metrics::Metrics,
    model::{CloseReason, Identity, Reject, Restriction, RestrictionChange, RestrictionMark, Timestamp, UserId},
};

mod rules;
mod sessions;
#[cfg(test)]
mod tests;

use rules::{Rules, TokenClaims};
use sessions::Sessions;

/// A revocation is kept for this much longer than a token is valid, because the clocks of nodes, store and issuer differ.
const CLOCKS: Duration = Duration::from_secs(3_600);

/// The restrictions that this node knows.
#[derive(Debug)]
pub struct Restrictions {
    state: RwLock<State>,
    /// Time for which a revocation is kept.
    revocations_kept: Duration,
    /// Number of standing restrictions.
    count: IntGauge,
}

#[derive(Debug)]
struct State {
    /// Every change up to this one was applied; `None` until the store was read.
    read_to: Option<RestrictionMark>,
    rules: Rules,
    sessions: Sessions,
    /// Changes that this node made and applied, and that it has not read from the store yet.
    own: BTreeMap<i64, RestrictionChange>,
}

impl Restrictions {
    /// Restrictions that were not read yet, so no token is accepted. No token is valid for longer than `longest_validity`
    /// after its issue.
    pub fn unread(longest_validity: Duration, metrics: &Metrics) -> Arc<Self> {
        let count = metrics.restrictions.clone();
        let state = RwLock::new(State::new(None, longest_validity));
        Arc::new(Self { state, revocations_kept: longest_validity.saturating_add(CLOCKS), count })
    }

    /// No restrictions, for programs that are no node.
    pub fn none() -> Arc<Self> {
        let state = RwLock::new(State::new(Some(RestrictionMark::default()), Duration::MAX));
        // The metric is not registered anywhere. Its name is valid, so it can be made.
        #[expect(clippy::unwrap_used, reason = "the name is constant and valid")]
        let count = IntGauge::new("restrictions", "restrictions").unwrap();
        Arc::new(Self { state, revocations_kept: Duration::MAX, count })
    }

    /// Checks that no restriction concerns the token of this identity.
    ///
    /// # Errors
    /// [`Reject::Blocked`], [`Reject::TokenRevoked`]; [`Reject::Unavailable`] until the restrictions were read.
    pub fn check(&self, identity: &Identity) -> Result<(), Reject> {
        self.read().check(identity)
    }

    /// Lists an open socket, unless a restriction concerns its token. Dropping the ticket removes the socket.
    ///
    /// # Errors
    /// As [`Restrictions::check`].
    pub fn admit(self: &Arc<Self>, identity: &Identity) -> Result<SessionTicket, Reject> {
        let mut state = self.write();
        state.check(identity)?;
        let (key, ended) = state.sessions.add(identity);
        Ok(SessionTicket { restrictions: self.clone(), user: identity.user.clone(), key, ended: Some(ended) })
    }

    /// The last change that was applied in the store's order; `None` until the restrictions were read.
    pub fn read_to(&self) -> Option<RestrictionMark> {
        self.read().read_to
    }

    /// The changes that this node made and has not read from the store yet.
    pub fn unread_own(&self) -> Vec<RestrictionMark> {
        self.read().own.values().map(RestrictionChange::mark).collect()
    }

    /// Replaces all rules by the standing restrictions of the store and the changes after them, up to `read_to`, and ends
    /// the sockets that they forbid. `own_before` are this node's own changes from before the reading: if they are not
    /// in it, the store has lost them.
    pub fn replace(
        &self,
        standing: &[RestrictionChange],
        later: &[RestrictionChange],
        read_to: RestrictionMark,
        own_before: &[RestrictionMark],
    ) {
        let mut state = self.write();
        state.rules.clear();
        for change in standing.iter().chain(later) {
            state.rules.apply(change);
        }
        for lost in own_before {
            state.own.remove(&lost.id);
        }
        state.advance(read_to);
        state.end_disconnected(later);
        let State { rules, sessions, .. } = &mut *state;
        sessions.end_all(|user, token| rules.check(user, token).err());
        self.count.set(state.rules.count());
    }

    /// Applies changes that follow those before in the store's order, up to `read_to`, and ends the sockets that they
    /// forbid. Returns false, and applies nothing, if a change of this node is missing among them: the store has lost it,
    /// so all must be read anew.
    pub fn apply(&self, changes: &[RestrictionChange], read_to: RestrictionMark) -> bool {
        let mut state = self.write();
        let is_read = |own: &RestrictionChange| own.id > read_to.id || changes.contains(own);
        if !state.own.values().all(is_read) {
            return false;
        }
        for change in changes {
            state.rules.apply(change);
        }
        // A socket that this node let in after its own disconnection is not ended by reading that again.
        let news: Vec<RestrictionChange> =
            changes.iter().filter(|change| !state.own.contains_key(&change.id)).cloned().collect();
        state.advance(read_to);
        state.end_disconnected(&news);
        state.end_forbidden(changes);
        self.count.set(state.rules.count());
        true
    }

    /// Applies a change that this node has just stored. It is read from the store later, in its order.
    pub fn apply_own(&self, change: RestrictionChange) {
        let mut state = self.write();
        if state.read_to.is_none_or(|read_to| change.id <= read_to.id) {
            return;
        }
        state.rules.apply(&change);
        let changes = [change];
        state.end_disconnected(&changes);
        state.end_forbidden(&changes);
        let [change] = changes;
        state.own.insert(change.id, change);
        self.count.set(state.rules.count());
    }

    /// Forgets revocations that concern no valid token any more.
    pub fn forget_expired(&self, now: Timestamp) {
        let mut state = self.write();
        state.rules.forget_made_before(self.kept_from(now));
        self.count.set(state.rules.count());
    }

    /// A revocation that was made before this time concerns no token that is valid now.
    pub fn kept_from(&self, now: Timestamp) -> Timestamp {
        let span = i64::try_from(self.revocations_kept.as_micros()).unwrap_or(i64::MAX);
        Timestamp::from_micros(now.micros().saturating_sub(span))
    }

    /// Lists a socket with the token that replaced its first one, unless a restriction concerns it.
    fn renew(&self, user: &UserId, key: u64, identity: &Identity) -> Result<(), Reject> {
        let mut state = self.write();
        state.check(identity)?;
        state.sessions.renew(user, key, identity);
        Ok(())
    }

    fn remove(&self, user: &UserId, key: u64) {
        self.write().sessions.remove(user, key);
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new(read_to: Option<RestrictionMark>, longest_validity: Duration) -> Self {
        let (rules, sessions) = (Rules::new(longest_validity), Sessions::default());
        Self { read_to, rules, sessions, own: BTreeMap::new() }
    }

    fn check(&self, identity: &Identity) -> Result<(), Reject> {
        if self.read_to.is_none() {
            return Err(Reject::Unavailable);
        }
        self.rules.check(&identity.user, &TokenClaims::from(identity))
    }

    /// Records that the changes up to `read_to` were applied, and applies this node's own later ones again.
    fn advance(&mut self, read_to: RestrictionMark) {
        self.read_to = Some(read_to);
        self.own.retain(|id, _| *id > read_to.id);
        for change in self.own.values() {
            self.rules.apply(change);
        }
    }

    /// Ends the sockets of the users that these changes disconnect, each for the strongest reason.
    fn end_disconnected(&mut self, changes: &[RestrictionChange]) {
        let Self { rules, sessions, .. } = self;
        let disconnected = changes.iter().filter(|change| change.restriction == Restriction::Disconnected);
        for user in disconnected.map(|change| &change.user).collect::<HashSet<_>>() {
            sessions.end(user, |token| {
                let forbidden = rules.check(user, token).err().map(CloseReason::Refused);
                Some(forbidden.unwrap_or(CloseReason::Disconnected))
            });
        }
    }

    /// Ends the sockets of the users of these changes that the rules now forbid.
    fn end_forbidden(&mut self, changes: &[RestrictionChange]) {
        let Self { rules, sessions, .. } = self;
        for user in changes.iter().map(|change| &change.user).collect::<HashSet<_>>() {
            sessions.end(user, |token| rules.check(user, token).err().map(CloseReason::Refused));
        }
    }
}

/// The session's end of a listed socket. Dropping it removes the socket from the list.
#[derive(Debug)]
pub struct SessionTicket {
    restrictions: Arc<Restrictions>,
    user: UserId,
    key: u64,
    /// `None` once the reason was taken.
    ended: Option<oneshot::Receiver<CloseReason>>,
}

impl SessionTicket {
    /// Waits until an admin's action ends the socket. Cancel-safe; it resolves at most once.
    pub async fn ended(&mut self) -> CloseReason {
        let reason = match &mut self.ended {
            Some(ended) => ended.await.ok(),
            None => None,
        };
        self.ended = None;
        match reason {
            Some(reason) => reason,
            None => std::future::pending().await,
        }
    }

    /// The reason if an admin's action has ended the socket.
    pub fn ended_now(&mut self) -> Option<CloseReason> {
        let reason = self.ended.as_mut()?.try_recv().ok()?;
        self.ended = None;
        Some(reason)
    }

    /// Replaces the socket's token by a newer one of the same user.
    ///
    /// # Errors
    /// A restriction concerns the new token.
    pub fn renew(&self, identity: &Identity) -> Result<(), Reject> {
        self.restrictions.renew(&self.user, self.key, identity)
    }
}

impl Drop for SessionTicket {
    fn drop(&mut self) {
        self.restrictions.remove(&self.user, self.key);
    }
}
