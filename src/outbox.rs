//! The outbox of one socket. The task that delivers a frame writes it straight to the socket; only frames that do not
//! fit wait here.
//!
//! Invariants:
//! - The greeting is the first text frame on every connection: an outbox holds other frames back until
//!   [`Outbox::greet`].
//! - After that, bytes leave in the order in which frames were pushed.
//! - A frame whose first byte was written is always finished.
//! - At most the limit waits. Beyond it, typing is dropped first, then all but the last frame of each state, and then
//!   the connection is closed with a code that tells the client to resume.

use std::{
    io::{self, IoSlice},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use tokio::{net::tcp::OwnedWriteHalf, sync::Notify};

use crate::{
    metrics::Metrics,
    model::{ConnectionId, UserId},
};

mod frame;
mod queue;
mod signals;
#[cfg(test)]
mod tests;

pub use frame::{Class, Frame};
pub use signals::Signal;

use queue::{FRAMES_PER_WRITE, Queue};
use signals::Signals;

/// Why [`Outbox::next_event`] returned.
#[derive(Debug, PartialEq, Eq)]
pub enum OutboxEvent {
    /// The hub sent a signal.
    Signal(Signal),
    /// The client read too slowly; the close frame is queued.
    Overflowed,
    /// The socket is broken.
    Broken,
}

/// The result of writing the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flushed {
    All,
    Blocked,
    Broken,
}

#[derive(Debug, Default)]
struct State {
    queue: Queue,
    /// Frames that wait for the greeting; `None` after it.
    held: Option<Box<Queue>>,
    /// Bytes that the gauge last counted for this outbox.
    gauged: usize,
    /// The outbox accepts no more frames.
    closed: bool,
    overflowed: bool,
    broken: bool,
    /// A task waits in [`Outbox::has_room`].
    awaited: bool,
    signals: Signals,
}

impl State {
    /// The queue for a frame of this class. Pongs belong to the WebSocket protocol and don't wait for the greeting.
    fn queue_for(&mut self, class: Class) -> &mut Queue {
        match &mut self.held {
            #[cfg(feature = "faults")]
            Some(_) if crate::faults::has(crate::faults::Fault::FramesBeforeGreeting) => &mut self.queue,
            Some(held) if class != Class::Pong => held,
            _ => &mut self.queue,
        }
    }

    /// Bytes that wait, including those that wait for the greeting.
    fn bytes(&self) -> usize {
        self.queue.bytes() + self.held.as_ref().map_or(0, |held| held.bytes())
    }

    fn mark_broken(&mut self) -> Flushed {
        self.queue.clear();
        self.held = None;
        self.broken = true;
        Flushed::Broken
    }
}

/// The outbox of one connection.
#[derive(Debug)]
pub struct Outbox {
    connection: ConnectionId,
    user: OnceLock<UserId>,
    socket: OwnedWriteHalf,
    limit: usize,
    /// The close frame for a client that reads too slowly.
    too_slow: Frame,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    wake: Notify,
    room: Notify,
}

impl Outbox {
    /// An outbox in which at most `limit` bytes wait; beyond it, it closes the connection with `too_slow`. It writes no
    /// text frame before the greeting.
    pub fn new(
        connection: ConnectionId,
        socket: OwnedWriteHalf,
        limit: usize,
        too_slow: Frame,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            connection,
            user: OnceLock::new(),
            socket,
            limit,
            too_slow,
            metrics,
            state: Mutex::new(State { held: Some(Box::default()), ..State::default() }),
            wake: Notify::new(),
            room: Notify::new(),
        }
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
            if frame.class == Class::Pong {
                state.queue.drop_unstarted(|waiting| waiting.class == Class::Pong);
            }
            if state.bytes() + frame.len() > self.limit && !self.make_room(&mut state, frame.len()) {
                if frame.class == Class::Typing {
                    self.count_dropped(Class::Typing, 1);
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

    /// Writes whenever the socket allows, until there is an event for the session. Cancel-safe.
    pub async fn next_event(&self) -> OutboxEvent {
        loop {
            let flushed = {
                let mut state = self.lock();
                if let Some(signal) = state.signals.pop() {
                    return OutboxEvent::Signal(signal);
                }
                let flushed = self.write(&mut state);
                if state.overflowed {
                    return OutboxEvent::Overflowed;
                }
                flushed
            };
            match flushed {
                Flushed::Broken => return OutboxEvent::Broken,
                Flushed::All => self.wake.notified().await,
                Flushed::Blocked => tokio::select! {
                    ready = self.socket.writable() => if ready.is_err() { return OutboxEvent::Broken },
                    () = self.wake.notified() => {}
                },
            }
        }
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

    /// Waits until less than half of the limit is used, so that a replay never overflows; false once closed.
    pub async fn has_room(&self) -> bool {
        loop {
            let room = self.room.notified();
            {
                let mut state = self.lock();
                if state.closed || state.broken {
                    return false;
                }
                if state.bytes() < self.limit / 2 {
                    return true;
                }
                state.awaited = true;
            }
            room.await;
        }
    }

    /// True if the outbox accepts no more frames.
    pub fn is_closed(&self) -> bool {
        let state = self.lock();
        state.closed || state.broken
    }

    fn write(&self, state: &mut State) -> Flushed {
        let flushed = if state.broken { Flushed::Broken } else { self.write_queue(state) };
        self.update_gauge(state);
        if state.awaited && (state.bytes() < self.limit / 2 || state.broken) {
            state.awaited = false;
            self.room.notify_waiters();
        }
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
        if state.gauged != bytes {
            self.metrics.outbox_bytes.add(bytes as i64 - state.gauged as i64);
            state.gauged = bytes;
        }
    }

    fn count_dropped(&self, class: Class, frames: u64) {
        self.metrics.outbox_drops.with_label_values(&[class.label()]).inc_by(frames);
    }

    /// Drops frames that may be dropped; true if `needed` bytes then fit.
    fn make_room(&self, state: &mut State, needed: usize) -> bool {
        let queue = state.queue_for(Class::Durable);
        self.count_dropped(Class::Typing, queue.drop_unstarted(|frame| frame.class == Class::Typing));
        if state.bytes() + needed > self.limit {
            self.count_dropped(Class::State(0), state.queue_for(Class::Durable).drop_stale_states());
        }
        state.bytes() + needed <= self.limit
    }

    fn overflow(&self, state: &mut State) {
        if state.closed {
            return;
        }
        let held = state.held.take().map_or(0, |mut held| held.drop_unstarted(|_| true));
        self.count_dropped(Class::Durable, held + state.queue.drop_unstarted(|_| true));
        state.overflowed = true;
        self.finish(state, Some(self.too_slow.clone()));
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

impl Drop for Outbox {
    fn drop(&mut self) {
        let gauged = self.lock().gauged;
        self.metrics.outbox_bytes.sub(gauged as i64);
    }
}
