//! Which masters and shards of a cluster work, for those who use it.

use tokio::sync::watch;

use super::{
    super::shards::{Layout, SHARDS, Shard},
    discovery::Cluster,
    topology::slot,
};
use crate::{
    config::HostPort,
    degrade::{Fault, Finding},
};

impl Cluster {
    /// The masters, and whether each is up.
    pub(in crate::backplane) fn states(&self) -> Vec<(HostPort, bool)> {
        self.masters().into_iter().map(|master| (master.clone(), !self.health.is_down(&master))).collect()
    }

    /// The shards whose master is down, or that have none: a bit for each.
    pub(in crate::backplane) fn shards_down(&self) -> u64 {
        let Some(topology) = self.topology() else { return u64::MAX };
        if !self.health.any() && topology.uncovered() == 0 {
            return 0;
        }
        let works = |shard: Shard| {
            let owner = topology.owner(slot(shard.tag().as_bytes()));
            owner.is_some_and(|owner| !self.health.is_down(owner))
        };
        Shard::all(Layout::Cluster).filter(|shard| !works(*shard)).fold(0, |mask, shard| mask | shard.bit())
    }

    /// The fault of the masters that are down, in words; `None` if all are up and every slot has one. A master that answers, but
    /// refuses this node, has a fault with a remedy of its own.
    pub(in crate::backplane) fn outage(&self) -> Option<Finding> {
        let (down, shards) = (self.shards_down().count_ones(), SHARDS);
        let in_words = |master: &HostPort| match self.health.reason(master) {
            Some(why) => format!("{master} ({})", why.detail),
            None => master.to_string(),
        };
        let masters = self.states().into_iter().filter(|(_, up)| !up).map(|(master, _)| master);
        let masters: Vec<HostPort> = masters.collect();
        let list: Vec<String> = masters.iter().map(in_words).collect();
        let faults = masters.iter().filter_map(|master| self.health.reason(master)).map(|why| why.fault);
        let absent = [Fault::RedisUnreachable, Fault::RedisSilent, Fault::RedisClusterDown];
        let refused = faults.into_iter().find(|fault| !absent.contains(fault));
        let why = match &list[..] {
            [] if down == 0 => return None,
            [] => format!("{down} of {shards} shards have no master"),
            list => format!("{down} of {shards} shards are down with their masters: {}", list.join(", ")),
        };
        Some(Finding::new(refused.unwrap_or(Fault::RedisClusterDown), why))
    }

    /// The fault that slots have no master although all shards have one; `None` else. Limits and caches have keys there.
    pub(in crate::backplane) fn lacking_slots(&self) -> Option<Finding> {
        let uncovered = self.topology()?.uncovered();
        (uncovered > 0 && self.shards_down() == 0).then(|| {
            let why = format!(
                "{uncovered} of 16384 slots have no master, none of them a shard's: users whose limits are there are counted per \
                 node, and conversations whose messages are cached there are read from the store"
            );
            Finding::new(Fault::RedisClusterDown, why)
        })
    }

    /// The warning if masters have no replica that works.
    pub(in crate::backplane) fn bare_masters(&self) -> Option<Finding> {
        let topology = self.topology()?;
        let list: Vec<_> = topology.bare().iter().map(ToString::to_string).collect();
        let why = || format!("no replica that works: {}; if such a master dies, its shards stay down", list.join(", "));
        (!list.is_empty()).then(|| Finding::new(Fault::RedisNoReplica, why()))
    }

    /// True if a master is down.
    pub(in crate::backplane) fn is_down(&self, master: &HostPort) -> bool {
        self.health.is_down(master)
    }

    /// True if a shard is this master's.
    pub(in crate::backplane) fn is_master_of(&self, master: &HostPort, shard: Shard) -> bool {
        self.owner_of(shard.tag().as_bytes()).as_ref() == Some(master)
    }

    /// True if calls with this key or channel may be made: its master is not known to be silent or down.
    pub(in crate::backplane) fn may_call(&self, key: &[u8]) -> bool {
        !self.health.any() || self.owner_of(key).is_some_and(|owner| self.health.may_call(&owner))
    }

    /// True if the master of this key answers as it should.
    pub(in crate::backplane) fn is_prompt(&self, key: &[u8]) -> bool {
        !self.health.any() || self.owner_of(key).is_some_and(|owner| self.health.is_prompt(&owner))
    }

    /// Records that a master does not work, and why, and looks for another one.
    pub(in crate::backplane) fn note_down(&self, master: &HostPort, why: Finding) {
        if self.health.note_down(master, Some(why)) {
            self.changes.send_modify(|count| *count += 1);
            self.ask_now();
        }
    }

    /// Records why a master that is down can't be used, as the newest try to connect to it tells.
    pub(in crate::backplane) fn note_reason(&self, master: &HostPort, why: Finding) {
        if self.health.note_reason(master, why) {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// Records that a master works, and that this node is registered with it.
    pub(in crate::backplane) fn note_up(&self, master: &HostPort) {
        self.health.note_up(master);
        self.changes.send_modify(|count| *count += 1);
        self.ask_now();
    }

    /// Records that a check of a master is late.
    pub(in crate::backplane) fn note_late(&self, master: &HostPort) {
        self.health.note_late(master);
    }

    /// Records that a check of a master succeeded.
    pub(in crate::backplane) fn note_answer(&self, master: &HostPort) {
        self.health.note_answer(master);
    }

    /// A receiver that wakes when the masters change, or one goes down or comes up.
    pub(in crate::backplane) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
