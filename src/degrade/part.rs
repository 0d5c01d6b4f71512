//! The state of Redis and of the store, each with the fault that brought it down.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::Finding;

/// Number of failed checks in a row after which a part counts as down, and of good ones after which it counts as up.
const FAILURES_TO_GO_DOWN: u32 = 2;
const SUCCESSES_TO_COME_UP: u32 = 2;

/// An external part that the broker depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// Redis, through the backplane.
    Redis,
    /// PostgreSQL or SQLite.
    Store,
}

impl Part {
    /// The label in metrics, logs and health.
    pub fn label(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Store => "store",
        }
    }
}

/// The state of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// Not configured: the node runs without this part.
    Off,
    /// The part works.
    Up,
    /// The part is configured and does not work now.
    Down,
}

/// The state of one part, for the health report.
#[derive(Debug, Clone)]
pub struct PartState {
    /// Off, up or down.
    pub link: LinkState,
    /// Time of the last change of `link`.
    pub since: Instant,
    /// Duration of the last successful check.
    pub latency: Option<Duration>,
    /// The newest fault while `link` is down.
    pub fault: Option<Arc<Finding>>,
}

/// A part's state, and the results of its newest checks.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) state: PartState,
    failures: u32,
    successes: u32,
}

impl Watched {
    pub(super) fn new(link: LinkState) -> Self {
        let state = PartState { link, since: Instant::now(), latency: None, fault: None };
        Self { state, failures: 0, successes: 0 }
    }

    /// Records a check's result; true if the state changed, or the name of its fault.
    pub(super) fn record(&mut self, result: Result<Duration, Finding>) -> bool {
        match result {
            Ok(latency) => {
                self.state.latency = Some(latency);
                (self.failures, self.successes) = (0, self.successes.saturating_add(1));
                self.successes >= SUCCESSES_TO_COME_UP && self.set_link(LinkState::Up)
            }
            Err(finding) => {
                (self.failures, self.successes) = (self.failures.saturating_add(1), 0);
                self.failures >= FAILURES_TO_GO_DOWN && self.go_down(finding)
            }
        }
    }

    /// Sets the state at once; true if it changed, or the name of its fault.
    pub(super) fn set(&mut self, fault: Option<Finding>) -> bool {
        (self.failures, self.successes) = (0, 0);
        match fault {
            Some(finding) => self.go_down(finding),
            None => self.set_link(LinkState::Up),
        }
    }

    /// Counts the part as down for no fault: nothing was tried yet.
    pub(super) fn begin(&mut self) -> bool {
        self.set_link(LinkState::Down)
    }

    fn go_down(&mut self, finding: Finding) -> bool {
        let changed = self.set_link(LinkState::Down);
        let other = self.state.fault.as_ref().is_none_or(|known| known.fault != finding.fault);
        if self.state.link == LinkState::Down {
            self.state.fault = Some(Arc::new(finding));
        }
        changed || other && self.state.link == LinkState::Down
    }

    fn set_link(&mut self, link: LinkState) -> bool {
        let changed = self.state.link != link && self.state.link != LinkState::Off;
        if changed {
            (self.state.link, self.state.since, self.state.fault) = (link, Instant::now(), None);
        }
        changed
    }
}
