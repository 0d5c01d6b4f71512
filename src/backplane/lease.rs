//! A node's lease in Redis, and this node's view of the other nodes' leases.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use redis::{Pipeline, aio::MultiplexedConnection};
use uuid::Uuid;

use super::{
    incarnation::Incarnation,
    link::Link,
    link_error::{LinkError, is_wrong_type},
    lossy::Lossy,
    node_counts::NodeCounts,
    ops::Op,
    redis_clock::RedisClock,
    scripts::RENEW,
    sharing::{Neighbours, Sharing, owner},
};
use crate::model::{Clock, NodeId};

/// Longest remaining lease of another node that is believed; NODE_LEASE is at most 10 minutes.
const LEASE_MAX: Duration = Duration::from_secs(3_600);

/// The reply of `renew.lua`: its state, Redis' time in microseconds, the epoch, and leases with the milliseconds left.
type Reply = (u8, i64, Lossy, Vec<(Lossy, i64)>);

/// A mode of `renew.lua`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Renew,
    Acquire,
    /// Acquire, if the keys are this deployment's: another one was there a moment ago, and its restart, or a Redis that was
    /// emptied, must not give them away.
    Follow,
    /// Acquire, after what another deployment left was removed.
    Replace,
}

impl Mode {
    fn as_str(self) -> &'static str {
        match self {
            Self::Renew => "renew",
            Self::Acquire => "acquire",
            Self::Follow => "follow",
            Self::Replace => "replace",
        }
    }
}

/// Why a node's entries in the registry may be out of date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// The node missed a renewal.
    Stale,
    /// The node's lease has expired.
    Dead,
}

impl Doubt {
    /// The form that `register.lua` takes.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::Dead => "dead",
        }
    }
}

#[derive(Debug)]
struct View {
    me: Incarnation,
    former: Option<Incarnation>,
    /// The name under which the next lease is acquired.
    next: Option<Incarnation>,
    /// The epoch in which this node acquired its lease.
    epoch: String,
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
    redis_clock: RedisClock,
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
            epoch: String::new(),
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
            redis_clock: RedisClock::default(),
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

    /// Estimate of Redis' current time, in microseconds.
    pub(super) fn redis_micros(&self) -> i64 {
        self.redis_clock.micros().unwrap_or_else(|| self.clock.now().micros())
    }

    /// Redis' clock.
    pub(super) fn redis_clock(&self) -> &RedisClock {
        &self.redis_clock
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
        on: &mut MultiplexedConnection,
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
        on: &mut MultiplexedConnection,
        connections: usize,
    ) -> Result<Acquired, LinkError> {
        self.acquire_in(Mode::Replace, link, on, connections).await
    }

    async fn acquire_in(
        &self,
        mode: Mode,
        link: &Link,
        on: &mut MultiplexedConnection,
        connections: usize,
    ) -> Result<Acquired, LinkError> {
        let deployment = *link.keys().deployment().borrow();
        // A try that failed may have stored a lease under this name, so the next one takes the same.
        let incarnation = {
            let view = &mut *self.view();
            view.next = view.next.take().filter(|next| next.deployment() == deployment);
            view.next.get_or_insert_with(|| Incarnation::fresh(&self.node, deployment)).clone()
        };
        let (former, epoch) = (self.me(), self.view().epoch.clone());
        let mut pipeline = Pipeline::new();
        self.call(&mut pipeline, link, &incarnation, mode)?;
        let asked_at = Instant::now();
        let mut reply = link.run_on(Op::Lease, on, &pipeline).await?.take::<Reply>(0);
        if is_wrong_type(&reply) {
            // The link has deleted what another program stored in the place of the leases.
            reply = link.run_on(Op::Lease, on, &pipeline).await?.take::<Reply>(0);
        }
        let reply = reply?;
        match reply.0 {
            0 | 1 => {}
            3 => return Ok(Acquired::Leftovers),
            state => return Err(LinkError::Shared(self.note_other(state, &reply))),
        }
        // Written only now, because the keys were another deployment's until here.
        let mut pipeline = Pipeline::new();
        store_connections(&mut pipeline, link, &incarnation, connections);
        pipeline.cmd("HDEL").arg(link.keys().connections()).arg(former.as_str());
        // Add the former incarnation even if its lease was already removed: a late command may still write in its name, and
        // other nodes clean up only incarnations in this set.
        if !epoch.is_empty() && former.deployment() == deployment {
            let now = self.redis_micros() / 1_000;
            pipeline.cmd("ZADD").arg(link.keys().nodes()).arg("NX").arg(now).arg(former.as_str());
        }
        let mut replies = link.run_on(Op::Lease, on, &pipeline).await?;
        let counts = replies.take::<HashMap<Lossy, Lossy>>(1);
        self.note_leases(&incarnation, reply, asked_at, &counts.unwrap_or_default());
        let mut view = self.view();
        (view.next, view.other) = (None, None);
        let former = std::mem::replace(&mut view.me, incarnation);
        let wiped = !epoch.is_empty() && epoch != view.epoch;
        let reaped = !epoch.is_empty() && !wiped && view.others.iter().all(|(other, _)| *other != former);
        view.former = Some(former);
        let (began, now) = (epoch_began(&view.epoch), self.redis_clock.last_micros().unwrap_or(0) / 1_000);
        let data_age = match began {
            Some(began) => Duration::from_millis(u64::try_from(now.saturating_sub(began)).unwrap_or(0)),
            None if wiped => Duration::ZERO,
            None => Duration::MAX,
        };
        Ok(Acquired::Held(Beginning { data_age, reaped }))
    }

    /// Renews the lease and stores the node's number of connections; false if the lease was lost.
    pub(super) async fn renew(
        &self,
        link: &Link,
        on: &mut MultiplexedConnection,
        connections: usize,
    ) -> Result<bool, LinkError> {
        let me = self.me();
        let mut pipeline = Pipeline::new();
        self.call(&mut pipeline, link, &me, Mode::Renew)?;
        store_connections(&mut pipeline, link, &me, connections);
        let asked_at = Instant::now();
        let mut replies = link.run_on(Op::Lease, on, &pipeline).await?;
        let reply = replies.take::<Reply>(0);
        if is_wrong_type(&reply) {
            return Ok(false);
        }
        let (reply, counts) = (reply?, replies.take::<HashMap<Lossy, Lossy>>(2));
        let held = reply.0 == 1;
        self.note_leases(&me, reply, asked_at, &counts.unwrap_or_default());
        Ok(held)
    }

    /// Says of a lease that is being acquired that its node still removes what another deployment left.
    pub(super) async fn keep_removing(&self, link: &Link, on: &mut MultiplexedConnection) -> Result<(), LinkError> {
        let Some(incarnation) = self.view().next.clone() else { return Ok(()) };
        let mut pipeline = Pipeline::new();
        self.call(&mut pipeline, link, &incarnation, Mode::Acquire)?;
        let reply = link.run_on(Op::Lease, on, &pipeline).await?.take::<Reply>(0)?;
        if reply.0 == 3 { Ok(()) } else { Err(LinkError::Shared(self.note_other(reply.0, &reply))) }
    }

    /// Removes the lease, because the node gets another deployment.
    pub(super) async fn release(&self, link: &Link, on: &mut MultiplexedConnection) -> Result<(), LinkError> {
        let (me, keys) = (self.me(), link.keys());
        let mut pipeline = Pipeline::new();
        pipeline.cmd("ZREM").arg(keys.nodes()).arg(me.as_str()).cmd("HDEL").arg(keys.connections()).arg(me.as_str());
        link.run_on(Op::Lease, on, &pipeline).await.map(drop)
    }

    /// Adds a call of `renew.lua`.
    fn call(
        &self,
        pipeline: &mut Pipeline,
        link: &Link,
        incarnation: &Incarnation,
        mode: Mode,
    ) -> Result<(), LinkError> {
        let deployment = link.keys().deployment().borrow().ok_or(LinkError::Down)?;
        let epoch = format!("/{deployment}.{}", Uuid::new_v4().simple());
        let length = u64::try_from(self.length.as_millis()).unwrap_or(u64::MAX);
        let call = RENEW.call(pipeline, link.keys().nodes()).arg(incarnation.as_str()).arg(length);
        call.arg(mode.as_str()).arg(epoch).arg(deployment.to_string());
        Ok(())
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

    /// Takes over the leases that `renew.lua` returned when it was called for `me` at `asked_at`.
    fn note_leases(&self, me: &Incarnation, reply: Reply, asked_at: Instant, counts: &HashMap<Lossy, Lossy>) {
        let ((state, micros, Lossy(epoch), leases), now) = (reply, Instant::now());
        let leases: Vec<_> = leases.into_iter().map(|(Lossy(other), left)| (other, left)).collect();
        let alive = leases.iter().filter(|(other, left)| other != me.as_str() && *left > 0);
        let connections_elsewhere = self.counts.sum(counts, alive.map(|(other, _)| other.as_str()));
        let others = leases.iter().filter(|(other, _)| other != me.as_str()).filter_map(|(other, left)| {
            // Redis holds what others wrote; no lease is longer than this.
            let left = Duration::from_millis(u64::try_from(*left).unwrap_or(0)).min(LEASE_MAX);
            Some((Incarnation::parse(other)?, now + left))
        });
        let mut view = self.view();
        // A lease that is acquired was not held before.
        view.held_until = (state == 1 || *me != view.me).then(|| asked_at + self.length);
        let others: Vec<_> = others.collect();
        let stands = |incarnation: &Incarnation| others.iter().any(|(other, _)| other == incarnation);
        let removed = view.others.iter().any(|(other, _)| !stands(other) && !view.expired.contains(other));
        view.ended |= removed;
        view.expired.retain(stands);
        view.others = others;
        view.connections_elsewhere = connections_elsewhere;
        // A renewal that finds no lease may be the first to see a new epoch; the acquisition that follows compares it.
        if state == 1 {
            view.epoch = epoch;
        }
        self.redis_clock.read(asked_at, micros);
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds commands that store the node's number of connections and read that of all nodes.
fn store_connections(pipeline: &mut Pipeline, link: &Link, me: &Incarnation, connections: usize) {
    let key = link.keys().connections();
    pipeline.cmd("HSET").arg(key).arg(me.as_str()).arg(connections).cmd("HGETALL").arg(key);
}

/// The time at which an epoch began, in milliseconds of Redis' clock; `None` if a node of an earlier version named it.
fn epoch_began(epoch: &str) -> Option<i64> {
    epoch.rsplit_once('@')?.1.parse().ok()
}
