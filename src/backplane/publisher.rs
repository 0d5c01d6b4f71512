//! Publishes events to other nodes and adds messages to the recent-message cache. One task sends many logs in one
//! pipeline. On a cluster, each master gets pipelines of its own, so that none waits for another; the caches, whose keys are
//! spread otherwise, are updated apart from them.
//!
//! For events that can't be published, the newest entry of each log is kept and published when Redis, or the log's master, is
//! back. Other nodes then see the gap and backfill it.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use redis::Pipeline;
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use super::{
    era::Eras,
    hearing::Hearing,
    link::Link,
    link_error::LinkError,
    mac::Macs,
    ops::Op,
    publish_lanes::{Dated, Flight, Lanes, by_log},
    recent::Recent,
    shards::{Layout, Shard},
    wire::{EVENTS_PER_PAYLOAD, Process},
};
use crate::{
    degrade::{Degrade, Work},
    metrics::Metrics,
    model::{Entry, Event, LogId, Seq},
    supervise::{Supervisor, TaskName, checkpoint},
};

/// Maximum number of event batches that wait for the task.
const QUEUE: usize = 8_192;
/// Places in the queue that events of clients leave to others.
const KEPT_FOR_OTHERS: usize = QUEUE / 4 * 3;
/// Maximum number of event batches in one pipeline.
const PER_PIPELINE: usize = 256;
/// Interval between two tries, and the number of tries, while Redis does not answer but is not yet known to be down.
const RETRY_EVERY: Duration = Duration::from_millis(50);
const TRIES: usize = 40;
/// Interval between two tries to publish what was kept, while Redis answers and refuses publications.
const REPEAT_EVERY: Duration = Duration::from_secs(1);
/// Maximum number of logs whose newest entry is kept for publishing later.
const UNPUBLISHED_MAX: usize = 65_536;

/// Accepts events for the [`PublishTask`].
pub(super) struct Publisher {
    link: Arc<Link>,
    metrics: Arc<Metrics>,
    queue: mpsc::Sender<Vec<Dated>>,
    macs: Arc<Macs>,
    /// Each with its epoch.
    unpublished: Mutex<HashMap<LogId, (i64, Arc<Entry>)>>,
}

/// The task that publishes.
pub(super) struct PublishTask {
    publisher: Arc<Publisher>,
    sender: Arc<Sender>,
    queue: mpsc::Receiver<Vec<Dated>>,
    hearing: Hearing,
    lanes: Lanes,
    /// The masters that refuse publications; the first shard of each stands for it.
    failing: HashSet<Shard>,
}

/// Sends events to Redis.
struct Sender {
    link: Arc<Link>,
    recent: Arc<Recent>,
    process: Process,
    macs: Arc<Macs>,
    /// Logs whose cache lacks an entry or a deletion, and is emptied before its next update. Cluster only.
    stale: Mutex<HashSet<LogId>>,
}

/// The result of a flight: what was not sent, and why.
type Landed = (Flight, Instant, Option<Result<(), (Vec<Dated>, LinkError)>>);

impl Publisher {
    /// Makes the publisher and its task.
    pub(super) fn new(
        link: Arc<Link>,
        metrics: Arc<Metrics>,
        recent: Arc<Recent>,
        process: Process,
        macs: Arc<Macs>,
        degrade: Arc<Degrade>,
    ) -> (Arc<Self>, PublishTask) {
        let hearing = Hearing::new(degrade, Work::Publish);
        let (sender, queue) = mpsc::channel(QUEUE);
        let (lanes, failing) = (Lanes::default(), HashSet::new());
        let task =
            Arc::new(Sender { link: link.clone(), recent, process, macs: macs.clone(), stale: Mutex::default() });
        let publisher = Arc::new(Self { link, metrics, queue: sender, macs, unpublished: Mutex::default() });
        (publisher.clone(), PublishTask { publisher, sender: task, queue, hearing, lanes, failing })
    }

    /// Queues events for publishing. Never blocks.
    pub(super) fn publish(&self, events: Vec<Event>) {
        if self.link.target().is_none() || events.is_empty() {
            return;
        }
        if self.queue.capacity() <= KEPT_FOR_OTHERS && events.iter().all(Event::is_custom) {
            self.metrics.bus_out_dropped.inc_by(events.len() as u64);
            return;
        }
        let epoch = self.macs.epoch();
        let dated = events.into_iter().map(|event| Dated { epoch, event }).collect();
        if let Err(mpsc::error::TrySendError::Full(events) | mpsc::error::TrySendError::Closed(events)) =
            self.queue.try_send(dated)
        {
            self.keep_newest(&events);
        }
        self.update_queue_gauge();
    }

    /// Logs whose newest entry is not published yet, with its seq.
    pub(super) fn unpublished(&self) -> Vec<(LogId, Seq)> {
        self.lock_unpublished().iter().map(|(log, (_, entry))| (log.clone(), entry.seq)).collect()
    }

    fn keep_newest(&self, events: &[Dated]) {
        self.metrics.bus_out_dropped.inc_by(events.len() as u64);
        let mut unpublished = self.lock_unpublished();
        for Dated { epoch, event } in events {
            let Event::Entry { entry, .. } = event else { continue };
            let known = unpublished.get(&entry.log).map(|(epoch, newest)| (*epoch, newest.seq));
            if known.is_some_and(|newest| newest < (*epoch, entry.seq))
                || known.is_none() && unpublished.len() < UNPUBLISHED_MAX
            {
                unpublished.insert(entry.log.clone(), (*epoch, entry.clone()));
            }
        }
    }

    /// Takes some of the kept entries for which `which` holds.
    fn take_unpublished(&self, which: impl Fn(&LogId) -> bool) -> Vec<Dated> {
        let mut unpublished = self.lock_unpublished();
        let some: Vec<_> = unpublished.keys().filter(|log| which(log)).take(PER_PIPELINE).cloned().collect();
        let entries = some.iter().filter_map(|log| unpublished.remove(log));
        entries.map(|(epoch, entry)| Dated { epoch, event: Event::Entry { entry, origin: None } }).collect()
    }

    fn keeps_any(&self) -> bool {
        !self.lock_unpublished().is_empty()
    }

    fn lock_unpublished(&self) -> MutexGuard<'_, HashMap<LogId, (i64, Arc<Entry>)>> {
        self.unpublished.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update_queue_gauge(&self) {
        let waiting = self.queue.max_capacity() - self.queue.capacity();
        self.metrics.bus_out_queue.set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }
}

impl PublishTask {
    /// Publishes events until the node stops and the queue is empty. Of a batch whose publication panics, the newest entry
    /// of each log is kept, so that other nodes see the gap.
    pub(super) async fn run(&mut self, eras: &mut watch::Receiver<Eras>, supervisor: &Supervisor) {
        let stop = supervisor.stop();
        let single = self.publisher.link.keys().layout() == Layout::Single;
        let (mut batches, mut excess) = (Vec::with_capacity(PER_PIPELINE), Vec::new());
        // An earlier run may have ended by a panic. Other nodes must hear of the logs whose events waited then.
        self.publisher.keep_newest(&self.lanes.drain());
        let mut flights: FuturesUnordered<BoxFuture<'static, Landed>> = FuturesUnordered::new();
        loop {
            let idle = flights.is_empty();
            tokio::select! {
                biased;
                Some(landed) = flights.next(), if !idle => self.land(landed, eras),
                // Behind one server, what waits stays in the queue.
                _ = self.queue.recv_many(&mut batches, PER_PIPELINE), if !single || self.lanes.are_empty() => {}
                () = stop.cancelled(), if idle => return,
                changed = eras.changed(), if !stop.is_cancelled() => {
                    let _node_ends = changed;
                    self.forget_failures(eras);
                }
                () = sleep(REPEAT_EVERY), if self.publisher.keeps_any() => {}
            }
            self.publisher.update_queue_gauge();
            let Some(channels) = self.publisher.link.keys().channels() else {
                let events: Vec<Dated> = batches.drain(..).flatten().collect();
                self.publisher.keep_newest(&events);
                continue;
            };
            for event in batches.drain(..).flatten() {
                if !single && event.event.entry().is_some() && !self.lanes.add_to_cache(&event) {
                    self.sender.mark_stale(event.event.log());
                }
                excess.extend(self.lanes.add(channels.shard_of(event.event.log()), event).err());
            }
            if !excess.is_empty() {
                self.publisher.keep_newest(&excess);
                excess.clear();
            }
            let link = &self.publisher.link;
            let ready = self.lanes.take_ready(|shard| link.owner_of(shard));
            let kept = self.kept_flights(eras);
            for flight in ready.into_iter().chain(kept) {
                flights.push(self.fly(flight, eras, supervisor));
            }
            if let Some(flight) = self.lanes.take_cache() {
                flights.push(self.fly(flight, eras, supervisor));
            }
        }
    }

    /// The kept entries of masters that are up and have nothing under way. Only the newest entry of each log was kept, so the log's
    /// cache is dropped first: an edit or a deletion before that entry may have changed a cached message.
    fn kept_flights(&mut self, eras: &watch::Receiver<Eras>) -> Vec<Flight> {
        let (eras, link) = (eras.borrow(), &self.publisher.link);
        let ready = eras.up && self.sender.macs.has_keys() && self.publisher.keeps_any();
        let Some(channels) = link.keys().channels().filter(|_| ready) else {
            return Vec::new();
        };
        let can = |shard: Shard| eras.of(shard).up && link.may_call(shard.tag()) && !self.lanes.is_busy(shard);
        let events = self.publisher.take_unpublished(|log| can(channels.shard_of(log)));
        let with_shards = events.into_iter().map(|event| (channels.shard_of(event.event.log()), event)).collect();
        self.lanes.group(with_shards, true, |shard| link.owner_of(shard))
    }

    fn fly(&self, flight: Flight, eras: &watch::Receiver<Eras>, supervisor: &Supervisor) -> BoxFuture<'static, Landed> {
        let (sender, eras, supervisor, began) = (self.sender.clone(), eras.clone(), supervisor.clone(), Instant::now());
        let fly = async move {
            let send = async {
                match flight.shard {
                    Some(shard) => sender.send(shard, &flight, &eras).await,
                    None => {
                        sender.update_caches(&flight.events).await;
                        Ok(())
                    }
                }
            };
            let sent = supervisor.guard(TaskName::Publisher, send).await;
            (flight, began, sent)
        };
        fly.boxed()
    }

    /// Takes the result of a flight.
    fn land(&mut self, (flight, began, sent): Landed, eras: &watch::Receiver<Eras>) {
        self.lanes.land(&flight);
        let Some(shard) = flight.shard else { return };
        match sent {
            Some(Ok(())) => {
                self.failing.remove(&shard);
                if self.failing.is_empty() {
                    self.hearing.succeeded();
                }
            }
            Some(Err((unsent, error))) => {
                self.publisher.keep_newest(&unsent);
                let up = eras.borrow().up && eras.borrow().of(shard).up;
                if up {
                    self.failing.insert(shard);
                    self.hearing.failed(&error, began);
                } else {
                    self.forget_failures(eras);
                }
            }
            None => self.publisher.keep_newest(&flight.events),
        }
    }

    /// Forgets that masters refused publications that are down now, or came back.
    fn forget_failures(&mut self, eras: &watch::Receiver<Eras>) {
        let eras = eras.borrow();
        self.failing.retain(|shard| eras.up && eras.of(*shard).up);
        if self.failing.is_empty() {
            self.hearing.succeeded();
        }
    }
}

impl Sender {
    /// Publishes events, and tries those again that failed while their shards are not known to be down.
    async fn send(
        &self,
        shard: Shard,
        flight: &Flight,
        eras: &watch::Receiver<Eras>,
    ) -> Result<(), (Vec<Dated>, LinkError)> {
        let (mut events, mut error) = (flight.events.clone(), LinkError::Down);
        for attempt in 0..TRIES {
            let up = {
                let eras = eras.borrow();
                eras.up && eras.of(shard).up
            };
            if !up || !self.macs.has_keys() {
                return Err((events, LinkError::Down));
            }
            match self.try_send(&events, flight.incomplete || attempt > 0).await {
                Ok(None) => return Ok(()),
                Ok(Some((failed, why))) => {
                    events.retain(|event| failed.contains(event.event.log()));
                    error = why;
                }
                Err(why) => error = why,
            }
            sleep(RETRY_EVERY).await;
        }
        Err((events, error))
    }

    /// Publishes events. Returns the logs of those that failed, if there are any. `repeat`: earlier entries of these logs may not
    /// have reached the caches, or these entries have.
    async fn try_send(&self, events: &[Dated], repeat: bool) -> Result<Option<(HashSet<LogId>, LinkError)>, LinkError> {
        checkpoint(TaskName::Publisher, || format!("{events:?}"));
        let mut pipeline = Pipeline::new();
        let mut publications = Vec::new();
        let channels = self.link.keys().channels().ok_or(LinkError::Down)?;
        for (log, epoch, events) in by_log(events) {
            if channels.layout == Layout::Single {
                let entries: Vec<&Entry> = events.iter().filter_map(|event| event.entry()).collect();
                self.recent.update(&mut pipeline, log, (&entries, epoch), repeat);
            } else if repeat {
                self.mark_stale(log);
            }
            for events in events.chunks(EVENTS_PER_PAYLOAD) {
                let channel = channels.log(log);
                // The keys are known before the first client can send.
                let payload = self.process.encode(epoch, events, &channel, &self.macs).ok_or(LinkError::Down)?;
                publications.push((pipeline.len(), log));
                channels.publish(&mut pipeline, &channel).arg(payload);
            }
        }
        // One route for all: a node's events must reach Redis in the order in which they were queued.
        let mut replies = self.link.run(Op::Publish, self.process.name(), &pipeline).await?;
        let (mut failed, mut error) = (HashSet::new(), None);
        for (index, log) in publications {
            if let Err(why) = replies.take::<i64>(index) {
                failed.insert(log.clone());
                error.get_or_insert(why);
            }
        }
        Ok(error.map(|error| (failed, error)))
    }

    /// Updates the caches on a cluster. What fails is not repeated: a cache with a gap is not read.
    async fn update_caches(&self, events: &[Dated]) {
        let (mut pipeline, mut updates) = (Pipeline::new(), Vec::new());
        for (log, epoch, events) in by_log(events) {
            let entries: Vec<&Entry> = events.iter().filter_map(|event| event.entry()).collect();
            let (first, stale) = (pipeline.len(), self.lock_stale().remove(log));
            self.recent.update(&mut pipeline, log, (&entries, epoch), stale);
            updates.push((log, first..pipeline.len()));
        }
        if pipeline.is_empty() {
            return;
        }
        let mut replies = self.link.run(Op::Publish, self.process.name(), &pipeline).await;
        for (log, mut commands) in updates {
            let written =
                replies.as_mut().is_ok_and(|replies| commands.all(|index| replies.take::<redis::Value>(index).is_ok()));
            if !written {
                self.mark_stale(log);
            }
        }
    }

    fn mark_stale(&self, log: &LogId) {
        let mut stale = self.lock_stale();
        if stale.len() < UNPUBLISHED_MAX {
            stale.insert(log.clone());
        }
    }

    fn lock_stale(&self) -> MutexGuard<'_, HashSet<LogId>> {
        self.stale.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
