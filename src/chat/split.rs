//! Finds nodes of this deployment that use another Redis than this node, as after a typo in REDIS_URL. Both servers are healthy, and
//! neither half hears the other.
//!
//! Every node gives signs of life in the store. One that does so, does not say there that it is without Redis, and has no
//! lease in this node's Redis, uses another one. Nodes that start, end or move to another primary may look like that for a
//! moment; so only a sign that is newer than the first look counts. While the fault stands, this node signs in the store, and nodes
//! reach each other through it ([`super::relay`]).

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::{MissedTickBehavior, interval};

use crate::{
    backplane::{Backplane, Gathering},
    degrade::{Degrade, Feature, Mode, Work},
    model::NodeId,
    store::{LivingNode, Store},
    supervise::{TaskName, checkpoint},
};

/// Interval between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Age of a sign of life up to which its node counts as alive. Nodes give one every 5 s.
const FRESH: Duration = Duration::from_secs(12);
/// Time for which a node must be missing.
const CONFIRMED_AFTER: Duration = Duration::from_secs(6);
/// Time by which a sign must be newer than the first look. A node that ends gives its last sign just after it left Redis.
const NEWER_BY: Duration = Duration::from_secs(1);

/// Looks for nodes that use another Redis.
pub(super) struct SplitWatch {
    pub(super) node: NodeId,
    pub(super) store: Arc<dyn Store>,
    pub(super) backplane: Arc<Backplane>,
    pub(super) degrade: Arc<Degrade>,
}

impl SplitWatch {
    /// Looks until its task is stopped.
    pub(super) async fn run(&self) {
        let (mut missing, mut looks) = (MissingNodes::default(), interval(LOOK_EVERY));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            checkpoint(TaskName::SplitWatch, || "");
            self.look(&mut missing).await;
        }
    }

    async fn look(&self, missing: &mut MissingNodes) {
        if self.degrade.mode(Feature::Presence) == Mode::Local {
            // That Redis is down says more.
            *missing = MissingNodes::default();
            self.degrade.note_work(Work::Meet, None);
            return;
        }
        if !self.degrade.is_heard() {
            // The finding stays: nothing proves or disproves it now.
            return;
        }
        let living = match self.store.living(FRESH).await {
            Ok(living) => living,
            Err(error) => return tracing::debug!(%error, "the signs of life of nodes can't be read; retrying"),
        };
        let others: Vec<LivingNode> = living.into_iter().filter(|one| one.node != self.node).collect();
        if missing.0.is_empty() && others.iter().all(|one| one.alone || self.backplane.sees(&one.node)) {
            return;
        }
        let Some(status) = self.backplane.redis_status() else { return };
        let gathering = Gathering::of(self.backplane.nodes().await, &status);
        if !gathering.here.contains(&self.node) {
            // Redis does not tell, or this node registers anew.
            return;
        }
        let confirmed = missing.look(&others, &gathering.here, Instant::now());
        let finding = (!confirmed.is_empty()).then(|| gathering.finding(&confirmed));
        self.degrade.note_work(Work::Meet, finding);
    }
}

/// Living nodes without a lease in this node's Redis: each with the time of the first look that missed it, and true once it certainly
/// uses another one.
#[derive(Debug, Default)]
struct MissingNodes(HashMap<NodeId, (Instant, bool)>);

impl MissingNodes {
    /// Takes over a look at the living nodes and those `here`. Returns those that certainly use another Redis.
    fn look(&mut self, living: &[LivingNode], here: &BTreeSet<NodeId>, now: Instant) -> BTreeSet<NodeId> {
        let mut still = HashMap::new();
        for LivingNode { node, signed_ago, alone } in living.iter().filter(|one| !here.contains(&one.node)) {
            let known = self.0.get(node).copied();
            let (since, confirmed) = match known {
                // It has lost the other Redis too. Once it is back, it is where it was.
                Some((since, true)) => (since, true),
                _ if *alone => continue,
                Some((since, false)) => {
                    let lasted = now.saturating_duration_since(since);
                    (since, lasted >= CONFIRMED_AFTER && *signed_ago + NEWER_BY <= lasted)
                }
                None => (now, false),
            };
            // Another process of the same node may have given an older sign.
            let entry = still.entry(node.clone()).or_insert((since, confirmed));
            entry.1 |= confirmed;
        }
        self.0 = still;
        self.0.iter().filter(|(_, (_, confirmed))| *confirmed).map(|(node, _)| node.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn node(name: &str) -> NodeId {
        NodeId::parse(name).unwrap()
    }

    fn living(name: &str, signed_ago: Duration, alone: bool) -> LivingNode {
        LivingNode { node: node(name), signed_ago, alone }
    }

    #[test]
    fn a_node_that_goes_on_without_a_lease_is_confirmed_until_it_is_here() {
        let (mut missing, began, here) = (MissingNodes::default(), Instant::now(), BTreeSet::from([node("a")]));
        let all = |ago| [living("a", ago, false), living("b", ago, false)];
        assert!(missing.look(&all(SECOND), &here, began).is_empty());
        assert!(missing.look(&all(SECOND), &here, began + SECOND * 4).is_empty(), "it may be starting");
        assert_eq!(missing.look(&all(SECOND), &here, began + SECOND * 6), BTreeSet::from([node("b")]));
        let alone = [living("b", SECOND, true)];
        assert_eq!(missing.look(&alone, &here, began + SECOND * 8).len(), 1, "its own Redis may fail too");
        let both = BTreeSet::from([node("a"), node("b")]);
        assert!(missing.look(&all(SECOND), &both, began + SECOND * 10).is_empty() && missing.0.is_empty());
    }

    #[test]
    fn a_node_that_ends_or_is_without_redis_is_never_confirmed() {
        let (mut missing, began, here) = (MissingNodes::default(), Instant::now(), BTreeSet::new());
        // Its last sign, and its end.
        for passed in 0..12 {
            let last = [living("b", SECOND * passed, false)];
            assert!(missing.look(&last, &here, began + SECOND * passed).is_empty(), "{passed}");
        }
        assert!(missing.look(&[], &here, began + SECOND * 12).is_empty() && missing.0.is_empty());
        for passed in 0..12 {
            let without = [living("b", SECOND, true)];
            assert!(missing.look(&without, &here, began + SECOND * passed).is_empty(), "{passed}");
        }
        // While it lost Redis and has not said so, and after it is back.
        assert!(missing.look(&[living("b", SECOND, false)], &here, began).is_empty());
        assert!(missing.look(&[living("b", SECOND, true)], &here, began + SECOND * 2).is_empty());
        assert!(missing.look(&[living("b", SECOND, false)], &here, began + SECOND * 7).is_empty());
    }
}
