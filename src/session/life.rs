//! What a session knows of its client's life.

use super::{arrivals::Arrivals, heartbeat::Heartbeat};

/// The signs of life of a client.
pub(super) struct Life {
    /// The pings and their pongs.
    pub(super) heartbeat: Heartbeat,
    /// What has arrived.
    pub(super) arrivals: Arrivals,
}
