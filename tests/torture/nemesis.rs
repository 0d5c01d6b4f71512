//! The plan of faults, drawn from a seed, so that a run can be repeated.

use std::{fmt, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};

use crate::support::Link;

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
    /// All processes of PostgreSQL are killed.
    StoreKilled,
    /// PostgreSQL is frozen.
    StoreFrozen,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    Redis,
    RedisLink(usize),
    Store,
    StoreLink(usize),
    Node(usize),
    Nothing,
}

impl Fault {
    /// Returns one fault of every kind, on random nodes.
    fn every(rng: &mut StdRng) -> Vec<Self> {
        let broken = |rng: &mut StdRng| if rng.random() { Link::Cut } else { Link::Frozen };
        let mut node = || rng.random_range(0..NODES);
        let nodes: [usize; 10] = std::array::from_fn(|_| node());
        vec![
            Self::RedisKilled,
            Self::RedisFrozen,
            Self::RedisPaused,
            Self::RedisAsleep,
            Self::RedisSubscribersKilled,
            Self::RedisFlushed,
            Self::RedisScriptsFlushed,
            Self::RedisLink(nodes[0], broken(rng)),
            Self::RedisLink(nodes[1], Link::Mute),
            Self::StoreKilled,
            Self::StoreFrozen,
            Self::StoreSessionsEnded,
            Self::StoreLink(nodes[2], broken(rng)),
            Self::StoreAnswersLost(nodes[3]),
            Self::NodeKilled(nodes[4]),
            Self::NodeFrozen(nodes[5]),
            Self::NodeReplaced(nodes[6]),
            Self::RedisLink(nodes[7], SLOW),
            Self::StoreLink(nodes[8], SLOW),
            Self::NodeKilledUnheard(nodes[9]),
            Self::ClientsCut,
            Self::ClientsMoved,
            Self::ClientsAway,
            Self::ReadersStalled,
        ]
    }

    /// Target of this fault.
    pub fn target(self) -> Target {
        match self {
            Self::RedisKilled | Self::RedisFrozen | Self::RedisPaused | Self::RedisAsleep => Target::Redis,
            Self::RedisLink(node, _) => Target::RedisLink(node),
            Self::StoreKilled | Self::StoreFrozen => Target::Store,
            Self::StoreLink(node, _) | Self::StoreAnswersLost(node) => Target::StoreLink(node),
            Self::NodeKilled(node)
            | Self::NodeKilledUnheard(node)
            | Self::NodeFrozen(node)
            | Self::NodeReplaced(node) => Target::Node(node),
            Self::RedisSubscribersKilled
            | Self::RedisFlushed
            | Self::RedisScriptsFlushed
            | Self::StoreSessionsEnded
            | Self::ClientsCut
            | Self::ClientsMoved
            | Self::ClientsAway
            | Self::ReadersStalled => Target::Nothing,
        }
    }

    /// Range of durations, in milliseconds.
    fn lasts(self) -> std::ops::Range<u64> {
        match self {
            Self::RedisKilled | Self::StoreKilled | Self::NodeKilled(_) => 100..4_000,
            Self::RedisFrozen | Self::StoreFrozen => 500..6_000,
            Self::RedisPaused | Self::RedisAsleep => 300..3_000,
            Self::RedisLink(..) | Self::StoreLink(..) => 200..5_000,
            Self::StoreAnswersLost(_) => 20..300,
            Self::NodeKilledUnheard(_) => 200..900,
            Self::NodeFrozen(_) => 3_500..7_000,
            Self::ClientsAway => 1_000..8_000,
            Self::ReadersStalled => 1_000..6_000,
            Self::NodeReplaced(_)
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

impl Plan {
    /// Draws faults over `time`. Faults of different targets overlap. Every kind occurs before any kind repeats.
    pub fn draw(seed: u64, time: Duration) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut steps, mut bag) = (Vec::<Step>::new(), Vec::new());
        let mut at = Duration::from_millis(500);
        while at < time {
            if bag.is_empty() {
                bag = Fault::every(&mut rng);
                bag.shuffle(&mut rng);
            }
            let busy = |fault: &Fault| {
                let same = |step: &&Step| step.fault.target() == fault.target() && fault.target() != Target::Nothing;
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

/// Minimum pause between two faults of one target: a node must have time to recover what it lost, and one that got
/// SIGTERM needs time to exit.
fn settling(fault: Fault) -> Duration {
    match fault.target() {
        _ if matches!(fault, Fault::NodeReplaced(_)) => Duration::from_secs(8),
        Target::Redis => Duration::from_secs(3),
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
    let (time, kind) = (Duration::from_secs(90), |step: &Step| std::mem::discriminant(&step.fault));
    for seed in 0..20 {
        let (one, other) = (Plan::draw(seed, time), Plan::draw(seed, time));
        assert_eq!(one.to_string(), other.to_string());
        let kinds: std::collections::HashSet<_> = one.0.iter().map(kind).collect();
        assert_eq!(kinds.len(), 21, "{one}");
        let overlap = |pair: &[Step]| pair[0].at + pair[0].lasts > pair[1].at;
        assert!(one.0.windows(2).any(overlap), "{one}");
    }
}
