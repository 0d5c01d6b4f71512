//! Delivery shards: each holds its share of every audience and writes to its sockets, a slice at a time, so that a very
//! large conversation uses all worker threads and stalls nobody.
//!
//! Invariant: a log's operations are carried out in the order in which they were queued, each to its end before the
//! next; other logs' operations may pass a long one between two slices.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use super::delivery::{Delivery, hand_over, tell_removed};
use crate::{
    dialect::Dialect,
    metrics::Metrics,
    model::{ConnectionId, Event, LogId, Seq},
    outbox::{Frame, Outbox},
};

/// Sockets served by one log in one turn.
const SLICE: usize = 256;
/// Operations that may wait; beyond it entries are left to healing and what is ephemeral is dropped.
const QUEUE_MAX: usize = 16_384;

/// A socket that listens to a log.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) connection: ConnectionId,
    pub(super) dialect: Dialect,
    /// It gets entries beyond this one; none while it still gets what it missed from elsewhere.
    pub(super) live_after: Option<Seq>,
    pub(super) outbox: Arc<Outbox>,
}

impl Listener {
    /// Whether this is for it. What its own socket brought about is not, but for an entry that its dialect echoes.
    fn wants(&self, delivery: &Delivery) -> bool {
        let own = delivery.event.origin() == Some(self.connection);
        match &delivery.event {
            Event::Entry { entry, .. } => {
                self.live_after.is_some_and(|has| entry.seq > has) && (!own || self.dialect.echoes())
            }
            Event::Ephemeral { .. } => !own,
        }
    }
}

/// What a shard does for one log.
#[derive(Debug)]
pub(super) enum Op {
    Attach(Listener),
    /// The listener has all up to this seq: from now on it gets entries.
    GoLive(ConnectionId, Seq),
    /// The listener goes; its connection is told when it is gone, and how far it got where it was live.
    Detach(ConnectionId, oneshot::Sender<Option<Seq>>),
    Deliver(Arc<[Delivery]>),
    /// The log was cut back to this head: listeners must read anew.
    Resync(Seq, Arc<[Option<Frame>; Dialect::COUNT]>),
}

/// One shard: a queue that anybody fills, and a task that empties it.
#[derive(Debug)]
pub(super) struct Shard {
    queue: Mutex<VecDeque<(LogId, Op)>>,
    wake: Notify,
    metrics: Arc<Metrics>,
}

impl Shard {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { queue: Mutex::default(), wake: Notify::new(), metrics }
    }

    /// Queues an operation. [`Shard::wake`] must follow.
    pub(super) fn queue(&self, log: &LogId, op: Op) {
        self.lock().push_back((log.clone(), op));
    }

    /// How many operations wait.
    pub(super) fn queued(&self) -> usize {
        self.lock().len()
    }

    /// Whether too much waits already.
    pub(super) fn congested(&self) -> bool {
        self.queued() >= QUEUE_MAX
    }

    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Wakes the shard if there is something to do.
    pub(super) fn wake_if_queued(&self) {
        if !self.lock().is_empty() {
            self.wake();
        }
    }

    /// Carries out what is queued until `stop`.
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut work = Work::new(self.metrics.clone());
        loop {
            let queued = std::mem::take(&mut *self.lock());
            work.take(queued);
            if work.round() {
                tokio::task::yield_now().await;
                continue;
            }
            tokio::select! {
                () = self.wake.notified() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(LogId, Op)>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The listeners of one log on one shard, and what is to be done for them.
#[derive(Debug, Default)]
struct Audience {
    listeners: Vec<Listener>,
    ops: VecDeque<Op>,
    /// The newest entry that went to all listeners who were live then.
    delivered: Seq,
    /// How many listeners the first operation has reached.
    reached: usize,
}

/// What a shard's task holds.
struct Work {
    audiences: HashMap<LogId, Audience>,
    /// Logs with operations, each once.
    ready: VecDeque<LogId>,
    /// Outboxes that were given frames in this round.
    touched: Vec<Arc<Outbox>>,
    metrics: Arc<Metrics>,
}

impl Work {
    fn new(metrics: Arc<Metrics>) -> Self {
        Self { audiences: HashMap::new(), ready: VecDeque::new(), touched: Vec::new(), metrics }
    }

    fn take(&mut self, queued: VecDeque<(LogId, Op)>) {
        for (log, op) in queued {
            let audience = self.audiences.entry(log.clone()).or_default();
            if audience.ops.is_empty() {
                self.ready.push_back(log);
            }
            audience.ops.push_back(op);
        }
    }

    /// Gives every log that has something to do one turn. Whether some have more to do.
    fn round(&mut self) -> bool {
        for _ in 0..self.ready.len() {
            let Some(log) = self.ready.pop_front() else { break };
            let Some(audience) = self.audiences.get_mut(&log) else { continue };
            let frames = audience.turn(&mut self.touched);
            self.metrics.deliveries.inc_by(frames);
            if !audience.ops.is_empty() {
                self.ready.push_back(log);
            } else if audience.listeners.is_empty() {
                self.audiences.remove(&log);
            }
            if self.touched.len() >= SLICE {
                self.flush();
            }
        }
        self.flush();
        !self.ready.is_empty()
    }

    fn flush(&mut self) {
        for outbox in self.touched.drain(..) {
            outbox.flush();
        }
    }
}

impl Audience {
    /// Carries out operations until a slice's worth of sockets was served. Returns how many frames went out.
    fn turn(&mut self, touched: &mut Vec<Arc<Outbox>>) -> u64 {
        let (mut budget, mut frames) = (SLICE, 0);
        while budget > 0 {
            let Some(op) = self.ops.pop_front() else { break };
            match op {
                Op::Attach(listener) => self.listeners.push(listener),
                Op::GoLive(connection, has) => {
                    if let Some(listener) = self.listeners.iter_mut().find(|l| l.connection == connection) {
                        listener.live_after = Some(has);
                    }
                }
                Op::Detach(connection, gone) => {
                    let at = self.listeners.iter().position(|l| l.connection == connection);
                    let left = at.and_then(|at| self.listeners.swap_remove(at).live_after);
                    let _nobody_asked = gone.send(left.map(|has| has.max(self.delivered)));
                }
                Op::Deliver(deliveries) => {
                    let end = self.listeners.len().min(self.reached + budget);
                    frames += serve(&self.listeners[self.reached..end], &deliveries, touched);
                    budget -= end - self.reached;
                    if end < self.listeners.len() {
                        self.reached = end;
                        self.ops.push_front(Op::Deliver(deliveries));
                        break;
                    }
                    self.reached = 0;
                    self.delivered = deliveries.iter().filter_map(Delivery::seq).next_back().unwrap_or(self.delivered);
                    self.remove_members(&deliveries);
                }
                Op::Resync(head, notes) => {
                    self.delivered = head;
                    for listener in self.listeners.iter_mut().filter(|listener| listener.live_after.is_some()) {
                        listener.outbox.send(notes[listener.dialect.index()].clone());
                        // Seqs that it had are given out anew.
                        listener.live_after = Some(0);
                    }
                }
            }
        }
        frames
    }

    /// Detaches those whose membership ended, and tells their sessions.
    fn remove_members(&mut self, deliveries: &[Delivery]) {
        for delivery in deliveries {
            let Some(user) = delivery.removes() else { continue };
            self.listeners.retain(|listener| {
                let stays = listener.outbox.user() != Some(user);
                if !stays {
                    tell_removed(&listener.outbox, delivery);
                }
                stays
            });
        }
    }
}

/// Hands the deliveries to each listener, all in one push.
fn serve(listeners: &[Listener], deliveries: &[Delivery], touched: &mut Vec<Arc<Outbox>>) -> u64 {
    let mut frames = 0;
    for listener in listeners {
        let wanted = deliveries.iter().filter(|delivery| listener.wants(delivery));
        let handed = hand_over(&listener.outbox, listener.dialect, wanted);
        frames += handed.frames;
        if handed.unwritten {
            touched.push(listener.outbox.clone());
        }
    }
    frames
}
