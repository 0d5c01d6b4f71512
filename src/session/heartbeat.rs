//! The time of pings and of their pongs: they detect a dead peer.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

/// Delay after which a ping checks that an entry arrived, for clients that can't acknowledge entries.
const CONFIRM_AFTER: Duration = Duration::from_secs(5);

/// The intervals of pings and of the waits for their pongs.
#[derive(Debug)]
pub(super) struct Pace {
    /// Interval between two pings.
    pub(super) interval: Duration,
    /// Time after which a pong is overdue.
    pub(super) pong_timeout: Duration,
    /// Time after which the peer counts as silent, if it gave no sign of life for longer than an interval. It is not closed
    /// yet, but gives way to a new socket of its user.
    pub(super) silent_after: Duration,
}

/// The time of the next ping, and the wait for a pong.
pub(super) struct Heartbeat {
    pace: Arc<Pace>,
    next_ping: Instant,
    /// The time of the first ping without an answer, or of a sign of life after it.
    waits_since: Option<Instant>,
    /// The last sign of life.
    lived_at: Instant,
    silent: bool,
}

impl Heartbeat {
    pub(super) fn new(pace: Arc<Pace>) -> Self {
        let now = Instant::now();
        // The first ping is jittered, so that connections that opened together do not ping together.
        let next_ping = now + pace.interval.mul_f64(rand::random_range(0.5..1.0));
        Self { pace, next_ping, waits_since: None, lived_at: now, silent: false }
    }

    /// Records that the peer sent something.
    pub(super) fn record_activity(&mut self, now: Instant) {
        (self.waits_since, self.lived_at) = (None, now);
    }

    /// Records whether the peer counts as silent. Returns true if it is a change.
    pub(super) fn set_silent(&mut self, silent: bool) -> bool {
        std::mem::replace(&mut self.silent, silent) != silent
    }

    /// The time of the next check.
    pub(super) fn next_check(&self) -> Instant {
        self.late_at().map_or(self.next_ping, |late| late.min(self.next_ping))
    }

    /// True if the pong is so late that the peer counts as silent, or overdue.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.late_at().is_some_and(|late| late <= now)
    }

    /// True if the pong is overdue.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        self.waits_since.is_some_and(|since| since + self.pace.pong_timeout <= now)
    }

    fn late_at(&self) -> Option<Instant> {
        let since = self.waits_since?;
        let silent_at = (since + self.pace.silent_after).max(self.lived_at + self.pace.interval);
        let overdue_at = since + self.pace.pong_timeout;
        Some(if self.silent { overdue_at } else { silent_at.min(overdue_at) })
    }

    /// True if this time is after the ping that waits for its pong, or there is none.
    pub(super) fn is_after_ping(&self, at: Instant) -> bool {
        self.waits_since.is_none_or(|since| at > since)
    }

    /// True if this time is so short ago that a pong could still come.
    pub(super) fn is_recent(&self, at: Instant, now: Instant) -> bool {
        at + self.pace.pong_timeout > now
    }

    /// Records that the peer took bytes at this time, which extends the deadline of the pong.
    pub(super) fn record_taken(&mut self, at: Instant) {
        (self.waits_since, self.lived_at) = (Some(at), at);
    }

    /// Gives an expected pong its whole time again.
    pub(super) fn allow_pong(&mut self, now: Instant) {
        if self.waits_since.is_some() {
            self.waits_since = Some(now);
        }
    }

    /// True if a ping is due. In that case it schedules the next ping and expects a pong for this one.
    pub(super) fn take_due_ping(&mut self, now: Instant) -> bool {
        let due = self.next_ping <= now;
        if due {
            self.next_ping = now + self.pace.interval;
            self.waits_since.get_or_insert(now);
        }
        due
    }

    /// Schedules a ping soon, to confirm arrivals.
    pub(super) fn ping_soon(&mut self) {
        self.next_ping = self.next_ping.min(Instant::now() + CONFIRM_AFTER);
    }

    /// Schedules a ping now, unless one waits for its pong.
    pub(super) fn ping_now(&mut self) {
        if self.waits_since.is_none() {
            self.next_ping = self.next_ping.min(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(25);
    const TIMEOUT: Duration = Duration::from_secs(10);
    const SILENT: Duration = Duration::from_secs(3);

    fn heartbeat() -> Heartbeat {
        Heartbeat::new(Arc::new(Pace { interval: INTERVAL, pong_timeout: TIMEOUT, silent_after: SILENT }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_is_silent_after_an_interval_without_life_and_gone_when_its_pong_is_overdue() {
        let mut heartbeat = heartbeat();
        let began = Instant::now();
        assert!(heartbeat.next_check() >= began + INTERVAL / 2);
        heartbeat.record_activity(began);
        let pinged = began + INTERVAL;
        assert!(heartbeat.take_due_ping(pinged));
        assert_eq!(heartbeat.next_check(), pinged + SILENT);
        assert!(heartbeat.is_late(pinged + SILENT) && !heartbeat.is_overdue(pinged + SILENT));
        assert!(heartbeat.set_silent(true) && !heartbeat.set_silent(true));
        assert_eq!(heartbeat.next_check(), pinged + TIMEOUT);
        assert!(heartbeat.is_overdue(pinged + TIMEOUT));
        heartbeat.record_taken(pinged + TIMEOUT);
        assert!(!heartbeat.is_overdue(pinged + TIMEOUT));
        heartbeat.record_activity(pinged + TIMEOUT);
        assert_eq!(heartbeat.next_check(), pinged + INTERVAL);
    }

    #[tokio::test(start_paused = true)]
    async fn an_early_ping_makes_nobody_silent_but_is_overdue_in_time() {
        let mut heartbeat = heartbeat();
        let began = Instant::now();
        heartbeat.ping_now();
        assert!(heartbeat.take_due_ping(began));
        heartbeat.ping_now();
        assert!(!heartbeat.take_due_ping(began), "one waits for its pong already");
        assert_eq!(heartbeat.next_check(), began + TIMEOUT);
        assert!(!heartbeat.is_late(began + SILENT) && heartbeat.is_overdue(began + TIMEOUT));
    }
}
