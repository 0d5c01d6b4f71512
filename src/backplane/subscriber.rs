//! Receives what other nodes publish: a connection of its own, a bounded queue that marks gaps, and a canary that
//! proves that the subscription still delivers. `incoming` works on the queue. On a cluster there is one connection to each master,
//! and each breaks and comes back alone.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use redis::{AsyncConnectionConfig, Pipeline, PushInfo, PushKind, Value};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{sleep, timeout},
};

use super::{
    channels::Channels,
    connector::CONNECT_TIMEOUT,
    era::Eras,
    hearing::Hearing,
    incoming::{Incoming, Payload},
    link::Link,
    link_error::LinkError,
    ops::Op,
    push_signals::PushSignals,
    shards::Shard,
    subscription::Subscription,
    topics::{Place, Topics},
    wire::Process,
};
use crate::{
    config::HostPort,
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

/// The subscriptions of this node.
pub(super) struct Subscriber {
    link: Arc<Link>,
    metrics: Arc<Metrics>,
    process: Process,
    incoming: Incoming,
    topics: Mutex<Topics>,
    change: Notify,
    hearing: Hearing,
    /// The connections that fail although their server answers.
    failing: Mutex<HashSet<Place>>,
}

/// The state on which a connection depends. If it changes, the connection is made anew: in a new era Redis may have dropped it, or lost
/// messages on their way, and the slot of a channel may have another master.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Basis {
    era: u64,
    /// The shards of the master, a bit for each.
    shards: u64,
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
        let (topics, failing) = (Mutex::default(), Mutex::default());
        Self { link, metrics, process, incoming, topics, change: Notify::new(), hearing, failing }
    }

    /// Subscribes to a log and waits for the confirmation. Without Redis it returns at once; the subscription is made
    /// when Redis is back, and [`BackplaneEvent::Missed`](super::BackplaneEvent::Missed) follows.
    pub(super) async fn subscribe(&self, log: &LogId) {
        let confirmed = {
            let shard = self.shard_of(log);
            let waits = self.link.is_open() && self.link.may_call(shard.tag());
            self.topics().want(log, &self.link.owner_of(shard), waits)
        };
        let Some(confirmed) = confirmed else {
            return self.change.notify_waiters();
        };
        self.change.notify_waiters();
        // If the connection breaks or the wait takes too long, `Missed` follows.
        let _ = timeout(SUBSCRIBE_WAIT, confirmed).await;
    }

    /// Ends a subscription.
    pub(super) fn unsubscribe(&self, log: &LogId) {
        let place = self.link.owner_of(self.shard_of(log));
        if self.topics().unwant(log, &place) {
            self.change.notify_waiters();
        }
    }

    fn shard_of(&self, log: &LogId) -> Shard {
        // Before the deployment is known, nothing is subscribed.
        self.link.keys().channels().map_or(Shard::HOME, |channels| channels.shard_of(log))
    }

    /// Receives payloads until its task is stopped.
    pub(super) async fn run(&self, eras: watch::Receiver<Eras>) {
        let Some(cluster) = self.link.cluster() else {
            return self.run_line(None, eras, None).await;
        };
        let mut changes = cluster.changes();
        let mut lines = FuturesUnordered::new();
        let mut known: HashSet<HostPort> = HashSet::new();
        loop {
            changes.mark_unchanged();
            let masters: HashSet<HostPort> = cluster.masters().into_iter().collect();
            for master in masters.difference(&known) {
                let (place, eras, changes) = (Some(master.clone()), eras.clone(), cluster.changes());
                lines.push(async move {
                    self.run_line(place.clone(), eras, Some(changes)).await;
                    place
                });
            }
            known.extend(masters);
            tokio::select! {
                // It is no master any more.
                Some(place) = lines.next(), if !lines.is_empty() => {
                    known.retain(|master| Some(master) != place.as_ref());
                }
                // The sender lives as long as the cluster.
                _ = changes.changed() => {}
            }
        }
    }

    /// Receives payloads over one connection after the other, as long as the server is one that is used.
    async fn run_line(&self, place: Place, mut eras: watch::Receiver<Eras>, mut changes: Option<watch::Receiver<u64>>) {
        let mut pause = BACKOFF.0;
        // An earlier run may have ended by a panic.
        self.disconnect(&place);
        let mut first = true;
        loop {
            let Some(basis) = self.basis(&place, &eras) else {
                self.disconnect(&place);
                self.note_success(&place);
                if self.is_gone(&place) || !until_changed(&mut eras, &mut changes).await {
                    return;
                }
                continue;
            };
            let (mut later, mut later_changes) = (eras.clone(), changes.clone());
            let another_basis = async {
                while self.basis(&place, &later).as_ref() == Some(&basis) {
                    if !until_changed(&mut later, &mut later_changes).await {
                        return std::future::pending().await;
                    }
                }
            };
            let mut heard_at = Instant::now();
            let ended = tokio::select! {
                () = another_basis => Ok(()),
                ended = self.run_connection(&place, (&mut first, &mut pause), &mut heard_at) => ended,
            };
            self.disconnect(&place);
            if let Err(error) = ended {
                // The fault that lasts is logged once, with its name.
                tracing::debug!(%error, "the subscription to Redis broke; subscribing anew");
                self.metrics.subscriptions_broken.inc();
                if self.basis(&place, &eras).is_some() {
                    self.lock_failing().insert(place.clone());
                    let since = if place.is_none() { self.hearing.last_success() } else { heard_at };
                    self.hearing.failed(&error, since);
                }
                sleep(pause.mul_f64(rand::random_range(0.8..1.2))).await;
                pause = (pause * 2).min(BACKOFF.1);
            }
        }
    }

    /// The basis of a connection now; `None` if there can be none.
    fn basis(&self, place: &Place, eras: &watch::Receiver<Eras>) -> Option<Basis> {
        let eras = eras.borrow();
        if !eras.up {
            return None;
        }
        let Some(master) = place else { return Some(Basis { era: eras.version(), shards: 0 }) };
        let cluster = self.link.cluster()?;
        if cluster.is_down(master) || self.is_gone(place) {
            return None;
        }
        let held = cluster.shards_by_master(self.link.keys().shards()).remove(master).unwrap_or_default();
        let era = eras.returned.iter().find(|(returned, _)| returned == master).map_or(0, |(_, number)| *number);
        Some(Basis { era, shards: held.iter().fold(0, |mask, shard| mask | shard.bit()) })
    }

    /// True if the server is no master any more.
    fn is_gone(&self, place: &Place) -> bool {
        let Some(master) = place else { return false };
        self.link.cluster().is_none_or(|cluster| !cluster.masters().contains(master))
    }

    fn note_success(&self, place: &Place) {
        let mut failing = self.lock_failing();
        failing.remove(place);
        if failing.is_empty() {
            self.hearing.succeeded();
        }
    }

    fn disconnect(&self, place: &Place) {
        self.topics().disconnect(place, |log| self.is_at(place, log));
    }

    /// True if the channel of a log is on this server.
    fn is_at(&self, place: &Place, log: &LogId) -> bool {
        self.link.owner_of(self.shard_of(log)) == *place
    }

    /// Connects, subscribes and receives until the connection fails.
    async fn run_connection(
        &self,
        place: &Place,
        (first, pause): (&mut bool, &mut Duration),
        heard_at: &mut Instant,
    ) -> Result<(), LinkError> {
        let (sender, payloads) = mpsc::channel(QUEUE);
        let signals = Arc::new(PushSignals::default());
        let channels = self.link.keys().channels().ok_or(LinkError::Down)?;
        let connect = self.connect(place, channels, sender, signals.clone());
        let mut subscription = timeout(CONNECT_TIMEOUT * 2, connect).await.unwrap_or(Err(LinkError::Timeout))?;
        let wanted = self.topics().connect(place, |log| self.is_at(place, log));
        for logs in wanted.chunks(PER_SUBSCRIBE) {
            self.sync_subscriptions(place, channels, &mut subscription, logs).await?;
        }
        // On the first connection nothing can have been missed, unless logs are already followed.
        if !std::mem::take(first) || !wanted.is_empty() {
            self.incoming.notify_missed().await;
        }
        *pause = BACKOFF.0;
        tokio::select! {
            ended = self.apply_changes(place, channels, subscription.clone()) => ended,
            ended = self.run_canary(place, channels, &signals, heard_at) => ended,
            () = self.incoming.forward(channels, payloads, &signals.gap) => Ok(()),
            () = signals.broken.cancelled() => Err(LinkError::Broken("closed by Redis".to_owned())),
        }
    }

    /// The shards on a server.
    fn shards_at(&self, place: &Place) -> Vec<Shard> {
        self.link.keys().shards().filter(|shard| self.link.owner_of(*shard) == *place).collect()
    }

    async fn connect(
        &self,
        place: &Place,
        channels: Channels,
        payloads: mpsc::Sender<Payload>,
        signals: Arc<PushSignals>,
    ) -> Result<Subscription, LinkError> {
        let shards = self.shards_at(place);
        let canaries: HashSet<String> =
            shards.iter().map(|shard| channels.canary(*shard, self.process.name())).collect();
        let mut first: Vec<String> = canaries.iter().cloned().collect();
        let hints = channels.hints(self.process.node());
        if self.link.owner_of(channels.shard_of_hints(self.process.node())) == *place {
            first.push(hints);
        }
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
        let mut subscription = Subscription::open(target, place.as_ref(), config, push).await?;
        subscription.subscribe(first).await?;
        Ok(subscription)
    }

    /// Applies changes of what is wanted to the connection.
    async fn apply_changes(
        &self,
        place: &Place,
        channels: Channels,
        mut subscription: Subscription,
    ) -> Result<(), LinkError> {
        loop {
            // It is registered before the look, so that no change after the look is missed.
            let mut change = std::pin::pin!(self.change.notified());
            change.as_mut().enable();
            let changed = self.topics().take_changed(place, PER_SUBSCRIBE);
            if changed.is_empty() {
                change.await;
            } else {
                self.sync_subscriptions(place, channels, &mut subscription, &changed).await?;
            }
        }
    }

    async fn sync_subscriptions(
        &self,
        place: &Place,
        channels: Channels,
        subscription: &mut Subscription,
        logs: &[LogId],
    ) -> Result<(), LinkError> {
        let (to_subscribe, to_unsubscribe) = self.topics().split(place, logs);
        if !to_subscribe.is_empty() {
            subscription.subscribe(names(channels, &to_subscribe)).await?;
        }
        if !to_unsubscribe.is_empty() {
            subscription.unsubscribe(names(channels, &to_unsubscribe)).await?;
        }
        self.topics().note_changed(place, to_subscribe, logs);
        Ok(())
    }

    /// Publishes a canary at each interval and waits until it arrives; on a cluster, through another shard of the master each time.
    async fn run_canary(
        &self,
        place: &Place,
        channels: Channels,
        signals: &PushSignals,
        heard_at: &mut Instant,
    ) -> Result<(), LinkError> {
        let shards = self.shards_at(place);
        for turn in 0.. {
            sleep(CANARY_EVERY).await;
            let Some(shard) = shards.get(turn % shards.len().max(1)) else { continue };
            let name = channels.canary(*shard, self.process.name());
            let number = signals.await_canary(&name);
            let mut pipeline = Pipeline::new();
            channels.publish(&mut pipeline, &name).arg(number);
            // A call that failed is a fault of the command link, which the watchdog handles; an error reply is not.
            if let Ok(mut replies) = self.link.run(Op::Canary, self.process.name(), &pipeline).await {
                replies.take::<i64>(0)?;
                timeout(CANARY_TIMEOUT, signals.canary.notified()).await.map_err(|_| LinkError::Timeout)?;
                *heard_at = Instant::now();
                self.note_success(place);
            }
        }
        Ok(())
    }

    fn lock_failing(&self) -> MutexGuard<'_, HashSet<Place>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn topics(&self) -> MutexGuard<'_, Topics> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for another era, or a change of the masters; false if there will be none, because the node ends.
async fn until_changed(eras: &mut watch::Receiver<Eras>, changes: &mut Option<watch::Receiver<u64>>) -> bool {
    let changed = async {
        match changes {
            Some(changes) => changes.changed().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        changed = eras.changed() => changed.is_ok(),
        changed = changed => changed.is_ok(),
    }
}

fn names(channels: Channels, logs: &[&LogId]) -> Vec<String> {
    logs.iter().map(|log| channels.log(log)).collect()
}
