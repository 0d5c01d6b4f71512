//! Eras: the watchdog starts and ends them, and the other tasks of the backplane watch them. On a cluster each shard has eras of
//! its own.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    lease_calls::Beginning,
    shards::{Layout, SHARDS, Shard},
};
use crate::{config::HostPort, model::Timestamp};

/// Time in which every node registers its connections again after all of them lost a Redis that kept its data.
pub(super) const REGISTER_AGAIN: Duration = Duration::from_secs(3);

/// A time in which Redis knows this node under one incarnation. When an era begins, this node must write all its
/// connections to Redis again, and may have missed events.
#[derive(Debug, Clone, Copy)]
pub(super) struct Era {
    /// Number of the era; 0 before the first one.
    pub(super) number: u64,
    /// True while Redis is up; on a cluster, the shard's master.
    pub(super) up: bool,
    /// Start of the era.
    pub(super) since: Instant,
    /// Age of Redis' data at the start of the era: the time since Redis was wiped, by whichever node that was noticed.
    pub(super) data_age: Duration,
    /// Other nodes counted this node as dead in the era before.
    pub(super) reaped: bool,
    /// Time at which Redis was last lost; other nodes don't know of connections made after it. Before the first era they
    /// know of none.
    pub(super) lost_at: Option<Timestamp>,
}

/// The current eras.
#[derive(Debug, Clone)]
pub(super) struct Eras {
    /// True while Redis is up; on a cluster, any of its masters.
    pub(super) up: bool,
    /// True after the first attempt to connect.
    pub(super) tried: bool,
    /// Of each shard.
    shards: Vec<Era>,
    /// The masters of a cluster that came back or took over, each with a number that differs each time.
    pub(super) returned: Arc<Vec<(HostPort, u64)>>,
}

impl Eras {
    /// Before the first ones.
    pub(super) fn new(layout: Layout) -> Self {
        let shards = Shard::all(layout).map(|_| Era::default()).collect();
        Self { up: false, tried: false, shards, returned: Arc::default() }
    }

    /// That of a shard.
    pub(super) fn of(&self, shard: Shard) -> &Era {
        &self.shards[shard.index()]
    }

    /// The shards that are up, in order, each with its era.
    pub(super) fn up(&self) -> impl Iterator<Item = (Shard, &Era)> {
        let layout = if self.shards.len() == SHARDS { Layout::Cluster } else { Layout::Single };
        Shard::all(layout).zip(&self.shards).filter(|(_, era)| self.up && era.up)
    }

    /// A number that grows with each new era.
    pub(super) fn version(&self) -> u64 {
        self.shards.iter().map(|era| era.number).sum()
    }

    /// True if every node has had the time to write its connections to every shard, as for [`Era::is_settled`].
    pub(super) fn are_settled(&self, lease: Duration, again: Duration) -> bool {
        self.up && self.shards.iter().all(|era| era.is_settled(lease, again))
    }

    /// The same for the shards that are up; false if there are none.
    pub(super) fn are_settled_where_up(&self, lease: Duration, again: Duration) -> bool {
        self.up().next().is_some() && self.up().all(|(_, era)| era.is_settled(lease, again))
    }

    /// True if a shard that is up, or all of Redis before it is, may name users who left: it kept its data while this node was away.
    pub(super) fn may_be_old(&self, lease: Duration, again: Duration) -> bool {
        let is_old = |era: &Era| era.data_age >= lease && !era.is_settled(lease, again);
        if self.up { self.up().any(|(_, era)| is_old(era)) } else { self.shards.iter().any(is_old) }
    }

    /// Begins an era of each of these shards.
    pub(super) fn begin(&mut self, beginnings: &[(Shard, Beginning)]) {
        for (shard, beginning) in beginnings {
            let era = &mut self.shards[shard.index()];
            era.number += 1;
            era.since = Instant::now();
            (era.data_age, era.reaped) = (beginning.data_age, beginning.reaped);
            // If the lease was lost while Redis was up, every connection was registered.
            era.lost_at = era.lost_at.filter(|_| !era.up);
        }
    }

    /// Records which shards are up. The others were lost at `now`, if they were up before. True if something changed.
    pub(super) fn set_up(&mut self, mask: u64, now: Timestamp) -> bool {
        let mut changed = false;
        for (index, era) in self.shards.iter_mut().enumerate() {
            let up = mask & (1 << index) != 0;
            if era.up && !up {
                era.lost_at = Some(now);
            }
            changed |= std::mem::replace(&mut era.up, up) != up;
        }
        changed
    }

    /// Records that a master of a cluster is back, or took over.
    pub(super) fn note_returned(&mut self, master: &HostPort, masters: &[HostPort]) {
        let mut returned: Vec<(HostPort, u64)> = self.returned.to_vec();
        let number = 1 + returned.iter().map(|(_, number)| *number).max().unwrap_or(0);
        returned.retain(|(known, _)| known != master && masters.contains(known));
        returned.push((master.clone(), number));
        self.returned = Arc::new(returned);
    }
}

impl Era {
    /// True if every node has had the time to write its connections to Redis. `lease` is the time after which a node that has
    /// not done so counts as dead, and `again` the time that nodes need after they lost a Redis that kept its data.
    pub(super) fn is_settled(&self, lease: Duration, again: Duration) -> bool {
        self.up && self.since.elapsed() >= again.min(lease).max(lease.saturating_sub(self.data_age))
    }

    /// True if no node told yet that users without an entry departed: Redis was wiped, and the time in which nodes write
    /// their connections again is not over. It ends early here, because writing takes time.
    pub(super) fn is_fresh(&self, lease: Duration) -> bool {
        !self.reaped && self.data_age.saturating_add(self.since.elapsed()) < lease.mul_f64(0.75)
    }
}

impl Default for Era {
    /// The state before the first one.
    fn default() -> Self {
        Self {
            number: 0,
            up: false,
            since: Instant::now(),
            data_age: Duration::MAX,
            reaped: false,
            lost_at: Some(Timestamp::from_micros(0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(15);
    const AGAIN: Duration = Duration::from_secs(3);

    fn settled_after(data_age: Duration) -> impl Fn(Duration) -> bool {
        let era = Era { up: true, data_age, ..Era::default() };
        move |time| Era { since: Instant::now() - time, ..era }.is_settled(LEASE, AGAIN)
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_wipe_nodes_have_one_lease_to_register_again() {
        tokio::time::advance(Duration::from_secs(60)).await;
        // The second one stands for a node that reached Redis again 10 s after the wipe, for the second time perhaps.
        for (age, last) in [(0, 15), (10, 5), (13, 3), (15, 3), (3_600, 3)] {
            let settled = settled_after(Duration::from_secs(age));
            let last = Duration::from_secs(last);
            assert!(!settled(last - Duration::from_millis(1)) && settled(last), "{age} s");
        }
        assert!(settled_after(Duration::MAX)(AGAIN), "no wipe is known");
        assert!(!Era { data_age: Duration::MAX, ..Era::default() }.is_settled(LEASE, Duration::ZERO), "it is down");
    }

    #[test]
    fn a_node_that_is_back_late_was_counted_as_gone() {
        let fresh = |data_age| Era { data_age, ..Era::default() }.is_fresh(LEASE);
        assert!(fresh(Duration::ZERO) && fresh(Duration::from_secs(11)));
        assert!(!fresh(Duration::from_secs(12)) && !fresh(Duration::MAX));
        assert!(!Era { data_age: Duration::ZERO, reaped: true, ..Era::default() }.is_fresh(LEASE));
    }

    #[test]
    fn shards_go_down_and_begin_anew_each_for_itself() {
        let (mut eras, shards): (_, Vec<Shard>) = (Eras::new(Layout::Cluster), Shard::all(Layout::Cluster).collect());
        let begun: Vec<_> =
            shards.iter().map(|shard| (*shard, Beginning { data_age: Duration::MAX, reaped: false })).collect();
        let at = Timestamp::from_micros;
        eras.begin(&begun);
        eras.up = true;
        assert!(eras.set_up(u64::MAX, at(1)) && !eras.set_up(u64::MAX, at(2)));
        assert_eq!((eras.version(), eras.up().count()), (64, 64));
        assert!(eras.set_up(!0b10, at(3)));
        assert_eq!((eras.of(shards[1]).lost_at, eras.up().count()), (Some(at(3)), 63));
        assert_ne!(eras.of(shards[2]).lost_at, Some(at(3)));
        eras.begin(&[(shards[1], Beginning { data_age: Duration::ZERO, reaped: true })]);
        eras.set_up(u64::MAX, at(4));
        let era = eras.of(shards[1]);
        assert!(era.number == 2 && era.reaped && era.lost_at == Some(at(3)) && eras.of(shards[0]).number == 1);
        assert!(!eras.are_settled_where_up(LEASE, AGAIN));
        eras.begin(&[(shards[1], Beginning { data_age: Duration::MAX, reaped: false })]);
        assert_eq!(eras.of(shards[1]).lost_at, None, "its lease was lost while it was up");
        assert!(eras.are_settled(LEASE, Duration::ZERO) && eras.may_be_old(LEASE, AGAIN));
        eras.set_up(!0b10, at(5));
        assert!(!eras.are_settled(LEASE, Duration::ZERO) && eras.are_settled_where_up(LEASE, Duration::ZERO));
    }

    #[test]
    fn each_return_of_a_master_has_a_number_of_its_own() {
        let (mut eras, master) = (Eras::new(Layout::Cluster), |port| HostPort { host: "h".into(), port });
        let masters = [master(1), master(2)];
        for one in [1, 2, 1] {
            eras.note_returned(&master(one), &masters);
        }
        assert_eq!(*eras.returned, [(master(2), 2), (master(1), 3)]);
        eras.note_returned(&master(2), &masters[1..]);
        assert_eq!(*eras.returned, [(master(2), 4)], "the other one is no master any more");
    }
}
