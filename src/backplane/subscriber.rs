//! Receives what other nodes publish: a connection of its own, a bounded queue that marks gaps, and a canary that
//! proves that the subscription still delivers. `incoming` works on the queue.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use redis::{AsyncConnectionConfig, Pipeline, PushInfo, PushKind, Value};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    channels::Channels,
    connector::CONNECT_TIMEOUT,
    era::Era,
    hearing::Hearing,
    incoming::{Incoming, Payload},
    link::Link,
    link_error::LinkError,
    ops::Op,
    shards::Shard,
    subscription::Subscription,
    wire::Process,
};
use crate::{
    degrade::{Degrade, Work},
    metrics::Metrics,
    model::LogId,
};

/// Maximum number of payloads that wait to be parsed. Beyond it payloads are dropped and a gap is marked.
const QUEUE: usize = 8_192;
/// Maximum number of channels per SUBSCRIBE.
const PER_SUBSCRIBE: usize = 512;
/// Maximum wait for the confirmation of a SUBSCRIBE; after it the subscriber connects again.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum wait of a caller of [`Subscriber::subscribe`]. After it the subscriber is connecting again, and
/// [`BackplaneEvent::Missed`](super::BackplaneEvent::Missed) follows.
const SUBSCRIBE_WAIT: Duration = Duration::from_secs(3);
/// Interval between two canaries, and maximum time until one arrives: a dead subscription is found within 2 s.
const CANARY_EVERY: Duration = Duration::from_secs(1);
const CANARY_TIMEOUT: Duration = Duration::from_millis(750);
/// First and longest pause between two tries to connect.
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
    /// Logs whose `wanted` and `confirmed` may differ.
    changed: Vec<LogId>,
    /// True while a connection exists and applies changes.
    connected: bool,
}

/// The subscriptions of this node.
pub(super) struct Subscriber {
    link: Arc<Link>,
    metrics: Arc<Metrics>,
    process: Process,
    incoming: Incoming,
    topics: Mutex<Topics>,
    change: Notify,
    hearing: Hearing,
}

/// Signals from the push handler of one subscription.
#[derive(Default)]
struct PushSignals {
    gap: AtomicBool,
    canaries: Mutex<Canaries>,
    canary: Notify,
    broken: CancellationToken,
}

/// The canaries that were published last and did not arrive yet.
#[derive(Default)]
struct Canaries {
    /// Their number. Another one is a forgery.
    number: u64,
    /// The channels on which they are awaited.
    awaited: HashSet<String>,
}

impl PushSignals {
    /// The canaries of the next round.
    fn await_canaries(&self, awaited: HashSet<String>) -> u64 {
        let number = rand::random();
        *self.canaries() = Canaries { number, awaited };
        number
    }

    fn note_canary(&self, channel: &[u8], payload: &[u8]) {
        let mut canaries = self.canaries();
        if payload == canaries.number.to_string().as_bytes() {
            if let Ok(channel) = std::str::from_utf8(channel) {
                canaries.awaited.remove(channel);
            }
            if canaries.awaited.is_empty() {
                self.canary.notify_one();
            }
        }
    }

    fn canaries(&self) -> MutexGuard<'_, Canaries> {
        self.canaries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscriber {
    /// A subscriber without subscriptions.
    pub(super) fn new(
        link: Arc<Link>,
        metrics: Arc<Metrics>,
        process: Process,
        incoming: Incoming,
        degrade: Arc<Degrade>,
    ) -> Self {
        let hearing = Hearing::new(degrade, Work::Subscribe);
        Self { link, metrics, process, incoming, topics: Mutex::default(), change: Notify::new(), hearing }
    }

    /// Subscribes to a log and waits for the confirmation. Without Redis it returns at once; the subscription is made
    /// when Redis is back, and [`BackplaneEvent::Missed`](super::BackplaneEvent::Missed) follows.
    pub(super) async fn subscribe(&self, log: &LogId) {
        let confirmed = {
            let topics = &mut *self.topics();
            let topic = topics.topics.entry(log.clone()).or_default();
            let new = !std::mem::replace(&mut topic.wanted, true);
            if new && topics.connected {
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
        // If the connection breaks or the wait takes too long, `Missed` follows.
        let _ = timeout(SUBSCRIBE_WAIT, confirmed).await;
    }

    /// Ends a subscription.
    pub(super) fn unsubscribe(&self, log: &LogId) {
        {
            let topics = &mut *self.topics();
            let Some(topic) = topics.topics.get_mut(log).filter(|topic| topic.wanted) else { return };
            topic.wanted = false;
            if topics.connected {
                topics.changed.push(log.clone());
            } else {
                topics.topics.remove(log);
            }
        }
        self.change.notify_one();
    }

    /// Receives payloads until its task is stopped.
    pub(super) async fn run(&self, mut eras: watch::Receiver<Era>) {
        let mut pause = BACKOFF.0;
        // An earlier run may have ended by a panic.
        self.mark_disconnected();
        let mut first = true;
        loop {
            let era = *eras.borrow_and_update();
            let mut changed = eras.clone();
            if !era.up {
                self.mark_disconnected();
                self.hearing.succeeded();
                if eras.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let ended = tokio::select! {
                // In a new era Redis may have dropped this connection, or lost messages on their way.
                _ = changed.wait_for(|now| now.number != era.number || !now.up) => Ok(()),
                ended = self.run_connection(&mut first, &mut pause) => ended,
            };
            self.mark_disconnected();
            if let Err(error) = ended {
                // The fault that lasts is logged once, with its name.
                tracing::debug!(%error, "the subscription to Redis broke; subscribing anew");
                self.metrics.subscriptions_broken.inc();
                self.hearing.failed(&error, self.hearing.last_success());
                sleep(pause.mul_f64(rand::random_range(0.8..1.2))).await;
                pause = (pause * 2).min(BACKOFF.1);
            }
        }
    }

    /// Connects, subscribes and receives until the connection fails.
    async fn run_connection(&self, first: &mut bool, pause: &mut Duration) -> Result<(), LinkError> {
        let (sender, payloads) = mpsc::channel(QUEUE);
        let signals = Arc::new(PushSignals::default());
        let channels = self.link.keys().channels().ok_or(LinkError::Down)?;
        let connect = self.connect(channels, sender, signals.clone());
        let mut subscription = timeout(CONNECT_TIMEOUT * 2, connect).await.unwrap_or(Err(LinkError::Timeout))?;
        let wanted = self.mark_connected();
        for logs in wanted.chunks(PER_SUBSCRIBE) {
            self.sync_subscriptions(channels, &mut subscription, logs).await?;
        }
        // On the first connection nothing can have been missed, unless logs are already followed.
        if !std::mem::take(first) || !wanted.is_empty() {
            self.incoming.notify_missed().await;
        }
        *pause = BACKOFF.0;
        tokio::select! {
            ended = self.apply_changes(channels, subscription.clone()) => ended,
            ended = self.run_canary(channels, &subscription, &signals) => ended,
            () = self.incoming.forward(channels, payloads, &signals.gap) => Ok(()),
            () = signals.broken.cancelled() => Err(LinkError::Broken("closed by Redis".to_owned())),
        }
    }

    async fn connect(
        &self,
        channels: Channels,
        payloads: mpsc::Sender<Payload>,
        signals: Arc<PushSignals>,
    ) -> Result<Subscription, LinkError> {
        let canaries: HashSet<String> =
            self.link.keys().shards().map(|shard| channels.canary(shard, self.process.name())).collect();
        let mut first: Vec<String> = canaries.iter().cloned().collect();
        first.push(channels.hints(self.process.node()));
        let (process, metrics) = (self.process.clone(), self.metrics.clone());
        let push = move |info: PushInfo| -> Result<(), redis::aio::SendError> {
            match info.kind {
                PushKind::Disconnection => signals.broken.cancel(),
                PushKind::Message | PushKind::SMessage => {
                    let mut data = info.data.into_iter();
                    let (Some(Value::BulkString(channel)), Some(Value::BulkString(payload))) =
                        (data.next(), data.next())
                    else {
                        return Ok(());
                    };
                    let ours = |channel: &[u8]| std::str::from_utf8(channel).is_ok_and(|name| canaries.contains(name));
                    if channel.ends_with(process.name().as_bytes()) && ours(&channel) {
                        signals.note_canary(&channel, &payload);
                    } else if !process.is_own(&payload) {
                        signals.gap.fetch_or(payloads.try_send((channel, payload)).is_err(), Ordering::AcqRel);
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
            .set_response_timeout(Some(CONFIRM_TIMEOUT));
        let target = self.link.target().ok_or(LinkError::Down)?;
        let mut subscription = Subscription::open(target, config, push).await?;
        subscription.subscribe(first).await?;
        Ok(subscription)
    }

    /// Records that a connection exists, which applies changes. Returns the logs to subscribe to first.
    fn mark_connected(&self) -> Vec<LogId> {
        let topics = &mut *self.topics();
        topics.connected = true;
        topics.changed.clear();
        topics.topics.keys().cloned().collect()
    }

    /// Records that there is no connection, and releases all callers that wait for a confirmation.
    fn mark_disconnected(&self) {
        let topics = &mut *self.topics();
        topics.connected = false;
        topics.changed.clear();
        topics.topics.retain(|_, topic| topic.wanted);
        for topic in topics.topics.values_mut() {
            topic.confirmed = false;
            topic.waiting = Vec::new();
        }
    }

    /// Applies changes of `wanted` to the connection.
    async fn apply_changes(&self, channels: Channels, mut subscription: Subscription) -> Result<(), LinkError> {
        loop {
            let changed = {
                let topics = &mut *self.topics();
                let count = topics.changed.len().min(PER_SUBSCRIBE);
                topics.changed.drain(..count).collect::<Vec<_>>()
            };
            if changed.is_empty() {
                self.change.notified().await;
            } else {
                self.sync_subscriptions(channels, &mut subscription, &changed).await?;
            }
        }
    }

    async fn sync_subscriptions(
        &self,
        channels: Channels,
        subscription: &mut Subscription,
        logs: &[LogId],
    ) -> Result<(), LinkError> {
        let (mut to_subscribe, mut to_unsubscribe) = (Vec::new(), Vec::new());
        {
            let topics = &mut *self.topics();
            for log in logs {
                match topics.topics.get_mut(log) {
                    Some(Topic { wanted: true, confirmed: false, .. }) => to_subscribe.push(log),
                    Some(topic @ Topic { wanted: false, confirmed: true, .. }) => {
                        // Clear it before the UNSUBSCRIBE, so that a new subscriber waits for a new confirmation.
                        topic.confirmed = false;
                        to_unsubscribe.push(log);
                    }
                    Some(_) | None => {}
                }
            }
        }
        if !to_subscribe.is_empty() {
            subscription.subscribe(names(channels, &to_subscribe)).await?;
        }
        if !to_unsubscribe.is_empty() {
            subscription.unsubscribe(names(channels, &to_unsubscribe)).await?;
        }
        let topics = &mut *self.topics();
        for log in to_subscribe {
            if let Some(topic) = topics.topics.get_mut(log) {
                topic.confirmed = true;
                for waiting in std::mem::take(&mut topic.waiting) {
                    // A send fails only when the caller no longer waits.
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

    /// Publishes a canary at each interval and waits until it arrives; of a cluster, one over each master.
    async fn run_canary(
        &self,
        channels: Channels,
        subscription: &Subscription,
        signals: &PushSignals,
    ) -> Result<(), LinkError> {
        for turn in 0.. {
            sleep(CANARY_EVERY).await;
            let shards: Vec<Shard> = subscription.represent(turn);
            let names: Vec<String> = shards.iter().map(|shard| channels.canary(*shard, self.process.name())).collect();
            let number = signals.await_canaries(names.iter().cloned().collect());
            let mut pipeline = Pipeline::new();
            for name in &names {
                channels.publish(&mut pipeline, name).arg(number);
            }
            // A call that failed is a fault of the command link, which the watchdog handles; an error reply is not.
            if let Ok(mut replies) = self.link.run(Op::Canary, self.process.name(), &pipeline).await {
                (0..names.len()).try_for_each(|index| replies.take::<i64>(index).map(drop))?;
                timeout(CANARY_TIMEOUT, signals.canary.notified()).await.map_err(|_| LinkError::Timeout)?;
                self.hearing.succeeded();
            }
        }
        Ok(())
    }

    fn topics(&self) -> MutexGuard<'_, Topics> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn names(channels: Channels, logs: &[&LogId]) -> Vec<String> {
    logs.iter().map(|log| channels.log(log)).collect()
}
