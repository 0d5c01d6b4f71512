//! The plan of faults, drawn from a seed, so that a run can be repeated.

use std::{fmt, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};

use crate::{engine::Engine, support::Link};

/// A slow link: slower than a lock is held, quicker than any timeout.
const SLOW: Link = Link::Slow(Duration::from_millis(60));

/// Number of nodes in the cluster.
pub const NODES: usize = 3;

/// A fault. A fault with a duration is undone at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Redis is killed and comes back empty.
    RedisKilled,
    /// Redis is frozen.
    RedisFrozen,
    /// `CLIENT PAUSE`: Redis holds the commands of all clients.
    RedisPaused,
    /// `DEBUG SLEEP`: Redis is busy with one command.
    RedisAsleep,
    /// Redis closes the connections of subscribers.
    RedisSubscribersKilled,
    /// Redis loses all keys.
    RedisFlushed,
    /// Redis loses all scripts.
    RedisScriptsFlushed,
    /// A node's link to Redis breaks.
    RedisLink(usize, Link),
    /// The servers of Redis end the connections of a node and refuse its login.
    RedisRefuses(usize),
    /// The master of a shard is killed. It comes back empty, as a master or, if it was replaced, as a replica.
    MasterKilled(usize),
    /// The master of a shard is frozen. If it was replaced, it then takes writes for a while.
    MasterFrozen(usize),
    /// The replica of a shard takes over by hand.
    MasterReplaced(usize),
    /// The replica of a shard gets no writes for a time, and is promoted.
    WritesLost(usize),
    /// All slots of the first shard move to the second one, and come back.
    SlotsMoved(usize, usize),
    /// A sentinel is frozen.
    SentinelFrozen(usize),
    /// All processes of PostgreSQL are killed.
    StoreKilled,
    /// PostgreSQL is frozen.
    StoreFrozen,
    /// The primary of PostgreSQL is stopped for good, and its standby promoted.
    StoreFailedOver,
    /// PostgreSQL ends every session.
    StoreSessionsEnded,
    /// A node's link to PostgreSQL breaks.
    StoreLink(usize, Link),
    /// A node's link to PostgreSQL breaks after PostgreSQL acted and before the node gets the answers.
    StoreAnswersLost(usize),
    /// A node is killed and started again.
    NodeKilled(usize),
    /// A node loses Redis, and is killed before it notices that the others were not told of its last entries.
    NodeKilledUnheard(usize),
    /// A node is frozen for longer than its lease.
    NodeFrozen(usize),
    /// A node gets SIGTERM and is started again, as in a deploy.
    NodeReplaced(usize),
    /// Some clients lose their connections.
    ClientsCut,
    /// Some clients move to another node.
    ClientsMoved,
    /// Some clients go away for a time.
    ClientsAway,
    /// Some clients stop reading.
    ReadersStalled,
}

/// Target of a fault; faults of one target don't overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    Redis,
    Shard(usize),
    Sentinel,
    RedisLink(usize),
    Store,
    StoreLink(usize),
    Node(usize),
}

impl Fault {
    /// Returns one fault of every kind that an engine knows, on random nodes and shards.
    fn every(rng: &mut StdRng, engine: Engine) -> Vec<Self> {
        let broken = |rng: &mut StdRng| if rng.random() { Link::Cut } else { Link::Frozen };
        let mut node = || rng.random_range(0..NODES);
        let nodes: [usize; 10] = std::array::from_fn(|_| node());
        let mut all = vec![
            Self::RedisSubscribersKilled,
            Self::RedisFlushed,
            Self::RedisScriptsFlushed,
            Self::StoreKilled,
            Self::StoreFrozen,
            Self::StoreFailedOver,
            Self::StoreSessionsEnded,
            Self::StoreLink(nodes[2], broken(rng)),
            Self::StoreAnswersLost(nodes[3]),
            Self::NodeKilled(nodes[4]),
            Self::NodeFrozen(nodes[5]),
            Self::NodeReplaced(nodes[6]),
            Self::StoreLink(nodes[8], SLOW),
            Self::NodeKilledUnheard(nodes[9]),
            Self::ClientsCut,
            Self::ClientsMoved,
            Self::ClientsAway,
            Self::ReadersStalled,
        ];
        if engine == Engine::Single {
            all.extend([
                Self::RedisKilled,
                Self::RedisFrozen,
                Self::RedisPaused,
                Self::RedisAsleep,
                Self::RedisLink(nodes[0], broken(rng)),
                Self::RedisLink(nodes[1], Link::Mute),
                Self::RedisLink(nodes[7], SLOW),
            ]);
            return all;
        }
        let shards: [usize; 6] = std::array::from_fn(|_| rng.random_range(0..engine.shards()));
        all.extend([
            Self::RedisRefuses(nodes[0]),
            Self::MasterKilled(shards[0]),
            Self::MasterFrozen(shards[1]),
            Self::MasterReplaced(shards[2]),
            Self::WritesLost(shards[3]),
        ]);
        match engine {
            Engine::Cluster => all.push(Self::SlotsMoved(shards[4], (shards[4] + 1 + shards[5] % 2) % 3)),
            _ => all.push(Self::SentinelFrozen(nodes[7])),
        }
        all
    }

    /// Targets of this fault, in order.
    pub fn targets(self) -> Vec<Target> {
        match self {
            Self::RedisKilled | Self::RedisFrozen | Self::RedisPaused | Self::RedisAsleep => vec![Target::Redis],
            Self::MasterKilled(shard)
            | Self::MasterFrozen(shard)
            | Self::MasterReplaced(shard)
            | Self::WritesLost(shard) => vec![Target::Shard(shard)],
            Self::SlotsMoved(one, other) => vec![Target::Shard(one.min(other)), Target::Shard(one.max(other))],
            Self::SentinelFrozen(_) => vec![Target::Sentinel],
            Self::RedisLink(node, _) | Self::RedisRefuses(node) => vec![Target::RedisLink(node)],
            Self::StoreKilled | Self::StoreFrozen | Self::StoreFailedOver => vec![Target::Store],
            Self::StoreLink(node, _) | Self::StoreAnswersLost(node) => vec![Target::StoreLink(node)],
            Self::NodeKilled(node)
            | Self::NodeKilledUnheard(node)
            | Self::NodeFrozen(node)
            | Self::NodeReplaced(node) => vec![Target::Node(node)],
            Self::RedisSubscribersKilled
            | Self::RedisFlushed
            | Self::RedisScriptsFlushed
            | Self::StoreSessionsEnded
            | Self::ClientsCut
            | Self::ClientsMoved
            | Self::ClientsAway
            | Self::ReadersStalled => Vec::new(),
        }
    }

    /// Range of durations, in milliseconds.
    fn lasts(self) -> std::ops::Range<u64> {
        match self {
            Self::RedisKilled | Self::StoreKilled | Self::NodeKilled(_) => 100..4_000,
            Self::RedisFrozen | Self::StoreFrozen => 500..6_000,
            Self::RedisPaused | Self::RedisAsleep => 300..3_000,
            // A master is replaced after 2 s and more, so it may also come back before.
            Self::MasterKilled(_) | Self::MasterFrozen(_) | Self::SentinelFrozen(_) => 500..8_000,
            Self::WritesLost(_) | Self::SlotsMoved(..) => 500..3_000,
            Self::RedisLink(..) | Self::RedisRefuses(_) | Self::StoreLink(..) => 200..5_000,
            Self::StoreFailedOver => 0..2_000,
            Self::StoreAnswersLost(_) => 20..300,
            Self::NodeKilledUnheard(_) => 200..900,
            Self::NodeFrozen(_) => 3_500..7_000,
            Self::ClientsAway => 1_000..8_000,
            Self::ReadersStalled => 1_000..6_000,
            Self::NodeReplaced(_)
            | Self::MasterReplaced(_)
            | Self::RedisSubscribersKilled
            | Self::RedisFlushed
            | Self::RedisScriptsFlushed
            | Self::StoreSessionsEnded
            | Self::ClientsCut
            | Self::ClientsMoved => 0..1,
        }
    }
}

/// A fault with its time.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    pub at: Duration,
    pub lasts: Duration,
    pub fault: Fault,
}

/// Faults in the order in which they begin.
#[derive(Debug, Clone)]
pub struct Plan(pub Vec<Step>);

/// The death of one master of a cluster at the begin of a plan. Nothing else happens for a while, so that its effect on the
/// users of the other masters can be measured.
const ALONE: Duration = Duration::from_secs(6);

impl Plan {
    /// Draws faults over `time`. Faults of different targets overlap. Every kind occurs before any kind repeats.
    pub fn draw(engine: Engine, seed: u64, time: Duration) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut steps, mut bag) = (Vec::<Step>::new(), Vec::new());
        let mut at = Duration::from_millis(500);
        if engine == Engine::Cluster {
            let fault = Fault::MasterFrozen(rng.random_range(0..engine.shards()));
            steps.push(Step { at, lasts: ALONE, fault });
            at += ALONE;
        }
        while at < time {
            if bag.is_empty() {
                bag = Fault::every(&mut rng, engine);
                bag.shuffle(&mut rng);
            }
            let busy = |fault: &Fault| {
                let same = |step: &&Step| step.fault.targets().iter().any(|target| fault.targets().contains(target));
                steps.iter().filter(same).any(|step| step.at + step.lasts + settling(step.fault) > at)
            };
            if let Some(free) = bag.iter().position(|fault| !busy(fault)) {
                let fault = bag.remove(free);
                let lasts = Duration::from_millis(rng.random_range(fault.lasts()));
                steps.push(Step { at, lasts, fault });
            }
            at += Duration::from_millis(rng.random_range(200..1_600));
        }
        Self(steps)
    }
}

/// Minimum pause between two faults of one target: a node must have time to recover what it lost, one that got
/// SIGTERM needs time to exit, and a former master becomes a replica.
fn settling(fault: Fault) -> Duration {
    match fault.targets().first() {
        _ if matches!(fault, Fault::NodeReplaced(_)) => Duration::from_secs(8),
        Some(Target::Shard(_)) => Duration::from_secs(6),
        Some(Target::Redis) => Duration::from_secs(3),
        _ => Duration::from_millis(500),
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Step { at, lasts, fault } in &self.0 {
            writeln!(f, "  at {:7.3} for {:5.3}: {fault:?}", at.as_secs_f64(), lasts.as_secs_f64())?;
        }
        Ok(())
    }
}

#[test]
fn a_seed_gives_one_plan_with_every_fault() {
    let (time, kind) = (Duration::from_secs(120), |step: &Step| std::mem::discriminant(&step.fault));
    for (engine, number) in [(Engine::Single, 22), (Engine::Sentinel, 23), (Engine::Cluster, 23)] {
        for seed in 0..20 {
            let (one, other) = (Plan::draw(engine, seed, time), Plan::draw(engine, seed, time));
            assert_eq!(one.to_string(), other.to_string());
            let kinds: std::collections::HashSet<_> = one.0.iter().map(kind).collect();
            assert_eq!(kinds.len(), number, "{one}");
            let overlap = |pair: &[Step]| pair[0].at + pair[0].lasts > pair[1].at;
            assert!(one.0.windows(2).any(overlap), "{one}");
        }
    }
}
