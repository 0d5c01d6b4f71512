//! A node's lease in Redis, and this node's view of the other nodes' leases.

use std::{
    collections::HashMap,
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
    lease_calls::{self, Beginning, Doubt, Mode, Reply, epoch_began, store_connections},
    lease_view::{ShardView, View},
    link::Link,
    link_error::{LinkError, is_wrong_type},
    lossy::Lossy,
    node_counts::NodeCounts,
    ops::Op,
    redis_clock::{RedisClock, SetBack},
    shards::{SHARDS, Shard},
    sharing::{Neighbours, Sharing, owner},
};
use crate::model::{Clock, DeploymentTag, NodeId};

/// The result of a try to acquire a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Acquired {
    /// The lease is held in these shards.
    Held(Vec<(Shard, Beginning)>),
    /// Another deployment used these keys, and nobody does now. What it left must be removed, then [`Lease::replace`] called.
    Leftovers,
}

/// The result of a renewal or a check in several shards.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The shards without the lease.
    pub(super) lost: Vec<Shard>,
    /// The shards whose master gave no answer, and why.
    pub(super) failed: Vec<(Shard, LinkError)>,
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
        let shards = (0..SHARDS).map(|_| ShardView::new(me.clone())).collect();
        let view = View { shards, next: None, ended: false, connections_elsewhere: 0, other: None };
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
    fn retire(&self) {
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

    /// The current incarnation in a shard.
    pub(super) fn me(&self, shard: Shard) -> Incarnation {
        self.view().of(shard).me.clone()
    }

    /// The current incarnation and the former one in a shard.
    pub(super) fn incarnations(&self, shard: Shard) -> (Incarnation, Option<Incarnation>) {
        let mut view = self.view();
        let of = view.of(shard);
        (of.me.clone(), of.former.clone())
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

    /// Nodes that missed a renewal or whose lease has expired, in a shard; usually none.
    pub(super) fn doubtful(&self, shard: Shard) -> Vec<(Incarnation, Doubt)> {
        self.view().of(shard).doubtful(self.length)
    }

    /// True if a lease of another node ended in one of these shards since the last call, by expiry or by removal. That node may
    /// have stored entries that it did not publish.
    pub(super) fn take_ended(&self, shards: impl Iterator<Item = Shard>) -> bool {
        let (now, mut view) = (Instant::now(), self.view());
        let mut ended = std::mem::take(&mut view.ended);
        for shard in shards {
            ended |= view.of(shard).take_expired(now);
        }
        ended
    }

    /// True if no other node can count this one as dead in a shard.
    pub(super) fn is_held(&self, shard: Shard) -> bool {
        self.view().of(shard).held_until.is_some_and(|until| Instant::now() < until)
    }

    /// True unless Redis lost the end of this node's lease that was written last.
    pub(super) fn is_intact(&self, shard: Shard, ends_at: f64) -> bool {
        ends_at as i64 >= self.view().of(shard).ends_at
    }

    /// Number of connections on all other live nodes, as of the last renewal.
    pub(super) fn connections_elsewhere(&self) -> u64 {
        self.view().connections_elsewhere
    }

    /// True if a node of an earlier version has a lease. It has other channels than this one.
    pub(super) fn sees_older_nodes(&self) -> bool {
        let now = Instant::now();
        let mut view = self.view();
        view.of(Shard::HOME).others.iter().any(|(other, until)| *until > now && other.deployment().is_none())
    }

    /// True if a node held a lease when this one renewed its own last.
    pub(super) fn sees(&self, node: &NodeId) -> bool {
        self.view().of(Shard::HOME).others.iter().any(|(other, _)| other.node().as_ref() == Some(node))
    }

    /// Tries to acquire a lease in these shards under a new incarnation, and stores the node's number of connections.
    ///
    /// # Errors
    /// Among others [`LinkError::Shared`]: another deployment uses these keys.
    pub(super) async fn acquire(
        &self,
        link: &Link,
        on: &mut Connection,
        shards: &[Shard],
        connections: usize,
    ) -> Result<Acquired, LinkError> {
        let follows = self.view().other.as_ref().is_some_and(|(seen, _)| seen.elapsed() < self.length);
        self.acquire_in(if follows { Mode::Follow } else { Mode::Acquire }, link, on, (shards, connections)).await
    }

    /// Acquires a lease after what another deployment left was removed.
    ///
    /// # Errors
    /// As [`Lease::acquire`].
    pub(super) async fn replace(
        &self,
        link: &Link,
        on: &mut Connection,
        shards: &[Shard],
        connections: usize,
    ) -> Result<Acquired, LinkError> {
        self.acquire_in(Mode::Replace, link, on, (shards, connections)).await
    }

    async fn acquire_in(
        &self,
        mode: Mode,
        link: &Link,
        on: &mut Connection,
        (shards, connections): (&[Shard], usize),
    ) -> Result<Acquired, LinkError> {
        let deployment = *link.keys().deployment().borrow();
        // A try that failed may have stored a lease under this name, so the next one takes the same.
        let incarnation = {
            let view = &mut *self.view();
            view.next = view.next.take().filter(|next| next.deployment() == deployment);
            view.next.get_or_insert_with(|| Incarnation::fresh(&self.node, deployment)).clone()
        };
        let asked_at = Instant::now();
        // A node that holds the lease of the first shard may acquire the others.
        let (home, rest) = shards.split_at(usize::from(shards.first() == Some(&Shard::HOME)));
        let mut leases = self.acquire_shards(mode, link, on, (&incarnation, home)).await?;
        if !rest.is_empty() && is_held(&leases) {
            let mode = if mode == Mode::Follow && !home.is_empty() { Mode::Acquire } else { mode };
            leases.extend(self.acquire_shards(mode, link, on, (&incarnation, rest)).await?);
        }
        if let Some((_, reply)) = leases.iter().find(|(_, reply)| matches!(reply.0, 2 | 4)) {
            return Err(LinkError::Shared(self.note_other(reply.0, reply)));
        }
        if !is_held(&leases) {
            return Ok(Acquired::Leftovers);
        }
        self.begin(link, on, (incarnation, deployment), (leases, asked_at), connections).await
    }

    /// Calls `renew.lua` for some shards, twice if another program stored something else in the place of leases.
    async fn acquire_shards(
        &self,
        mode: Mode,
        link: &Link,
        on: &mut Connection,
        (incarnation, shards): (&Incarnation, &[Shard]),
    ) -> Result<Vec<(Shard, Reply)>, LinkError> {
        if shards.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = Pipeline::new();
        for shard in shards {
            lease_calls::renew(&mut pipeline, link.keys(), *shard, (incarnation, self.length), mode)?;
        }
        let asked_at = Instant::now();
        let mut taken = lease_calls::take(&mut link.run_on(Op::Lease, on, &pipeline).await?, shards);
        if taken.iter().any(|(_, reply)| is_wrong_type(reply)) {
            // The link has deleted it.
            taken = lease_calls::take(&mut link.run_on(Op::Lease, on, &pipeline).await?, shards);
        }
        let taken = taken.into_iter().map(|(shard, reply)| Ok((shard, reply?)));
        let taken: Vec<(Shard, Reply)> = taken.collect::<Result<_, LinkError>>()?;
        taken.iter().for_each(|(shard, reply)| self.read_clock(*shard, asked_at, reply.1));
        Ok(taken)
    }

    /// Takes over leases that were acquired at `asked_at`.
    async fn begin(
        &self,
        link: &Link,
        on: &mut Connection,
        (incarnation, deployment): (Incarnation, Option<DeploymentTag>),
        (leases, asked_at): (Vec<(Shard, Reply)>, Instant),
        connections: usize,
    ) -> Result<Acquired, LinkError> {
        let (mut pipeline, keys) = (Pipeline::new(), link.keys());
        let home = leases.iter().any(|(shard, _)| *shard == Shard::HOME);
        if home {
            // Written only now, because the keys were another deployment's until here.
            store_connections(&mut pipeline, keys, &incarnation, connections);
            pipeline.cmd("HDEL").arg(keys.connections()).arg(self.me(Shard::HOME).as_str());
        }
        let mut beginnings = Vec::with_capacity(leases.len());
        for (shard, (_, micros, Lossy(epoch), held)) in &leases {
            let (former, known) = {
                let mut view = self.view();
                let of = view.of(*shard);
                (of.me.clone(), of.epoch.clone())
            };
            // Add the former incarnation even if its lease was already removed: a late command may still write in its name, and
            // other nodes clean up only incarnations in this set.
            if former.deployment() == deployment && !known.is_empty() {
                let now = self.redis_micros(*shard) / 1_000;
                pipeline.cmd("ZADD").arg(keys.nodes(*shard)).arg("NX").arg(now).arg(former.as_str());
            }
            let wiped = !known.is_empty() && known != *epoch;
            let reaped = !known.is_empty() && !wiped && held.iter().all(|(other, _)| other.0 != former.as_str());
            let data_age = match epoch_began(epoch) {
                Some(began) => {
                    Duration::from_millis(u64::try_from((micros / 1_000).saturating_sub(began)).unwrap_or(0))
                }
                None if wiped => Duration::ZERO,
                None => Duration::MAX,
            };
            beginnings.push((*shard, Beginning { data_age, reaped }));
        }
        let counts = match pipeline.is_empty() {
            true => None,
            false => Some(link.run_on(Op::Lease, on, &pipeline).await?.take::<HashMap<Lossy, Lossy>>(1)),
        };
        self.note_leases(Some(&incarnation), leases, asked_at);
        if home {
            self.count_elsewhere(&counts.and_then(Result::ok).unwrap_or_default());
        }
        let mut view = self.view();
        (view.next, view.other) = (None, None);
        Ok(Acquired::Held(beginnings))
    }

    /// Renews the lease in these shards, and stores the node's number of connections.
    pub(super) async fn renew(
        &self,
        link: &Link,
        on: &mut Connection,
        shards: &[Shard],
        connections: usize,
    ) -> Result<Found, LinkError> {
        let (keys, mut pipeline) = (link.keys(), Pipeline::new());
        for shard in shards {
            // Of a cluster, all leases are read in one shard: each node has one in every other shard too.
            let mode = if *shard == Shard::HOME { Mode::Renew } else { Mode::RenewDue };
            lease_calls::renew(&mut pipeline, keys, *shard, (&self.me(*shard), self.length), mode)?;
        }
        let home = shards.first() == Some(&Shard::HOME);
        if home {
            store_connections(&mut pipeline, keys, &self.me(Shard::HOME), connections);
        }
        let asked_at = Instant::now();
        let mut replies = link.run_on(Op::Lease, on, &pipeline).await?;
        let (mut found, mut leases) = (Found::default(), Vec::with_capacity(shards.len()));
        for (shard, reply) in lease_calls::take(&mut replies, shards) {
            match reply {
                Ok(reply) => {
                    self.read_clock(shard, asked_at, reply.1);
                    if reply.0 != 1 {
                        found.lost.push(shard);
                    }
                    leases.push((shard, reply));
                }
                reply if is_wrong_type(&reply) => found.lost.push(shard),
                Err(error) => found.failed.push((shard, error)),
            }
        }
        self.note_leases(None, leases, asked_at);
        if home {
            self.count_elsewhere(&replies.take::<HashMap<Lossy, Lossy>>(shards.len() + 1).unwrap_or_default());
        }
        Ok(found)
    }

    /// Says of a lease that is being acquired that its node still removes what another deployment left.
    pub(super) async fn keep_removing(&self, link: &Link, on: &mut Connection) -> Result<(), LinkError> {
        let Some(incarnation) = self.view().next.clone() else { return Ok(()) };
        let leases = self.acquire_shards(Mode::Acquire, link, on, (&incarnation, &on.reached())).await?;
        match leases.iter().find(|(_, reply)| matches!(reply.0, 2 | 4)) {
            Some((_, reply)) => Err(LinkError::Shared(self.note_other(reply.0, reply))),
            None if leases.iter().any(|(_, reply)| reply.0 == 3) => Ok(()),
            // Another node has removed it.
            None => Err(LinkError::Shared(Arc::new(Sharing::Removing))),
        }
    }

    /// Removes the lease in all shards, because the node ends. If that fails, it expires by itself.
    pub(super) async fn leave(&self, link: &Link) {
        let (keys, mut pipeline) = (link.keys(), Pipeline::new());
        for shard in keys.shards() {
            let me = self.me(shard);
            pipeline.cmd("DEL").arg(keys.node_users(shard, &me)).cmd("ZREM").arg(keys.nodes(shard)).arg(me.as_str());
        }
        let me = self.me(Shard::HOME);
        pipeline.cmd("HDEL").arg(keys.connections()).arg(me.as_str());
        self.retire();
        let _ = link.run(Op::Lease, me.as_str(), &pipeline).await;
    }

    /// Removes the lease, because the node gets another deployment.
    pub(super) async fn release(&self, link: &Link, on: &mut Connection) -> Result<(), LinkError> {
        let (keys, mut pipeline) = (link.keys(), Pipeline::new());
        for shard in keys.shards() {
            pipeline.cmd("ZREM").arg(keys.nodes(shard)).arg(self.me(shard).as_str());
        }
        pipeline.cmd("HDEL").arg(keys.connections()).arg(self.me(Shard::HOME).as_str());
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

    /// Takes over the leases that `renew.lua` returned when it was called at `asked_at`: to renew, or to acquire under a `new`
    /// incarnation.
    fn note_leases(&self, new: Option<&Incarnation>, replies: Vec<(Shard, Reply)>, asked_at: Instant) {
        let mut view = self.view();
        for (shard, reply) in replies {
            let removed = view.of(shard).note(new, reply, asked_at, self.length);
            view.ended |= removed && (new.is_some() || shard == Shard::HOME);
        }
    }

    /// Sums up the numbers of connections that the other live nodes stored.
    fn count_elsewhere(&self, counts: &HashMap<Lossy, Lossy>) {
        let (now, mut view) = (Instant::now(), self.view());
        let others = view.of(Shard::HOME).others.iter();
        let alive: Vec<Incarnation> =
            others.filter(|(_, until)| *until > now).map(|(other, _)| other.clone()).collect();
        view.connections_elsewhere = self.counts.sum(counts, alive.iter().map(Incarnation::as_str));
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// True if all leases are held, or are now; false if what another deployment left must be removed first.
fn is_held(leases: &[(Shard, Reply)]) -> bool {
    leases.iter().all(|(_, reply)| reply.0 <= 1)
}
