//! A node's lease in Redis, and what it knows of the others' leases.

use std::{
    collections::HashMap,
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
    ops::Op,
    scripts::RENEW,
};
use crate::model::{Clock, NodeId};

/// How far a node's word is to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// It missed a renewal.
    Stale,
    /// Its lease is out.
    Dead,
}

impl Doubt {
    /// As `register.lua` reads it.
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
    epoch: String,
    others: Vec<(Incarnation, Instant)>,
    /// Connections that the others held when they last renewed.
    connections_elsewhere: u64,
    /// Redis' clock minus this node's, in microseconds.
    offset: i64,
}

/// What came of taking a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    /// Redis had lost all it knew since this node last looked.
    pub(super) wiped: bool,
    /// Others took the former life for dead, and told of its users' departure.
    pub(super) reaped: bool,
}

/// This node's lease.
pub(super) struct Lease {
    node: NodeId,
    length: Duration,
    clock: Clock,
    view: Mutex<View>,
    retired: AtomicBool,
}

impl Lease {
    /// None is held yet.
    pub(super) fn new(node: NodeId, length: Duration, clock: Clock) -> Self {
        let me = Incarnation::fresh(&node);
        let view =
            View { me, former: None, epoch: String::new(), others: Vec::new(), connections_elsewhere: 0, offset: 0 };
        Self { node, length, clock, view: Mutex::new(view), retired: AtomicBool::new(false) }
    }

    /// From now on the lease is neither renewed nor taken anew: the node goes.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    /// Whether the node goes.
    pub(super) fn retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// How long a lease lasts.
    pub(super) fn length(&self) -> Duration {
        self.length
    }

    /// How often it is renewed.
    pub(super) fn interval(&self) -> Duration {
        self.length / 3
    }

    /// The current life.
    pub(super) fn me(&self) -> Incarnation {
        self.view().me.clone()
    }

    /// The current life and the one before.
    pub(super) fn lives(&self) -> (Incarnation, Option<Incarnation>) {
        let view = self.view();
        (view.me.clone(), view.former.clone())
    }

    /// Redis' time as this node reckons it, in microseconds.
    pub(super) fn redis_micros(&self) -> i64 {
        self.clock.now().micros().saturating_add(self.view().offset)
    }

    /// Nodes whose word is in doubt; commonly none.
    pub(super) fn doubtful(&self) -> Vec<(Incarnation, Doubt)> {
        let now = Instant::now();
        let doubt = |out: Instant| match out.saturating_duration_since(now) {
            left if left.is_zero() => Some(Doubt::Dead),
            // Renewed in time, a lease has more than half of its length left whenever it is looked at.
            left if left < self.length / 4 => Some(Doubt::Stale),
            _ => None,
        };
        self.view().others.iter().filter_map(|(who, out)| Some((who.clone(), doubt(*out)?))).collect()
    }

    /// Connections of all other nodes that are alive, as of the last renewal.
    pub(super) fn connections_elsewhere(&self) -> u64 {
        self.view().connections_elsewhere
    }

    /// Takes a lease as a new life, and says how many connections the node holds.
    pub(super) async fn take(
        &self,
        link: &Link,
        on: &mut MultiplexedConnection,
        connections: usize,
    ) -> Result<Taken, LinkError> {
        let life = Incarnation::fresh(&self.node);
        let epoch = self.view().epoch.clone();
        self.ask(link, on, &life, Some(self.me()), connections).await?;
        let mut view = self.view();
        let former = std::mem::replace(&mut view.me, life);
        let wiped = !epoch.is_empty() && epoch != view.epoch;
        let reaped = !epoch.is_empty() && !wiped && view.others.iter().all(|(who, _)| *who != former);
        view.former = Some(former);
        Ok(Taken { wiped, reaped })
    }

    /// Renews the lease, and says how many connections the node holds; false where the lease was lost.
    pub(super) async fn renew(
        &self,
        link: &Link,
        on: &mut MultiplexedConnection,
        connections: usize,
    ) -> Result<bool, LinkError> {
        let me = self.me();
        self.ask(link, on, &me, None, connections).await
    }

    /// Renews, or, for a life that follows a former one, takes the lease.
    async fn ask(
        &self,
        link: &Link,
        on: &mut MultiplexedConnection,
        life: &Incarnation,
        former: Option<Incarnation>,
        connections: usize,
    ) -> Result<bool, LinkError> {
        let take = former.is_some();
        let mut pipeline = Pipeline::new();
        let epoch = format!("/{}", Uuid::new_v4().simple());
        let length = u64::try_from(self.length.as_millis()).unwrap_or(u64::MAX);
        RENEW.call(&mut pipeline, keys::NODES).arg(life.as_str()).arg(length).arg(u8::from(take)).arg(epoch);
        pipeline.cmd("HSET").arg(keys::CONNECTIONS).arg(life.as_str()).arg(connections);
        pipeline.cmd("HGETALL").arg(keys::CONNECTIONS);
        if let Some(former) = former {
            pipeline.cmd("HDEL").arg(keys::CONNECTIONS).arg(former.as_str());
            // Also where that lease is gone already: what still arrives in its name is to be cleaned up.
            if !self.view().epoch.is_empty() {
                pipeline.cmd("ZADD").arg(keys::NODES).arg("NX").arg(self.redis_micros() / 1_000).arg(former.as_str());
            }
        }
        let asked = self.clock.now().micros();
        let mut replies = link.run_on(Op::Lease, on, &pipeline).await?;
        let (now, answered) = (Instant::now(), self.clock.now().micros());
        let (held, micros, epoch, leases): (bool, i64, String, Vec<(String, i64)>) = replies.take(0)?;
        let counts: HashMap<String, u64> = replies.take(2)?;
        let alive = leases.iter().filter(|(who, left)| who != life.as_str() && *left > 0);
        let connections_elsewhere = alive.filter_map(|(who, _)| counts.get(who)).sum();
        let others = leases.iter().filter(|(who, _)| who != life.as_str()).filter_map(|(who, left)| {
            let out = now + Duration::from_millis(u64::try_from(*left).unwrap_or(0));
            Some((Incarnation::parse(who)?, out))
        });
        let mut view = self.view();
        view.others = others.collect();
        view.connections_elsewhere = connections_elsewhere;
        view.epoch = epoch;
        view.offset = micros.saturating_sub(asked.midpoint(answered));
        Ok(held || take)
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
