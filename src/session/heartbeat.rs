//! The time of pings and of their pongs: they detect a dead peer.

use std::time::Duration;

use tokio::time::Instant;

/// Delay after which a ping checks that an entry arrived, for clients that can't acknowledge entries.
const CONFIRM_AFTER: Duration = Duration::from_secs(5);

/// The time of the next ping, and the deadline of the last pong.
pub(super) struct Heartbeat {
    interval: Duration,
    pong_timeout: Duration,
    next_ping: Instant,
    pong_due: Option<Instant>,
}

impl Heartbeat {
    pub(super) fn new(interval: Duration, pong_timeout: Duration) -> Self {
        // The first ping is jittered, so that connections that opened together do not ping together.
        let first = interval.mul_f64(rand::random_range(0.5..1.0));
        Self { interval, pong_timeout, next_ping: Instant::now() + first, pong_due: None }
    }

    /// Records that the peer sent something.
    pub(super) fn record_activity(&mut self) {
        self.pong_due = None;
    }

    /// The time of the next check.
    pub(super) fn next_check(&self) -> Instant {
        self.pong_due.map_or(self.next_ping, |due| due.min(self.next_ping))
    }

    /// True if the pong is overdue.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        self.pong_due.is_some_and(|due| due <= now)
    }

    /// True if a sign of life at this time extends the deadline of the pong.
    pub(super) fn is_recent(&self, at: Instant, now: Instant) -> bool {
        at + self.pong_timeout > now
    }

    /// Extends the deadline of the pong, after a sign of life at this time.
    pub(super) fn extend_deadline(&mut self, at: Instant) {
        self.pong_due = Some(at + self.pong_timeout);
    }

    /// Gives an expected pong its whole time again, because nothing was read until now.
    pub(super) fn allow_pong(&mut self, now: Instant) {
        if self.pong_due.is_some() {
            self.extend_deadline(now);
        }
    }

    /// True if a ping is due. In that case it schedules the next ping and expects a pong for this one.
    pub(super) fn take_due_ping(&mut self, now: Instant) -> bool {
        let due = self.next_ping <= now;
        if due {
            self.next_ping = now + self.interval;
            self.pong_due.get_or_insert(now + self.pong_timeout);
        }
        due
    }

    /// Schedules a ping soon, to confirm arrivals.
    pub(super) fn ping_soon(&mut self) {
        self.next_ping = self.next_ping.min(Instant::now() + CONFIRM_AFTER);
    }
}
