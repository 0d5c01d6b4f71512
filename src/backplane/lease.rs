//! A node's lease in Redis, and this node's view of the other nodes' leases.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use redis::Pipeline;

use super::{
    connection::Connection,
    incarnation::Incarnation,
    lease_calls::{self, Doubt, Mode, Reply, epoch_began, store_connections},
    link::Link,
    link_error::LinkError,
    lossy::Lossy,
    node_counts::NodeCounts,
    ops::Op,
    redis_clock::{RedisClock, SetBack},
    shards::{SHARDS, Shard},
    sharing::{Neighbours, Sharing, owner},
};
use crate::model::{Clock, DeploymentTag, NodeId};

/// Longest remaining lease of another node that is believed; NODE_LEASE is at most 10 minutes.
const LEASE_MAX: Duration = Duration::from_secs(3_600);

#[derive(Debug)]
struct View {
    me: Incarnation,
    former: Option<Incarnation>,
    /// The name under which the next lease is acquired.
    next: Option<Incarnation>,
    /// The epoch in which this node acquired its lease.
    /// The epoch of each shard; empty before it was read.
    epochs: Vec<String>,
    others: Vec<(Incarnation, Instant)>,
    /// The time until which Redis keeps the own lease, as of the last renewal.
    held_until: Option<Instant>,
    /// True if a lease of another node ended since [`Lease::take_ended`] was called.
    ended: bool,
    /// Other nodes' leases that expired and were counted in `ended`.
    expired: HashSet<Incarnation>,
    /// Number of connections that the other nodes held when they last renewed.
    connections_elsewhere: u64,
    /// The other deployment that was last seen to use these keys.
    other: Option<(Instant, Arc<Sharing>)>,
}

/// The result of a try to acquire a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Acquired {
    /// The lease is held.
    Held(Beginning),
    /// Another deployment used these keys, and nobody does now. What it left must be removed, then [`Lease::replace`] called.
    Leftovers,
}

/// How an era begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Beginning {
    /// Time since Redis was wiped, long if no node of today's version noticed a wipe.
    pub(super) data_age: Duration,
    /// Other nodes counted the former incarnation as dead, and announced the departure of its users.
    pub(super) reaped: bool,
}

/// This node's lease.
pub(super) struct Lease {
    node: NodeId,
    length: Duration,
    clock: Clock,
    view: Mutex<View>,
    /// The clock of each shard's server.
    clocks: Vec<RedisClock>,
    counts: NodeCounts,
    retired: AtomicBool,
}

impl Lease {
    /// A lease that is not acquired yet.
    pub(super) fn new(node: NodeId, length: Duration, clock: Clock) -> Self {
        let me = Incarnation::fresh(&node, None);
        let view = View {
            me,
            former: None,
            next: None,
            epochs: vec![String::new(); SHARDS],
            others: Vec::new(),
            held_until: None,
            ended: false,
            expired: HashSet::new(),
            connections_elsewhere: 0,
            other: None,
        };
        Self {
            node,
            length,
            clock,
            view: Mutex::new(view),
            clocks: (0..SHARDS).map(|_| RedisClock::default()).collect(),
            counts: NodeCounts::default(),
            retired: AtomicBool::new(false),
        }
    }

    /// Stops renewing and acquiring the lease, because the node is leaving.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    /// True after [`Lease::retire`].
    pub(super) fn retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// Duration of the lease.
    pub(super) fn length(&self) -> Duration {
        self.length
    }

    /// Interval between two renewals.
    pub(super) fn interval(&self) -> Duration {
        self.length / 3
    }

    /// The current incarnation.
    pub(super) fn me(&self) -> Incarnation {
        self.view().me.clone()
    }

    /// The current incarnation and the former one.
    pub(super) fn incarnations(&self) -> (Incarnation, Option<Incarnation>) {
        let view = self.view();
        (view.me.clone(), view.former.clone())
    }

    /// Estimate of the current time of a shard's server, in microseconds.
    pub(super) fn redis_micros(&self, shard: Shard) -> i64 {
        self.clocks[shard.index()].micros().unwrap_or_else(|| self.clock.now().micros())
    }

    /// Records that the clock of a shard's server showed `micros` between `asked_at` and now.
    pub(super) fn read_clock(&self, shard: Shard, asked_at: Instant, micros: i64) {
        self.clocks[shard.index()].read(asked_at, micros);
    }

    /// The last step back of a server's clock that this node noticed.
    pub(super) fn set_back(&self) -> Option<SetBack> {
        self.clocks.iter().filter_map(RedisClock::set_back).min_by_key(|step| step.age())
    }

    /// Nodes that missed a renewal or whose lease has expired; usually none.
    pub(super) fn doubtful(&self) -> Vec<(Incarnation, Doubt)> {
        let now = Instant::now();
        let doubt = |expires_at: Instant| match expires_at.saturating_duration_since(now) {
            left if left.is_zero() => Some(Doubt::Dead),
            // A lease that is renewed in time has more than half of its length left at every look.
            left if left < self.length / 4 => Some(Doubt::Stale),
            _ => None,
        };
        self.view().others.iter().filter_map(|(node, expires_at)| Some((node.clone(), doubt(*expires_at)?))).collect()
    }

    /// True if a lease of another node ended since the last call, by expiry or by removal. That node may have stored entries
    /// that it did not publish.
    pub(super) fn take_ended(&self) -> bool {
        let now = Instant::now();
        let view = &mut *self.view();
        for (other, _) in view.others.iter().filter(|(_, expires_at)| *expires_at <= now) {
            view.ended |= view.expired.insert(other.clone());
        }
        std::mem::take(&mut view.ended)
    }

    /// True if no other node can count this one as dead.
    pub(super) fn is_held(&self) -> bool {
        self.view().held_until.is_some_and(|until| Instant::now() < until)
    }

    /// Number of connections on all other live nodes, as of the last renewal.
    pub(super) fn connections_elsewhere(&self) -> u64 {
        self.view().connections_elsewhere
    }

    /// True if a node of an earlier version has a lease. It has other channels than this one.
    pub(super) fn sees_older_nodes(&self) -> bool {
        let now = Instant::now();
        self.view().others.iter().any(|(other, until)| *until > now && other.deployment().is_none())
    }

    /// Tries to acquire a lease under a new incarnation, and stores the node's number of connections.
    ///
    /// # Errors
    /// Among others [`LinkError::Shared`]: another deployment uses these keys.
    pub(super) async fn acquire(
        &self,
        link: &Link,
        on: &mut Connection,
        connections: usize,
    ) -> Result<Acquired, LinkError> {
        let follows = self.view().other.as_ref().is_some_and(|(seen, _)| seen.elapsed() < self.length);
        self.acquire_in(if follows { Mode::Follow } else { Mode::Acquire }, link, on, connections).await
    }

    /// Acquires a lease after what another deployment left was removed.
    ///
    /// # Errors
    /// As [`Lease::acquire`].
    pub(super) async fn replace(
        &self,
        link: &Link,
        on: &mut Connection,
        connections: usize,
    ) -> Result<Acquired, LinkError> {
        self.acquire_in(Mode::Replace, link, on, connections).await
    }

    async fn acquire_in(
        &self,
        mode: Mode,
        link: &Link,
        on: &mut Connection,
        connections: usize,
    ) -> Result<Acquired, LinkError> {
        let deployment = *link.keys().deployment().borrow();
        // A try that failed may have stored a lease under this name, so the next one takes the same.
        let incarnation = {
            let view = &mut *self.view();
            view.next = view.next.take().filter(|next| next.deployment() == deployment);
            view.next.get_or_insert_with(|| Incarnation::fresh(&self.node, deployment)).clone()
        };
        let (asked_at, former, keys) = (Instant::now(), self.me(), link.keys());
        // A node that holds the lease of the first shard may acquire the others.
        let mut leases = self.acquire_shards(mode, link, on, (&incarnation, keys.shards().take(1))).await?;
        if keys.shards().len() > 1 && is_held(&leases)? {
            let mode = if mode == Mode::Follow { Mode::Acquire } else { mode };
            leases.extend(self.acquire_shards(mode, link, on, (&incarnation, keys.shards().skip(1))).await?);
        }
        if let Some((_, reply)) = leases.iter().find(|(_, reply)| matches!(reply.0, 2 | 4)) {
            return Err(LinkError::Shared(self.note_other(reply.0, reply)));
        }
        if !is_held(&leases)? {
            return Ok(Acquired::Leftovers);
        }
        self.begin(link, on, (incarnation, former, deployment), (leases, asked_at), connections).await
    }

    /// Calls `renew.lua` for some shards, twice if another program stored something else in the place of leases.
    async fn acquire_shards(
        &self,
        mode: Mode,
        link: &Link,
        on: &mut Connection,
        (incarnation, shards): (&Incarnation, impl Iterator<Item = Shard> + Clone),
    ) -> Result<Vec<(Shard, Reply)>, LinkError> {
        let mut pipeline = Pipeline::new();
        for shard in shards.clone() {
            lease_calls::renew(&mut pipeline, link.keys(), shard, (incarnation, self.length), mode)?;
        }
        let asked_at = Instant::now();
        let mut taken = lease_calls::take(&mut link.run_on(Op::Lease, on, &pipeline).await?, shards.clone())?;
        if taken.is_none() {
            // The link has deleted it.
            taken = lease_calls::take(&mut link.run_on(Op::Lease, on, &pipeline).await?, shards)?;
        }
        let taken = taken.ok_or(LinkError::Unexpected)?;
        taken.iter().for_each(|(shard, reply)| self.read_clock(*shard, asked_at, reply.1));
        Ok(taken)
    }

    /// Takes over leases that were acquired at `asked_at`.
    async fn begin(
        &self,
        link: &Link,
        on: &mut Connection,
        (incarnation, former, deployment): (Incarnation, Incarnation, Option<DeploymentTag>),
        (leases, asked_at): (Vec<(Shard, Reply)>, Instant),
        connections: usize,
    ) -> Result<Acquired, LinkError> {
        let epochs = self.view().epochs.clone();
        // Written only now, because the keys were another deployment's until here.
        let mut pipeline = Pipeline::new();
        store_connections(&mut pipeline, link.keys(), &incarnation, connections);
        pipeline.cmd("HDEL").arg(link.keys().connections()).arg(former.as_str());
        // Add the former incarnation even if its lease was already removed: a late command may still write in its name, and
        // other nodes clean up only incarnations in this set.
        for (shard, _) in leases.iter().filter(|_| former.deployment() == deployment) {
            if !epochs[shard.index()].is_empty() {
                let now = self.redis_micros(*shard) / 1_000;
                pipeline.cmd("ZADD").arg(link.keys().nodes(*shard)).arg("NX").arg(now).arg(former.as_str());
            }
        }
        let mut replies = link.run_on(Op::Lease, on, &pipeline).await?;
        let counts = replies.take::<HashMap<Lossy, Lossy>>(1);
        let (mut data_age, mut reaped) = (Duration::MAX, false);
        for (shard, (_, micros, Lossy(epoch), held)) in &leases {
            let before = &epochs[shard.index()];
            let wiped = !before.is_empty() && before != epoch;
            reaped |= !before.is_empty() && !wiped && held.iter().all(|(other, _)| other.0 != former.as_str());
            let age = match epoch_began(epoch) {
                Some(began) => {
                    Duration::from_millis(u64::try_from((micros / 1_000).saturating_sub(began)).unwrap_or(0))
                }
                None if wiped => Duration::ZERO,
                None => Duration::MAX,
            };
            data_age = data_age.min(age);
        }
        self.note_leases(&incarnation, leases, asked_at, &counts.unwrap_or_default());
        let mut view = self.view();
        (view.next, view.other) = (None, None);
        view.former = Some(std::mem::replace(&mut view.me, incarnation));
        Ok(Acquired::Held(Beginning { data_age, reaped }))
    }

    /// Renews the lease and stores the node's number of connections; false if the lease was lost.
    pub(super) async fn renew(&self, link: &Link, on: &mut Connection, connections: usize) -> Result<bool, LinkError> {
        let (me, keys, mut pipeline) = (self.me(), link.keys(), Pipeline::new());
        for shard in keys.shards() {
            lease_calls::renew(&mut pipeline, keys, shard, (&me, self.length), Mode::Renew)?;
        }
        store_connections(&mut pipeline, keys, &me, connections);
        let asked_at = Instant::now();
        let mut replies = link.run_on(Op::Lease, on, &pipeline).await?;
        let Some(leases) = lease_calls::take(&mut replies, keys.shards())? else { return Ok(false) };
        let counts = replies.take::<HashMap<Lossy, Lossy>>(leases.len() + 1);
        let held = leases.iter().all(|(_, reply)| reply.0 == 1);
        leases.iter().for_each(|(shard, reply)| self.read_clock(*shard, asked_at, reply.1));
        self.note_leases(&me, leases, asked_at, &counts.unwrap_or_default());
        Ok(held)
    }

    /// Says of a lease that is being acquired that its node still removes what another deployment left.
    pub(super) async fn keep_removing(&self, link: &Link, on: &mut Connection) -> Result<(), LinkError> {
        let Some(incarnation) = self.view().next.clone() else { return Ok(()) };
        let leases = self.acquire_shards(Mode::Acquire, link, on, (&incarnation, link.keys().shards())).await?;
        match leases.iter().find(|(_, reply)| matches!(reply.0, 2 | 4)) {
            Some((_, reply)) => Err(LinkError::Shared(self.note_other(reply.0, reply))),
            None if leases.iter().any(|(_, reply)| reply.0 == 3) => Ok(()),
            // Another node has removed it.
            None => Err(LinkError::Shared(Arc::new(Sharing::Removing))),
        }
    }

    /// Removes the lease, because the node gets another deployment.
    pub(super) async fn release(&self, link: &Link, on: &mut Connection) -> Result<(), LinkError> {
        let (me, keys) = (self.me(), link.keys());
        let mut pipeline = Pipeline::new();
        for shard in keys.shards() {
            pipeline.cmd("ZREM").arg(keys.nodes(shard)).arg(me.as_str());
        }
        pipeline.cmd("HDEL").arg(keys.connections()).arg(me.as_str());
        link.run_on(Op::Lease, on, &pipeline).await.map(drop)
    }

    /// Remembers which deployment uses these keys. If no lease is named, it is the last one that was seen.
    fn note_other(&self, state: u8, reply: &Reply) -> Arc<Sharing> {
        let leases: Vec<_> = reply.3.iter().filter_map(|(Lossy(lease), _)| Incarnation::parse(lease)).collect();
        let live = reply.3.iter().any(|(_, left)| *left > 0);
        let mut view = self.view();
        match (state, &view.other) {
            (4, _) => Arc::new(Sharing::Removing),
            (_, Some((_, known))) if leases.is_empty() => known.clone(),
            _ => {
                let found = Arc::new(Sharing::InUse(Neighbours::holding(owner(&reply.2.0), leases.iter())));
                if live {
                    view.other = Some((Instant::now(), found.clone()));
                }
                found
            }
        }
    }

    /// Takes over the leases that `renew.lua` returned when it was called for `me` at `asked_at`. Of a node with several, the one
    /// that ends last counts.
    fn note_leases(
        &self,
        me: &Incarnation,
        replies: Vec<(Shard, Reply)>,
        asked_at: Instant,
        counts: &HashMap<Lossy, Lossy>,
    ) {
        let (now, mut ends, mut held) = (Instant::now(), HashMap::<String, i64>::new(), true);
        let mut epochs = Vec::with_capacity(replies.len());
        for (shard, (state, _, Lossy(epoch), leases)) in replies {
            held &= state == 1;
            // A renewal that finds no lease may be the first to see a new epoch; the acquisition that follows compares it.
            if state == 1 {
                epochs.push((shard, epoch));
            }
            for (Lossy(other), left) in leases.into_iter().filter(|(Lossy(other), _)| other != me.as_str()) {
                ends.entry(other).and_modify(|known| *known = left.max(*known)).or_insert(left);
            }
        }
        let alive = ends.iter().filter(|(_, left)| **left > 0);
        let connections_elsewhere = self.counts.sum(counts, alive.map(|(other, _)| other.as_str()));
        let others = ends.iter().filter_map(|(other, left)| {
            // Redis holds what others wrote; no lease is longer than this.
            let left = Duration::from_millis(u64::try_from(*left).unwrap_or(0)).min(LEASE_MAX);
            Some((Incarnation::parse(other)?, now + left))
        });
        let others: Vec<_> = others.collect();
        let mut view = self.view();
        // A lease that is acquired was not held before.
        view.held_until = (held || *me != view.me).then(|| asked_at + self.length);
        let stands = |incarnation: &Incarnation| others.iter().any(|(other, _)| other == incarnation);
        let removed = view.others.iter().any(|(other, _)| !stands(other) && !view.expired.contains(other));
        view.ended |= removed;
        view.expired.retain(stands);
        view.others = others;
        view.connections_elsewhere = connections_elsewhere;
        for (shard, epoch) in epochs {
            view.epochs[shard.index()] = epoch;
        }
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// True if all leases are held; false if what another deployment left must be removed first.
///
/// # Errors
/// A reply has an unexpected form.
fn is_held(leases: &[(Shard, Reply)]) -> Result<bool, LinkError> {
    match leases.iter().map(|(_, reply)| reply.0).max() {
        Some(0 | 1) => Ok(true),
        Some(2..=4) => Ok(false),
        _ => Err(LinkError::Unexpected),
    }
}
