//! [`View`]: the leases of all nodes, as this node saw them last in each shard.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    incarnation::Incarnation,
    lease_calls::{Doubt, Reply},
    lossy::Lossy,
    shards::Shard,
    sharing::Sharing,
};

/// Longest remaining lease of another node that is believed; NODE_LEASE is at most 10 minutes.
const LEASE_MAX: Duration = Duration::from_secs(3_600);

/// This node's lease in a shard, and its view of the others.
#[derive(Debug)]
pub(super) struct ShardView {
    pub(super) me: Incarnation,
    pub(super) former: Option<Incarnation>,
    /// The epoch in which this node acquired its lease; empty before it was read.
    pub(super) epoch: String,
    pub(super) others: Vec<(Incarnation, Instant)>,
    /// The time until which Redis keeps the own lease, as of the last renewal.
    pub(super) held_until: Option<Instant>,
    /// The end of the own lease as it was written last, in milliseconds of Redis' clock. A lease that ends sooner means that Redis
    /// lost writes.
    pub(super) ends_at: i64,
    /// Other nodes' leases that expired and were counted by [`ShardView::take_expired`].
    expired: HashSet<Incarnation>,
}

impl ShardView {
    /// Before a lease was acquired.
    pub(super) fn new(me: Incarnation) -> Self {
        let (epoch, others, expired) = (String::new(), Vec::new(), HashSet::new());
        Self { me, former: None, epoch, others, held_until: None, ends_at: 0, expired }
    }

    /// Takes over a reply of `renew.lua`, which was called at `asked_at` to renew, or to acquire under a `new` incarnation. True if
    /// a lease of another node was removed.
    pub(super) fn note(
        &mut self,
        new: Option<&Incarnation>,
        (state, micros, Lossy(epoch), leases): Reply,
        asked_at: Instant,
        length: Duration,
    ) -> bool {
        if let Some(new) = new {
            self.former = Some(std::mem::replace(&mut self.me, new.clone()));
        }
        let now = Instant::now();
        let others = leases.into_iter().filter(|(Lossy(other), _)| other != self.me.as_str());
        let others = others.filter_map(|(Lossy(other), left)| {
            // Redis holds what others wrote; no lease is longer than this.
            let left = Duration::from_millis(u64::try_from(left).unwrap_or(0)).min(LEASE_MAX);
            Some((Incarnation::parse(&other)?, now + left))
        });
        let others: Vec<_> = others.collect();
        let stands = |incarnation: &Incarnation| others.iter().any(|(other, _)| other == incarnation);
        let removed = self.others.iter().any(|(other, _)| !stands(other) && !self.expired.contains(other));
        self.expired.retain(stands);
        self.others = others;
        self.held_until = (state == 1).then(|| asked_at + length);
        // A renewal that finds no lease may be the first to see a new epoch; the acquisition that follows compares it.
        if state == 1 {
            self.ends_at = (micros / 1_000).saturating_add(i64::try_from(length.as_millis()).unwrap_or(i64::MAX));
            self.epoch = epoch;
        }
        removed
    }

    /// Nodes that missed a renewal or whose lease has expired.
    pub(super) fn doubtful(&self, length: Duration) -> Vec<(Incarnation, Doubt)> {
        let now = Instant::now();
        let doubt = |expires_at: Instant| match expires_at.saturating_duration_since(now) {
            left if left.is_zero() => Some(Doubt::Dead),
            // A lease that is renewed in time has more than half of its length left at every look.
            left if left < length / 4 => Some(Doubt::Stale),
            _ => None,
        };
        self.others.iter().filter_map(|(node, expires_at)| Some((node.clone(), doubt(*expires_at)?))).collect()
    }

    /// True if leases of other nodes expired since the last call.
    pub(super) fn take_expired(&mut self, now: Instant) -> bool {
        let over = self.others.iter().filter(|(_, expires_at)| *expires_at <= now);
        over.fold(false, |any, (other, _)| self.expired.insert(other.clone()) || any)
    }
}

/// The leases of all nodes, as this node saw them last.
#[derive(Debug)]
pub(super) struct View {
    /// By [`Shard::index`].
    pub(super) shards: Vec<ShardView>,
    /// The name under which the next lease is acquired.
    pub(super) next: Option<Incarnation>,
    /// True if a lease of another node was removed since that was asked last.
    pub(super) ended: bool,
    /// Number of connections that the other nodes held when they last renewed.
    pub(super) connections_elsewhere: u64,
    /// The other deployment that was last seen to use these keys.
    pub(super) other: Option<(Instant, Arc<Sharing>)>,
}

impl View {
    pub(super) fn of(&mut self, shard: Shard) -> &mut ShardView {
        &mut self.shards[shard.index()]
    }
}
