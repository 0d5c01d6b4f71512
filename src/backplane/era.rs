//! Eras: the watchdog starts and ends them, and the other tasks of the backplane watch them.

use tokio::time::Instant;

use crate::model::Timestamp;

/// A time in which Redis knows this node under one incarnation. When an era begins, this node must write all its
/// connections to Redis again, and may have missed events.
#[derive(Debug, Clone, Copy)]
pub(super) struct Era {
    /// Number of the era; 0 before the first one.
    pub(super) number: u64,
    /// True while Redis is up.
    pub(super) up: bool,
    /// Start of the era.
    pub(super) since: Instant,
    /// Redis was wiped since the era before. Then no node counted this one as dead.
    pub(super) wiped: bool,
    /// Other nodes counted this node as dead in the era before.
    pub(super) reaped: bool,
    /// True after the first attempt to connect.
    pub(super) tried: bool,
    /// Time at which Redis was last lost; other nodes don't know of connections made after it.
    pub(super) lost_at: Option<Timestamp>,
}

impl Default for Era {
    /// The state before the first one.
    fn default() -> Self {
        Self { number: 0, up: false, since: Instant::now(), wiped: false, reaped: false, tried: false, lost_at: None }
    }
}
