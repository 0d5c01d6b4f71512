//! Watches Redis: opens and closes the link, keeps the lease, and tells the rest of the backplane when an era begins.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use redis::Pipeline;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};

use super::{
    channels::Channels,
    connection::Connection,
    connector::{CONNECT_TIMEOUT, RESPONSE_TIMEOUT},
    era::Eras,
    fault,
    info::Info,
    lease::{Acquired, Lease},
    lease_calls::Beginning,
    link::Link,
    link_error::{LinkError, is_wrong_type},
    local::Local,
    needs, neighbours,
    ops::Op,
    refusals::Refusals,
    route::Route,
    server_mode::ServerMode,
    shards::Shard,
    sharing::Sharing,
    takeover,
};
use crate::{
    degrade::{self, Degrade, Fault, Part, Work},
    metrics::Metrics,
    model::{Clock, DeploymentTag},
    supervise::{TaskName, checkpoint},
};

/// Interval between two probes. With [`RESPONSE_TIMEOUT`] and two failures in a row, a Redis that stopped answering is
/// noticed within 1.5 s.
pub(super) const PROBE_EVERY: Duration = Duration::from_millis(250);
/// Time without an answer after which a check is late: this node then also reaches the others through the store. A false
/// alarm costs some reads of the store and changes nothing else. With [`PROBE_EVERY`], a silent Redis is late within
/// 0.45 s.
pub(super) const LATE_AFTER: Duration = Duration::from_millis(200);
/// Interval between two looks at the settings of Redis.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Time after a change of the primary in which nodes may still use the former one. Sentinel makes it a replica at most 10 s
/// after a failover by hand, or after a frozen one works again.
const SETTLE: Duration = Duration::from_secs(12);
/// Pause before another try to move to a primary that was not usable.
const MOVE_AGAIN: Duration = Duration::from_secs(1);
/// First and longest pause between two tries to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// The watchdog.
pub(super) struct Watchdog {
    pub(super) link: Arc<Link>,
    pub(super) lease: Arc<Lease>,
    pub(super) local: Arc<Local>,
    pub(super) degrade: Arc<Degrade>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Clock,
    pub(super) refusals: Arc<Refusals>,
    pub(super) eras: watch::Sender<Eras>,
}

impl Watchdog {
    /// Connects and watches until its task is stopped.
    pub(super) async fn run(&self) {
        let (mut pause, mut deployment, mut asked) = (BACKOFF.0, self.link.keys().deployment(), false);
        let Some(mut routes) = self.link.target().map(|target| target.routes()) else { return };
        loop {
            routes.mark_unchanged();
            let started = tokio::select! {
                started = self.start_era(&mut deployment) => started,
                // Whoever waits for a former address waits in vain.
                _ = routes.changed() => continue,
            };
            match started {
                Ok(mut connections) => {
                    pause = BACKOFF.0;
                    if !std::mem::replace(&mut asked, true) {
                        self.name_neighbours(&mut connections).await;
                    }
                    let error = match self.link.cluster() {
                        Some(cluster) => self.watch_masters(cluster, connections).await,
                        None => self.watch(connections, &mut routes).await,
                    };
                    tracing::warn!(%error, "Redis is down; this node goes on with its local state");
                    self.mark_down(&error);
                }
                Err(error) => {
                    tracing::debug!(%error, "could not connect to Redis");
                    self.degrade.set_down(Part::Redis, fault::link_finding(&error));
                    if deployment.borrow().is_some() {
                        self.eras.send_if_modified(|eras| !std::mem::replace(&mut eras.tried, true));
                    }
                    // Each try costs the Redis of another deployment some commands and connections.
                    let kept_off = matches!(&error, LinkError::Shared(why) if matches!(**why, Sharing::InUse(_)));
                    let now = if kept_off { pause.max(self.lease.interval()) } else { pause };
                    // The sender lives as long as the link.
                    let _another_route = timeout(now.mul_f64(rand::random_range(0.8..1.2)), routes.changed()).await;
                    pause = (pause * 2).min(BACKOFF.1);
                }
            }
        }
    }

    /// Connects and acquires a lease, which proves that Redis accepts writes. Before the store told which deployment this is,
    /// nothing can be written.
    async fn start_era(
        &self,
        deployment: &mut watch::Receiver<Option<DeploymentTag>>,
    ) -> Result<Vec<Connection>, LinkError> {
        let connections = self.connect().await?;
        let first = &mut connections.first().ok_or(LinkError::Down)?.clone().watching();
        // One shard of a cluster may refuse nothing by chance.
        if let Connection::Single(server) = first
            && let Some(mode) = timeout(RESPONSE_TIMEOUT, ServerMode::unfit(server)).await.unwrap_or_default()
        {
            return Err(LinkError::Unfit(mode));
        }
        let channels = self.await_deployment(first, deployment).await?;
        needs::check(self.link.keys(), channels, first).await?;
        let shards = first.reached();
        if !shards.contains(&Shard::HOME) {
            return Err(LinkError::Down);
        }
        self.new_era(first, &shards).await?;
        first.note_up();
        self.link.open(connections.clone());
        self.note_move();
        self.degrade.set_up(Part::Redis);
        self.degrade.note_late_redis(false);
        self.eras.send_modify(|eras| (eras.up, eras.tried) = (true, true));
        self.note_shards();
        tracing::info!(incarnation = %self.lease.me(Shard::HOME), "Redis is up");
        Ok(connections)
    }

    /// Tells [`Degrade`] at `at` whether Redis evicts keys. Resolves with false if this Redis user may not look.
    pub(super) fn look_at_settings(&self, on: Connection, at: Instant) -> BoxFuture<'_, bool> {
        let look = async move {
            sleep_until(at).await;
            let mut eviction = None;
            for mut server in on.servers() {
                match Info::fetch(&mut server, RESPONSE_TIMEOUT).await {
                    Ok(info) => eviction = eviction.or(info.eviction()),
                    Err(LinkError::Refused(_)) => return false,
                    Err(_) => return true,
                }
            }
            self.degrade.note_warning(Part::Redis, Fault::RedisEvicts, eviction);
            true
        };
        look.boxed()
    }

    /// Tells in the log who else is on this server.
    async fn name_neighbours(&self, connections: &mut [Connection]) {
        let deployment = *self.link.keys().deployment().borrow();
        if let (Some(first), Some(own)) = (connections.first_mut(), deployment) {
            neighbours::log_at_start(first, self.link.keys(), own).await;
        }
    }

    async fn connect(&self) -> Result<Vec<Connection>, LinkError> {
        // The library bounds the connection attempt, but not the name resolution before it.
        timeout(CONNECT_TIMEOUT * 2, self.link.connect()).await.unwrap_or(Err(LinkError::Timeout))
    }

    /// Waits for the deployment; Redis counts as up while it answers.
    async fn await_deployment(
        &self,
        on: &mut Connection,
        deployment: &mut watch::Receiver<Option<DeploymentTag>>,
    ) -> Result<Channels, LinkError> {
        loop {
            if let Some(tag) = *deployment.borrow_and_update() {
                return Ok(self.link.keys().channels_of(tag));
            }
            self.degrade.set_up(Part::Redis);
            tokio::select! {
                _ = deployment.changed() => {}
                () = sleep(PROBE_EVERY) => {
                    let mut ping = Pipeline::new();
                    ping.cmd("PING");
                    let ping = timeout(RESPONSE_TIMEOUT, self.link.run_on(Op::Probe, on, &ping));
                    ping.await.unwrap_or(Err(LinkError::Timeout))?;
                }
            }
        }
    }

    /// Begins an era of each of these shards, all of which `on` reaches.
    pub(super) async fn new_era(&self, on: &mut Connection, shards: &[Shard]) -> Result<(), LinkError> {
        let begun = self.acquire(on, shards).await?;
        self.eras.send_modify(|eras| eras.begin(&begun));
        Ok(())
    }

    /// Opens the link and begins the era, in this order: whoever hears of the era writes over the link at once, and a former primary
    /// may still take what is meant for the new one.
    fn enter(&self, connections: Vec<Connection>, begun: &[(Shard, Beginning)]) {
        self.link.open(connections);
        self.eras.send_modify(|eras| eras.begin(begun));
    }

    /// Tells everybody which shards are up.
    pub(super) fn note_shards(&self) {
        let (up, now) = (self.link.up_shards().iter().fold(0, |mask, shard| mask | shard.bit()), self.clock.now());
        self.eras.send_if_modified(|eras| eras.set_up(up, now));
        if let Some(cluster) = self.link.cluster() {
            self.degrade.note_down_shards(cluster.shards_down(), cluster.outage());
            self.degrade.note_work(Work::Limit, cluster.lacking_slots());
        }
    }

    /// Acquires a lease. If another deployment had these keys, they are emptied first.
    async fn acquire(&self, on: &mut Connection, shards: &[Shard]) -> Result<Vec<(Shard, Beginning)>, LinkError> {
        let (lease, link) = (&self.lease, &self.link);
        let mut acquired = lease.acquire(link, on, shards, self.local.connections()).await?;
        if acquired == Acquired::Leftovers {
            let removed = takeover::remove_leftovers(lease, link, on).await?;
            self.refusals.note_left_keys(removed);
            acquired = lease.replace(link, on, shards, self.local.connections()).await?;
        }
        self.degrade.note_older_nodes(lease.sees_older_nodes());
        match acquired {
            Acquired::Held(begun) => Ok(begun),
            Acquired::Leftovers => Err(LinkError::Shared(Arc::new(Sharing::Removing))),
        }
    }

    /// Connects again after a connection broke. The same address may lead to another server, or to one that lost its latest
    /// writes, so this node registers everything anew.
    async fn reconnect(&self) -> Result<Vec<Connection>, LinkError> {
        let mut connections = self.connect().await?;
        let first = connections.first_mut().ok_or(LinkError::Down)?;
        let begun = self.acquire(first, &first.reached()).await?;
        self.enter(connections.clone(), &begun);
        self.note_move();
        tracing::info!(incarnation = %self.lease.me(Shard::HOME), "registered anew over new connections to Redis");
        Ok(connections)
    }

    /// Tells [`Degrade`] if the link leads to another server than before.
    pub(super) fn note_move(&self) {
        if self.link.target().is_some_and(|target| target.note_used()) {
            self.degrade.note_moved_redis(SETTLE);
        }
    }

    fn mark_down(&self, error: &LinkError) {
        self.link.close();
        self.degrade.note_older_nodes(false);
        self.degrade.set_down(Part::Redis, fault::link_finding(error));
        self.degrade.note_down_shards(0, None);
        self.degrade.note_work(Work::Limit, None);
        self.eras.send_modify(|eras| {
            eras.set_up(0, self.clock.now());
            eras.up = false;
        });
    }

    /// Probes the connections and renews the lease until Redis is lost. Returns the reason.
    async fn watch(&self, mut connections: Vec<Connection>, routes: &mut watch::Receiver<Route>) -> LinkError {
        let mut ticks = interval(PROBE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut renew_at = Instant::now() + self.lease.interval();
        let (mut turn, mut move_at) = (0_usize, None);
        let (mut look, mut may_look) = (self.look_at_settings(connections[0].clone(), Instant::now()), true);
        loop {
            let asked = tokio::select! {
                _ = ticks.tick() => false,
                () = self.link.check_now.notified() => true,
                // The sender lives as long as the link.
                _ = routes.changed() => { move_at = Some(Instant::now()); false }
                may = &mut look, if may_look => {
                    may_look = may;
                    look = self.look_at_settings(connections[0].clone(), Instant::now() + LOOK_EVERY);
                    continue;
                }
            };
            // Calls that timed out may wait in any of the connections. None is used before all have answered.
            let silent = self.link.is_silent();
            let all = asked || silent;
            if self.lease.me(Shard::HOME).deployment() != *self.link.keys().deployment().borrow() {
                match self.change_deployment(&mut connections[0]).await {
                    Ok(fresh) => connections = fresh,
                    Err(error) => return error,
                }
                continue;
            }
            checkpoint(TaskName::Watchdog, || "");
            let started = Instant::now();
            let renews = all || started >= renew_at;
            turn = turn.wrapping_add(1);
            let checked = match move_at.filter(|at| *at <= started) {
                Some(_) => Err(LinkError::Broken("the primary changed".to_owned())),
                None => self.check(&mut connections, turn, renews, all).await,
            };
            match checked {
                Ok(()) => {
                    if renews {
                        renew_at = started + self.lease.interval();
                    }
                    self.note_success(started, silent);
                }
                Err(LinkError::Broken(_)) => match self.reconnect().await {
                    Ok(fresh) => {
                        (connections, move_at) = (fresh, None);
                        look = self.look_at_settings(connections[0].clone(), started);
                        self.link.check_now.notify_one();
                    }
                    // The sentinels name a server that takes no writes. The former primary is used as long as its connections work.
                    Err(error) if move_at.is_some_and(|at| at <= started) && !matches!(error, LinkError::Shared(_)) => {
                        tracing::debug!(%error, "could not move to the primary; trying again");
                        move_at = Some(started + MOVE_AGAIN);
                    }
                    Err(error) => return error,
                },
                Err(error @ LinkError::Shared(_)) => return error,
                Err(error) => {
                    tracing::debug!(%error, "Redis failed a check");
                    // Repeat the check that failed at the next tick, not a cheaper one in its place.
                    renew_at = renew_at.min(started);
                    self.degrade.report(Part::Redis, Err(fault::link_finding(&error)));
                    if self.degrade.state(Part::Redis).link == degrade::LinkState::Down {
                        return error;
                    }
                }
            }
        }
    }

    /// Registers anew under the identity of another deployment.
    async fn change_deployment(&self, on: &mut Connection) -> Result<Vec<Connection>, LinkError> {
        tracing::info!("the store has the identity of another deployment; registering anew");
        // The lease that this node holds already must not prevent it from acquiring the new one.
        let released = self.lease.release(&self.link, on).await;
        released.and(self.reconnect().await)
    }

    /// Records that a check that began at `started` succeeded. The link was `silent` then.
    fn note_success(&self, started: Instant, silent: bool) {
        self.link.probe_succeeded(silent);
        self.link.try_after_refusal();
        self.degrade.note_late_redis(false);
        self.degrade.report(Part::Redis, Ok(started.elapsed()));
    }

    /// Checks connection `turn`, or renews the lease. Reports a check that is late before it has a result.
    async fn check(
        &self,
        connections: &mut [Connection],
        turn: usize,
        renews: bool,
        all: bool,
    ) -> Result<(), LinkError> {
        let mut check = std::pin::pin!(async {
            if renews {
                self.renew_and_probe(connections, all).await
            } else {
                let next = turn % connections.len();
                self.probe(&mut connections[next]).await
            }
        });
        if let Ok(checked) = timeout(LATE_AFTER, &mut check).await {
            return checked;
        }
        tracing::debug!("a check of Redis is late");
        self.link.note_late();
        self.degrade.note_late_redis(true);
        check.await
    }

    async fn renew_and_probe(&self, connections: &mut [Connection], all: bool) -> Result<(), LinkError> {
        let (first, rest) = connections.split_first_mut().ok_or(LinkError::Down)?;
        let found = self.lease.renew(&self.link, first, &[Shard::HOME], self.local.connections()).await?;
        if let Some((_, error)) = found.failed.into_iter().next() {
            return Err(error);
        }
        if found.lost.is_empty() {
            self.metrics.lease_renewals.inc();
            self.degrade.note_older_nodes(self.lease.sees_older_nodes());
        } else {
            self.reacquire_lease(first, &found.lost).await?;
        }
        for connection in rest.iter_mut().filter(|_| all) {
            self.probe(connection).await?;
        }
        Ok(())
    }

    async fn probe(&self, connection: &mut Connection) -> Result<(), LinkError> {
        match self.holds(connection, Shard::HOME).await? {
            true => Ok(()),
            false => self.reacquire_lease(connection, &[Shard::HOME]).await,
        }
    }

    /// Reads this node's lease and Redis' clock: a ping that also notices at once that Redis was wiped, lost writes, or that its
    /// clock was set back. False if the lease is lost.
    pub(super) async fn holds(&self, connection: &mut Connection, shard: Shard) -> Result<bool, LinkError> {
        let (me, mut pipeline) = (self.lease.me(shard), Pipeline::new());
        pipeline.cmd("ZSCORE").arg(self.link.keys().nodes(shard)).arg(me.as_str()).cmd("TIME");
        let asked_at = std::time::Instant::now();
        let result = timeout(RESPONSE_TIMEOUT, self.link.run_on(Op::Probe, connection, &pipeline));
        let mut replies = result.await.unwrap_or(Err(LinkError::Timeout))?;
        let lease = replies.take::<Option<f64>>(0);
        let held = if is_wrong_type(&lease) { None } else { lease? };
        let (seconds, micros): (i64, i64) = replies.take(1)?;
        self.lease.read_clock(shard, asked_at, seconds.saturating_mul(1_000_000).saturating_add(micros));
        Ok(held.is_some_and(|ends_at| self.lease.is_intact(shard, ends_at)))
    }

    /// Registers anew in these shards, whose lease was lost.
    pub(super) async fn reacquire_lease(&self, on: &mut Connection, shards: &[Shard]) -> Result<(), LinkError> {
        if self.lease.retired() {
            return Ok(());
        }
        self.metrics.lease_losses.inc();
        tracing::warn!(shards = shards.len(), "the lease was lost; acquiring a new one");
        self.new_era(on, shards).await
    }
}

#[cfg(test)]
mod tests;
