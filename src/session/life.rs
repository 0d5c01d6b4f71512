//! [`Life`]: the signs of life of a session's client.

use tokio::time::Instant;

use super::{arrivals::Arrivals, heartbeat::Heartbeat};
use crate::model::UserId;

/// The signs of life of a client.
pub(super) struct Life {
    /// The pings and their pongs.
    pub(super) heartbeat: Heartbeat,
    /// The entries that have arrived.
    pub(super) arrivals: Arrivals,
}

/// A connection that ended.
pub(super) struct Ended {
    /// Its user.
    pub(super) user: UserId,
    /// The client had what was handed over until then.
    pub(super) confirmed_at: Instant,
}
