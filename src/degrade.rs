//! Degraded mode: the one state machine, and the one table of features that still work.
//!
//! The backplane's link and the store report the results of their checks and calls to [`Degrade`]; other modules read
//! [`Degrade::mode`]. Outside the backplane no code asks whether Redis is up.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::watch;

mod calls;
mod fault;
mod feature;
mod outage;
mod part;
mod reach;
mod reason;
mod shards;
mod standing;
mod work;

pub use fault::{Diagnosis, Fault, Finding};
pub use feature::{Feature, Mode};
use outage::Outage;
use part::Watched;
pub use part::{LinkState, Part, PartState};
pub use reason::Reason;
use standing::Standing;
pub use work::Work;
use work::{RefusedCalls, Tested};

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
    /// Until when other nodes may still use the server that Redis moved away from.
    redis_moves_until: Mutex<Option<Instant>>,
    /// The shards of a Redis Cluster that don't work.
    outage: Outage,
    /// True while nodes of an earlier version run, which have other channels.
    older_nodes: AtomicBool,
    /// Why the store was never reached since the start; `None` once it was.
    awaited_store: Mutex<Option<String>>,
    slow_reads: AtomicBool,
    /// Faults of the kinds of work that have a test of their own.
    tested: Mutex<[Tested; Work::ALL.len()]>,
    /// The calls that are refused, by their work, and their number.
    refused_calls: Mutex<[RefusedCalls; Work::ALL.len()]>,
    refused_count: AtomicUsize,
    /// For each part, true while a try runs whether it lets a connection in, and for a second after that.
    tries: [AtomicBool; 2],
    /// Settings of Redis or PostgreSQL that operators should change although nothing fails.
    warnings: Mutex<Vec<(Part, Arc<Finding>)>>,
    /// Since when faults and reasons stand.
    standing: Standing,
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
            redis_moves_until: Mutex::default(),
            outage: Outage::default(),
            older_nodes: AtomicBool::new(false),
            awaited_store: Mutex::default(),
            slow_reads: AtomicBool::new(false),
            tested: Mutex::default(),
            refused_calls: Mutex::default(),
            refused_count: AtomicUsize::new(0),
            tries: Default::default(),
            warnings: Mutex::default(),
            standing: Standing::default(),
            changes: watch::Sender::new(0),
        }
    }

    /// The state for a command that only uses the store, of which nobody is told.
    pub fn unwatched() -> Arc<Self> {
        Arc::new(Self::new(LinkState::Off))
    }

    /// Records the result of a check or a call: its duration, or a failure. True if the part's state changed.
    pub fn report(&self, part: Part, result: Result<Duration, Finding>) -> bool {
        let changed = self.part(part).record(result);
        self.forget_passing(part, changed);
        self.notify_if_changed(changed)
    }

    /// Records certain evidence that a part works, and lets this node in. True if its state changed.
    pub fn set_up(&self, part: Part) -> bool {
        self.note_let_in(part);
        let changed = self.part(part).set(None);
        self.forget_passing(part, changed);
        self.notify_if_changed(changed)
    }

    /// Forgets the calls that failed while a part that came up was away.
    fn forget_passing(&self, part: Part, changed: bool) {
        if changed && self.state(part).link == LinkState::Up {
            self.change_refused_calls(|all| {
                let works = Work::ALL.into_iter().filter(|work| work.part() == part);
                works.for_each(|work| all[work as usize].forget_passing());
            });
        }
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

    /// How a feature works for clients and operators: as [`Degrade::mode`], and with what fails although its part answers.
    /// Nothing is refused because of the latter: only a new try can tell that it works again.
    pub fn shown_mode(&self, feature: Feature) -> Mode {
        let usual = self.mode(feature);
        let failing = |work: &Work| work.shown_as().filter(|(of, _)| *of == (feature, usual) && !self.works(*work));
        let of_redis = matches!(feature, Feature::Fanout | Feature::Limits | Feature::Presence);
        let partial = of_redis && (self.lacks_shards() || self.is_apart());
        let usual = if usual == Mode::Shared && partial { Mode::Partial } else { usual };
        Work::ALL.iter().find_map(failing).map_or(usual, |(_, mode)| mode)
    }

    /// Records whether this node refuses heavy reads because too many wait.
    pub fn note_slow_reads(&self, slow: bool) {
        let before = self.slow_reads.swap(slow, Ordering::AcqRel);
        self.notify_if_changed(before != slow);
    }

    fn slow_reads(&self) -> bool {
        self.slow_reads.load(Ordering::Acquire)
    }

    /// Records the result of the test of a kind of work: it fails although its part answers, or works again.
    pub fn note_work(&self, work: Work, fault: Option<Finding>) {
        let changed = {
            let slot = &mut self.tested.lock().unwrap_or_else(PoisonError::into_inner)[work as usize];
            let name = |tested: &Tested| tested.as_ref().map(|finding| finding.fault);
            let before = name(slot);
            *slot = fault.map(Arc::new);
            before != name(slot)
        };
        self.notify_if_changed(changed);
    }

    /// True unless this kind of work fails although its part answers. It is cheap enough for every append.
    pub fn works(&self, work: Work) -> bool {
        self.fault_of(work).is_none()
    }

    fn fault_of(&self, work: Work) -> Option<Arc<Finding>> {
        let tested = self.tested.lock().unwrap_or_else(PoisonError::into_inner)[work as usize].clone();
        let refused = || match self.refused_count.load(Ordering::Acquire) {
            0 => None,
            _ => self.refused_calls.lock().unwrap_or_else(PoisonError::into_inner)[work as usize].fault(),
        };
        tested.or_else(refused)
    }

    /// Records a setting of a part that operators should change although nothing fails, or that it was changed. The node stays
    /// healthy.
    pub fn note_warning(&self, part: Part, fault: Fault, finding: Option<Finding>) {
        let changed = {
            let warnings = &mut *self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
            let before = warnings.iter().any(|(_, known)| known.fault == fault);
            warnings.retain(|(_, known)| known.fault != fault);
            let stands = finding.is_some();
            warnings.extend(finding.map(|finding| (part, Arc::new(finding))));
            before != stands
        };
        self.notify_if_changed(changed);
    }

    fn is_deaf(&self) -> bool {
        Work::FANOUT.into_iter().any(|work| !self.works(work))
    }

    /// Every fault that stands now, with the part that has it.
    pub fn faults(&self) -> Vec<(Part, Arc<Finding>)> {
        let parts = [Part::Redis, Part::Store].map(|part| (part, self.state(part).fault));
        let works = Work::ALL.map(|work| (work.part(), self.fault_of(work)));
        let warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let outage = self.outage.finding().filter(|_| self.lacks_shards());
        let found = parts.into_iter().chain([(Part::Redis, outage)]).chain(works);
        let found = found.filter_map(|(part, fault)| Some((part, fault?))).chain(warnings);
        found.fold(Vec::new(), |mut all: Vec<(Part, Arc<Finding>)>, (part, fault)| {
            if all.iter().all(|(_, known)| known.fault != fault.fault) {
                all.push((part, fault));
            }
            all
        })
    }

    /// The same, each with the time since which it stands: that of the first of these looks that found it.
    pub fn standing_faults(&self) -> Vec<(Part, Arc<Finding>, Instant)> {
        let faults = self.faults();
        let since = self.standing.look(faults.iter().map(|(_, finding)| finding.fault.name()), Instant::now());
        faults.into_iter().zip(since).map(|((part, finding), since)| (part, finding, since)).collect()
    }

    /// Every reason why the node is not healthy, likewise.
    pub fn standing_reasons(&self) -> Vec<(Reason, Instant)> {
        let reasons: Vec<Reason> = self.reasons().collect();
        let since = self.standing.look(reasons.iter().map(|reason| reason.label()), Instant::now());
        reasons.into_iter().zip(since).collect()
    }

    /// Every reason why the node is not healthy.
    pub fn reasons(&self) -> impl Iterator<Item = Reason> {
        let down = |part| self.state(part).link == LinkState::Down;
        let fails = |kinds: &[Work]| kinds.iter().any(|work| !self.works(*work));
        let reasons = [
            (self.draining(), Reason::Draining),
            (down(Part::Redis), Reason::RedisDown),
            (self.lacks_shards(), Reason::RedisShardsDown),
            (down(Part::Store), Reason::StoreDown),
            (self.mode(Feature::History) == Mode::Limited, Reason::SlowReads),
            (self.is_deaf(), Reason::RedisDeaf),
            (self.is_apart(), Reason::RedisSplit),
            (fails(&[Work::Limit, Work::Register]), Reason::RedisRefuses),
            (fails(&[Work::Append, Work::Change]), Reason::AppendsFail),
            (fails(&[Work::Read]), Reason::ReadsFail),
            (fails(&[Work::Write, Work::Relay]), Reason::WritesFail),
        ];
        reasons.into_iter().filter_map(|(holds, reason)| holds.then_some(reason))
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
            _ if self.lacks_shards() || self.mode(Feature::History) == Mode::Limited => Verdict::Degraded,
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
