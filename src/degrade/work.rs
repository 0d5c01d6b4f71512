//! Kinds of work that can fail although the part that does them answers its checks.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    fault::Finding,
    feature::{Feature, Mode},
    part::Part,
};

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Receiving what other nodes publish.
    Subscribe,
    /// Publishing to other nodes.
    Publish,
    /// Counting sends and other commands against their limits.
    Limit,
    /// Other commands of Redis: connections, listeners, departures.
    Register,
    /// Storing messages.
    Append,
    /// Storing the other entries of a log: edits, deletions, reactions, changes of members.
    Change,
    /// Reading what is stored.
    Read,
    /// Storing what is no entry: conversations, read marks, statuses, notifications, restrictions.
    Write,
}

impl Work {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::Subscribe,
        Self::Publish,
        Self::Limit,
        Self::Register,
        Self::Append,
        Self::Change,
        Self::Read,
        Self::Write,
    ];
    /// Without these, nodes don't reach each other through Redis.
    pub(super) const FANOUT: [Self; 2] = [Self::Subscribe, Self::Publish];

    /// The part that does the work.
    pub fn part(self) -> Part {
        match self {
            Self::Subscribe | Self::Publish | Self::Limit | Self::Register => Part::Redis,
            Self::Append | Self::Change | Self::Read | Self::Write => Part::Store,
        }
    }

    /// How the feature works that needs this work, while the work fails and all else goes on; `None` if the table of
    /// features says it already.
    pub(super) fn shown_as(self) -> Option<(Feature, Mode)> {
        match self {
            Self::Subscribe | Self::Publish | Self::Write => None,
            Self::Limit => Some((Feature::Limits, Mode::Local)),
            Self::Register => Some((Feature::Presence, Mode::Local)),
            Self::Append => Some((Feature::Append, Mode::Refused)),
            Self::Change => Some((Feature::Append, Mode::Limited)),
            Self::Read => Some((Feature::History, Mode::Limited)),
        }
    }

    /// Time for which a fault is believed without new evidence. A canary tests the fan-out all the time; the other work is
    /// tested only by what clients do.
    pub(super) fn remembered(self) -> Duration {
        match self {
            Self::Subscribe | Self::Publish => Duration::MAX,
            Self::Limit | Self::Register | Self::Append | Self::Change | Self::Read | Self::Write => {
                Duration::from_secs(60)
            }
        }
    }
}

/// The fault of a kind of work, and when it was last seen.
#[derive(Debug)]
pub(super) struct Partial {
    pub(super) finding: Arc<Finding>,
    pub(super) at: Instant,
}

/// The calls that are refused for a reason that lasts until an operator acts, of one kind of work. Different calls need
/// different tables, rights or commands: one that succeeds says nothing of another.
#[derive(Debug, Default)]
pub(super) struct RefusedCalls(HashMap<&'static str, Instant>);

impl RefusedCalls {
    /// Records that a call was refused.
    pub(super) fn add(&mut self, call: &'static str) {
        self.0.insert(call, Instant::now());
    }

    /// Records that a call succeeded. True if it was refused before, and no other one was within the duration `remembered`.
    pub(super) fn remove(&mut self, call: &'static str, remembered: Duration) -> bool {
        let was_refused = self.0.remove(call).is_some();
        self.0.retain(|_, at| at.elapsed() < remembered);
        was_refused && self.0.is_empty()
    }

    /// The number of calls, of which some may be too old to count.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
