//! The state of an outbox, behind its lock.

use tokio::time::Instant;

use super::{frame::Class, queue::Queue, signals::Signals};

/// The result of writing the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flushed {
    All,
    Blocked,
    Broken,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) queue: Queue,
    /// Frames that wait for the greeting; `None` after it.
    pub(super) held: Option<Box<Queue>>,
    /// Bytes that the gauge last counted for this outbox.
    pub(super) gauged: usize,
    /// The outbox accepts no more frames.
    pub(super) closed: bool,
    pub(super) overflowed: bool,
    pub(super) failed: bool,
    pub(super) broken: bool,
    /// True while the socket accepts no more bytes.
    pub(super) blocked: bool,
    /// When the socket last accepted bytes after it was blocked, or was blocked anew.
    pub(super) progress_at: Option<Instant>,
    /// Since when the socket accepts no more bytes; none while it takes all.
    pub(super) blocked_since: Option<Instant>,
    /// A task waits in [`Outbox::has_room`](super::Outbox::has_room).
    pub(super) awaited: bool,
    /// A task waits in [`Outbox::answer`](super::Outbox::answer).
    pub(super) answer_waits: bool,
    pub(super) signals: Signals,
}

impl State {
    /// The queue for a frame of this class. Pongs belong to the WebSocket protocol and don't wait for the greeting.
    pub(super) fn queue_for(&mut self, class: Class) -> &mut Queue {
        match &mut self.held {
            #[cfg(feature = "faults")]
            Some(_) if crate::faults::has(crate::faults::Fault::FramesBeforeGreeting) => &mut self.queue,
            Some(held) if class != Class::Pong => held,
            _ => &mut self.queue,
        }
    }

    /// Bytes that wait, including those that wait for the greeting.
    pub(super) fn bytes(&self) -> usize {
        self.queue.bytes() + self.held.as_ref().map_or(0, |held| held.bytes())
    }

    /// Number of durable frames that were ever pushed.
    pub(super) fn pushed(&self) -> u64 {
        self.queue.pushed() + self.held.as_ref().map_or(0, |held| held.pushed())
    }

    pub(super) fn mark_broken(&mut self) -> Flushed {
        self.queue.clear();
        self.held = None;
        self.broken = true;
        Flushed::Broken
    }
}
