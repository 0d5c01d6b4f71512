//! Watches Redis: opens and shuts the link, keeps the lease, tells the rest of the backplane when an era begins.

use std::{sync::Arc, time::Duration};

use redis::{Pipeline, aio::MultiplexedConnection};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    era::Era,
    keys,
    lease::Lease,
    link::{CONNECT_TIMEOUT, Link, LinkError, RESPONSE_TIMEOUT},
    local::Local,
    ops::Op,
};
use crate::{
    degrade::{self, Degrade, Part},
    metrics::Metrics,
    model::Clock,
};

/// Between two probes. With [`RESPONSE_TIMEOUT`] and two failures in a row, a Redis that fell silent is noticed within
/// 1.5 s.
const PROBE_EVERY: Duration = Duration::from_millis(250);
/// The first and the longest pause between two tries to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// The watch over Redis.
pub(super) struct Watchdog {
    pub(super) link: Arc<Link>,
    pub(super) lease: Arc<Lease>,
    pub(super) local: Arc<Local>,
    pub(super) degrade: Arc<Degrade>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Clock,
    pub(super) eras: watch::Sender<Era>,
}

/// Why a stretch of being up ended.
enum End {
    /// Redis does not answer, or not as it should.
    Lost,
    /// The node is to end.
    Stopped,
}

impl Watchdog {
    /// Starts the watch, and waits until Redis is there or was found missing.
    pub(super) async fn start(self, mut era: watch::Receiver<Era>, tasks: &TaskTracker, stop: CancellationToken) {
        tasks.spawn(self.run(stop));
        // Ends with an error only where the watch has ended.
        let _ = era.wait_for(|era| era.tried).await;
    }

    /// Watches until stopped.
    async fn run(self, stop: CancellationToken) {
        let mut pause = BACKOFF.0;
        loop {
            let began = tokio::select! {
                () = stop.cancelled() => return,
                began = self.begin() => began,
            };
            match began {
                Ok(connections) => {
                    pause = BACKOFF.0;
                    if let End::Stopped = self.keep(connections, &stop).await {
                        return;
                    }
                    tracing::warn!("Redis is lost; going on with what this node knows");
                    self.end();
                }
                Err(error) => {
                    tracing::debug!(%error, "Redis is not there");
                    self.degrade.set(Part::Redis, degrade::Link::Down);
                    self.eras.send_if_modified(|era| !std::mem::replace(&mut era.tried, true));
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = sleep(pause.mul_f64(rand::random_range(0.8..1.2))) => {}
                    }
                    pause = (pause * 2).min(BACKOFF.1);
                }
            }
        }
    }

    /// Connects and takes a lease, which proves that Redis takes writes.
    async fn begin(&self) -> Result<Vec<MultiplexedConnection>, LinkError> {
        let mut connections = self.connect().await?;
        let first = connections.first_mut().ok_or(LinkError::Down)?;
        self.new_era(first).await?;
        self.link.open(connections.clone());
        self.degrade.set(Part::Redis, degrade::Link::Up);
        self.eras.send_modify(|era| (era.up, era.tried) = (true, true));
        tracing::info!(incarnation = %self.lease.me(), "Redis is there");
        Ok(connections)
    }

    async fn connect(&self) -> Result<Vec<MultiplexedConnection>, LinkError> {
        // The library bounds the connecting, but not a name that takes long to resolve.
        timeout(CONNECT_TIMEOUT * 2, self.link.connect()).await.unwrap_or(Err(LinkError::Timeout))
    }

    async fn new_era(&self, on: &mut MultiplexedConnection) -> Result<(), LinkError> {
        let taken = self.lease.take(&self.link, on, self.local.connections()).await?;
        self.eras.send_modify(|era| {
            era.number += 1;
            era.since = Instant::now();
            (era.wiped, era.reaped) = (taken.wiped, taken.reaped);
            // A lease lost while Redis was there all the time: no connection came unseen.
            era.lost_at = era.lost_at.filter(|_| !era.up);
        });
        Ok(())
    }

    fn end(&self) {
        self.link.shut();
        self.degrade.set(Part::Redis, degrade::Link::Down);
        self.eras.send_modify(|era| {
            era.up = false;
            era.lost_at = Some(self.clock.now());
        });
    }

    /// Probes and renews until Redis is lost.
    async fn keep(&self, mut connections: Vec<MultiplexedConnection>, stop: &CancellationToken) -> End {
        let mut ticks = interval(PROBE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut renew_at = Instant::now() + self.lease.interval();
        let mut turn = 0_usize;
        loop {
            let all = tokio::select! {
                () = stop.cancelled() => return End::Stopped,
                _ = ticks.tick() => false,
                () = self.link.trouble.notified() => true,
            };
            let started = Instant::now();
            let checked = if all || started >= renew_at {
                self.renew_and_probe(&mut connections, all).await
            } else {
                turn = (turn + 1) % connections.len();
                self.probe(&mut connections[turn]).await
            };
            match checked {
                Ok(()) => {
                    if all || started >= renew_at {
                        renew_at = started + self.lease.interval();
                    }
                    self.link.answered();
                    self.degrade.report(Part::Redis, Ok(started.elapsed()));
                }
                Err(LinkError::Broken(_)) => match self.connect().await {
                    Ok(fresh) => {
                        connections = fresh;
                        self.link.open(connections.clone());
                        self.link.trouble.notify_one();
                    }
                    Err(_) => return End::Lost,
                },
                Err(error) => {
                    tracing::debug!(%error, "Redis failed a check");
                    // What failed is checked again at the next tick, not a cheaper thing in its place.
                    renew_at = renew_at.min(started);
                    self.degrade.report(Part::Redis, Err(()));
                    if self.degrade.state(Part::Redis).link == degrade::Link::Down {
                        return End::Lost;
                    }
                }
            }
        }
    }

    async fn renew_and_probe(&self, connections: &mut [MultiplexedConnection], all: bool) -> Result<(), LinkError> {
        let (first, rest) = connections.split_first_mut().ok_or(LinkError::Down)?;
        if self.lease.renew(&self.link, first, self.local.connections()).await? {
            self.metrics.lease_renewals.inc();
        } else {
            self.lost_lease(first).await?;
        }
        for connection in rest.iter_mut().filter(|_| all) {
            self.probe(connection).await?;
        }
        Ok(())
    }

    /// Asks for this node's lease: a ping that also notices at once that Redis was wiped.
    async fn probe(&self, connection: &mut MultiplexedConnection) -> Result<(), LinkError> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("ZSCORE").arg(keys::NODES).arg(self.lease.me().as_str());
        let asked = timeout(RESPONSE_TIMEOUT, self.link.run_on(Op::Probe, connection, &pipeline));
        let lease: Option<f64> = asked.await.unwrap_or(Err(LinkError::Timeout))?.take(0)?;
        if lease.is_none() { self.lost_lease(connection).await } else { Ok(()) }
    }

    async fn lost_lease(&self, on: &mut MultiplexedConnection) -> Result<(), LinkError> {
        if self.lease.retired() {
            return Ok(());
        }
        self.metrics.lease_losses.inc();
        tracing::warn!("the lease was lost; registering anew");
        self.new_era(on).await
    }
}
