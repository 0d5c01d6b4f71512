//! Whether the other side is there, and what has reached it: both are learnt by pinging.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::model::{ConversationId, Seq};

/// How long after a frame was handed over it is asked whether it arrived, where only a ping can ask.
const CONFIRM_AFTER: Duration = Duration::from_secs(5);

/// When to ping, and until when the answer must be there.
pub(super) struct Heartbeat {
    interval: Duration,
    patience: Duration,
    next_ping: Instant,
    pong_due: Option<Instant>,
}

impl Heartbeat {
    pub(super) fn new(interval: Duration, patience: Duration) -> Self {
        // The first one is jittered, so that connections made together don't ping together for ever.
        let first = interval.mul_f64(rand::random_range(0.5..1.0));
        Self { interval, patience, next_ping: Instant::now() + first, pong_due: None }
    }

    /// Something came from it.
    pub(super) fn alive(&mut self) {
        self.pong_due = None;
    }

    /// When to look again.
    pub(super) fn due(&self) -> Instant {
        self.pong_due.map_or(self.next_ping, |due| due.min(self.next_ping))
    }

    /// Whether the answer should have come.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        self.pong_due.is_some_and(|due| due <= now)
    }

    /// Waits for the answer as long again.
    pub(super) fn wait_on(&mut self, now: Instant) {
        self.pong_due = Some(now + self.patience);
    }

    /// Whether to ping now; where it says so, it counts on it.
    pub(super) fn is_ping_due(&mut self, now: Instant) -> bool {
        let due = self.next_ping <= now;
        if due {
            self.next_ping = now + self.interval;
            self.pong_due.get_or_insert(now + self.patience);
        }
        due
    }

    /// Pings soon, to learn what has arrived.
    pub(super) fn soon(&mut self) {
        self.next_ping = self.next_ping.min(Instant::now() + CONFIRM_AFTER);
    }
}

/// What was handed to a client that can't say what it has: it has arrived once a later ping was answered.
#[derive(Default)]
pub(super) struct Arrivals {
    handed: HashMap<ConversationId, Seq>,
    /// The newest ping, and what had been handed over before it.
    pinged: (u32, HashMap<ConversationId, Seq>),
}

impl Arrivals {
    /// Notes what was handed over.
    pub(super) fn hand(&mut self, conversation: ConversationId, seq: Seq) {
        self.handed.insert(conversation, seq);
    }

    /// The number of the next ping.
    pub(super) fn ping(&mut self) -> u32 {
        self.pinged.0 = self.pinged.0.wrapping_add(1);
        self.pinged.1.extend(self.handed.drain());
        self.pinged.0
    }

    /// What a pong says to have arrived, if anything.
    pub(super) fn pong(&mut self, number: u32) -> Option<HashMap<ConversationId, Seq>> {
        (number == self.pinged.0 && !self.pinged.1.is_empty()).then(|| std::mem::take(&mut self.pinged.1))
    }
}
