//! How this node reaches the others: through Redis, through the store, or both.

use std::{
    sync::{PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{Degrade, Feature, LinkState, Mode, Part, Work};

impl Degrade {
    /// Records whether any node states in the store that it can reach the other nodes through the store only.
    pub fn note_relay(&self, any: bool) {
        let before = self.others_relay.swap(any, Ordering::AcqRel);
        self.notify_if_changed(before != any);
    }

    /// Records whether a check of Redis is late. Until it succeeds, this node also reaches the others through the store, so
    /// that members on other nodes need not wait until Redis counts as down.
    pub fn note_late_redis(&self, late: bool) {
        let before = self.redis_late.swap(late, Ordering::AcqRel);
        self.notify_if_changed(before != late);
    }

    /// Records that Redis moved to another server. For `settle`, other nodes may still use the former one, which may take
    /// writes; until then this node also reaches the others through the store.
    pub fn note_moved_redis(&self, settle: Duration) {
        *self.redis_moves_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + settle);
        self.notify_if_changed(true);
    }

    fn redis_moves(&self) -> bool {
        let until = *self.redis_moves_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    /// Records whether nodes of an earlier version run, which hear nothing of this node's channels.
    pub fn note_older_nodes(&self, any: bool) {
        let before = self.older_nodes.swap(any, Ordering::AcqRel);
        if any && !before {
            tracing::info!(
                "nodes of an earlier version run; until they end, this node reaches them through PostgreSQL"
            );
        }
        self.notify_if_changed(before != any);
    }

    /// True if this node may not reach others through Redis, so that it must sign in the store.
    pub fn may_be_alone(&self) -> bool {
        let unheard = self.is_doubted() || self.is_apart();
        unheard && self.mode(Feature::Append) != Mode::Refused || self.mode(Feature::Fanout) == Mode::Relayed
    }

    /// True if some nodes use another Redis than this one.
    pub fn is_apart(&self) -> bool {
        !self.works(Work::Meet)
    }

    /// True if Redis works for this node without any doubt, so that it reaches all others who use the same Redis.
    pub fn is_heard(&self) -> bool {
        self.state(Part::Redis).link == LinkState::Up && !self.is_doubted() && !self.is_deaf()
    }

    /// True if some nodes may not hear this one, although Redis works.
    fn is_doubted(&self) -> bool {
        self.redis_late.load(Ordering::Acquire)
            || self.older_nodes.load(Ordering::Acquire)
            || self.redis_moves()
            || self.lacks_shards()
    }

    /// True if this node or another one may reach other nodes through the store only, so that entries must be relayed.
    pub fn relays(&self) -> bool {
        let others = self.others_relay.load(Ordering::Acquire) && self.mode(Feature::Append) != Mode::Refused;
        others || self.may_be_alone()
    }
}
