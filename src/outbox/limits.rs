//! The limits of an outbox, and whether its client takes bytes.

use std::time::Duration;

use tokio::time::Instant;

use super::frame::Frame;

/// The limits of an outbox. Outboxes of one dialect share them.
#[derive(Debug)]
pub struct OutboxLimits {
    /// Maximum number of bytes that wait.
    pub bytes: usize,
    /// Maximum time for which bytes wait and the client takes none.
    pub stalled_after: Duration,
    /// The close frame for a client that reads too slowly.
    pub too_slow: Frame,
}

/// The progress of the client in taking bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Bytes wait, because the socket accepts no more now; when it accepted the last ones.
    Waiting(Option<Instant>),
    /// No bytes wait; the last time that the client had to take some before others could be written.
    Idle(Option<Instant>),
}
