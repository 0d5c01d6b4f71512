//! Delivery on one node: the hub follows logs, keeps each in order, backfills gaps, and hands events to the outboxes of
//! listeners.
//!
//! Invariants: a live listener gets a log's entries strictly +1. An entry that arrives twice goes out once. An early
//! entry waits in a bounded buffer, and the missing ones are fetched off the delivery path. The hub imports outboxes,
//! but neither sessions, store nor backplane: it fetches missing entries from a [`Source`].

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use tokio::sync::{OnceCell, Semaphore, oneshot};

use crate::{
    dialect::Dialect,
    metrics::Metrics,
    model::{Clock, ConnectionId, Entry, EntryStamp, Event, LogId, Pair, PendingAck, Sent, Seq},
    outbox::Outbox,
    supervise::{Supervisor, TaskName},
};

mod ack_waits;
mod activity;
mod backfill;
mod compare;
mod delivered;
mod delivery;
mod listener;
mod resequencer;
mod set_back;
mod shard;
mod source;
#[cfg(test)]
mod tests;
mod told;
mod track;

pub use delivered::Given;
pub use listener::{Attached, Terms};
pub use set_back::{SetBack, Stored};
pub use source::{Source, SourceFailed, Wanted};
pub use track::Opened;

use ack_waits::AckWait;
use activity::Activity;
use delivered::Delivered;
use delivery::{Delivery, resync_notes};
use listener::Listener;
use resequencer::Resequencer;
use set_back::Doubts;
use shard::{Load, Op, Shard, Worker};
use track::Track;

/// Locks over which logs are spread.
const PARTITIONS: usize = 64;
/// Gaps that are backfilled concurrently.
const BACKFILLS: usize = 16;
/// Time that a gap may close by itself before it is backfilled, because publications of two nodes often cross.
const BACKFILL_DELAY: Duration = Duration::from_millis(10);
/// Maximum pause between two tries to backfill.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Delivers events to the listeners of one node.
pub struct Hub {
    /// Boxed, because a table has more places than entries.
    partitions: Vec<Mutex<HashMap<LogId, Box<Track>>>>,
    hasher: RandomState,
    /// The cell of every log that is open.
    opened: Opened,
    shards: Vec<Arc<Shard>>,
    activity: Activity,
    source: Arc<dyn Source>,
    backfills: Semaphore,
    doubts: Doubts,
    /// Number of times that the store became another one than before.
    past: AtomicU64,
    metrics: Arc<Metrics>,
    clock: Clock,
    supervisor: Supervisor,
}

impl Hub {
    /// Starts a hub with `shards` delivery shards.
    pub fn start(
        shards: usize,
        source: Arc<dyn Source>,
        metrics: Arc<Metrics>,
        clock: Clock,
        supervisor: Supervisor,
    ) -> Arc<Self> {
        let shards: Vec<_> = (0..shards.max(1)).map(|_| Arc::new(Shard::new())).collect();
        for shard in &shards {
            let state = (shard.clone(), Worker::new(metrics.clone(), supervisor.clone()));
            supervisor.spawn_until_stop(TaskName::DeliveryShard, state, |(shard, worker)| shard.run(worker).boxed());
        }
        Arc::new(Self {
            partitions: (0..PARTITIONS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            opened: Arc::new(OnceCell::new_with(Some(()))),
            shards,
            activity: Activity::new(),
            source,
            backfills: Semaphore::new(BACKFILLS),
            doubts: Doubts::default(),
            past: AtomicU64::new(0),
            metrics,
            clock,
            supervisor,
        })
    }

    /// Counts one more follower of `log`. Before a follower attaches listeners, it must make sure that the log is
    /// opened: one follower subscribes, reads the head, and calls [`Hub::set_base`], for all followers.
    pub fn follow(&self, log: &LogId) -> Opened {
        let mut tracks = self.partition(log);
        let track = tracks.entry(log.clone()).or_insert_with(|| {
            self.metrics.followed.inc();
            Box::new(Track {
                followers: 0,
                opened: Opened::default(),
                resequencer: Resequencer::after(0),
                delivered: Delivered::default(),
                first: 1,
                has_base: false,
                listeners_by_shard: vec![0; self.shards.len()].into(),
                listeners_by_dialect: [0; Dialect::COUNT],
                pair: None,
                backfilling: false,
                early: Vec::new(),
                activity: 0,
            })
        });
        track.followers += 1;
        track.opened.clone()
    }

    /// Counts one follower less. After the last one, the hub drops the log and calls `gone` under its lock, so that no
    /// new follower can begin meanwhile.
    pub fn unfollow(&self, log: &LogId, gone: impl FnOnce()) {
        let mut tracks = self.partition(log);
        let Some(track) = tracks.get_mut(log) else { return };
        track.followers -= 1;
        if track.followers == 0 {
            tracks.remove(log);
            self.metrics.followed.dec();
            gone();
        }
    }

    /// Sets the base of `log`: delivery begins after `head`, which is the entry `newest`. Entries that were announced before
    /// are backfilled.
    pub fn set_base(self: &Arc<Self>, log: &LogId, head: Seq, newest: Option<EntryStamp>) {
        let mut tracks = self.partition(log);
        let Some(track) = tracks.get_mut(log) else { return };
        if !track.has_base {
            let mut resequencer = Resequencer::after(head);
            resequencer.record_seq(track.resequencer.last());
            (track.resequencer, track.has_base) = (resequencer, true);
            // The last step of the opening: later followers need no cell of their own.
            track.opened = self.opened.clone();
            newest.into_iter().for_each(|newest| track.delivered.push(newest));
            self.backfill_if_needed(log, track);
        }
    }

    /// Attaches a socket as a listener of a followed log. It gets ephemeral events at once, and entries after
    /// [`Hub::splice`].
    pub fn attach(&self, log: &LogId, dialect: Dialect, outbox: &Arc<Outbox>, terms: Terms<'_>) -> Option<Attached> {
        let Terms { pair, admitted_at, roster } = terms;
        let connection = outbox.connection();
        let mut tracks = self.partition(log);
        let track = tracks.get_mut(log)?;
        let shard = self.shard_of(connection);
        track.listeners_by_shard[shard] += 1;
        track.listeners_by_dialect[dialect.index()] += 1;
        if let (None, Some(pair)) = (&track.pair, pair) {
            track.pair = Some(pair.clone());
        }
        let listener = Listener { connection, dialect, live_after: None, admitted_at, roster, outbox: outbox.clone() };
        self.shards[shard].queue(log, Op::Attach(listener));
        self.shards[shard].wake();
        Some(Attached { last: track.resequencer.last(), restarts: track.delivered.restarts() })
    }

    /// Makes a listener live that has every entry up to `has`, if the hub delivered no entry beyond `has`. If the log was
    /// restarted since it was attached, it resyncs, because what it has may be lost. `restarts` is that of [`Hub::attach`].
    ///
    /// # Errors
    /// The hub delivered more; the error is the seq of the last entry that went out.
    pub fn splice(&self, log: &LogId, connection: ConnectionId, has: Seq, restarts: u64) -> Result<(), Seq> {
        let tracks = self.partition(log);
        let Some(track) = tracks.get(log) else { return Ok(()) };
        let (restarted, last) = (track.delivered.restarts() != restarts, track.resequencer.last());
        if !restarted && has < last {
            return Err(last);
        }
        let shard = &self.shards[self.shard_of(connection)];
        let notes = restarted.then(|| resync_notes(log, track.first, last));
        shard.queue(
            log,
            match notes {
                Some(notes) => Op::Resync { head: last, notes, only: Some(connection) },
                None => Op::GoLive(connection, has),
            },
        );
        shard.wake();
        Ok(())
    }

    /// Detaches a listener. The returned future resolves once nothing more of the log goes to that socket. It yields
    /// the seq up to which the socket received every entry, or `None` if it was not live.
    pub fn detach(
        &self,
        log: &LogId,
        dialect: Dialect,
        connection: ConnectionId,
    ) -> impl Future<Output = Option<Seq>> + Send + use<> {
        let (done, gone) = oneshot::channel();
        if let Some(track) = self.partition(log).get_mut(log) {
            let shard = self.shard_of(connection);
            track.listeners_by_shard[shard] = track.listeners_by_shard[shard].saturating_sub(1);
            track.listeners_by_dialect[dialect.index()] = track.listeners_by_dialect[dialect.index()].saturating_sub(1);
            self.shards[shard].queue(log, Op::Detach(connection, done));
            self.shards[shard].wake();
        }
        async move { gone.await.unwrap_or(None) }
    }

    /// Accepts events of this node and of others, in any order and any number of times.
    pub fn apply(self: &Arc<Self>, events: Vec<Event>) {
        let load = self.shards.iter().map(|shard| shard.load()).max().unwrap_or_default();
        let congested = load == Load::Congested;
        let now = self.clock.now();
        for group in events.chunk_by(|one, next| one.log() == next.log()) {
            let log = group[0].log();
            let mut tracks = self.partition(log);
            let Some(track) = tracks.get_mut(log) else { continue };
            let mut ready = Vec::with_capacity(group.len());
            for event in group {
                match event {
                    Event::Entry { entry, .. } if congested || !track.takes_entries() => {
                        track.record_seq(entry.seq);
                        if !track.delivered.is_doubted() {
                            self.keep_ack(event);
                        }
                    }
                    // The store was set back, or the entry is not stored any more.
                    Event::Entry { entry, .. } if track.delivered.is_contradicted_by(entry.stamp()) => {
                        self.doubt(log, track);
                    }
                    Event::Entry { entry, .. } => {
                        self.metrics.delivery_seconds.observe(now.since(entry.at).as_secs_f64());
                        if !track.resequencer.offer(entry.seq, event.clone(), &mut ready) {
                            self.keep_ack(event);
                        }
                    }
                    Event::Ephemeral { .. } if congested || load == Load::High && event.is_custom() => {
                        self.metrics.ephemeral_dropped.inc();
                    }
                    Event::Ephemeral { .. } if track.is_early(event) => {
                        self.metrics.ephemeral_dropped.inc_by(u64::from(!track.hold(event)));
                    }
                    Event::Ephemeral { .. } => ready.push(event.clone()),
                }
            }
            track.release_early(&mut ready);
            self.deliver(log, track, ready);
            self.backfill_if_needed(log, track);
        }
        self.shards.iter().for_each(|shard| shard.wake_if_queued());
    }

    /// Sends a listener of this node the ack of a stored command once it has every entry before it, unless the ack is sent
    /// already. Resolves with true then; with false at once if the connection does not listen or the log is doubted, or when it
    /// ceases to listen.
    pub fn place_ack(
        self: &Arc<Self>,
        ack: &Arc<PendingAck>,
        sent: &Sent,
    ) -> impl Future<Output = bool> + Send + use<> {
        let (reached, wait) = oneshot::channel();
        let log = &sent.log;
        if let Some(track) = self.partition(log).get_mut(log) {
            // The hub may have dropped the entry; then it is backfilled.
            track.record_seq(sent.seq);
            self.backfill_if_needed(log, track);
            if track.delivered.is_contradicted_by(EntryStamp { seq: sent.seq, at: sent.at }) {
                self.doubt(log, track);
            }
            // The listeners of a doubted log may have entries that are lost. The ack waits until they were told to resync.
            if !track.delivered.is_doubted() {
                self.queue_wait(AckWait { ack: ack.clone(), sent: sent.clone(), reached: Some(reached) });
            }
        }
        async move { wait.await.is_ok() }
    }

    /// Lets the ack of an entry wait that the hub does not deliver now, at its place among the log's operations.
    fn keep_ack(&self, event: &Event) {
        if let Some(wait) = AckWait::of(event) {
            self.queue_wait(wait);
        }
    }

    fn queue_wait(&self, wait: AckWait) {
        let shard = &self.shards[self.shard_of(wait.connection())];
        shard.queue(&wait.sent.log.clone(), Op::Wait(wait));
        shard.wake();
    }

    /// Entries of `log` after `after`, for a listener that catches up.
    ///
    /// # Errors
    /// The entries can't be read now.
    pub async fn fetch(&self, log: &LogId, after: Seq) -> Result<Vec<Entry>, SourceFailed> {
        let proof = self.partition(log).get(log).filter(|track| track.takes_entries()).and_then(|track| track.proof());
        self.source.after(Wanted { log, after, proof }).await
    }

    /// The first seq of a log that is still stored; past its head if none is.
    ///
    /// # Errors
    /// It can't be read now.
    pub async fn first(&self, log: &LogId) -> Result<Seq, SourceFailed> {
        self.source.first(log).await
    }

    /// Hands a listener the entries that it missed before it goes live, with the frames and signals of live delivery.
    /// Returns the seq of the last one; none if an entry ends the membership of a user whose access was read when the log's
    /// head was `admitted_at`, after which nothing is handed over.
    pub fn hand_over_missed(
        &self,
        outbox: &Outbox,
        dialect: Dialect,
        pair: Option<&Arc<Pair>>,
        admitted_at: Seq,
        entries: impl IntoIterator<Item = Entry>,
    ) -> Option<Seq> {
        delivery::hand_over_missed(&self.supervisor, outbox, dialect, pair, admitted_at, entries)
    }

    /// True if any listener of the log speaks a dialect for which `holds` returns true.
    pub fn has_listener(&self, log: &LogId, holds: impl Fn(Dialect) -> bool) -> bool {
        let tracks = self.partition(log);
        let listeners_by_dialect = tracks.get(log).map(|track| track.listeners_by_dialect);
        listeners_by_dialect.is_some_and(|listeners_by_dialect| {
            Dialect::ALL.into_iter().any(|one| listeners_by_dialect[one.index()] > 0 && holds(one))
        })
    }

    /// All followed logs.
    pub fn logs(&self) -> Vec<LogId> {
        let mut logs = Vec::new();
        for partition in &self.partitions {
            let tracks = partition.lock().unwrap_or_else(PoisonError::into_inner);
            logs.extend(tracks.keys().cloned());
        }
        logs
    }

    /// Records that a log reaches to `seq`, and backfills missing entries. Ignores a log that is not followed.
    pub fn record_head(self: &Arc<Self>, log: &LogId, seq: Seq) {
        let mut tracks = self.partition(log);
        let Some(track) = tracks.get_mut(log) else { return };
        track.record_seq(seq);
        self.backfill_if_needed(log, track);
    }

    /// The number of operations that wait for the shards.
    pub fn queued(&self) -> usize {
        self.shards.iter().map(|shard| shard.queued()).sum()
    }

    /// The seq of the last entry of `log` that went out.
    pub fn last(&self, log: &LogId) -> Option<Seq> {
        self.partition(log).get(log).filter(|track| track.has_base).map(|track| track.resequencer.last())
    }

    /// Number of times that the store became another one than before. What a socket received before counts no more: its seqs
    /// may be assigned again.
    pub fn past(&self) -> u64 {
        self.past.load(Ordering::Acquire)
    }

    /// Records that the store became another one than before.
    pub fn begin_new_past(&self) {
        self.past.fetch_add(1, Ordering::AcqRel);
    }

    /// Number of the newest delivery of an entry, over all logs. It orders logs by their activity.
    pub fn activity(&self) -> u64 {
        self.activity.newest()
    }

    /// Number of the newest delivery of an entry of `log`; 0 if there was none since the log is followed.
    pub fn activity_of(&self, log: &LogId) -> u64 {
        self.partition(log).get(log).map_or(0, |track| track.activity)
    }

    fn deliver(&self, log: &LogId, track: &mut Track, ready: Vec<Event>) {
        if ready.is_empty() {
            return;
        }
        let mut entries = ready.iter().filter_map(Event::entry).peekable();
        if entries.peek().is_some() {
            track.activity = self.activity.next();
        }
        entries.for_each(|entry| track.delivered.push(entry.stamp()));
        let delivery = |event| Delivery::new(event, track.pair.clone(), self.supervisor.clone());
        let deliveries: Arc<[Delivery]> = ready.into_iter().map(delivery).collect();
        for (shard, _) in self.shards.iter().zip(&track.listeners_by_shard).filter(|(_, listeners)| **listeners > 0) {
            shard.queue(log, Op::Deliver(deliveries.clone()));
        }
    }

    fn partition(&self, log: &LogId) -> MutexGuard<'_, HashMap<LogId, Box<Track>>> {
        let at = self.hasher.hash_one(log) as usize % PARTITIONS;
        self.partitions[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shard_of(&self, connection: ConnectionId) -> usize {
        self.hasher.hash_one(connection) as usize % self.shards.len()
    }
}
