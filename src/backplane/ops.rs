//! What the backplane does in Redis, as metrics name it; the handles are looked up once.

use std::time::Duration;

use prometheus::{Histogram, IntCounter};

use crate::metrics::Metrics;

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
    /// May a user send?
    Admit = "admit",
    /// Events to other nodes, messages to the recent cache.
    Publish = "publish",
    /// Recent messages.
    Recent = "recent",
    /// A connection comes.
    Register = "register",
    /// A connection goes.
    Unregister = "unregister",
    /// A connection listens.
    Listen = "listen",
    /// A connection no longer listens.
    Unlisten = "unlisten",
    /// Who is there?
    Presence = "presence",
    /// The lease.
    Lease = "lease",
    /// A sign of life.
    Probe = "probe",
    /// A message to oneself.
    Canary = "canary",
    /// Departures whose grace is over.
    Sweep = "sweep",
    /// A dead node's users.
    Reap = "reap",
    /// Registering anew, repairs and half-hourly renewals.
    Sync = "sync",
}

/// Cached handles of every operation's metrics.
pub(super) struct Ops {
    seconds: Vec<Histogram>,
    errors: Vec<IntCounter>,
}

impl Ops {
    /// Looks them up.
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self {
            seconds: LABELS.iter().map(|label| metrics.redis_seconds.with_label_values(&[label])).collect(),
            errors: LABELS.iter().map(|label| metrics.redis_errors.with_label_values(&[label])).collect(),
        }
    }

    /// An operation took this long.
    pub(super) fn took(&self, op: Op, time: Duration) {
        self.seconds[op as usize].observe(time.as_secs_f64());
    }

    /// An operation, or a command of it, failed.
    pub(super) fn failed(&self, op: Op) {
        self.errors[op as usize].inc();
    }
}
