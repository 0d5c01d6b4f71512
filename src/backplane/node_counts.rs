//! The numbers of connections that nodes store for each other. Redis holds what anybody wrote: a wrong value counts as 0.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering},
};

use super::lossy::Lossy;

/// Largest number of connections of one node that is believed.
const CONNECTIONS_MAX: u64 = 100_000_000;

/// Reads the numbers, and tells once of a wrong one.
#[derive(Debug, Default)]
pub(super) struct NodeCounts {
    told: AtomicBool,
}

impl NodeCounts {
    /// The sum of the numbers of these nodes.
    pub(super) fn sum<'a>(&self, held: &HashMap<Lossy, Lossy>, nodes: impl Iterator<Item = &'a str>) -> u64 {
        let count = |text: &Lossy| text.0.parse().ok().filter(|count| *count <= CONNECTIONS_MAX);
        if let Some((node, _)) = held.iter().find(|(_, text)| count(text).is_none()) {
            self.tell(&node.0);
        }
        let counts = nodes.filter_map(|node| count(held.get(&Lossy(node.to_owned()))?));
        counts.fold(0, u64::saturating_add)
    }

    fn tell(&self, node: &str) {
        if !self.told.swap(true, Ordering::AcqRel) {
            tracing::warn!(
                node,
                "another program wrote into Redis: this number of connections is none; it counts as 0"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_number_counts_as_none() {
        let held =
            [("a#1", "3"), ("b#1", "4"), ("c#1", "abc"), ("d#1", "-5"), ("e#1", "1.5"), ("f#1", ""), ("g#1", "1e9")];
        let held = held.into_iter().chain([("h#1", "99999999999999999999"), ("i#1", "18446744073709551615")]);
        let held: HashMap<_, _> = held.map(|(node, text)| (Lossy(node.into()), Lossy(text.into()))).collect();
        let nodes = ["a#1", "b#1", "c#1", "d#1", "e#1", "f#1", "g#1", "h#1", "i#1", "unknown"];
        assert_eq!(NodeCounts::default().sum(&held, nodes.into_iter()), 7);
    }
}
