//! The spans in which Redis knows this node: the watchdog begins and ends them, everybody else follows.

use tokio::time::Instant;

use crate::model::Timestamp;

/// A span in which Redis knows this node under one incarnation. When one begins, everything that this node holds has to
/// be told to Redis again, and anything may have been missed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Era {
    /// Counts them; 0 before the first.
    pub(super) number: u64,
    /// Whether Redis is there now.
    pub(super) up: bool,
    /// Since when Redis has been well.
    pub(super) since: Instant,
    /// Redis forgot everything since the era before; it is not that others took this node for dead.
    pub(super) wiped: bool,
    /// Others took this node for dead in the era before.
    pub(super) reaped: bool,
    /// Whether Redis was looked for at least once.
    pub(super) tried: bool,
    /// When Redis was last lost; connections made later are unknown to other nodes.
    pub(super) lost_at: Option<Timestamp>,
}

impl Default for Era {
    /// The state before the first one.
    fn default() -> Self {
        Self { number: 0, up: false, since: Instant::now(), wiped: false, reaped: false, tried: false, lost_at: None }
    }
}
