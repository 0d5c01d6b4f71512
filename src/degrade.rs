//! Degraded mode: the one state machine, and the one table of what still works.
//!
//! The backplane's link and the store report how their checks and calls went; whoever must decide asks
//! [`Degrade::mode`]. Outside the backplane nothing asks whether Redis is up.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::watch;

mod fault;

pub use fault::{Examined, Fault, Finding};

/// Failed checks in a row until a part counts as down, and good ones until it counts as up again.
const FAILURES_TO_GO_DOWN: u32 = 2;
const SUCCESSES_TO_COME_UP: u32 = 2;

/// A part the broker leans on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// Redis, through the backplane.
    Redis,
    /// PostgreSQL or SQLite.
    Store,
}

impl Part {
    /// The label in metrics, logs and health.
    pub fn label(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Store => "store",
        }
    }
}

/// The state of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Not configured: the node is alone by choice.
    Off,
    /// Works.
    Up,
    /// Should work, and does not now.
    Down,
}

/// What the broker does with the help of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// Reaching members on other nodes.
    Fanout,
    /// Counting sends and connections.
    Limits,
    /// Knowing who is online.
    Presence,
    /// Taking messages.
    Append,
    /// Reading what was stored.
    History,
}

impl Feature {
    /// Every feature.
    pub const ALL: [Self; 5] = [Self::Fanout, Self::Limits, Self::Presence, Self::Append, Self::History];

    /// Its name in health.
    pub fn label(self) -> &'static str {
        match self {
            Self::Fanout => "fanout",
            Self::Limits => "limits",
            Self::Presence => "presence",
            Self::Append => "append",
            Self::History => "history",
        }
    }
}

impl Mode {
    /// Its name in health.
    pub fn label(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Relayed => "relayed",
            Self::Local => "local",
            Self::Refused => "refused",
        }
    }
}

/// How a feature works now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// With all nodes.
    Shared,
    /// With all nodes, through the store: within a second.
    Relayed,
    /// With what this node knows.
    Local,
    /// Not at all, for now.
    Refused,
}

/// The table: what still works when a part is off or down.
fn table(feature: Feature, redis: Link, store: Link) -> Mode {
    match (feature, redis, store) {
        (Feature::Fanout | Feature::Limits | Feature::Presence, Link::Up, _) => Mode::Shared,
        (Feature::Fanout, Link::Down, Link::Up) => Mode::Relayed,
        (Feature::Fanout | Feature::Limits | Feature::Presence, Link::Off | Link::Down, _) => Mode::Local,
        (Feature::Append | Feature::History, _, Link::Down) => Mode::Refused,
        (Feature::Append | Feature::History, _, Link::Up | Link::Off) => Mode::Shared,
    }
}

/// The state of one part, for health.
#[derive(Debug, Clone, Copy)]
pub struct PartState {
    /// Up, down, or off.
    pub link: Link,
    /// Since when.
    pub since: Instant,
    /// How long its last good check took.
    pub latency: Option<Duration>,
}

#[derive(Debug)]
struct Watched {
    state: PartState,
    failures: u32,
    successes: u32,
}

impl Watched {
    fn new(link: Link) -> Self {
        let state = PartState { link, since: Instant::now(), latency: None };
        Self { state, failures: 0, successes: 0 }
    }

    /// Takes a check's result; true where the state changed.
    fn take(&mut self, result: Result<Duration, ()>) -> bool {
        let next = match result {
            Ok(latency) => {
                self.state.latency = Some(latency);
                (self.failures, self.successes) = (0, self.successes.saturating_add(1));
                (self.successes >= SUCCESSES_TO_COME_UP).then_some(Link::Up)
            }
            Err(()) => {
                (self.failures, self.successes) = (self.failures.saturating_add(1), 0);
                (self.failures >= FAILURES_TO_GO_DOWN).then_some(Link::Down)
            }
        };
        self.go(next.unwrap_or(self.state.link))
    }

    fn go(&mut self, link: Link) -> bool {
        let changed = self.state.link != link && self.state.link != Link::Off;
        if changed {
            self.state.link = link;
            self.state.since = Instant::now();
        }
        changed
    }
}

/// What the whole node says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// All is well.
    Healthy,
    /// Something is down; what the table says goes on.
    Degraded,
    /// Draining, or neither Redis nor the store answers.
    Unhealthy,
}

/// The state machine. Shared by all parts of a node.
#[derive(Debug)]
pub struct Degrade {
    redis: Mutex<Watched>,
    store: Mutex<Watched>,
    draining: AtomicBool,
    others_relay: AtomicBool,
    changes: watch::Sender<u64>,
}

impl Degrade {
    /// A node whose store is up, and whose Redis is as given: `Off` for none, `Down` until it answered.
    pub fn new(redis: Link) -> Self {
        Self {
            redis: Mutex::new(Watched::new(redis)),
            store: Mutex::new(Watched::new(Link::Up)),
            draining: AtomicBool::new(false),
            others_relay: AtomicBool::new(false),
            changes: watch::Sender::new(0),
        }
    }

    /// Takes the result of a check or a call: how long it took, or that it failed. True where the part's state changed.
    pub fn report(&self, part: Part, result: Result<Duration, ()>) -> bool {
        let changed = self.part(part).take(result);
        self.told(changed)
    }

    /// Takes what is beyond doubt, as a refused connection: no second failure is waited for.
    pub fn set(&self, part: Part, link: Link) -> bool {
        let changed = {
            let mut watched = self.part(part);
            (watched.failures, watched.successes) = (0, 0);
            watched.go(link)
        };
        self.told(changed)
    }

    /// The state of a part.
    pub fn state(&self, part: Part) -> PartState {
        self.part(part).state
    }

    /// How a feature works now.
    pub fn mode(&self, feature: Feature) -> Mode {
        table(feature, self.state(Part::Redis).link, self.state(Part::Store).link)
    }

    /// Notes whether any node says in the store that it reaches others through it alone.
    pub fn note_relay(&self, any: bool) {
        let before = self.others_relay.swap(any, Ordering::AcqRel);
        self.told(before != any);
    }

    /// Whether what a node stores may reach others through the store alone: this one or another.
    pub fn relays(&self) -> bool {
        let others = self.others_relay.load(Ordering::Acquire) && self.mode(Feature::Append) != Mode::Refused;
        others || self.mode(Feature::Fanout) == Mode::Relayed
    }

    /// Says that the node goes away.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.told(true);
    }

    /// Whether the node goes away.
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// The node's verdict on itself.
    pub fn verdict(&self) -> Verdict {
        match (self.state(Part::Redis).link, self.state(Part::Store).link) {
            _ if self.draining() => Verdict::Unhealthy,
            (Link::Down, Link::Down) => Verdict::Unhealthy,
            (Link::Down, _) | (_, Link::Down) => Verdict::Degraded,
            _ => Verdict::Healthy,
        }
    }

    /// Wakes whenever a state changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn told(&self, changed: bool) -> bool {
        if changed {
            self.changes.send_modify(|count| *count += 1);
        }
        changed
    }

    fn part(&self, part: Part) -> MutexGuard<'_, Watched> {
        match part {
            Part::Redis => &self.redis,
            Part::Store => &self.store,
        }
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_lost_ping_changes_nothing() {
        let degrade = Degrade::new(Link::Up);
        assert!(!degrade.report(Part::Redis, Err(())));
        assert!(!degrade.report(Part::Redis, Ok(Duration::ZERO)));
        assert!(!degrade.report(Part::Redis, Err(())));
        assert_eq!(degrade.verdict(), Verdict::Healthy);
        assert!(degrade.report(Part::Redis, Err(())));
        assert_eq!(degrade.verdict(), Verdict::Degraded);
        assert_eq!(degrade.mode(Feature::Limits), Mode::Local);
        assert!(!degrade.report(Part::Redis, Ok(Duration::ZERO)));
        assert!(degrade.report(Part::Redis, Ok(Duration::ZERO)));
        assert_eq!(degrade.verdict(), Verdict::Healthy);
    }

    #[test]
    fn nodes_reach_each_other_through_the_store() {
        let degrade = Degrade::new(Link::Up);
        assert!(!degrade.relays());
        degrade.set(Part::Redis, Link::Down);
        assert_eq!(degrade.mode(Feature::Fanout), Mode::Relayed);
        assert!(degrade.relays());
        degrade.set(Part::Store, Link::Down);
        assert_eq!(degrade.mode(Feature::Fanout), Mode::Local);
        assert!(!degrade.relays());
        degrade.set(Part::Redis, Link::Up);
        degrade.set(Part::Store, Link::Up);
        degrade.note_relay(true);
        assert!(degrade.relays(), "another node's Redis is away");
        assert_eq!(degrade.mode(Feature::Fanout), Mode::Shared);
        degrade.set(Part::Store, Link::Down);
        assert!(!degrade.relays(), "there is no way through it now");
    }

    #[test]
    fn what_is_off_is_never_down() {
        let degrade = Degrade::new(Link::Off);
        degrade.set(Part::Redis, Link::Down);
        assert_eq!(degrade.state(Part::Redis).link, Link::Off);
        assert_eq!(degrade.verdict(), Verdict::Healthy);
        assert_eq!(degrade.mode(Feature::Fanout), Mode::Local);
    }

    #[test]
    fn unhealthy_is_both_down_or_draining() {
        let degrade = Degrade::new(Link::Up);
        degrade.set(Part::Store, Link::Down);
        assert_eq!(degrade.verdict(), Verdict::Degraded);
        assert_eq!(degrade.mode(Feature::Append), Mode::Refused);
        assert_eq!(degrade.mode(Feature::Fanout), Mode::Shared);
        degrade.set(Part::Redis, Link::Down);
        assert_eq!(degrade.verdict(), Verdict::Unhealthy);
        degrade.set(Part::Redis, Link::Up);
        degrade.set(Part::Store, Link::Up);
        assert_eq!(degrade.verdict(), Verdict::Healthy);
        degrade.drain();
        assert_eq!(degrade.verdict(), Verdict::Unhealthy);
    }
}
