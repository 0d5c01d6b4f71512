//! Hears what other nodes publish: a connection of its own, a bounded queue with a gap mark, and a canary that proves
//! that it still hears.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use redis::{AsyncConnectionConfig, Pipeline, PushInfo, PushKind, Value, aio::MultiplexedConnection};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    era::Era,
    keys,
    link::{CONNECT_TIMEOUT, Link, LinkError},
    ops::Op,
    types::Notice,
    wire::{self, Process},
};
use crate::{
    metrics::Metrics,
    model::{Event, LogId},
};

/// Payloads that may wait to be parsed; beyond that there is a gap.
const QUEUE: usize = 8_192;
/// Payloads taken at one wake-up.
const PER_WAKE_UP: usize = 256;
/// Channels per SUBSCRIBE.
const PER_SUBSCRIBE: usize = 512;
/// The longest wait for the confirmation of a SUBSCRIBE; then the connection is made anew.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest that somebody who subscribes is kept waiting: past it the connection is being made anew, and
/// [`Notice::Missed`] follows.
const SUBSCRIBE_WAIT: Duration = Duration::from_secs(3);
/// Between two canaries, and the longest one may be on its way: a subscription that has died is found within 2 s.
const CANARY_EVERY: Duration = Duration::from_secs(1);
const CANARY_TIMEOUT: Duration = Duration::from_millis(750);
/// The first and the longest pause between two tries to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

#[derive(Debug, Default)]
struct Topic {
    wanted: bool,
    confirmed: bool,
    waiting: Vec<oneshot::Sender<()>>,
}

#[derive(Debug, Default)]
struct Topics {
    topics: HashMap<LogId, Topic>,
    /// Those in which `wanted` and `confirmed` may differ.
    changed: Vec<LogId>,
    /// A connection is there, and told of changes.
    live: bool,
}

/// What is subscribed to.
pub(super) struct Subscriber {
    link: Arc<Link>,
    metrics: Arc<Metrics>,
    process: Process,
    notices: mpsc::Sender<Notice>,
    topics: Mutex<Topics>,
    change: Notify,
}

/// What one connection hands over.
#[derive(Default)]
struct Ear {
    gap: AtomicBool,
    canary: Notify,
    broken: CancellationToken,
}

type Payload = (Vec<u8>, Vec<u8>);

impl Subscriber {
    /// Subscribed to nothing.
    pub(super) fn new(link: Arc<Link>, metrics: Arc<Metrics>, process: Process, notices: mpsc::Sender<Notice>) -> Self {
        Self { link, metrics, process, notices, topics: Mutex::default(), change: Notify::new() }
    }

    /// Subscribes to a log and waits for the confirmation. Without Redis it returns at once: then the log is subscribed
    /// to as soon as there is one, and [`Notice::Missed`] follows.
    pub(super) async fn subscribe(&self, log: &LogId) {
        let confirmed = {
            let topics = &mut *self.topics();
            let topic = topics.topics.entry(log.clone()).or_default();
            let new = !std::mem::replace(&mut topic.wanted, true);
            if new && topics.live {
                topics.changed.push(log.clone());
            }
            if topic.confirmed || !self.link.is_open() {
                return;
            }
            let (sender, confirmed) = oneshot::channel();
            topic.waiting.push(sender);
            confirmed
        };
        self.change.notify_one();
        // Confirmed, or the connection broke, or it takes too long: in the latter two `Missed` follows.
        let _ = timeout(SUBSCRIBE_WAIT, confirmed).await;
    }

    /// Ends a subscription.
    pub(super) fn unsubscribe(&self, log: &LogId) {
        {
            let topics = &mut *self.topics();
            let Some(topic) = topics.topics.get_mut(log).filter(|topic| topic.wanted) else { return };
            topic.wanted = false;
            if topics.live {
                topics.changed.push(log.clone());
            } else {
                topics.topics.remove(log);
            }
        }
        self.change.notify_one();
    }

    /// Hears until stopped.
    pub(super) async fn run(self: Arc<Self>, mut eras: watch::Receiver<Era>, stop: CancellationToken) {
        let mut pause = BACKOFF.0;
        let mut first = true;
        loop {
            let era = *eras.borrow_and_update();
            let mut changed = eras.clone();
            if !era.up {
                self.dead();
                tokio::select! {
                    () = stop.cancelled() => return,
                    gone = eras.changed() => if gone.is_err() { return },
                }
                continue;
            }
            let ended = tokio::select! {
                () = stop.cancelled() => return,
                // A new era: Redis may have forgotten this connection, or lost what was on its way.
                _ = changed.wait_for(|now| now.number != era.number || !now.up) => Ok(()),
                ended = self.hear(&mut first, &mut pause) => ended,
            };
            self.dead();
            if let Err(error) = ended {
                tracing::warn!(%error, "the subscription to Redis broke; subscribing anew");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = sleep(pause.mul_f64(rand::random_range(0.8..1.2))) => {}
                }
                pause = (pause * 2).min(BACKOFF.1);
            }
        }
    }

    /// One connection's life.
    async fn hear(&self, first: &mut bool, pause: &mut Duration) -> Result<(), LinkError> {
        let (sender, payloads) = mpsc::channel(QUEUE);
        let ear = Arc::new(Ear::default());
        let connect = self.connect(sender, ear.clone());
        let mut connection = timeout(CONNECT_TIMEOUT * 2, connect).await.unwrap_or(Err(LinkError::Timeout))?;
        let wanted = self.alive();
        for logs in wanted.chunks(PER_SUBSCRIBE) {
            self.settle(&mut connection, logs).await?;
        }
        // Before the first one nobody can have missed anything, unless they already followed something.
        if !std::mem::take(first) || !wanted.is_empty() {
            self.missed().await;
        }
        *pause = BACKOFF.0;
        tokio::select! {
            ended = self.tend(connection) => ended,
            ended = self.sing(&ear) => ended,
            () = self.pass_on(payloads, &ear) => Ok(()),
            () = ear.broken.cancelled() => Err(LinkError::Broken("closed by Redis".to_owned())),
        }
    }

    async fn connect(
        &self,
        payloads: mpsc::Sender<Payload>,
        ear: Arc<Ear>,
    ) -> Result<MultiplexedConnection, LinkError> {
        let client = self.link.client().ok_or(LinkError::Down)?;
        let canary = keys::canary(self.process.name());
        let (process, metrics, listening) = (self.process.clone(), self.metrics.clone(), canary.clone());
        let push = move |info: PushInfo| -> Result<(), redis::aio::SendError> {
            match info.kind {
                PushKind::Disconnection => ear.broken.cancel(),
                PushKind::Message => {
                    let mut data = info.data.into_iter();
                    let (Some(Value::BulkString(channel)), Some(Value::BulkString(payload))) =
                        (data.next(), data.next())
                    else {
                        return Ok(());
                    };
                    if channel == listening.as_bytes() {
                        ear.canary.notify_one();
                    } else if !process.sent(&payload) {
                        ear.gap.fetch_or(payloads.try_send((channel, payload)).is_err(), Ordering::AcqRel);
                        let waiting = payloads.max_capacity() - payloads.capacity();
                        metrics.bus_in_queue.set(i64::try_from(waiting).unwrap_or(i64::MAX));
                    }
                }
                _ => {}
            }
            Ok(())
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(CONFIRM_TIMEOUT))
            .set_push_sender(push);
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        connection.subscribe(canary).await?;
        Ok(connection)
    }

    /// From here on changes are tended to. Returns what is to be subscribed to first.
    fn alive(&self) -> Vec<LogId> {
        let topics = &mut *self.topics();
        topics.live = true;
        topics.changed.clear();
        topics.topics.keys().cloned().collect()
    }

    /// From here on nobody waits for confirmations.
    fn dead(&self) {
        let topics = &mut *self.topics();
        topics.live = false;
        topics.changed.clear();
        topics.topics.retain(|_, topic| topic.wanted);
        for topic in topics.topics.values_mut() {
            topic.confirmed = false;
            topic.waiting.clear();
        }
    }

    /// Subscribes to and unsubscribes from what changed.
    async fn tend(&self, mut connection: MultiplexedConnection) -> Result<(), LinkError> {
        loop {
            let changed = {
                let topics = &mut *self.topics();
                let count = topics.changed.len().min(PER_SUBSCRIBE);
                topics.changed.drain(..count).collect::<Vec<_>>()
            };
            if changed.is_empty() {
                self.change.notified().await;
            } else {
                self.settle(&mut connection, &changed).await?;
            }
        }
    }

    async fn settle(&self, connection: &mut MultiplexedConnection, logs: &[LogId]) -> Result<(), LinkError> {
        let (mut come, mut go) = (Vec::new(), Vec::new());
        {
            let topics = &mut *self.topics();
            for log in logs {
                match topics.topics.get_mut(log) {
                    Some(Topic { wanted: true, confirmed: false, .. }) => come.push(log),
                    Some(topic @ Topic { wanted: false, confirmed: true, .. }) => {
                        // At once: whoever subscribes from now on has to wait for a new confirmation.
                        topic.confirmed = false;
                        go.push(log);
                    }
                    Some(_) | None => {}
                }
            }
        }
        if !come.is_empty() {
            connection.subscribe(channels(&come)).await?;
        }
        if !go.is_empty() {
            connection.unsubscribe(channels(&go)).await?;
        }
        let topics = &mut *self.topics();
        for log in come {
            if let Some(topic) = topics.topics.get_mut(log) {
                topic.confirmed = true;
                for waiting in topic.waiting.drain(..) {
                    // Whoever gave up waiting needs no answer.
                    let _ = waiting.send(());
                }
            }
        }
        for log in logs {
            if topics.topics.get(log).is_some_and(|topic| !topic.wanted && !topic.confirmed) {
                topics.topics.remove(log);
            }
        }
        Ok(())
    }

    /// Publishes to itself and waits to hear it.
    async fn sing(&self, ear: &Ear) -> Result<(), LinkError> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("PUBLISH").arg(keys::canary(self.process.name())).arg("");
        loop {
            sleep(CANARY_EVERY).await;
            // Where that fails it is the other link's trouble.
            if self.link.run(Op::Canary, self.process.name(), &pipeline).await.is_ok() {
                timeout(CANARY_TIMEOUT, ear.canary.notified()).await.map_err(|_| LinkError::Timeout)?;
            }
        }
    }

    /// Parses and hands over what was heard.
    async fn pass_on(&self, mut payloads: mpsc::Receiver<Payload>, ear: &Ear) {
        let mut batch = Vec::with_capacity(PER_WAKE_UP);
        while payloads.recv_many(&mut batch, PER_WAKE_UP).await > 0 {
            self.metrics.bus_in_queue.set(i64::try_from(payloads.len()).unwrap_or(i64::MAX));
            for events in self.by_channel(batch.drain(..)) {
                // Nobody listens any more where the node has ended.
                let _ = self.notices.send(Notice::Events(events)).await;
            }
            if ear.gap.swap(false, Ordering::AcqRel) {
                self.missed().await;
            }
        }
    }

    fn by_channel(&self, payloads: impl Iterator<Item = Payload>) -> Vec<Vec<Event>> {
        let (mut groups, mut index) = (Vec::<Vec<Event>>::new(), HashMap::new());
        for (channel, payload) in payloads {
            match wire::decode(&payload) {
                Ok(events) => {
                    let at = *index.entry(channel).or_insert_with(|| {
                        groups.push(Vec::new());
                        groups.len() - 1
                    });
                    groups[at].extend(events);
                }
                Err(error) => {
                    self.metrics.bus_in_unreadable.inc();
                    tracing::debug!(%error, "a payload that is no events");
                }
            }
        }
        groups
    }

    async fn missed(&self) {
        self.metrics.bus_missed.inc();
        let _ = self.notices.send(Notice::Missed).await;
    }

    fn topics(&self) -> MutexGuard<'_, Topics> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn channels(logs: &[&LogId]) -> Vec<String> {
    logs.iter().map(|log| keys::channel(log)).collect()
}
