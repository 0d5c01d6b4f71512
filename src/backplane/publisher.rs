//! Publishes events to other nodes and adds messages to the recent-message cache. One task sends many logs in one
//! pipeline.
//!
//! For events that can't be published, the newest entry of each log is kept and published when Redis is back. Other
//! nodes then see the gap and backfill it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use redis::Pipeline;
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use super::{
    era::Era,
    hearing::Hearing,
    link::Link,
    link_error::LinkError,
    mac::Macs,
    ops::Op,
    recent::Recent,
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

/// An event, and the epoch of the store in which it happened.
#[derive(Debug)]
struct Dated {
    epoch: i64,
    event: Event,
}

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
    recent: Arc<Recent>,
    process: Process,
    macs: Arc<Macs>,
    queue: mpsc::Receiver<Vec<Dated>>,
    hearing: Hearing,
}

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
        let publisher =
            Arc::new(Self { link, metrics, queue: sender, macs: macs.clone(), unpublished: Mutex::default() });
        (publisher.clone(), PublishTask { publisher, recent, process, macs, queue, hearing })
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

    fn take_unpublished(&self) -> Vec<Dated> {
        let mut unpublished = self.lock_unpublished();
        let some: Vec<_> = unpublished.keys().take(PER_PIPELINE).cloned().collect();
        let entries = some.iter().filter_map(|log| unpublished.remove(log));
        entries.map(|(epoch, entry)| Dated { epoch, event: Event::Entry { entry, origin: None } }).collect()
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
    pub(super) async fn run(&mut self, eras: &mut watch::Receiver<Era>, supervisor: &Supervisor) {
        let stop = supervisor.stop();
        let mut batches = Vec::with_capacity(PER_PIPELINE);
        loop {
            tokio::select! {
                biased;
                _ = self.queue.recv_many(&mut batches, PER_PIPELINE) => {}
                () = stop.cancelled() => return,
                _ = eras.changed() => {}
                () = sleep(REPEAT_EVERY), if self.hearing.is_dead() => {}
            }
            self.publisher.update_queue_gauge();
            let events: Vec<Dated> = batches.drain(..).flatten().collect();
            let began = Instant::now();
            let sent = supervisor.guard(TaskName::Publisher, self.send(&events, eras, false)).await;
            let sent = match sent {
                Some(Ok(())) if eras.borrow().up => self.publish_kept(eras).await,
                Some(Ok(())) => continue,
                Some(Err(error)) => {
                    self.publisher.keep_newest(&events);
                    Err(error)
                }
                None => {
                    self.publisher.keep_newest(&events);
                    continue;
                }
            };
            match sent {
                Ok(()) => self.hearing.succeeded(),
                Err(error) if eras.borrow().up => self.hearing.failed(&error, began),
                Err(_) => self.hearing.succeeded(),
            }
        }
    }

    /// Publishes the kept entries. Only the newest entry of each log was kept, so the log's cache is dropped first: an edit
    /// or a deletion before that entry may have changed a cached message.
    async fn publish_kept(&self, eras: &watch::Receiver<Era>) -> Result<(), LinkError> {
        loop {
            let events = self.publisher.take_unpublished();
            if events.is_empty() {
                return Ok(());
            }
            if let Err(error) = self.send(&events, eras, true).await {
                self.publisher.keep_newest(&events);
                return Err(error);
            }
        }
    }

    /// Publishes events, and tries again while Redis is not known to be down. `incomplete`: earlier entries of these logs
    /// did not reach the caches.
    async fn send(&self, events: &[Dated], eras: &watch::Receiver<Era>, incomplete: bool) -> Result<(), LinkError> {
        let mut result = Ok(());
        for attempt in 0..TRIES {
            if events.is_empty() {
                return Ok(());
            }
            if !eras.borrow().up || !self.macs.has_keys() {
                return Err(LinkError::Down);
            }
            result = self.try_send(events, incomplete || attempt > 0).await;
            if result.is_ok() {
                return Ok(());
            }
            sleep(RETRY_EVERY).await;
        }
        result
    }

    async fn try_send(&self, events: &[Dated], repeat: bool) -> Result<(), LinkError> {
        checkpoint(TaskName::Publisher, || format!("{events:?}"));
        let mut pipeline = Pipeline::new();
        let mut publications = Vec::new();
        let channels = self.publisher.link.keys().channels().ok_or(LinkError::Down)?;
        for (log, epoch, events) in by_log(events) {
            let entries: Vec<&Entry> = events.iter().filter_map(|event| event.entry()).collect();
            self.recent.update(&mut pipeline, log, (&entries, epoch), repeat);
            for events in events.chunks(EVENTS_PER_PAYLOAD) {
                let channel = channels.log(log);
                // The keys are known before the first client can send.
                let payload = self.process.encode(epoch, events, &channel, &self.macs).ok_or(LinkError::Down)?;
                publications.push(pipeline.len());
                channels.publish(&mut pipeline, &channel).arg(payload);
            }
        }
        // One route for all: a node's events must reach Redis in the order in which they were queued.
        let mut replies = self.publisher.link.run(Op::Publish, self.process.name(), &pipeline).await?;
        publications.into_iter().try_for_each(|index| replies.take::<i64>(index).map(|_| ()))
    }
}

/// Groups events by log and epoch, each group in order.
fn by_log(events: &[Dated]) -> Vec<(&LogId, i64, Vec<&Event>)> {
    let (mut groups, mut index) = (Vec::<(&LogId, i64, Vec<&Event>)>::new(), HashMap::new());
    for Dated { epoch, event } in events {
        let at = *index.entry((event.log(), *epoch)).or_insert_with(|| {
            groups.push((event.log(), *epoch, Vec::new()));
            groups.len() - 1
        });
        groups[at].2.push(event);
    }
    groups
}
