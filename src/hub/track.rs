//! What the hub knows of one log that this node follows.

use std::sync::Arc;

use tokio::sync::OnceCell;

use super::resequencer::Resequencer;
use crate::{
    dialect::Dialect,
    metrics::Metrics,
    model::{Event, Pair, Seq},
};

/// Whether a log that is followed was opened, so that its base is known; whoever comes first opens it.
pub type Opened = Arc<OnceCell<()>>;

/// A log this node follows.
pub(super) struct Track {
    /// How many follow it.
    pub(super) followers: usize,
    pub(super) opened: Opened,
    pub(super) resequencer: Resequencer<Event>,
    /// False until the order's base is known: until then entries are only heard of.
    pub(super) based: bool,
    /// Listeners per shard.
    pub(super) attached: Box<[u32]>,
    /// Listeners per dialect.
    pub(super) spoken: [u32; Dialect::COUNT],
    /// The two members, where it is a direct conversation and a dialect asked.
    pub(super) pair: Option<Arc<Pair>>,
    pub(super) backfilling: bool,
}

/// A gap that withstands, counted for as long as this lives.
pub(super) struct Stuck(Arc<Metrics>);

impl Stuck {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        metrics.gaps_stuck.inc();
        Self(metrics)
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        self.0.gaps_stuck.dec();
    }
}

impl Track {
    /// Learns that the log reaches to `seq`, without the entry.
    pub(super) fn hear(&mut self, seq: Seq) {
        if self.based {
            self.resequencer.learn(seq);
        } else if seq > self.resequencer.last() {
            self.resequencer = Resequencer::after(seq);
        }
    }
}
