//! Kinds of work that can fail although the part that does them answers its checks.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Finding, Part};

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Receiving what other nodes publish.
    Subscribe,
    /// Publishing to other nodes.
    Publish,
    /// Storing messages.
    Append,
    /// Storing the other entries of a log: edits, deletions, reactions, changes of members.
    Change,
}

impl Work {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Subscribe, Self::Publish, Self::Append, Self::Change];
    /// Without these, nodes don't reach each other through Redis.
    pub(super) const FANOUT: [Self; 2] = [Self::Subscribe, Self::Publish];

    /// Each of these succeeds while the other one fails, if what one of them needs is missing.
    pub(super) const APPENDS: [Self; 2] = [Self::Append, Self::Change];

    /// The part that does the work.
    pub fn part(self) -> Part {
        match self {
            Self::Subscribe | Self::Publish => Part::Redis,
            Self::Append | Self::Change => Part::Store,
        }
    }

    /// Time for which a fault is believed without new evidence. A canary tests the fan-out all the time; appends are tested
    /// only by clients.
    pub(super) fn remembered(self) -> Duration {
        match self {
            Self::Subscribe | Self::Publish => Duration::MAX,
            Self::Append | Self::Change => Duration::from_secs(60),
        }
    }
}

/// The fault of a kind of work, and when it was last seen.
#[derive(Debug)]
pub(super) struct Partial {
    pub(super) finding: Arc<Finding>,
    pub(super) at: Instant,
}
