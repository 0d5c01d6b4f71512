//! Delivery shards. Each shard holds its share of the listeners of each log and writes to their outboxes in slices, so
//! that a very large conversation uses all worker threads and delays no other one.
//!
//! Invariant: a shard executes a log's operations in the order of the queue, each to its end before the next.
//! Operations of other logs may run between two slices of a long one.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, oneshot};

use super::{
    ack_waits::{AckWait, AckWaits},
    delivery::{Delivery, hand_over, signal_removed, signal_resync},
    listener::Listener,
    told::Told,
};
use crate::{
    dialect::Dialect,
    metrics::Metrics,
    model::{ConnectionId, Event, LogId, Seq, UserId},
    outbox::{Frame, Outbox},
    supervise::{Supervisor, TaskName, checkpoint},
};

/// Listeners of one log that are served in one turn.
const SLICE: usize = 256;
/// Operations that may wait. Beyond this, entries are left to a backfill, and ephemeral events are dropped.
const QUEUE_MAX: usize = 16_384;
/// Operations beyond which events of clients are dropped, so that they never take the place of others.
const CUSTOM_MAX: usize = QUEUE_MAX / 4;

/// The load of a shard's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Load {
    #[default]
    Normal,
    /// Events of clients are dropped.
    High,
    /// Nothing is queued.
    Congested,
}

/// An operation of a shard on one log.
#[derive(Debug)]
pub(super) enum Op {
    Attach(Listener),
    /// The listener has every entry up to this seq and gets later ones from now on.
    GoLive(ConnectionId, Seq),
    /// Removes the listener, then sends its last seq, or none if it was not live.
    Detach(ConnectionId, oneshot::Sender<Option<Seq>>),
    Deliver(Arc<[Delivery]>),
    /// An ack waits until its socket has the entries before it, and is sent then.
    Wait(AckWait),
    /// The store was set back: listeners must resync, and get the entries after `head`.
    Resync {
        head: Seq,
        notes: Arc<[Option<Frame>; Dialect::COUNT]>,
        /// The only listener to tell, whose replay has ended; without one, all that are live.
        only: Option<ConnectionId>,
    },
    /// Sends the outboxes of all listeners.
    List(oneshot::Sender<Vec<Arc<Outbox>>>),
}

/// A shard: a queue, and a task that empties it.
#[derive(Debug)]
pub(super) struct Shard {
    queue: Mutex<VecDeque<(LogId, Op)>>,
    wake: Notify,
}

impl Shard {
    pub(super) fn new() -> Self {
        Self { queue: Mutex::default(), wake: Notify::new() }
    }

    /// Queues an operation. The caller must then call [`Shard::wake`].
    pub(super) fn queue(&self, log: &LogId, op: Op) {
        self.lock().push_back((log.clone(), op));
    }

    /// The number of waiting operations.
    pub(super) fn queued(&self) -> usize {
        self.lock().len()
    }

    /// The load of the queue.
    pub(super) fn load(&self) -> Load {
        match self.queued() {
            QUEUE_MAX.. => Load::Congested,
            CUSTOM_MAX.. => Load::High,
            _ => Load::Normal,
        }
    }

    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Wakes the shard if operations wait.
    pub(super) fn wake_if_queued(&self) {
        if !self.lock().is_empty() {
            self.wake();
        }
    }

    /// Executes queued operations until its task is stopped.
    pub(super) async fn run(&self, worker: &mut Worker) {
        worker.resume();
        loop {
            let queued = std::mem::take(&mut *self.lock());
            worker.enqueue(queued);
            if worker.run_round() {
                tokio::task::yield_now().await;
                continue;
            }
            self.wake.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(LogId, Op)>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The listeners of one log on one shard, and their queued operations.
#[derive(Debug, Default)]
struct LogListeners {
    listeners: Vec<Listener>,
    ops: VecDeque<Op>,
    ack_waits: AckWaits,
    /// The newest entry that all live listeners received.
    delivered: Seq,
    /// Number of listeners that the first operation has reached.
    reached: usize,
}

/// The state of a shard's task. It outlives a panic of the task.
pub(super) struct Worker {
    /// Boxed, because a table has more places than entries.
    logs: HashMap<LogId, Box<LogListeners>>,
    /// Logs with waiting operations, each once.
    ready: VecDeque<LogId>,
    /// Outboxes that received frames in this round and need a flush.
    unflushed: Vec<Arc<Outbox>>,
    told: Told,
    metrics: Arc<Metrics>,
    supervisor: Supervisor,
}

/// The parts of a shard that the listeners of one log share.
struct Common<'a> {
    log: &'a LogId,
    unflushed: &'a mut Vec<Arc<Outbox>>,
    told: &'a mut Told,
    supervisor: &'a Supervisor,
}

impl Worker {
    pub(super) fn new(metrics: Arc<Metrics>, supervisor: Supervisor) -> Self {
        let told = Told::new(metrics.clone());
        Self { logs: HashMap::new(), ready: VecDeque::new(), unflushed: Vec::new(), told, metrics, supervisor }
    }

    /// Finds the logs with waiting operations anew: a run that panicked may have taken one out of `ready`.
    fn resume(&mut self) {
        let waiting = self.logs.iter().filter(|(_, listeners)| !listeners.ops.is_empty());
        self.ready = waiting.map(|(log, _)| log.clone()).collect();
    }

    fn enqueue(&mut self, queued: VecDeque<(LogId, Op)>) {
        for (log, op) in queued {
            let listeners = self.logs.entry(log.clone()).or_default();
            if listeners.ops.is_empty() {
                self.ready.push_back(log);
            }
            listeners.ops.push_back(op);
        }
    }

    /// Runs one turn for each log with waiting operations. Returns true if more operations wait.
    fn run_round(&mut self) -> bool {
        for _ in 0..self.ready.len() {
            let Some(log) = self.ready.pop_front() else { break };
            let Some(listeners) = self.logs.get_mut(&log) else { continue };
            let (unflushed, told) = (&mut self.unflushed, &mut self.told);
            let frames = listeners.run_turn(&mut Common { log: &log, unflushed, told, supervisor: &self.supervisor });
            self.metrics.deliveries.inc_by(frames);
            if !listeners.ops.is_empty() {
                self.ready.push_back(log);
            } else if listeners.listeners.is_empty() {
                self.logs.remove(&log);
            } else {
                // Free the memory of the queue: most logs are idle most of the time.
                listeners.ops = VecDeque::new();
            }
            if self.unflushed.len() >= SLICE {
                self.flush();
            }
        }
        self.flush();
        !self.ready.is_empty()
    }

    fn flush(&mut self) {
        for outbox in self.unflushed.drain(..) {
            outbox.flush();
        }
    }
}

impl LogListeners {
    /// Executes operations until one slice of listeners is served. Returns the number of frames that went out.
    fn run_turn(&mut self, common: &mut Common<'_>) -> u64 {
        let (mut budget, mut frames) = (SLICE, 0);
        while budget > 0 {
            let Some(op) = self.ops.pop_front() else { break };
            match op {
                Op::Attach(listener) => {
                    if self.listeners.is_empty() {
                        // An inbox has one listener as a rule.
                        self.listeners.reserve_exact(1);
                    }
                    self.listeners.push(listener);
                }
                Op::GoLive(connection, has) => {
                    if let Some(listener) = self.listeners.iter_mut().find(|l| l.connection == connection) {
                        listener.live_after = Some(has);
                    }
                    self.settle_waits(common);
                }
                Op::Detach(connection, gone) => {
                    common.told.forget(connection);
                    let at = self.listeners.iter().position(|l| l.connection == connection);
                    let left = at.and_then(|at| self.listeners.swap_remove(at).live_after);
                    let _nobody_asked = gone.send(left.map(|has| has.max(self.delivered)));
                    self.settle_waits(common);
                }
                Op::Wait(wait) => {
                    self.ack_waits.extend([wait]);
                    self.settle_waits(common);
                }
                Op::Deliver(mut deliveries) => {
                    if self.reached == 0 {
                        deliveries = self.ack_waits.place(deliveries);
                        self.begin_acks(&deliveries, common);
                    }
                    let end = self.listeners.len().min(self.reached + budget);
                    frames += deliver_to(&self.listeners[self.reached..end], &deliveries, common);
                    budget -= end - self.reached;
                    if end < self.listeners.len() {
                        self.reached = end;
                        self.ops.push_front(Op::Deliver(deliveries));
                        break;
                    }
                    self.reached = 0;
                    self.delivered = deliveries.iter().filter_map(Delivery::seq).next_back().unwrap_or(self.delivered);
                    self.remove_members(&deliveries);
                    self.settle_waits(common);
                }
                Op::Resync { head, notes, only } => self.resync(head, &notes, only, common),
                Op::List(answer) => {
                    let outboxes = self.listeners.iter().map(|listener| listener.outbox.clone()).collect();
                    let _nobody_asked = answer.send(outboxes);
                }
            }
        }
        frames
    }

    /// Tells the live listeners, or the only one, to resync.
    fn resync(
        &mut self,
        head: Seq,
        notes: &[Option<Frame>; Dialect::COUNT],
        only: Option<ConnectionId>,
        common: &mut Common<'_>,
    ) {
        if only.is_none() {
            self.delivered = head;
            // Entries that the store has lost never come, so no ack may wait for them.
            self.ack_waits.clear();
        }
        let tells = |listener: &&mut Listener| match only {
            Some(connection) => listener.connection == connection,
            None => listener.live_after.is_some(),
        };
        for listener in self.listeners.iter_mut().filter(tells) {
            listener.outbox.send(notes[listener.dialect.index()].clone());
            signal_resync(&listener.outbox, listener.dialect, common.log);
            // The store assigns seqs again that the listener already has.
            listener.live_after = Some(0);
        }
        self.settle_waits(common);
    }

    fn settle_waits(&mut self, common: &mut Common<'_>) {
        self.ack_waits.settle(&self.listeners, self.delivered, common.unflushed);
    }

    /// Moves the sockets that get an ack from this delivery to the front, so that no ack waits until thousands of others
    /// have the entry. Lets the acks wait that their own sockets don't get from it, because a replay brings them.
    fn begin_acks(&mut self, deliveries: &[Delivery], common: &mut Common<'_>) {
        let mut front = 0;
        for delivery in deliveries {
            let Event::Entry { origin: Some(ack), .. } = &delivery.event else { continue };
            let own = self.listeners.iter().position(|listener| listener.connection == ack.connection());
            let Some(at) = own else { continue };
            if !self.listeners[at].wants(delivery) {
                self.ack_waits.extend(AckWait::of(&delivery.event));
            } else if at >= front {
                self.listeners.swap(at, front);
                front += 1;
            }
        }
        self.settle_waits(common);
    }

    /// Removes listeners whose membership ended, and signals to their sessions.
    fn remove_members(&mut self, deliveries: &[Delivery]) {
        for delivery in deliveries {
            if delivery.removed_user().is_none() {
                continue;
            }
            self.listeners.retain(|listener| {
                let stays = !listener.is_removed_by(delivery);
                if !stays {
                    signal_removed(&listener.outbox, delivery);
                }
                stays
            });
        }
    }
}

/// Hands the deliveries to each listener, in one push each. A listener gets nothing after the entry that ends its user's
/// membership, even if one batch holds both. A listener whose hand-over panics may have missed an entry, so its socket is
/// closed; the others get theirs.
fn deliver_to(listeners: &[Listener], deliveries: &[Delivery], common: &mut Common<'_>) -> u64 {
    let Common { unflushed, told, supervisor, .. } = common;
    let tells_presence = deliveries.iter().any(Delivery::tells_presence);
    let removals: Vec<(usize, &Delivery)> =
        deliveries.iter().enumerate().filter(|(_, delivery)| delivery.removed_user().is_some()).collect();
    let mut frames = 0;
    for listener in listeners {
        let removed = removals.iter().find(|(_, removal)| listener.is_removed_by(removal));
        let end = removed.map_or(deliveries.len(), |(at, _)| at + 1);
        #[cfg(feature = "faults")]
        let end = if crate::faults::has(crate::faults::Fault::BatchAfterRemoval) { deliveries.len() } else { end };
        let wanted = deliveries[..end].iter().filter(|delivery| listener.wants(delivery));
        let handed = supervisor.catch(TaskName::DeliveryShard, || {
            checkpoint(TaskName::DeliveryShard, || listener.outbox.user().map_or("nobody", UserId::as_str));
            if tells_presence {
                let news = deliveries[..end].iter().filter(|delivery| listener.lacks(delivery, told));
                return hand_over(&listener.outbox, listener.dialect, news.collect::<Vec<_>>().into_iter());
            }
            hand_over(&listener.outbox, listener.dialect, wanted)
        });
        let Some(handed) = handed else {
            listener.outbox.fail();
            continue;
        };
        frames += handed.frames;
        if handed.unwritten {
            unflushed.push(listener.outbox.clone());
        }
    }
    frames
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::{
        model::{Body, Entry, PendingAck, Timestamp},
        outbox::{OutboxBudget, OutboxLimits},
    };

    /// A live listener, and its client.
    async fn listener(server: &TcpListener, metrics: &Arc<Metrics>) -> (Listener, TcpStream) {
        let (client, accepted) =
            tokio::join!(TcpStream::connect(server.local_addr().unwrap()), async { server.accept().await });
        let (_, writer) = accepted.unwrap().0.into_split();
        writer.writable().await.unwrap();
        let too_slow = Frame::close(1008, "");
        let limits = Arc::new(OutboxLimits { bytes: 1 << 20, stalled_after: Duration::from_secs(30), too_slow });
        let budget = OutboxBudget::new(1 << 30, metrics.clone());
        let outbox = Outbox::new(ConnectionId::fresh(), writer, limits, budget);
        outbox.greet([]);
        let (connection, dialect) = (outbox.connection(), Dialect::Native);
        let listener = Listener { connection, dialect, live_after: Some(0), admitted_at: 0, roster: false, outbox };
        (listener, client.unwrap())
    }

    #[tokio::test]
    async fn a_sender_gets_the_ack_before_the_many_others_are_served() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let supervisor = Supervisor::new(metrics.clone());
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (log, mut worker) = (LogId::parse("room").unwrap(), Worker::new(metrics.clone(), supervisor.clone()));
        let (mut clients, mut ops) = (Vec::new(), VecDeque::new());
        for _ in 0..SLICE + 2 {
            let (listener, client) = listener(&server, &metrics).await;
            clients.push((listener.connection, client));
            ops.push_back((log.clone(), Op::Attach(listener)));
        }
        worker.enqueue(ops);
        while worker.run_round() {}
        let (sender, client) = clients.pop().unwrap();
        let entry = Entry {
            log: log.clone(),
            seq: 1,
            message_no: 1,
            sender: UserId::parse("alice").unwrap(),
            sender_name: "Alice".into(),
            client_id: None,
            at: Timestamp::from_micros(1),
            body: Body::message("Hello"),
        };
        let origin = Some(Arc::new(PendingAck::new(sender, None, None)));
        let delivery = Delivery::new(Event::Entry { entry: Arc::new(entry), origin }, None, supervisor);
        worker.enqueue([(log, Op::Deliver([delivery].into()))].into());
        assert!(worker.run_round(), "the first turn serves a part of the listeners");
        let readable = tokio::time::timeout(Duration::from_secs(10), client.readable()).await;
        readable.expect("the ack comes with the first turn").unwrap();
        let (mut frame, mut served) = ([0; 256], 0);
        let read = client.try_read(&mut frame).unwrap();
        assert!(String::from_utf8_lossy(&frame[..read]).contains(r#""type":"ack""#));
        assert!(!worker.run_round(), "the second turn serves the others");
        for (_, client) in clients {
            client.readable().await.unwrap();
            served += usize::from(client.try_read(&mut frame).unwrap() > 0);
        }
        assert_eq!(served, SLICE + 1);
    }
}
