//! Shards: on a cluster the state of a user is in one of 64 slots, so that what belongs together has one server, and fails and
//! moves together. A single Redis is one shard.

/// Number of shards of a cluster, and of the channels of every deployment. Part of names, and so of the protocol between nodes.
pub(super) const SHARDS: usize = 64;

/// The hash tags of a cluster's shards. Their slots lie in the middle of 64 equal ranges, so that 3, 6, 9, 16 or 32 masters with
/// equal ranges get equal numbers of shards, or numbers that differ by one. They must never change.
const TAGS: [&str; SHARDS] = [
    "sd3", "s8b", "s07", "slf", "s4f", "sg6", "s4w", "sok", "s94", "see", "sm0", "s1a", "sia", "sfh", "sip", "s2l",
    "s19", "smh", "sbp", "s9l", "s5y", "sne", "sf0", "sau", "sks", "s0o", "sdc", "sdk", "so3", "s3b", "sxr", "sgf",
    "s9r", "s9z", "smv", "s6j", "sak", "sac", "si6", "s5g", "sdu", "sc0", "s0q", "skm", "sgx", "sxl", "s41", "s3t",
    "slx", "s7d", "sch", "s8t", "sh8", "s4i", "sx4", "s4x", "suw", "sjc", "sb6", "szo", "sq7", "sin", "sfv", "syb",
];

/// The kind of Redis over which names are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// One server, with the names of [`Shard::HOME`] and no hash tags.
    Single,
    /// A cluster.
    Cluster,
}

/// A shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Shard(u8);

impl Shard {
    /// The first shard. It holds what is not spread, and decides which deployment may use the others.
    pub(super) const HOME: Self = Self(0);

    /// The shard of a name on a cluster: its FNV-1a hash, modulo [`SHARDS`]. It must never change, since all nodes must agree on it.
    pub(super) fn of(name: &str) -> Self {
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self((hash % SHARDS as u64) as u8)
    }

    /// Every shard.
    pub(super) fn all(layout: Layout) -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator + Clone {
        let count = match layout {
            Layout::Single => 1,
            Layout::Cluster => SHARDS as u8,
        };
        (0..count).map(Self)
    }

    /// The number, for a place in a list.
    pub(super) fn index(self) -> usize {
        self.0.into()
    }

    /// The bit in a mask of shards.
    pub(super) fn bit(self) -> u64 {
        1 << self.0
    }

    /// The hash tag on a cluster.
    pub(super) fn tag(self) -> &'static str {
        TAGS[self.index()]
    }

    /// The shard with this hash tag.
    pub(super) fn with_tag(tag: &str) -> Option<Self> {
        TAGS.iter().zip(0..).find(|(known, _)| **known == tag).map(|(_, index)| Self(index))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{super::cluster::slot, *};

    #[test]
    fn masters_with_equal_ranges_get_equal_numbers_of_shards() {
        let slots: Vec<usize> = Shard::all(Layout::Cluster).map(|shard| slot(shard.tag().as_bytes()).into()).collect();
        assert_eq!(slots.iter().collect::<HashSet<_>>().len(), SHARDS);
        for masters in [1, 2, 3, 6, 9, 16, 32, 64] {
            let held = |master| {
                // As `redis-cli --cluster create` divides the slots.
                let range = |n: usize| (n as f64 * 16_384.0 / masters as f64).round() as usize;
                slots.iter().filter(|slot| (range(master)..range(master + 1)).contains(slot)).count()
            };
            let counts: Vec<usize> = (0..masters).map(held).collect();
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(most - least <= usize::from(!SHARDS.is_multiple_of(masters)), "{masters}: {counts:?}");
        }
    }

    #[test]
    fn tags_lead_back_to_their_shards() {
        for shard in Shard::all(Layout::Cluster) {
            assert_eq!(Shard::with_tag(shard.tag()), Some(shard));
        }
        assert_eq!(Shard::with_tag("s00"), None);
        assert_eq!(Shard::all(Layout::Single).collect::<Vec<_>>(), [Shard::HOME]);
        let used: HashSet<_> = (0..2_000).map(|n| Shard::of(&format!("user-{n}"))).collect();
        assert_eq!(used.len(), SHARDS);
    }
}
