//! The state of a node's console.

use tokio::sync::Semaphore;

use super::{gate::Gate, rates::Rates};
use crate::config::ConsoleConfig;

/// Maximum number of webhook requests that are repeated at a time.
const REPLAYS_MAX: usize = 2;

/// The console of a node on which it is on.
pub(in crate::http) struct Console {
    pub(in crate::http) gate: Gate,
    pub(super) rates: Rates,
    /// Places of webhook requests that are being repeated.
    pub(super) replays: Semaphore,
}

impl Console {
    pub(in crate::http) fn new(config: &ConsoleConfig) -> Self {
        Self { gate: Gate::new(config), rates: Rates::default(), replays: Semaphore::new(REPLAYS_MAX) }
    }
}
