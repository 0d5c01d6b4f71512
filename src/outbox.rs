//! What goes out to one socket. Whoever delivers writes straight to the socket; only what does not fit waits here.
//!
//! Invariants: the greeting is the first text frame on every connection, since an outbox holds back what others push
//! until [`Outbox::greet`] was called; from then on bytes leave in the order in which frames were pushed; a frame whose
//! first byte left is always finished; never more than the limit waits. Past it, typing goes first, then all but the last
//! of each state, and then the connection is closed with a code that says "resume".

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

/// Why a session is to look at its outbox.
#[derive(Debug, PartialEq, Eq)]
pub enum Woken {
    /// The session is told something.
    Signal(Signal),
    /// The reader was too slow; the close frame is on its way.
    Overflowed,
    /// The socket is broken.
    Broken,
}

/// How much of the queue a flush could write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flushed {
    All,
    Blocked,
    Broken,
}

#[derive(Debug, Default)]
struct State {
    queue: Queue,
    /// Frames that wait for the greeting; none once it went out.
    held: Option<Box<Queue>>,
    /// What the gauge was last told.
    gauged: usize,
    /// Nothing more is taken.
    closed: bool,
    overflowed: bool,
    broken: bool,
    /// Somebody waits for room.
    awaited: bool,
    signals: Signals,
}

impl State {
    /// Where a frame waits: pongs are protocol, and pass a greeting that is still to come.
    fn queue_for(&mut self, class: Class) -> &mut Queue {
        match &mut self.held {
            Some(held) if class != Class::Pong => held,
            _ => &mut self.queue,
        }
    }

    /// Bytes that wait, those that wait for the greeting included.
    fn bytes(&self) -> usize {
        self.queue.bytes() + self.held.as_ref().map_or(0, |held| held.bytes())
    }

    fn break_off(&mut self) -> Flushed {
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
    /// The close frame for a reader that is too slow.
    too_slow: Frame,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    wake: Notify,
    room: Notify,
}

impl Outbox {
    /// An outbox that lets at most `limit` bytes wait and ends with `too_slow` where they don't suffice. It writes text
    /// frames only once it was given the greeting.
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

    /// The connection it belongs to.
    pub fn connection(&self) -> ConnectionId {
        self.connection
    }

    /// Says once whose connection it is.
    pub fn belongs_to(&self, user: UserId) {
        let _already = self.user.set(user);
    }

    /// Whose connection it is, once that is known.
    pub fn user(&self) -> Option<&UserId> {
        self.user.get()
    }

    /// Says that nothing more will be written.
    pub fn shut(&self) {
        let _gone = socket2::SockRef::from(self.socket.as_ref()).shutdown(std::net::Shutdown::Write);
    }

    /// Cuts the connection off: what is queued is lost, and the other side sees a reset.
    pub fn reset(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.break_off();
        let _gone = socket2::SockRef::from(self.socket.as_ref()).set_linger(Some(Duration::ZERO));
    }

    /// Takes the greeting, writes it before everything that was pushed so far, and holds nothing back from now on.
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

    /// Takes frames and writes what the socket takes now.
    pub fn send(&self, frames: impl IntoIterator<Item = Frame>) {
        if self.push(frames) {
            self.flush();
        }
    }

    /// Takes frames without writing them. Where it says true, [`Outbox::flush`] must follow: several pushes then share
    /// one write. Where it says false, whoever pushed before, or the session's task, writes them.
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
                    self.dropped(Class::Typing, 1);
                    continue;
                }
                self.overflow(&mut state);
                break;
            }
            state.queue_for(frame.class).push(frame);
        }
        if !idle || state.held.is_some() {
            self.gauge(&mut state);
        }
        idle && !state.queue.is_empty()
    }

    /// Writes what the socket takes now; the session's task goes on with the rest when it is writable again.
    pub fn flush(&self) {
        let mut state = self.lock();
        match self.write(&mut state) {
            Flushed::All => {}
            Flushed::Blocked | Flushed::Broken => self.wake.notify_one(),
        }
    }

    /// Queues the last frames, of which the close is the last, and takes nothing after them. Frames that still wait for a
    /// greeting are dropped: who was not let in hears nothing else.
    pub fn close(&self, last: impl IntoIterator<Item = Frame>) {
        let mut state = self.lock();
        self.end(&mut state, last);
        if self.write(&mut state) != Flushed::All {
            self.wake.notify_one();
        }
    }

    /// Tells the session something. One that lets too much of it pile up is cut off.
    pub fn signal(&self, signal: Signal) {
        let mut state = self.lock();
        if !state.signals.push(signal) {
            self.overflow(&mut state);
        }
        self.wake.notify_one();
    }

    /// Writes whenever the socket allows, until there is something the session must know. Safe to cancel.
    pub async fn woken(&self) -> Woken {
        loop {
            let flushed = {
                let mut state = self.lock();
                if let Some(signal) = state.signals.pop() {
                    return Woken::Signal(signal);
                }
                let flushed = self.write(&mut state);
                if state.overflowed {
                    return Woken::Overflowed;
                }
                flushed
            };
            match flushed {
                Flushed::Broken => return Woken::Broken,
                Flushed::All => self.wake.notified().await,
                Flushed::Blocked => tokio::select! {
                    ready = self.socket.writable() => if ready.is_err() { return Woken::Broken },
                    () = self.wake.notified() => {}
                },
            }
        }
    }

    /// Writes until nothing waits; false where the socket broke first.
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

    /// Waits until less than half of the limit is taken, so that a replay never overflows; false once closed.
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

    /// Whether nothing more is taken.
    pub fn is_closed(&self) -> bool {
        let state = self.lock();
        state.closed || state.broken
    }

    fn write(&self, state: &mut State) -> Flushed {
        let flushed = if state.broken { Flushed::Broken } else { self.write_queue(state) };
        self.gauge(state);
        if state.awaited && (state.bytes() < self.limit / 2 || state.broken) {
            state.awaited = false;
            self.room.notify_waiters();
        }
        flushed
    }

    fn write_queue(&self, state: &mut State) -> Flushed {
        while !state.queue.is_empty() {
            let written = match state.queue.only() {
                Some(bytes) => self.socket.try_write(bytes),
                None => {
                    let mut slices = [IoSlice::new(&[]); FRAMES_PER_WRITE];
                    let count = state.queue.fill(&mut slices);
                    self.socket.try_write_vectored(&slices[..count])
                }
            };
            match written {
                Ok(0) => return state.break_off(),
                Ok(bytes) => state.queue.wrote(bytes),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Flushed::Blocked,
                Err(_) => return state.break_off(),
            }
        }
        Flushed::All
    }

    /// Keeps the metric of what waits.
    fn gauge(&self, state: &mut State) {
        let bytes = state.bytes();
        if state.gauged != bytes {
            self.metrics.outbox_bytes.add(bytes as i64 - state.gauged as i64);
            state.gauged = bytes;
        }
    }

    fn dropped(&self, class: Class, frames: u64) {
        self.metrics.outbox_drops.with_label_values(&[class.label()]).inc_by(frames);
    }

    /// Drops what may be dropped; true where `needed` bytes then fit.
    fn make_room(&self, state: &mut State, needed: usize) -> bool {
        let queue = state.queue_for(Class::Durable);
        self.dropped(Class::Typing, queue.drop_unstarted(|frame| frame.class == Class::Typing));
        if state.bytes() + needed > self.limit {
            self.dropped(Class::State(0), state.queue_for(Class::Durable).drop_stale_states());
        }
        state.bytes() + needed <= self.limit
    }

    fn overflow(&self, state: &mut State) {
        if state.closed {
            return;
        }
        let held = state.held.take().map_or(0, |mut held| held.drop_unstarted(|_| true));
        self.dropped(Class::Durable, held + state.queue.drop_unstarted(|_| true));
        state.overflowed = true;
        self.end(state, Some(self.too_slow.clone()));
        self.wake.notify_one();
    }

    fn end(&self, state: &mut State, last: impl IntoIterator<Item = Frame>) {
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
