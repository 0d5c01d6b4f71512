//! A node's lease in Redis, and this node's view of the other nodes' leases.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use redis::{Pipeline, aio::MultiplexedConnection};
use uuid::Uuid;

use super::{
    incarnation::Incarnation,
    keys,
    link::{Link, LinkError},
    lossy::Lossy,
    node_counts::NodeCounts,
    ops::Op,
    scripts::RENEW,
};
use crate::model::{Clock, NodeId};

/// Longest remaining lease of another node that is believed; NODE_LEASE is at most 10 minutes.
const LEASE_MAX: Duration = Duration::from_secs(3_600);

/// The reply of `renew.lua`: true if the lease was held, Redis' time in microseconds, the epoch, and the leases with the
/// milliseconds left.
type Leases = (bool, i64, Lossy, Vec<(Lossy, i64)>);

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
    epoch: String,
    others: Vec<(Incarnation, Instant)>,
    /// True if a lease of another node ended since [`Lease::take_ended`] was called.
    ended: bool,
    /// Other nodes' leases that expired and were counted in `ended`.
    expired: HashSet<Incarnation>,
    /// Number of connections that the other nodes held when they last renewed.
    connections_elsewhere: u64,
    /// Redis' time in microseconds at a moment of this node. A jump of this node's clock changes nothing of it.
    redis_time: Option<(Instant, i64)>,
}

/// The result of [`Lease::acquire`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Acquired {
    /// Redis was wiped since this node last held a lease.
    pub(super) wiped: bool,
    /// Other nodes counted the former incarnation as dead, and announced the departure of its users.
    pub(super) reaped: bool,
}

/// This node's lease.
pub(super) struct Lease {
    node: NodeId,
    length: Duration,
    clock: Clock,
    view: Mutex<View>,
    counts: NodeCounts,
    retired: AtomicBool,
}

impl Lease {
    /// A lease that is not acquired yet.
    pub(super) fn new(node: NodeId, length: Duration, clock: Clock) -> Self {
        let me = Incarnation::fresh(&node);
        let view = View {
            me,
            former: None,
            next: None,
            epoch: String::new(),
            others: Vec::new(),
            ended: false,
            expired: HashSet::new(),
            connections_elsewhere: 0,
            redis_time: None,
        };
        Self {
            node,
            length,
            clock,
            view: Mutex::new(view),
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
        match self.view().redis_time {
            Some((at, micros)) => micros.saturating_add(i64::try_from(at.elapsed().as_micros()).unwrap_or(i64::MAX)),
            None => self.clock.now().micros(),
        }
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

    /// Number of connections on all other live nodes, as of the last renewal.
    pub(super) fn connections_elsewhere(&self) -> u64 {
        self.view().connections_elsewhere
    }

    /// Acquires a lease under a new incarnation and stores the node's number of connections.
    pub(super) async fn acquire(
        &self,
        link: &Link,
        on: &mut MultiplexedConnection,
        connections: usize,
    ) -> Result<Acquired, LinkError> {
        // A try that failed may have stored a lease under this name, so the next one takes the same.
        let incarnation = self.view().next.get_or_insert_with(|| Incarnation::fresh(&self.node)).clone();
        let epoch = self.view().epoch.clone();
        self.call_renew(link, on, &incarnation, Some(self.me()), connections).await?;
        let mut view = self.view();
        view.next = None;
        let former = std::mem::replace(&mut view.me, incarnation);
        let wiped = !epoch.is_empty() && epoch != view.epoch;
        let reaped = !epoch.is_empty() && !wiped && view.others.iter().all(|(other, _)| *other != former);
        view.former = Some(former);
        Ok(Acquired { wiped, reaped })
    }

    /// Renews the lease and stores the node's number of connections; false if the lease was lost.
    pub(super) async fn renew(
        &self,
        link: &Link,
        on: &mut MultiplexedConnection,
        connections: usize,
    ) -> Result<bool, LinkError> {
        let me = self.me();
        self.call_renew(link, on, &me, None, connections).await
    }

    /// Calls `renew.lua`. With a former incarnation it acquires a lease for `incarnation`; without one it renews
    /// `incarnation`'s lease.
    async fn call_renew(
        &self,
        link: &Link,
        on: &mut MultiplexedConnection,
        incarnation: &Incarnation,
        former: Option<Incarnation>,
        connections: usize,
    ) -> Result<bool, LinkError> {
        let acquire = former.is_some();
        let mut pipeline = Pipeline::new();
        let epoch = format!("/{}", Uuid::new_v4().simple());
        let length = u64::try_from(self.length.as_millis()).unwrap_or(u64::MAX);
        RENEW.call(&mut pipeline, keys::NODES).arg(incarnation.as_str()).arg(length).arg(u8::from(acquire)).arg(epoch);
        pipeline.cmd("HSET").arg(keys::CONNECTIONS).arg(incarnation.as_str()).arg(connections);
        pipeline.cmd("HGETALL").arg(keys::CONNECTIONS);
        if let Some(former) = former {
            pipeline.cmd("HDEL").arg(keys::CONNECTIONS).arg(former.as_str());
            // Add the former incarnation even if its lease was already removed: a late command may still write in its
            // name, and other nodes clean up only incarnations in this set.
            if !self.view().epoch.is_empty() {
                pipeline.cmd("ZADD").arg(keys::NODES).arg("NX").arg(self.redis_micros() / 1_000).arg(former.as_str());
            }
        }
        let asked_at = Instant::now();
        let mut replies = link.run_on(Op::Lease, on, &pipeline).await?;
        let now = Instant::now();
        let leases = replies.take::<Leases>(0);
        self.drop_foreign(link, on, keys::NODES, &leases).await?;
        let counts = replies.take::<HashMap<Lossy, Lossy>>(2);
        self.drop_foreign(link, on, keys::CONNECTIONS, &counts).await?;
        let ((held, micros, Lossy(epoch), leases), counts) = (leases?, counts.unwrap_or_default());
        let leases: Vec<_> = leases.into_iter().map(|(Lossy(other), left)| (other, left)).collect();
        let alive = leases.iter().filter(|(other, left)| other != incarnation.as_str() && *left > 0);
        let connections_elsewhere = self.counts.sum(&counts, alive.map(|(other, _)| other.as_str()));
        let others = leases.iter().filter(|(other, _)| other != incarnation.as_str()).filter_map(|(other, left)| {
            // Redis holds what others wrote; no lease is longer than this.
            let left = Duration::from_millis(u64::try_from(*left).unwrap_or(0)).min(LEASE_MAX);
            Some((Incarnation::parse(other)?, now + left))
        });
        let mut view = self.view();
        let others: Vec<_> = others.collect();
        let stands = |incarnation: &Incarnation| others.iter().any(|(other, _)| other == incarnation);
        let removed = view.others.iter().any(|(other, _)| !stands(other) && !view.expired.contains(other));
        view.ended |= removed;
        view.expired.retain(stands);
        view.others = others;
        view.connections_elsewhere = connections_elsewhere;
        view.epoch = epoch;
        view.redis_time = Some((asked_at + now.duration_since(asked_at) / 2, micros));
        Ok(held || acquire)
    }

    /// Deletes a key of the nodes alone under which another program stored a value of another type.
    async fn drop_foreign<T>(
        &self,
        link: &Link,
        on: &mut MultiplexedConnection,
        key: &str,
        reply: &Result<T, LinkError>,
    ) -> Result<(), LinkError> {
        if !matches!(reply, Err(LinkError::Refused(refusal)) if refusal.code == "WRONGTYPE") {
            return Ok(());
        }
        self.counts.tell(&format!("{key} has a value of another type; it is deleted"));
        let mut pipeline = Pipeline::new();
        pipeline.cmd("DEL").arg(key);
        link.run_on(Op::Lease, on, &pipeline).await.map(drop)
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
