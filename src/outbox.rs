//! What goes out to one socket. Whoever delivers writes straight to the socket; only what does not fit waits here.
//!
//! Invariants: bytes leave in the order in which frames were pushed; a frame whose first byte left is always finished;
//! never more than the limit waits. Past it, typing goes first, then all but the last of each state, and then the
//! connection is closed with a code that says "resume".

use std::{
    collections::{HashSet, VecDeque},
    io::{self, IoSlice},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use tokio::{net::tcp::OwnedWriteHalf, sync::Notify};

use crate::{
    metrics::Metrics,
    model::{Body, ConnectionId, ConversationId, Entry, Seq, UserId},
};

mod frame;

pub use frame::{Class, Frame};

/// Frames handed to the kernel in one write.
const FRAMES_PER_WRITE: usize = 32;
/// Signals that may wait for a session; one that lets more pile up is stuck.
const SIGNALS: usize = 1_024;

/// What the hub tells a session beside frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// The user was made a member of a conversation whose newest seq was `since`.
    Added {
        /// Which.
        conversation: ConversationId,
        /// Its head just before.
        since: Seq,
    },
    /// The user is no longer a member, and was detached.
    Removed(ConversationId),
    /// All of a conversation up to this seq was handed over; whether it arrives is for the session to find out.
    HandedOver(ConversationId, Seq),
}

impl Signal {
    /// That an entry was handed over.
    pub fn handed_over(entry: &Entry) -> Option<Self> {
        Some(Self::HandedOver(entry.log.conversation()?, entry.seq))
    }

    /// What an inbox's entry tells the sessions that follow it.
    pub fn of(entry: &Entry) -> Option<Self> {
        match &entry.body {
            Body::ConversationAdded { conversation, since } => {
                Some(Self::Added { conversation: conversation.clone(), since: *since })
            }
            _ => None,
        }
    }
}

/// Why a session is to look at its outbox.
#[derive(Debug, PartialEq, Eq)]
pub enum Woken {
    /// The hub has something to say.
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
    queue: VecDeque<Frame>,
    /// Bytes of the first frame that have left.
    started: usize,
    /// Bytes in the queue, those that have left included.
    bytes: usize,
    /// What the gauge was last told.
    gauged: usize,
    /// Nothing more is taken.
    closed: bool,
    overflowed: bool,
    broken: bool,
    /// Somebody waits for room.
    awaited: bool,
    signals: VecDeque<Signal>,
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
    /// An outbox that lets at most `limit` bytes wait and ends with `too_slow` where they don't suffice.
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
            state: Mutex::default(),
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
                state.drop_unstarted(|waiting| waiting.class == Class::Pong);
            }
            if state.bytes + frame.len() > self.limit && !self.make_room(&mut state, frame.len()) {
                self.overflow(&mut state);
                break;
            }
            state.bytes += frame.len();
            state.queue.push_back(frame);
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

    /// Queues a last frame, which closes, and takes nothing after it.
    pub fn close(&self, last: Option<Frame>) {
        let mut state = self.lock();
        self.end(&mut state, last);
        if self.write(&mut state) != Flushed::All {
            self.wake.notify_one();
        }
    }

    /// Tells the session something. One that lets too much of it pile up is cut off.
    pub fn signal(&self, signal: Signal) {
        let mut state = self.lock();
        let full = state.signals.len() >= SIGNALS;
        match (state.signals.back_mut(), signal) {
            (Some(Signal::HandedOver(last, to)), Signal::HandedOver(conversation, seq)) if *last == conversation => {
                *to = seq;
            }
            _ if full => self.overflow(&mut state),
            (_, signal) => state.signals.push_back(signal),
        }
        self.wake.notify_one();
    }

    /// Writes whenever the socket allows, until there is something the session must know. Safe to cancel.
    pub async fn woken(&self) -> Woken {
        loop {
            let flushed = {
                let mut state = self.lock();
                if let Some(signal) = state.signals.pop_front() {
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
                if state.bytes < self.limit / 2 {
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
        if state.gauged != state.bytes {
            self.metrics.outbox_bytes.add(state.bytes as i64 - state.gauged as i64);
            state.gauged = state.bytes;
        }
        if state.awaited && (state.bytes < self.limit / 2 || state.broken) {
            state.awaited = false;
            self.room.notify_waiters();
        }
        flushed
    }

    fn write_queue(&self, state: &mut State) -> Flushed {
        while let Some(first) = state.queue.front() {
            let written = if state.queue.len() == 1 {
                self.socket.try_write(&first.bytes[state.started..])
            } else {
                let mut slices = [IoSlice::new(&[]); FRAMES_PER_WRITE];
                let mut count = 0;
                for (slice, frame) in slices.iter_mut().zip(&state.queue) {
                    *slice = IoSlice::new(&frame.bytes[if count == 0 { state.started } else { 0 }..]);
                    count += 1;
                }
                self.socket.try_write_vectored(&slices[..count])
            };
            match written {
                Ok(0) => return state.break_off(),
                Ok(bytes) => state.wrote(bytes),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Flushed::Blocked,
                Err(_) => return state.break_off(),
            }
        }
        Flushed::All
    }

    /// Drops what may be dropped; true where `needed` bytes then fit.
    fn make_room(&self, state: &mut State, needed: usize) -> bool {
        let drops = &self.metrics.outbox_drops;
        let typing = state.drop_unstarted(|frame| frame.class == Class::Typing);
        drops.with_label_values(&[Class::Typing.label()]).inc_by(typing);
        if state.bytes + needed > self.limit {
            let stale = state.drop_stale_states();
            drops.with_label_values(&[Class::State(0).label()]).inc_by(stale);
        }
        state.bytes + needed <= self.limit
    }

    fn overflow(&self, state: &mut State) {
        if state.closed {
            return;
        }
        let dropped = state.drop_unstarted(|_| true);
        self.metrics.outbox_drops.with_label_values(&[Class::Durable.label()]).inc_by(dropped);
        state.overflowed = true;
        self.end(state, Some(self.too_slow.clone()));
        self.wake.notify_one();
    }

    fn end(&self, state: &mut State, last: Option<Frame>) {
        if state.closed {
            return;
        }
        if let Some(frame) = last {
            state.bytes += frame.len();
            state.queue.push_back(frame);
        }
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

impl State {
    fn wrote(&mut self, mut written: usize) {
        while let Some(first) = self.queue.front() {
            let rest = first.len() - self.started;
            if written < rest {
                self.started += written;
                return;
            }
            written -= rest;
            self.bytes -= first.len();
            self.started = 0;
            self.queue.pop_front();
        }
        // A connection that once had a long queue does not keep its memory.
        if self.queue.capacity() > FRAMES_PER_WRITE {
            self.queue = VecDeque::new();
        }
    }

    fn break_off(&mut self) -> Flushed {
        self.queue.clear();
        (self.bytes, self.started, self.broken) = (0, 0, true);
        Flushed::Broken
    }

    /// Drops the frames that `which` names, but never one that was started. Returns how many.
    fn drop_unstarted(&mut self, mut which: impl FnMut(&Frame) -> bool) -> u64 {
        let before = self.queue.len();
        let mut keep_first = self.started > 0;
        let mut bytes = 0;
        self.queue.retain(|frame| {
            let keep = std::mem::take(&mut keep_first) || !which(frame);
            bytes += if keep { frame.len() } else { 0 };
            keep
        });
        self.bytes = bytes;
        (before - self.queue.len()) as u64
    }

    /// Drops all but the last frame of each state.
    fn drop_stale_states(&mut self) -> u64 {
        let mut seen = HashSet::new();
        let mut stale: Vec<bool> = self
            .queue
            .iter()
            .rev()
            .map(|frame| matches!(frame.class, Class::State(kind) if !seen.insert(kind)))
            .collect();
        // `drop_unstarted` walks from the front and passes over the started frame without asking.
        if self.started > 0 {
            stale.pop();
        }
        self.drop_unstarted(|_| stale.pop().unwrap_or(false))
    }
}
