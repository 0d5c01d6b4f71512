//! Degraded mode: the one state machine, and the one table of features that still work.
//!
//! The backplane's link and the store report the results of their checks and calls to [`Degrade`]; other modules read
//! [`Degrade::mode`]. Outside the backplane no code asks whether Redis is up.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::watch;

mod fault;
mod part;
mod reason;
mod work;

pub use fault::{Diagnosis, Fault, Finding};
use part::Watched;
pub use part::{LinkState, Part, PartState};
pub use reason::Reason;
use work::Partial;
pub use work::Work;

/// A feature that depends on Redis or the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// Delivery to members on other nodes.
    Fanout,
    /// Limits on sends and connections.
    Limits,
    /// Online state of users.
    Presence,
    /// Storing messages.
    Append,
    /// Reading stored entries.
    History,
}

impl Feature {
    /// Every feature.
    pub const ALL: [Self; 5] = [Self::Fanout, Self::Limits, Self::Presence, Self::Append, Self::History];

    /// The name in the health report.
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
    /// The name in the health report.
    pub fn label(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Relayed => "relayed",
            Self::Local => "local",
            Self::Limited => "limited",
            Self::Refused => "refused",
        }
    }
}

/// The current mode of a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Works over all nodes.
    Shared,
    /// Works over all nodes through the store, with a delay of up to a second.
    Relayed,
    /// Works with this node's state alone.
    Local,
    /// Works, but this node refuses some calls because too many wait.
    Limited,
    /// Does not work now.
    Refused,
}

/// The table: the mode of each feature for each state of Redis and the store.
fn table(feature: Feature, redis: LinkState, store: LinkState) -> Mode {
    match (feature, redis, store) {
        (Feature::Fanout | Feature::Limits | Feature::Presence, LinkState::Up, _) => Mode::Shared,
        (Feature::Fanout, LinkState::Down, LinkState::Up) => Mode::Relayed,
        (Feature::Fanout | Feature::Limits | Feature::Presence, LinkState::Off | LinkState::Down, _) => Mode::Local,
        (Feature::Append | Feature::History, _, LinkState::Down) => Mode::Refused,
        (Feature::Append | Feature::History, _, LinkState::Up | LinkState::Off) => Mode::Shared,
    }
}

/// The overall state of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Everything works.
    Healthy,
    /// Redis or the store is down, or heavy reads are refused; [`Degrade::mode`] tells which features still work.
    Degraded,
    /// The node drains, both Redis and the store are down, or the store was never reached since the start.
    Unhealthy,
}

/// The state machine, shared by all modules of a node.
#[derive(Debug)]
pub struct Degrade {
    redis: Mutex<Watched>,
    store: Mutex<Watched>,
    draining: AtomicBool,
    others_relay: AtomicBool,
    /// True while a check of Redis is late. Redis does not count as down yet.
    redis_late: AtomicBool,
    /// True while nodes of an earlier version run, which have other channels.
    older_nodes: AtomicBool,
    /// Why the store was never reached since the start; `None` once it was.
    awaited_store: Mutex<Option<String>>,
    slow_reads: AtomicBool,
    /// Faults of one kind of work, while the part's other work goes on.
    partial: Mutex<[Option<Partial>; Work::ALL.len()]>,
    changes: watch::Sender<u64>,
}

impl Degrade {
    /// A node with the store up and Redis as given: `Off` if not configured, `Down` until it first answers.
    pub fn new(redis: LinkState) -> Self {
        Self {
            redis: Mutex::new(Watched::new(redis)),
            store: Mutex::new(Watched::new(LinkState::Up)),
            draining: AtomicBool::new(false),
            others_relay: AtomicBool::new(false),
            redis_late: AtomicBool::new(false),
            older_nodes: AtomicBool::new(false),
            awaited_store: Mutex::default(),
            slow_reads: AtomicBool::new(false),
            partial: Mutex::default(),
            changes: watch::Sender::new(0),
        }
    }

    /// Records the result of a check or a call: its duration, or a failure. True if the part's state changed.
    pub fn report(&self, part: Part, result: Result<Duration, Finding>) -> bool {
        let changed = self.part(part).record(result);
        self.notify_if_changed(changed)
    }

    /// Records certain evidence that a part works. True if its state changed.
    pub fn set_up(&self, part: Part) -> bool {
        let changed = self.part(part).set(None);
        self.notify_if_changed(changed)
    }

    /// Records certain evidence that a part does not work, such as a refused connection. True if its state changed, or the
    /// name of its fault.
    pub fn set_down(&self, part: Part, fault: Finding) -> bool {
        let changed = self.part(part).set(Some(fault));
        self.notify_if_changed(changed)
    }

    /// Records that the store has not started yet; `fault` is the newest reason, if a try has failed. It counts as down until
    /// [`Degrade::store_started`].
    pub fn await_store(&self, fault: Option<Finding>) {
        let why = fault.as_ref().map_or_else(|| "connecting, and applying migrations".into(), |one| one.detail.clone());
        *self.awaited_store.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        match fault {
            Some(fault) => self.set_down(Part::Store, fault),
            None => {
                let changed = self.part(Part::Store).begin();
                self.notify_if_changed(changed)
            }
        };
    }

    /// Records that the store was reached for the first time.
    pub fn store_started(&self) {
        *self.awaited_store.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.set_up(Part::Store);
    }

    /// Why the store was never reached since the start; `None` once it was.
    pub fn awaited_store(&self) -> Option<String> {
        self.awaited_store.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The state of a part.
    pub fn state(&self, part: Part) -> PartState {
        self.part(part).state.clone()
    }

    /// The current mode of a feature.
    pub fn mode(&self, feature: Feature) -> Mode {
        let redis = match self.state(Part::Redis).link {
            LinkState::Up if feature == Feature::Fanout && self.is_deaf() => LinkState::Down,
            link => link,
        };
        match table(feature, redis, self.state(Part::Store).link) {
            Mode::Shared if feature == Feature::History && self.slow_reads() => Mode::Limited,
            mode => mode,
        }
    }

    /// Records whether this node refuses heavy reads because too many wait.
    pub fn note_slow_reads(&self, slow: bool) {
        let before = self.slow_reads.swap(slow, Ordering::AcqRel);
        self.notify_if_changed(before != slow);
    }

    fn slow_reads(&self) -> bool {
        self.slow_reads.load(Ordering::Acquire)
    }

    /// Records that one kind of work of a part fails although the part answers, or works again.
    pub fn note_work(&self, work: Work, fault: Option<Finding>) {
        let changed = {
            let slot = &mut self.lock_partial()[work as usize];
            let name = |partial: &Option<Partial>| partial.as_ref().map(|partial| partial.finding.fault);
            let before = name(slot);
            *slot = fault.map(|finding| Partial { finding: Arc::new(finding), at: Instant::now() });
            before != name(slot)
        };
        self.notify_if_changed(changed);
    }

    /// True unless this kind of work fails although its part answers. It is cheap enough for every append.
    pub fn works(&self, work: Work) -> bool {
        self.partial_fault(work).is_none()
    }

    fn is_deaf(&self) -> bool {
        Work::FANOUT.into_iter().any(|work| !self.works(work))
    }

    fn partial_fault(&self, work: Work) -> Option<Arc<Finding>> {
        let partial = &self.lock_partial()[work as usize];
        partial.as_ref().filter(|partial| partial.at.elapsed() < work.remembered()).map(|one| one.finding.clone())
    }

    fn lock_partial(&self) -> MutexGuard<'_, [Option<Partial>; Work::ALL.len()]> {
        self.partial.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every fault that stands now, with the part that has it.
    pub fn faults(&self) -> Vec<(Part, Arc<Finding>)> {
        let parts = [Part::Redis, Part::Store].map(|part| (part, self.state(part).fault));
        let works = Work::ALL.map(|work| (work.part(), self.partial_fault(work)));
        let found = parts.into_iter().chain(works).filter_map(|(part, fault)| Some((part, fault?)));
        found.fold(Vec::new(), |mut all: Vec<(Part, Arc<Finding>)>, (part, fault)| {
            if all.iter().all(|(_, known)| known.fault != fault.fault) {
                all.push((part, fault));
            }
            all
        })
    }

    /// Every reason why the node is not healthy.
    pub fn reasons(&self) -> impl Iterator<Item = Reason> {
        let down = |part| self.state(part).link == LinkState::Down;
        let reasons = [
            (self.draining(), Reason::Draining),
            (down(Part::Redis), Reason::RedisDown),
            (down(Part::Store), Reason::StoreDown),
            (self.mode(Feature::History) == Mode::Limited, Reason::SlowReads),
            (self.is_deaf(), Reason::RedisDeaf),
            (Work::APPENDS.into_iter().any(|work| !self.works(work)), Reason::AppendsFail),
        ];
        reasons.into_iter().filter_map(|(holds, reason)| holds.then_some(reason))
    }

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
        let unheard = self.redis_late.load(Ordering::Acquire) || self.older_nodes.load(Ordering::Acquire);
        unheard && self.mode(Feature::Append) != Mode::Refused || self.mode(Feature::Fanout) == Mode::Relayed
    }

    /// True if this node or another one may reach other nodes through the store only, so that entries must be relayed.
    pub fn relays(&self) -> bool {
        let others = self.others_relay.load(Ordering::Acquire) && self.mode(Feature::Append) != Mode::Refused;
        others || self.may_be_alone()
    }

    /// Marks the node as draining.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.notify_if_changed(true);
    }

    /// True while the node drains.
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// The overall state of the node.
    pub fn verdict(&self) -> Verdict {
        match (self.state(Part::Redis).link, self.state(Part::Store).link) {
            _ if self.draining() || self.awaited_store().is_some() => Verdict::Unhealthy,
            (LinkState::Down, LinkState::Down) => Verdict::Unhealthy,
            (LinkState::Down, _) | (_, LinkState::Down) => Verdict::Degraded,
            _ if self.mode(Feature::History) == Mode::Limited => Verdict::Degraded,
            _ if Work::ALL.iter().any(|work| !self.works(*work)) => Verdict::Degraded,
            _ => Verdict::Healthy,
        }
    }

    /// A receiver that wakes when a state changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn notify_if_changed(&self, changed: bool) -> bool {
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
mod tests;
