//! The order of one log: entries are released strictly +1, in whatever order and however often they arrive.

use std::collections::BTreeMap;

use crate::model::Seq;

/// Entries that may wait for an earlier one. Beyond this only the highest seq is kept, and the entries are backfilled.
pub(super) const HELD_MAX: usize = 256;

/// Puts entries in order. `T` is an entry with its metadata.
#[derive(Debug)]
pub(super) struct Resequencer<T> {
    last: Seq,
    held: BTreeMap<Seq, T>,
    /// The highest seq that is known to exist.
    known: Seq,
}

impl<T> Resequencer<T> {
    /// Creates an order that continues after `last`.
    pub(super) fn after(last: Seq) -> Self {
        Self { last, held: BTreeMap::new(), known: last }
    }

    /// The seq of the last released entry.
    pub(super) fn last(&self) -> Seq {
        self.last
    }

    /// True if a seq is known that can't be released yet.
    pub(super) fn has_gap(&self) -> bool {
        self.known > self.last
    }

    /// Records that the log reaches to `seq`.
    pub(super) fn record_seq(&mut self, seq: Seq) {
        self.known = self.known.max(seq);
    }

    /// The highest seq that is known to exist.
    pub(super) fn known(&self) -> Seq {
        self.known
    }

    /// The entry of this seq, if it waits for an earlier one.
    pub(super) fn held(&self, seq: Seq) -> Option<&T> {
        self.held.get(&seq)
    }

    /// Drops seqs that the store does not have. The caller read the log when `known` was the highest seq, and found no
    /// more entries. A higher seq since then keeps the gap open.
    pub(super) fn drop_unstored(&mut self, known: Seq) {
        if self.known == known {
            self.known = self.last;
            self.held.clear();
        }
    }

    /// Passes over the seqs between `last` and `next`, of which the store has none. Returns false if entries were released since
    /// `last` was the last one.
    pub(super) fn skip(&mut self, last: Seq, next: Seq) -> bool {
        let unchanged = self.last == last;
        if unchanged {
            self.last = next - 1;
        }
        unchanged
    }

    /// Accepts an entry, and appends to `ready` the entries that it releases, in order. Returns false if it keeps nothing
    /// of this one, because it was released before, or because too many wait.
    pub(super) fn offer(&mut self, seq: Seq, entry: T, ready: &mut Vec<T>) -> bool {
        self.record_seq(seq);
        if seq <= self.last {
            return false;
        }
        if seq > self.last + 1 {
            let has_room = self.held.len() < HELD_MAX;
            if has_room {
                self.held.insert(seq, entry);
            }
            return has_room;
        }
        self.last = seq;
        ready.push(entry);
        while let Some(first) = self.held.first_entry() {
            match *first.key() {
                key if key == self.last + 1 => {
                    self.last = key;
                    ready.push(first.remove());
                }
                key if key <= self.last => drop(first.remove()),
                _ => break,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// For any losses, repeats, reorderings and refetches, the released entries are `base + 1, base + 2, …`, each
        /// once. Once every entry from the gap on was offered, all are released.
        #[test]
        fn releases_strictly_by_one(
            base in 0..50_i64,
            count in 1..400_i64,
            steps in prop::collection::vec((0..400_i64, any::<bool>()), 0..1_200),
        ) {
            let mut resequencer = Resequencer::after(base);
            let mut out = Vec::new();
            for (step, lost) in steps {
                let seq = base + 1 + step % count;
                if !lost {
                    resequencer.offer(seq, seq, &mut out);
                }
                prop_assert!(resequencer.held.len() <= HELD_MAX);
                prop_assert_eq!(resequencer.last(), base + out.len() as i64);
            }
            resequencer.record_seq(base + count);
            while resequencer.has_gap() {
                let next = resequencer.last() + 1;
                resequencer.offer(next, next, &mut out);
            }
            prop_assert_eq!(out, (base + 1..=base + count).collect::<Vec<_>>());
        }
    }
}
