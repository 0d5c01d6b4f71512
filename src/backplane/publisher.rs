//! Tells other nodes what happened, and the recent cache which messages came: one task, many logs in one pipeline.
//!
//! What can't be published is owed: the newest entry of each log is kept and published when Redis is back, so that
//! other nodes see the gap and fetch what lies before it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use redis::Pipeline;
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{
    era::Era,
    keys,
    link::{Link, LinkError},
    ops::Op,
    recent::Recent,
    wire::{EVENTS_PER_PAYLOAD, Process},
};
use crate::{
    metrics::Metrics,
    model::{Entry, Event, LogId, Seq},
};

/// Batches of events that may wait for the task.
const QUEUE: usize = 8_192;
/// Batches of events in one pipeline.
const PER_PIPELINE: usize = 256;
/// Between two tries while Redis is silent but not yet known to be down, and how many there are.
const RETRY_EVERY: Duration = Duration::from_millis(50);
const TRIES: usize = 40;
/// Logs whose newest entry is owed.
const OWED_MAX: usize = 65_536;

/// The publisher's near end.
pub(super) struct Publisher {
    link: Arc<Link>,
    metrics: Arc<Metrics>,
    queue: mpsc::Sender<Vec<Event>>,
    owed: Mutex<HashMap<LogId, Arc<Entry>>>,
}

/// The publisher's far end: what its task needs.
pub(super) struct Pump {
    publisher: Arc<Publisher>,
    recent: Arc<Recent>,
    process: Process,
    queue: mpsc::Receiver<Vec<Event>>,
}

impl Publisher {
    /// Both ends.
    pub(super) fn new(
        link: Arc<Link>,
        metrics: Arc<Metrics>,
        recent: Arc<Recent>,
        process: Process,
    ) -> (Arc<Self>, Pump) {
        let (sender, queue) = mpsc::channel(QUEUE);
        let publisher = Arc::new(Self { link, metrics, queue: sender, owed: Mutex::default() });
        (publisher.clone(), Pump { publisher, recent, process, queue })
    }

    /// Takes events to be published. Never blocks.
    pub(super) fn publish(&self, events: Vec<Event>) {
        if self.link.client().is_none() || events.is_empty() {
            return;
        }
        if let Err(mpsc::error::TrySendError::Full(events) | mpsc::error::TrySendError::Closed(events)) =
            self.queue.try_send(events)
        {
            self.owe(&events);
        }
        self.show_queue();
    }

    /// Logs whose newest entry other nodes were not told, and its seq.
    pub(super) fn unpublished(&self) -> Vec<(LogId, Seq)> {
        self.owed().iter().map(|(log, entry)| (log.clone(), entry.seq)).collect()
    }

    fn owe(&self, events: &[Event]) {
        self.metrics.bus_out_dropped.inc_by(events.len() as u64);
        let mut owed = self.owed();
        for event in events {
            let Event::Entry { entry, .. } = event else { continue };
            let known = owed.get(&entry.log).map(|newest| newest.seq);
            if known.is_some_and(|newest| newest < entry.seq) || known.is_none() && owed.len() < OWED_MAX {
                owed.insert(entry.log.clone(), entry.clone());
            }
        }
    }

    fn take_owed(&self) -> Vec<Event> {
        let mut owed = self.owed();
        let some: Vec<_> = owed.keys().take(PER_PIPELINE).cloned().collect();
        let entries = some.iter().filter_map(|log| owed.remove(log));
        entries.map(|entry| Event::Entry { entry, origin: None }).collect()
    }

    fn owed(&self) -> MutexGuard<'_, HashMap<LogId, Arc<Entry>>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show_queue(&self) {
        let waiting = self.queue.max_capacity() - self.queue.capacity();
        self.metrics.bus_out_queue.set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }
}

impl Pump {
    /// Publishes until stopped, and then what still waits.
    pub(super) async fn run(mut self, mut eras: watch::Receiver<Era>, stop: CancellationToken) {
        let mut batches = Vec::with_capacity(PER_PIPELINE);
        loop {
            tokio::select! {
                biased;
                _ = self.queue.recv_many(&mut batches, PER_PIPELINE) => {}
                () = stop.cancelled() => return,
                _ = eras.changed() => {}
            }
            self.publisher.show_queue();
            let events: Vec<Event> = batches.drain(..).flatten().collect();
            if self.send(&events, &eras).await.is_err() {
                self.publisher.owe(&events);
            } else if eras.borrow().up {
                self.settle(&eras).await;
            }
        }
    }

    /// Publishes what is owed.
    async fn settle(&self, eras: &watch::Receiver<Era>) {
        loop {
            let events = self.publisher.take_owed();
            if events.is_empty() {
                return;
            }
            if self.send(&events, eras).await.is_err() {
                self.publisher.owe(&events);
                return;
            }
        }
    }

    /// Publishes, trying again for as long as Redis is not known to be down.
    async fn send(&self, events: &[Event], eras: &watch::Receiver<Era>) -> Result<(), LinkError> {
        let mut result = Ok(());
        for again in 0..TRIES {
            if events.is_empty() {
                return Ok(());
            }
            if !eras.borrow().up {
                return Err(LinkError::Down);
            }
            result = self.try_send(events, again > 0).await;
            if result.is_ok() {
                return Ok(());
            }
            sleep(RETRY_EVERY).await;
        }
        result
    }

    async fn try_send(&self, events: &[Event], again: bool) -> Result<(), LinkError> {
        let mut pipeline = Pipeline::new();
        let mut publications = Vec::new();
        for (log, events) in by_log(events) {
            let entries = events.iter().filter_map(|event| match event {
                Event::Entry { entry, .. } => Some(&**entry),
                Event::Ephemeral { .. } => None,
            });
            self.recent.note(&mut pipeline, log, &entries.collect::<Vec<_>>(), again);
            for events in events.chunks(EVENTS_PER_PAYLOAD) {
                publications.push(pipeline.len());
                pipeline.cmd("PUBLISH").arg(keys::channel(log)).arg(self.process.encode(events));
            }
        }
        // One route: what one node publishes reaches Redis in the order in which it was handed over.
        let mut replies = self.publisher.link.run(Op::Publish, self.process.name(), &pipeline).await?;
        publications.into_iter().try_for_each(|index| replies.take::<i64>(index).map(|_| ()))
    }
}

/// Groups events by log, each group in order.
fn by_log(events: &[Event]) -> Vec<(&LogId, Vec<&Event>)> {
    let (mut groups, mut index) = (Vec::<(&LogId, Vec<&Event>)>::new(), HashMap::new());
    for event in events {
        let at = *index.entry(event.log()).or_insert_with(|| {
            groups.push((event.log(), Vec::new()));
            groups.len() - 1
        });
        groups[at].1.push(event);
    }
    groups
}
