//! Reports and questions about the shards of a Redis Cluster.

use super::{Degrade, Finding, LinkState, Part};

impl Degrade {
    /// Records which shards of a Redis Cluster don't work, a bit for each, and why.
    pub fn note_down_shards(&self, mask: u64, why: Option<Finding>) {
        let changed = self.outage.set(mask, why);
        self.notify_if_changed(changed);
    }

    /// True if some shards of a Redis Cluster don't work, although others do.
    pub fn lacks_shards(&self) -> bool {
        self.outage.any() && self.state(Part::Redis).link == LinkState::Up
    }

    /// Number of shards of a Redis Cluster that don't work while others do.
    pub fn shards_down(&self) -> usize {
        if self.lacks_shards() { self.outage.count() } else { 0 }
    }

    /// True if the first shard of a Redis Cluster works, which has what belongs to no user.
    pub fn has_first_shard(&self) -> bool {
        self.outage.spares_first()
    }
}
