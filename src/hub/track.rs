//! The hub's state of one followed log.

use std::sync::Arc;

use tokio::sync::OnceCell;

use super::{delivered::Delivered, resequencer::Resequencer};
use crate::{
    dialect::Dialect,
    metrics::Metrics,
    model::{Entry, EntryStamp, Ephemeral, Event, Pair, Seq},
};

/// Events of clients that may wait for the entries before them. Further ones are dropped.
const EARLY_MAX: usize = 256;

/// Set once the log is opened, that is, its base is known. The first follower opens it for all.
pub type Opened = Arc<OnceCell<()>>;

/// The state of a followed log.
pub(super) struct Track {
    /// Number of followers.
    pub(super) followers: usize,
    pub(super) opened: Opened,
    pub(super) resequencer: Resequencer<Event>,
    pub(super) delivered: Delivered,
    /// The first seq that was still stored when the log was restarted.
    pub(super) first: Seq,
    /// False until the base is known; until then only the seqs of entries are recorded.
    pub(super) has_base: bool,
    /// Listeners per shard.
    pub(super) listeners_by_shard: Box<[u32]>,
    /// Listeners per dialect.
    pub(super) listeners_by_dialect: [u32; Dialect::COUNT],
    /// The members of a direct conversation, if a dialect needs them.
    pub(super) pair: Option<Arc<Pair>>,
    pub(super) backfilling: bool,
    /// Events of clients whose senders' nodes had entries that this one lacks.
    pub(super) early: Vec<Event>,
    /// Number of the delivery of its newest entry among the entries of all logs; 0 before the first one.
    pub(super) activity: u64,
}

/// Counts a gap that is being backfilled, for its lifetime.
pub(super) struct OpenGap(Arc<Metrics>);

impl OpenGap {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        metrics.gaps_open.inc();
        Self(metrics)
    }
}

impl Drop for OpenGap {
    fn drop(&mut self) {
        self.0.gaps_open.dec();
    }
}

/// Counts a gap that stays open after repeated backfills, for its lifetime.
pub(super) struct StuckGap(Arc<Metrics>);

impl StuckGap {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        metrics.gaps_stuck.inc();
        Self(metrics)
    }
}

impl Drop for StuckGap {
    fn drop(&mut self) {
        self.0.gaps_stuck.dec();
    }
}

impl Track {
    /// True if entries may go out; else only their seqs are recorded.
    pub(super) fn takes_entries(&self) -> bool {
        self.has_base && !self.delivered.is_doubted()
    }

    /// The last entry that went out, if its time is known.
    pub(super) fn newest(&self) -> Option<EntryStamp> {
        self.delivered.newest().filter(|newest| newest.seq == self.resequencer.last())
    }

    /// The entry with the highest announced seq, if it is known: copies that lead to it lack no later edit or deletion.
    pub(super) fn proof(&self) -> Option<EntryStamp> {
        match self.resequencer.known() {
            known if known == self.resequencer.last() => self.newest(),
            known => self.resequencer.held(known).and_then(Event::entry).map(Entry::stamp),
        }
    }

    /// True if the listeners must get entries before this event.
    pub(super) fn is_early(&self, event: &Event) -> bool {
        self.has_base && entry_before(event) > self.resequencer.last()
    }

    /// Keeps an early event until [`Track::release_early`]; false if too many wait. The entries that it waits for are
    /// backfilled if they don't come by themselves.
    pub(super) fn hold(&mut self, event: &Event) -> bool {
        self.record_seq(entry_before(event));
        let fits = self.early.len() < EARLY_MAX;
        if fits {
            self.early.push(event.clone());
        }
        fits
    }

    /// Appends the events that are early no longer, in the order in which they came.
    pub(super) fn release_early(&mut self, ready: &mut Vec<Event>) {
        let last = self.resequencer.last();
        ready.extend(self.early.extract_if(.., |event| entry_before(event) <= last));
    }

    /// Records that the log reaches to `seq`, without the entry.
    pub(super) fn record_seq(&mut self, seq: Seq) {
        if self.has_base {
            self.resequencer.record_seq(seq);
        } else if seq > self.resequencer.last() {
            self.resequencer = Resequencer::after(seq);
        }
    }
}

/// The entry before which nobody may get this event; 0 if there is none.
fn entry_before(event: &Event) -> Seq {
    match event {
        Event::Ephemeral { ephemeral, .. } => match &ephemeral.what {
            Ephemeral::Custom { after, .. } => *after,
            _ => 0,
        },
        Event::Entry { .. } => 0,
    }
}
