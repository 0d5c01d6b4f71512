//! The outbox of one socket. The task that delivers a frame writes it straight to the socket; only frames that do not
//! fit wait here.
//!
//! Invariants:
//! - The greeting is the first text frame on every connection: an outbox holds other frames back until
//!   [`Outbox::greet`].
//! - After that, bytes leave in the order in which frames were pushed, except that a ping leaves before frames that
//!   wait: its pong then confirms what left before the ping, however much waits.
//! - A frame whose first byte was written is always finished.
//! - At most the limit waits. Beyond it, events of clients, typing and hints are dropped first, then all but the last frame
//!   of each state, and then the connection is closed with a code that tells the client to resume.
//! - At most a share of the limit waits in events of clients; further ones are dropped.
//! - A client for which frames wait must take bytes. If it takes none for [`OutboxLimits::stalled_after`], or if all
//!   outboxes together hold too much ([`OutboxBudget`]), the connection is closed with the same code.

use std::{
    io::{self, IoSlice},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    net::tcp::OwnedWriteHalf,
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::model::{ConnectionId, ConversationId, Seq, UserId};

mod budget;
mod frame;
mod limits;
mod queue;
mod room;
mod signals;
mod state;
#[cfg(test)]
mod tests;

pub use budget::OutboxBudget;
pub use frame::{Class, Frame};
pub use limits::{OutboxLimits, Progress};
pub use signals::Signal;

use budget::Waiting;
use queue::FRAMES_PER_WRITE;
use state::{Flushed, State};

/// The share of the limit that events of clients may take: one part of this many.
const EVENT_SHARE: usize = 8;

/// Why [`Outbox::next_event`] returned.
#[derive(Debug, PartialEq, Eq)]
pub enum OutboxEvent {
    /// The hub sent a signal.
    Signal(Signal),
    /// The client read too slowly; the close frame is queued.
    Overflowed,
    /// A panic may have lost frames; the session must close the socket.
    Failed,
    /// The socket is broken.
    Broken,
}

/// The outbox of one connection.
#[derive(Debug)]
pub struct Outbox {
    connection: ConnectionId,
    user: OnceLock<UserId>,
    socket: OwnedWriteHalf,
    limits: Arc<OutboxLimits>,
    budget: Arc<OutboxBudget>,
    /// This outbox, as the budget knows it.
    this: Weak<dyn Waiting>,
    state: Mutex<State>,
    wake: Notify,
    room: Notify,
}

impl Outbox {
    /// An outbox that closes the connection beyond its limits. It writes no text frame before the greeting.
    pub fn new(
        connection: ConnectionId,
        socket: OwnedWriteHalf,
        limits: Arc<OutboxLimits>,
        budget: Arc<OutboxBudget>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            connection,
            user: OnceLock::new(),
            socket,
            limits,
            budget,
            this: this.clone() as Weak<dyn Waiting>,
            state: Mutex::new(State { held: Some(Box::default()), ..State::default() }),
            wake: Notify::new(),
            room: Notify::new(),
        })
    }

    /// The connection's id.
    pub fn connection(&self) -> ConnectionId {
        self.connection
    }

    /// Sets the connection's user; later calls have no effect.
    pub fn belongs_to(&self, user: UserId) {
        let _already = self.user.set(user);
    }

    /// The connection's user, once set.
    pub fn user(&self) -> Option<&UserId> {
        self.user.get()
    }

    /// Shuts down the writing side of the socket.
    pub fn shut(&self) {
        let _gone = socket2::SockRef::from(self.socket.as_ref()).shutdown(std::net::Shutdown::Write);
    }

    /// Discards the queue and resets the connection when the socket is dropped.
    pub fn reset(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.mark_broken();
        let _gone = socket2::SockRef::from(self.socket.as_ref()).set_linger(Some(Duration::ZERO));
    }

    /// Writes the greeting before all frames pushed so far; later frames are not held back.
    pub fn greet(&self, greeting: impl IntoIterator<Item = Frame>) {
        {
            let mut state = self.lock();
            if let (Some(held), false) = (state.held.take(), state.closed) {
                greeting.into_iter().for_each(|frame| state.queue.push(frame));
                state.queue.append(*held);
            }
        }
        self.flush();
    }

    /// Queues frames and writes as much as the socket accepts now.
    pub fn send(&self, frames: impl IntoIterator<Item = Frame>) {
        if self.push(frames) {
            self.flush();
        }
    }

    /// Sends a ping before all frames that wait. Returns the number of durable frames that leave before it: those that its
    /// pong confirms.
    pub fn ping(&self, number: u32) -> u64 {
        let (before, idle) = {
            let mut state = self.lock();
            if state.closed || state.broken {
                return 0;
            }
            let idle = state.queue.is_empty();
            (state.queue.push_ping(Frame::ping(number)), idle)
        };
        if idle {
            self.flush();
        }
        before
    }

    /// Queues frames without writing them. If it returns true, the caller must call [`Outbox::flush`], so that several
    /// pushes can share one write. If it returns false, an earlier caller or the session's task writes them.
    #[must_use]
    pub fn push(&self, frames: impl IntoIterator<Item = Frame>) -> bool {
        let mut state = self.lock();
        let idle = state.queue.is_empty();
        for frame in frames {
            if state.closed {
                break;
            }
            if matches!(frame.class, Class::Pong | Class::Hint(_)) {
                state.queue_for(frame.class).drop_unstarted(|waiting| waiting.class == frame.class);
            }
            if frame.class == Class::Event && !self.has_share(&mut state, frame.len()) {
                self.count_dropped(frame.class, 1);
                continue;
            }
            let exhausted = !idle && self.budget.is_exhausted();
            let fits = state.bytes() + frame.len() <= self.limits.bytes;
            if exhausted || !fits && !self.make_room(&mut state, frame.len()) {
                if matches!(frame.class, Class::Event | Class::Typing | Class::Hint(_)) {
                    self.count_dropped(frame.class, 1);
                    continue;
                }
                self.overflow(&mut state);
                break;
            }
            state.queue_for(frame.class).push(frame);
        }
        if !idle || state.held.is_some() {
            self.update_gauge(&mut state);
        }
        idle && !state.queue.is_empty()
    }

    /// Drops a hint of this conversation that waits, because the client needs it no more.
    pub fn drop_hint(&self, conversation: &ConversationId) {
        let (class, mut state) = (Class::hint(conversation), self.lock());
        if state.queue_for(class).drop_unstarted(|waiting| waiting.class == class) > 0 {
            self.update_gauge(&mut state);
        }
    }

    /// Writes as much as the socket accepts now; the session's task writes the rest when the socket is writable again.
    pub fn flush(&self) {
        let mut state = self.lock();
        match self.write(&mut state) {
            Flushed::All => {}
            Flushed::Blocked | Flushed::Broken => self.wake.notify_one(),
        }
    }

    /// Queues the last frames, ending with the close frame, and accepts none after them. Frames that still wait for a
    /// greeting are dropped, since a client that was not let in must not receive them.
    pub fn close(&self, last: impl IntoIterator<Item = Frame>) {
        let mut state = self.lock();
        self.finish(&mut state, last);
        if self.write(&mut state) != Flushed::All {
            self.wake.notify_one();
        }
    }

    /// Sends a signal to the session. If too many wait, the connection is closed.
    pub fn signal(&self, signal: Signal) {
        let mut state = self.lock();
        if !state.signals.push(signal) {
            self.overflow(&mut state);
        }
        self.wake.notify_one();
    }

    /// Signals that entries up to `seq` were given to this outbox before.
    pub fn signal_delivered(&self, conversation: ConversationId, seq: Seq) {
        let position = self.lock().pushed();
        self.signal(Signal::Delivered { conversation, seq, position });
    }

    /// Ends the connection, because frames for it may be lost.
    pub fn fail(&self) {
        self.lock().failed = true;
        self.wake.notify_one();
    }

    /// Writes whenever the socket allows, until there is an event for the session. Cancel-safe.
    pub async fn next_event(&self) -> OutboxEvent {
        loop {
            let (flushed, stalled_at) = {
                let mut state = self.lock();
                if let Some(signal) = state.signals.pop() {
                    return OutboxEvent::Signal(signal);
                }
                let flushed = self.write(&mut state);
                let stalled_at = state.progress_at.unwrap_or_else(Instant::now) + self.limits.stalled_after;
                if flushed == Flushed::Blocked && stalled_at <= Instant::now() {
                    self.overflow(&mut state);
                    self.update_gauge(&mut state);
                }
                if state.failed {
                    return OutboxEvent::Failed;
                }
                if state.overflowed {
                    return OutboxEvent::Overflowed;
                }
                (flushed, stalled_at)
            };
            match flushed {
                Flushed::Broken => return OutboxEvent::Broken,
                Flushed::All => self.wake.notified().await,
                // Boxed, because few sockets are blocked, and each task would keep room for it.
                Flushed::Blocked => {
                    if Box::pin(self.blocked_until(stalled_at)).await.is_err() {
                        return OutboxEvent::Broken;
                    }
                }
            }
        }
    }

    /// Waits until a blocked socket accepts bytes, for news, or until `stalled_at`.
    async fn blocked_until(&self, stalled_at: Instant) -> io::Result<()> {
        tokio::select! {
            ready = self.socket.writable() => ready,
            () = self.wake.notified() => Ok(()),
            () = sleep_until(stalled_at) => Ok(()),
        }
    }

    /// The progress of the client in taking bytes: its sign of life while frames wait, as a ping then waits behind them.
    pub fn progress(&self) -> Progress {
        let state = self.lock();
        if state.blocked { Progress::Waiting(state.progress_at) } else { Progress::Idle(state.progress_at) }
    }

    /// Since when frames wait, because the socket accepts no more bytes; none while it takes all.
    pub fn waits_since(&self) -> Option<Instant> {
        self.lock().blocked_since
    }

    /// Writes until the queue is empty; false if the socket broke first.
    pub async fn drained(&self) -> bool {
        loop {
            let flushed = self.write(&mut self.lock());
            match flushed {
                Flushed::All => return true,
                Flushed::Broken => return false,
                Flushed::Blocked if self.socket.writable().await.is_err() => return false,
                Flushed::Blocked => {}
            }
        }
    }

    /// True if the outbox accepts no more frames.
    pub fn is_closed(&self) -> bool {
        let state = self.lock();
        state.closed || state.broken
    }

    fn write(&self, state: &mut State) -> Flushed {
        let before = state.queue.unwritten();
        let flushed = if state.broken { Flushed::Broken } else { self.write_queue(state) };
        let blocked = flushed == Flushed::Blocked;
        if state.blocked != blocked {
            state.blocked_since = blocked.then(Instant::now);
        }
        if state.blocked != blocked || blocked && state.queue.unwritten() < before {
            (state.blocked, state.progress_at) = (blocked, Some(Instant::now()));
        }
        self.update_gauge(state);
        self.wake_for_room(state, before);
        flushed
    }

    fn write_queue(&self, state: &mut State) -> Flushed {
        while !state.queue.is_empty() {
            let written = match state.queue.single_frame() {
                Some(bytes) => self.socket.try_write(bytes),
                None => {
                    let mut slices = [IoSlice::new(&[]); FRAMES_PER_WRITE];
                    let count = state.queue.fill(&mut slices);
                    self.socket.try_write_vectored(&slices[..count])
                }
            };
            match written {
                Ok(0) => return state.mark_broken(),
                Ok(bytes) => state.queue.advance(bytes),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Flushed::Blocked,
                Err(_) => return state.mark_broken(),
            }
        }
        Flushed::All
    }

    /// Updates the metric of waiting bytes.
    fn update_gauge(&self, state: &mut State) {
        let bytes = state.bytes();
        let before = std::mem::replace(&mut state.gauged, bytes);
        if before != bytes {
            self.budget.count(&self.this, self.connection, before, bytes);
        }
    }

    fn count_dropped(&self, class: Class, frames: u64) {
        self.budget.metrics().outbox_drops.with_label_values(&[class.label()]).inc_by(frames);
    }

    /// True if an event of this length fits into the share of the limit that events may take.
    fn has_share(&self, state: &mut State, needed: usize) -> bool {
        state.queue_for(Class::Event).bytes_of(Class::Event) + needed <= self.limits.bytes / EVENT_SHARE
    }

    /// Drops frames that may be dropped; true if `needed` bytes then fit.
    fn make_room(&self, state: &mut State, needed: usize) -> bool {
        let queue = state.queue_for(Class::Durable);
        self.count_dropped(Class::Event, queue.drop_unstarted(|frame| frame.class == Class::Event));
        self.count_dropped(Class::Typing, queue.drop_unstarted(|frame| frame.class == Class::Typing));
        self.count_dropped(Class::Hint(0), queue.drop_unstarted(|frame| matches!(frame.class, Class::Hint(_))));
        if state.bytes() + needed > self.limits.bytes {
            self.count_dropped(Class::State(0), state.queue_for(Class::Durable).drop_stale_states());
        }
        state.bytes() + needed <= self.limits.bytes
    }

    fn overflow(&self, state: &mut State) {
        if state.closed {
            return;
        }
        let held = state.held.take().map_or(0, |mut held| held.drop_unstarted(|_| true));
        self.count_dropped(Class::Durable, held + state.queue.drop_unstarted(|_| true));
        state.overflowed = true;
        self.finish(state, Some(self.limits.too_slow.clone()));
        self.wake.notify_one();
    }

    fn finish(&self, state: &mut State, last: impl IntoIterator<Item = Frame>) {
        if state.closed {
            return;
        }
        state.held = None;
        last.into_iter().for_each(|frame| state.queue.push(frame));
        state.closed = true;
        self.room.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting for Outbox {
    fn burden(&self, now: Instant) -> u128 {
        let state = self.lock();
        let stalled = state.progress_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        state.bytes() as u128 * (1_000 + stalled.as_millis())
    }

    fn shed(&self) {
        let mut state = self.lock();
        if state.closed {
            // The last frames were given up too; the client sees a reset.
            state.mark_broken();
            self.wake.notify_one();
        } else {
            self.overflow(&mut state);
        }
        self.update_gauge(&mut state);
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let gauged = self.lock().gauged;
        if gauged > 0 {
            self.budget.count(&self.this, self.connection, gauged, 0);
        }
    }
}
