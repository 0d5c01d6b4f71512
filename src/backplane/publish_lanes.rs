//! [`Lanes`]: events that wait for their publication, and those under way. Each shard has at most one pipeline under way, so that
//! the order within a log is kept, also while its slot moves to another master. The shards of one master share a pipeline.

use std::collections::HashMap;

use super::shards::{SHARDS, Shard};
use crate::{
    config::HostPort,
    model::{Event, LogId},
};

/// Maximum number of events of one shard that wait behind those under way, and of updates of caches.
const WAITING_MAX: usize = 8_192;

/// An event, and the epoch of the store in which it happened.
#[derive(Debug, Clone)]
pub(super) struct Dated {
    pub(super) epoch: i64,
    pub(super) event: Event,
}

/// Events that go to one master.
#[derive(Debug)]
pub(super) struct Flight {
    /// Their first shard; `None` for updates of caches.
    pub(super) shard: Option<Shard>,
    /// All their shards, a bit for each.
    shards: u64,
    pub(super) events: Vec<Dated>,
    /// Earlier entries of these logs did not reach the caches.
    pub(super) incomplete: bool,
}

/// The events that wait.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    waiting: HashMap<Shard, Vec<Dated>>,
    /// The shards with events under way, a bit for each.
    busy: u64,
    for_caches: Vec<Dated>,
    caches_are_busy: bool,
}

impl Lanes {
    /// True if no event waits for those under way.
    pub(super) fn are_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes everything that waits, and forgets what was under way.
    pub(super) fn drain(&mut self) -> Vec<Dated> {
        std::mem::take(self).waiting.into_values().flatten().collect()
    }

    /// True if events of a shard are under way.
    pub(super) fn is_busy(&self, shard: Shard) -> bool {
        self.busy & shard.bit() != 0
    }

    /// Adds an event of a shard.
    ///
    /// # Errors
    /// Too many wait; the event.
    pub(super) fn add(&mut self, shard: Shard, event: Dated) -> Result<(), Dated> {
        let waiting = self.waiting.entry(shard).or_default();
        if waiting.len() >= WAITING_MAX {
            return Err(event);
        }
        waiting.push(event);
        Ok(())
    }

    /// Adds an entry for its cache; false if too many wait.
    pub(super) fn add_to_cache(&mut self, event: &Dated) -> bool {
        let room = self.for_caches.len() < WAITING_MAX;
        if room {
            self.for_caches.push(event.clone());
        }
        room
    }

    /// Takes the events of all shards that have none under way; those of one master together.
    pub(super) fn take_ready(&mut self, owner: impl Fn(Shard) -> Option<HostPort>) -> Vec<Flight> {
        let busy = self.busy;
        let ready = self.waiting.extract_if(|shard, _| busy & shard.bit() == 0);
        let ready: Vec<(Shard, Dated)> =
            ready.flat_map(|(shard, events)| events.into_iter().map(move |event| (shard, event))).collect();
        self.group(ready, false, owner)
    }

    /// Makes flights of events, one for each master, and marks their shards as busy.
    pub(super) fn group(
        &mut self,
        events: Vec<(Shard, Dated)>,
        incomplete: bool,
        owner: impl Fn(Shard) -> Option<HostPort>,
    ) -> Vec<Flight> {
        let mut owners: [Option<Option<HostPort>>; SHARDS] = [const { None }; SHARDS];
        let mut flights: Vec<(Option<HostPort>, Flight)> = Vec::new();
        for (shard, event) in events {
            self.busy |= shard.bit();
            let owner = owners[shard.index()].get_or_insert_with(|| owner(shard));
            match flights.iter_mut().find(|(known, _)| known == owner) {
                Some((_, flight)) => {
                    flight.shards |= shard.bit();
                    flight.events.push(event);
                }
                None => {
                    let flight = Flight { shard: Some(shard), shards: shard.bit(), events: vec![event], incomplete };
                    flights.push((owner.clone(), flight));
                }
            }
        }
        flights.into_iter().map(|(_, flight)| flight).collect()
    }

    /// Takes the updates of caches, unless some are under way.
    pub(super) fn take_cache(&mut self) -> Option<Flight> {
        if self.caches_are_busy || self.for_caches.is_empty() {
            return None;
        }
        self.caches_are_busy = true;
        let events = std::mem::take(&mut self.for_caches);
        Some(Flight { shard: None, shards: 0, events, incomplete: false })
    }

    /// Records the end of a flight.
    pub(super) fn land(&mut self, flight: &Flight) {
        self.busy &= !flight.shards;
        self.caches_are_busy &= flight.shard.is_some();
    }
}

/// Groups events by log and epoch, each group in order.
pub(super) fn by_log(events: &[Dated]) -> Vec<(&LogId, i64, Vec<&Event>)> {
    let (mut groups, mut index) = (Vec::<(&LogId, i64, Vec<&Event>)>::new(), HashMap::new());
    for Dated { epoch, event } in events {
        let at = *index.entry((event.log(), *epoch)).or_insert_with(|| {
            groups.push((event.log(), *epoch, Vec::new()));
            groups.len() - 1
        });
        groups[at].2.push(event);
    }
    groups
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Ephemeral, EphemeralEvent, Timestamp, UserId};

    fn event(log: &str, n: i64) -> Dated {
        let (log, user) = (LogId::parse(log).unwrap(), UserId::parse("alice").unwrap());
        let what = Ephemeral::Listening { user, name: "alice".into(), active: true };
        let at = Timestamp::from_micros(n);
        Dated {
            epoch: n,
            event: Event::Ephemeral { ephemeral: Arc::new(EphemeralEvent { log, at, what }), origin: None },
        }
    }

    fn owner(shard: Shard) -> Option<HostPort> {
        Some(HostPort { host: "h".into(), port: (shard.index() % 3) as u16 })
    }

    fn numbers(flights: &[Flight]) -> Vec<Vec<i64>> {
        let mut all: Vec<Vec<i64>> =
            flights.iter().map(|flight| flight.events.iter().map(|event| event.epoch).collect()).collect();
        all.sort();
        all
    }

    #[test]
    fn a_master_under_way_holds_up_its_own_shards_alone() {
        let (mut lanes, shards) = (Lanes::default(), Shard::all(super::super::shards::Layout::Cluster));
        let shards: Vec<Shard> = shards.collect();
        // The shards 0 and 3 have one master, and the shard 1 another.
        for (n, shard) in [(1, 0), (2, 1), (3, 0), (4, 3)] {
            lanes.add(shards[shard], event("room", n)).unwrap();
        }
        let first = lanes.take_ready(owner);
        assert_eq!(first.len(), 2);
        let of_first = first.iter().find(|flight| flight.events.len() == 3).unwrap();
        assert_eq!(
            of_first.events.iter().filter(|event| event.epoch != 4).map(|e| e.epoch).collect::<Vec<_>>(),
            [1, 3]
        );
        for (n, shard) in [(5, 3), (6, 1), (7, 6)] {
            lanes.add(shards[shard], event("room", n)).unwrap();
        }
        assert_eq!(numbers(&lanes.take_ready(owner)), [[7]], "a shard without anything under way waits for none");
        lanes.land(first.iter().find(|flight| flight.events.len() == 1).unwrap());
        assert_eq!(numbers(&lanes.take_ready(owner)), [[6]]);
        assert!(lanes.is_busy(shards[3]) && !lanes.are_empty());
        lanes.land(of_first);
        assert_eq!(numbers(&lanes.take_ready(owner)), [[5]]);
        assert!(lanes.are_empty());
        lanes.add(shards[3], event("room", 8)).unwrap();
        assert_eq!(lanes.drain().iter().map(|event| event.epoch).collect::<Vec<_>>(), [8]);
        assert!(lanes.are_empty() && !lanes.is_busy(shards[3]));
        let full = (0..).take_while(|n| lanes.add(shards[0], event("room", *n)).is_ok()).count();
        assert!(full == WAITING_MAX && lanes.add(shards[1], event("room", 1)).is_ok());
    }

    #[test]
    fn updates_of_caches_go_out_one_after_the_other() {
        let mut lanes = Lanes::default();
        assert!(lanes.take_cache().is_none() && lanes.add_to_cache(&event("room", 1)));
        let first = lanes.take_cache().unwrap();
        assert!(lanes.add_to_cache(&event("room", 2)) && lanes.take_cache().is_none());
        lanes.land(&first);
        assert_eq!(lanes.take_cache().unwrap().events[0].epoch, 2);
    }
}
