//! The queue of received payloads: verifies each once for the whole node, parses it, and passes its events on.
//!
//! A payload without the signature of a node of this deployment is refused. Its sender may be a node with other keys, so this
//! node compares the log with the store. An ephemeral event has no number by which a repetition could be noticed; therefore one
//! that was signed long ago is refused too.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{
    channels::Channels,
    mac::Macs,
    refusals::{Refusals, RefusedPlace},
    types::{BackplaneEvent, Hint},
    wire,
};
use crate::{
    metrics::Metrics,
    model::{Clock, Event, LogId, NodeId},
    supervise::{Supervisor, TaskName, checkpoint},
};

/// Maximum number of events that wait until the node takes them.
pub(super) const EVENTS: usize = 1_024;

/// Maximum number of payloads parsed per wake-up.
const PER_WAKE_UP: usize = 256;
/// Interval between two reports of logs with refused payloads, so that refusals cost few reads of the store.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Maximum age of an ephemeral event. It covers the difference between two nodes' clocks.
const EPHEMERAL_AGE_MAX: Duration = Duration::from_secs(60);

/// A channel and a payload.
pub(super) type Payload = (Vec<u8>, Vec<u8>);

/// Works on received payloads.
pub(super) struct Incoming {
    pub(super) node: NodeId,
    pub(super) macs: Arc<Macs>,
    pub(super) refusals: Arc<Refusals>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Clock,
    pub(super) supervisor: Supervisor,
    pub(super) events: mpsc::Sender<BackplaneEvent>,
}

impl Incoming {
    /// Passes the events of payloads that were received on these channels on to the node, and reports `gap`, until the queue
    /// is closed.
    pub(super) async fn forward(&self, channels: Channels, mut payloads: mpsc::Receiver<Payload>, gap: &AtomicBool) {
        let hints_channel = channels.hints(&self.node);
        let mut batch = Vec::with_capacity(PER_WAKE_UP);
        let (mut doubtful, mut report_at) = (HashSet::new(), Instant::now());
        loop {
            tokio::select! {
                received = payloads.recv_many(&mut batch, PER_WAKE_UP) => if received == 0 { return },
                () = sleep_until(report_at), if !doubtful.is_empty() => {}
            }
            self.metrics.bus_in_queue.set(i64::try_from(payloads.len()).unwrap_or(i64::MAX));
            let (hinted, published): (Vec<_>, Vec<_>) =
                batch.drain(..).partition(|(channel, _)| *channel == hints_channel.as_bytes());
            for (channel, payload) in hinted {
                if let Some(hints) = self.read_hints(&payload, &channel) {
                    let _ = self.events.send(BackplaneEvent::Hints(hints)).await;
                }
            }
            for events in self.by_channel(channels, published.into_iter(), &mut doubtful) {
                // A send fails only when the node has ended.
                let _ = self.events.send(BackplaneEvent::Events(events)).await;
            }
            if !doubtful.is_empty() && report_at <= Instant::now() {
                report_at = Instant::now() + REPORT_EVERY;
                let _ = self.events.send(BackplaneEvent::Doubtful(doubtful.drain().collect())).await;
            }
            if gap.swap(false, Ordering::AcqRel) {
                self.notify_missed().await;
            }
        }
    }

    /// Reports that events may have been missed.
    pub(super) async fn notify_missed(&self) {
        self.metrics.bus_missed.inc();
        let _ = self.events.send(BackplaneEvent::Missed).await;
    }

    /// The events of genuine payloads, grouped by channel. Adds the logs of the others to `doubtful`.
    fn by_channel(
        &self,
        channels: Channels,
        payloads: impl Iterator<Item = Payload>,
        doubtful: &mut HashSet<LogId>,
    ) -> Vec<Vec<Event>> {
        let (mut groups, mut index) = (Vec::<Vec<Event>>::new(), HashMap::new());
        for (channel, payload) in payloads {
            if !wire::is_genuine(&payload, &channel, &self.macs) {
                let channel = String::from_utf8_lossy(&channel);
                self.refusals.note(RefusedPlace::Publication, &channel, 1);
                doubtful.extend(channels.log_of(&channel));
                continue;
            }
            let Some((epoch, mut events)) = self.read(&payload, &channel) else {
                self.metrics.bus_in_unreadable.inc();
                continue;
            };
            if epoch.is_some_and(|epoch| epoch != self.macs.epoch()) {
                // The store was set back, and one of the two nodes does not know it yet: only the store tells what is stored.
                let entries = events.extract_if(.., |event| event.entry().is_some());
                doubtful.extend(entries.map(|event| event.log().clone()));
            }
            let at = *index.entry(channel).or_insert_with(|| {
                groups.push(Vec::new());
                groups.len() - 1
            });
            groups[at].extend(events);
        }
        groups
    }

    /// The hints of a payload; `None` if no node of this deployment made it, or if it can't be parsed.
    fn read_hints(&self, payload: &[u8], channel: &[u8]) -> Option<Vec<Hint>> {
        if !wire::is_genuine(payload, channel, &self.macs) {
            self.refusals.note(RefusedPlace::Publication, &String::from_utf8_lossy(channel), 1);
            return None;
        }
        let hints = self.supervisor.catch(TaskName::Subscriber, || wire::decode_hints(payload).ok()).flatten();
        if hints.is_none() {
            self.metrics.bus_in_unreadable.inc();
        }
        hints
    }

    /// The epoch and the events of a genuine payload; `None` if a node of another version made it, or if it panics.
    fn read(&self, payload: &[u8], channel: &[u8]) -> Option<(Option<i64>, Vec<Event>)> {
        let decoded = self.supervisor.catch(TaskName::Subscriber, || {
            checkpoint(TaskName::Subscriber, || String::from_utf8_lossy(payload).into_owned());
            wire::decode(payload)
        })?;
        let logged = decoded.inspect_err(|error| tracing::debug!(%error, "a payload could not be parsed as events"));
        let ((epoch, mut events), now) = (logged.ok()?, self.clock.now());
        let received = events.len();
        events.retain(|event| match event {
            Event::Entry { .. } => true,
            Event::Ephemeral { ephemeral, .. } => now.since(ephemeral.at) <= EPHEMERAL_AGE_MAX,
        });
        if events.len() < received {
            self.refusals.note(RefusedPlace::Late, &String::from_utf8_lossy(channel), received - events.len());
        }
        Some((epoch, events))
    }
}
