//! [`Liveness`]: detects a server that no longer answers.

use std::time::{Duration, Instant};

use super::link::End;

/// Maximum time from a new connection to the join.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Time without a frame after which the client sends a ping.
const IDLE_BEFORE_PING: Duration = Duration::from_secs(20);
/// Maximum time for the answer to that ping.
const PONG_TIMEOUT: Duration = Duration::from_secs(10);

/// Times of one connection.
pub(super) struct Liveness {
    connected_at: Instant,
    last_frame_at: Instant,
    pinged_at: Option<Instant>,
}

impl Liveness {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self { connected_at: now, last_frame_at: now, pinged_at: None }
    }

    pub(super) fn frame_received(&mut self) {
        (self.last_frame_at, self.pinged_at) = (Instant::now(), None);
    }

    /// Time of the next check.
    pub(super) fn due(&self, joined: bool) -> Instant {
        let ping = self.pinged_at.map_or(self.last_frame_at + IDLE_BEFORE_PING, |at| at + PONG_TIMEOUT);
        if joined { ping } else { ping.min(self.connected_at + JOIN_TIMEOUT) }
    }

    /// True if a ping must be sent now.
    ///
    /// # Errors
    /// The server did not answer the join or a ping in time.
    pub(super) fn check(&mut self, joined: bool, now: Instant) -> Result<bool, End> {
        if !joined && self.connected_at + JOIN_TIMEOUT <= now {
            return Err(End::again("the server did not answer the join"));
        }
        match self.pinged_at {
            Some(at) if at + PONG_TIMEOUT <= now => Err(End::again("the server does not answer pings")),
            None if self.last_frame_at + IDLE_BEFORE_PING <= now => {
                self.pinged_at = Some(now);
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}
