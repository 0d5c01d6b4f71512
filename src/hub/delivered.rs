//! What the listeners of a log were given last, by which the hub notices that the store was set back to an earlier state.

use std::collections::VecDeque;

use crate::model::{EntryStamp, Seq};

/// Maximum number of remembered entries. A comparison finds lost entries among them, and the last entry before these.
const STAMPS_MAX: usize = 32;

/// The newest entries of a log that went out, and the doubts about them.
#[derive(Debug, Default)]
pub(super) struct Delivered {
    /// Without gaps; the newest one is the last.
    stamps: VecDeque<EntryStamp>,
    /// Number of times that the log was restarted because the store was set back.
    restarts: u64,
    /// Number of doubts so far.
    doubts: u64,
    doubted: bool,
}

/// What the listeners of a log were given, as the hub knew it at some time.
#[derive(Debug, Clone)]
pub struct Given {
    /// The seq of the last entry that went out.
    pub(super) last: Seq,
    pub(super) stamps: Vec<EntryStamp>,
    pub(super) restarts: u64,
    pub(super) doubts: u64,
}

impl Given {
    /// The seqs whose entries must be compared with the store.
    pub fn seqs(&self) -> impl Iterator<Item = Seq> {
        self.stamps.iter().map(|stamp| stamp.seq)
    }

    /// True if a store with this newest entry, which was read after this was known, has lost some of it.
    pub fn is_contradicted_by(&self, head: Seq, newest: Option<EntryStamp>) -> bool {
        let other = |stamp: &EntryStamp| newest.is_some_and(|newest| newest.seq == stamp.seq && newest.at != stamp.at);
        head < self.last || self.stamps.iter().any(other)
    }
}

impl Delivered {
    /// Records an entry that goes out, or the one after which delivery begins.
    pub(super) fn push(&mut self, stamp: EntryStamp) {
        if self.stamps.back().is_some_and(|newest| newest.seq + 1 != stamp.seq) {
            self.stamps.clear();
        }
        if self.stamps.len() >= STAMPS_MAX {
            self.stamps.pop_front();
        }
        self.stamps.push_back(stamp);
    }

    /// The newest entry, if it is known.
    pub(super) fn newest(&self) -> Option<EntryStamp> {
        self.stamps.back().copied()
    }

    /// True if an entry can't be of the same state of the store as those that went out: another one went out under its seq, or
    /// it is newer than a later one.
    pub(super) fn is_contradicted_by(&self, stamp: EntryStamp) -> bool {
        let Some(newest) = self.newest() else { return false };
        let known = self.stamps.iter().find(|known| known.seq == stamp.seq);
        known.map_or(stamp.seq < newest.seq && stamp.at > newest.at, |known| known.at != stamp.at)
    }

    /// True while the entries that went out are doubted. Nothing goes out meanwhile.
    pub(super) fn is_doubted(&self) -> bool {
        self.doubted
    }

    /// Doubts the entries that went out.
    pub(super) fn doubt(&mut self) {
        self.doubted = true;
        self.doubts += 1;
    }

    /// Ends a doubt that was there when `given` was known.
    pub(super) fn trust(&mut self, given: &Given) {
        self.doubted &= self.doubts != given.doubts;
    }

    /// Forgets entries before `first`: retention removed them, so the store can't confirm them any more.
    pub(super) fn forget_before(&mut self, first: Seq) {
        while self.stamps.front().is_some_and(|stamp| stamp.seq < first) {
            self.stamps.pop_front();
        }
    }

    /// True if `given` is of the same time between two restarts.
    pub(super) fn includes(&self, given: &Given) -> bool {
        self.restarts == given.restarts
    }

    /// Number of restarts so far.
    pub(super) fn restarts(&self) -> u64 {
        self.restarts
    }

    pub(super) fn given(&self, last: Seq) -> Given {
        let stamps = self.stamps.iter().copied().collect();
        Given { last, stamps, restarts: self.restarts, doubts: self.doubts }
    }

    /// Begins again after `last`: what went out after it does not count.
    pub(super) fn restart(&mut self, last: Seq) {
        self.stamps.retain(|stamp| stamp.seq <= last);
        self.stamps.truncate(if self.newest().is_some_and(|newest| newest.seq == last) { STAMPS_MAX } else { 0 });
        (self.doubted, self.restarts) = (false, self.restarts + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    fn stamp(seq: Seq, at: i64) -> EntryStamp {
        EntryStamp { seq, at: Timestamp::from_micros(at) }
    }

    fn delivered(seqs: std::ops::RangeInclusive<Seq>) -> Delivered {
        let mut delivered = Delivered::default();
        seqs.for_each(|seq| delivered.push(stamp(seq, 10 * seq)));
        delivered
    }

    #[test]
    fn another_entry_under_a_seq_that_went_out_is_a_contradiction() {
        let delivered = delivered(1..=100);
        for (seq, at) in [(100, 1_000), (69, 690), (101, 5_000), (5, 50), (5, 1_000)] {
            assert!(!delivered.is_contradicted_by(stamp(seq, at)), "{seq} {at}");
        }
        for (seq, at) in [(100, 1_001), (100, 999), (69, 2_000), (5, 1_001)] {
            assert!(delivered.is_contradicted_by(stamp(seq, at)), "{seq} {at}");
        }
        assert!(!Delivered::default().is_contradicted_by(stamp(1, 1)));
    }

    #[test]
    fn the_remembered_entries_are_bounded_and_have_no_gap() {
        let mut delivered = delivered(1..=100);
        assert_eq!(delivered.given(100).seqs().collect::<Vec<_>>(), Vec::from_iter(69..=100));
        delivered.push(stamp(200, 1));
        assert_eq!(delivered.given(200).seqs().collect::<Vec<_>>(), [200]);
    }

    #[test]
    fn a_doubt_that_came_later_stays() {
        let mut delivered = delivered(1..=3);
        delivered.doubt();
        let before = delivered.given(3);
        delivered.doubt();
        delivered.trust(&before);
        assert!(delivered.is_doubted());
        let now = delivered.given(3);
        delivered.trust(&now);
        assert!(!delivered.is_doubted());
    }

    #[test]
    fn after_a_restart_what_went_out_later_is_forgotten() {
        let mut restarted = delivered(1..=9);
        let before = restarted.given(9);
        restarted.doubt();
        restarted.restart(6);
        assert!(!restarted.is_doubted() && !restarted.includes(&before));
        assert_eq!(restarted.given(6).seqs().collect::<Vec<_>>(), Vec::from_iter(1..=6));
        let mut restarted = delivered(8..=9);
        restarted.restart(3);
        assert_eq!(restarted.newest(), None);
    }
}
