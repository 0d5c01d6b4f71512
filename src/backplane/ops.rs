//! Redis operations of the backplane, as labels in metrics, with cached metric handles.

use std::time::Duration;

use prometheus::{Histogram, IntCounter};

use crate::{degrade::Work, metrics::Metrics};

macro_rules! ops {
    ($($(#[doc = $doc:literal])+ $op:ident = $label:literal,)*) => {
        /// An operation.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Op {
            $($(#[doc = $doc])+ $op,)*
        }

        const LABELS: &[&str] = &[$($label,)*];
    };
}

ops! {
    /// Check of the limit of messages.
    Admit = "admit",
    /// Check of another budget.
    Budget = "budget",
    /// Return of a share to a user's budget.
    Refund = "refund",
    /// Publishing of events, and update of the recent-message cache.
    Publish = "publish",
    /// Read of the recent-message cache.
    Recent = "recent",
    /// Registration of a connection.
    Register = "register",
    /// Removal of a connection.
    Unregister = "unregister",
    /// Start of listening to a conversation.
    Listen = "listen",
    /// End of listening to a conversation.
    Unlisten = "unlisten",
    /// Record that a connection is silent, or no longer.
    Silence = "silence",
    /// Hints to other nodes.
    Hints = "hints",
    /// Presence query.
    Presence = "presence",
    /// Acquisition, renewal or removal of the lease.
    Lease = "lease",
    /// Probe of a connection.
    Probe = "probe",
    /// Canary: a message that the node publishes to itself.
    Canary = "canary",
    /// Sweep of departures whose grace is over.
    Sweep = "sweep",
    /// Removal of a dead node's users.
    Reap = "reap",
    /// Writing this node's connections again: after a new era, for dirty users, and each half hour.
    Sync = "sync",
}

impl Op {
    /// The work of which the operation is a part; `None` if others judge it: those who publish and hear, and the watchdog.
    pub(super) fn work(self) -> Option<Work> {
        match self {
            Self::Publish | Self::Hints | Self::Canary | Self::Lease | Self::Probe => None,
            Self::Admit | Self::Budget | Self::Refund => Some(Work::Limit),
            Self::Recent
            | Self::Register
            | Self::Unregister
            | Self::Listen
            | Self::Unlisten
            | Self::Silence
            | Self::Presence
            | Self::Sweep
            | Self::Reap
            | Self::Sync => Some(Work::Register),
        }
    }

    /// The label in metrics.
    pub(super) fn label(self) -> &'static str {
        LABELS[self as usize]
    }
}

/// Cached metric handles of every operation.
pub(super) struct Ops {
    seconds: Vec<Histogram>,
    errors: Vec<IntCounter>,
}

impl Ops {
    /// Looks up the handles.
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self {
            seconds: LABELS.iter().map(|label| metrics.redis_seconds.with_label_values(&[label])).collect(),
            errors: LABELS.iter().map(|label| metrics.redis_errors.with_label_values(&[label])).collect(),
        }
    }

    /// Records the duration of an operation.
    pub(super) fn observe(&self, op: Op, time: Duration) {
        self.seconds[op as usize].observe(time.as_secs_f64());
    }

    /// Counts a failed operation, or a failed command of it.
    pub(super) fn count_failure(&self, op: Op) {
        self.errors[op as usize].inc();
    }
}
