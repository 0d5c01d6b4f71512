//! Watches the masters of a Redis Cluster, each for itself: one that does not answer is down alone, and one that is back, or that
//! took over, gets eras of its own.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::{
    cluster::Cluster,
    connection::Connection,
    connector::RESPONSE_TIMEOUT,
    fault,
    lease::Found,
    link_error::LinkError,
    shards::{Layout, Shard},
    watchdog::{LATE_AFTER, LOOK_EVERY, PROBE_EVERY, Watchdog},
};
use crate::{
    config::HostPort,
    degrade::{LinkState, Part},
    supervise::{TaskName, checkpoint},
};

/// Number of failed checks in a row after which a master is down.
const FAILURES: u32 = 2;
/// Time for which a master may refuse commands because its cluster is not whole. With `cluster-require-full-coverage yes` all
/// masters do so for about a second when one of them dies.
const NOT_WHOLE: Duration = Duration::from_secs(3);
/// Pause after a master answered and could not be registered with.
const AGAIN: Duration = Duration::from_millis(100);

/// Failed checks of a master in a row.
struct Failing {
    since: Instant,
    count: u32,
}

impl Watchdog {
    /// Checks the masters and renews the leases until none of them works. Returns the reason.
    pub(super) async fn watch_masters(&self, cluster: &Arc<Cluster>, connections: Vec<Connection>) -> LinkError {
        let mut connections: Vec<Connection> = connections.into_iter().map(Connection::watching).collect();
        let (mut ticks, mut changes) = (interval(PROBE_EVERY), cluster.changes());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut renew_at, mut turn, mut last_failure) = (Instant::now() + self.lease.interval(), 0_usize, None);
        let mut failing: HashMap<HostPort, Failing> = HashMap::new();
        let mut revived = Box::pin(self.link.revive());
        let (mut look, mut may_look) = (self.look_at_settings(connections[0].clone(), Instant::now()), true);
        loop {
            let asked = tokio::select! {
                _ = ticks.tick() => false,
                () = self.link.check_now.notified() => true,
                // The sender lives as long as the cluster.
                _ = changes.changed() => {
                    self.note_shards();
                    continue;
                }
                (master, fresh) = &mut revived => {
                    if let Err(error) = self.take_back(cluster, &mut connections, &master, fresh).await {
                        return error;
                    }
                    failing.remove(&master);
                    revived = Box::pin(self.link.revive());
                    continue;
                }
                may = &mut look, if may_look => {
                    may_look = may;
                    look = self.look_at_settings(connections[0].clone(), Instant::now() + LOOK_EVERY);
                    continue;
                }
            };
            checkpoint(TaskName::Watchdog, || "");
            let deployment = *self.link.keys().deployment().borrow();
            if self.link.up_shards().iter().any(|shard| self.lease.me(*shard).deployment() != deployment) {
                if let Err(error) = self.change_deployment_of_shards(&mut connections[0]).await {
                    return error;
                }
                continue;
            }
            let started = Instant::now();
            let renews = asked || started >= renew_at;
            turn = turn.wrapping_add(1);
            let (mut error, mut late) = (last_failure.take(), false);
            for (master, shards, checked) in self.check_masters(cluster, &connections, turn, renews).await {
                match self.judge(cluster, &mut connections[0], (&master, &shards), checked).await {
                    Ok(()) => {
                        failing.remove(&master);
                        cluster.note_answer(&master);
                    }
                    Err(shared @ LinkError::Shared(_)) => return shared,
                    Err(failure) => {
                        late = true;
                        note_failure(cluster, &mut failing, &master, &failure);
                        // Repeat the check that failed at the next tick, not a cheaper one in its place.
                        renew_at = renew_at.min(started);
                        error = Some(failure);
                    }
                }
            }
            failing.retain(|master, _| !cluster.is_down(master));
            self.note_shards();
            self.degrade.note_late_redis(late);
            if cluster.states().iter().all(|(_, up)| !up) {
                // A round that finds all of them down asks none, so the reason of the round before stays.
                let error = last_failure.insert(error.unwrap_or(LinkError::Down));
                if self.is_over(error) {
                    return error.clone();
                }
                continue;
            }
            self.degrade.report(Part::Redis, Ok(started.elapsed()));
            if renews && error.is_none() {
                renew_at = started + self.lease.interval();
                self.metrics.lease_renewals.inc();
                self.degrade.note_older_nodes(self.lease.sees_older_nodes());
            }
        }
    }

    /// Counts a check after which no master works. True if Redis as a whole is down by it.
    fn is_over(&self, error: &LinkError) -> bool {
        self.degrade.report(Part::Redis, Err(fault::link_finding(error)));
        self.degrade.state(Part::Redis).link == LinkState::Down
    }

    /// Checks every master that is up, at the same time: renews the leases in its shards, or reads one of them, another one each
    /// `turn`. Reports a check that is late before it has a result.
    async fn check_masters(
        &self,
        cluster: &Cluster,
        connections: &[Connection],
        turn: usize,
        renews: bool,
    ) -> Vec<(HostPort, Vec<Shard>, Result<Found, LinkError>)> {
        let mut held = cluster.shards_by_master(Shard::all(Layout::Cluster));
        let up = cluster.states().into_iter().filter(|(_, up)| *up);
        let checks = up.map(|(master, _)| {
            let shards = held.remove(&master).unwrap_or_default();
            let mut connection = connections[if renews { 0 } else { turn % connections.len() }].clone();
            async move {
                let mut check = Box::pin(async {
                    match shards.get(turn % shards.len().max(1)) {
                        Some(_) if renews => {
                            let connections = self.local.connections();
                            self.lease.renew(&self.link, &mut connection, &shards, connections).await
                        }
                        Some(shard) => {
                            let lost = if self.holds(&mut connection, *shard).await? { vec![] } else { vec![*shard] };
                            Ok(Found { lost, failed: Vec::new() })
                        }
                        None => ping(&connection, &master).await,
                    }
                });
                let checked = match timeout(LATE_AFTER, &mut check).await {
                    Ok(checked) => checked,
                    Err(_) => {
                        tracing::debug!(%master, "a check of a master of the Redis Cluster is late");
                        cluster.note_late(&master);
                        self.degrade.note_late_redis(true);
                        (&mut check).await
                    }
                };
                drop(check);
                (master, shards, checked)
            }
        });
        join_all(checks).await
    }

    /// Registers anew with a master that has lost the lease in one of its shards.
    async fn judge(
        &self,
        cluster: &Cluster,
        on: &mut Connection,
        (master, shards): (&HostPort, &[Shard]),
        checked: Result<Found, LinkError>,
    ) -> Result<(), LinkError> {
        let found = checked?;
        if found.lost.is_empty() {
            return found.failed.into_iter().next().map_or(Ok(()), |(_, error)| Err(error));
        }
        // A master that was emptied has lost all of them, and one that lost writes may have.
        let shards: Vec<Shard> = shards.iter().copied().filter(|shard| cluster.is_master_of(master, *shard)).collect();
        self.reacquire_lease(on, &shards).await?;
        self.eras.send_modify(|eras| eras.note_returned(master, &cluster.masters()));
        Ok(())
    }

    /// Registers with a master that is back, or that took over, and lets everybody use it.
    async fn take_back(
        &self,
        cluster: &Cluster,
        connections: &mut [Connection],
        master: &HostPort,
        fresh: Vec<MultiplexedConnection>,
    ) -> Result<(), LinkError> {
        for (connection, fresh) in connections.iter().zip(fresh) {
            connection.replace(master, fresh);
        }
        let of_master = cluster.shards_by_master(Shard::all(Layout::Cluster)).remove(master);
        let shards = of_master.unwrap_or_default();
        match self.new_era(&mut connections[0], &shards).await {
            Ok(()) => {
                cluster.note_up(master);
                self.eras.send_modify(|eras| eras.note_returned(master, &cluster.masters()));
                self.note_shards();
                self.note_move();
                tracing::info!(%master, shards = shards.len(), "a master of the Redis Cluster is up; registered anew with it");
                Ok(())
            }
            Err(error @ LinkError::Shared(_)) => Err(error),
            Err(error) => {
                tracing::debug!(%master, %error, "could not register with a master");
                sleep(AGAIN).await;
                Ok(())
            }
        }
    }

    /// Registers anew under the identity of another deployment.
    async fn change_deployment_of_shards(&self, on: &mut Connection) -> Result<(), LinkError> {
        tracing::info!("the store has the identity of another deployment; registering anew");
        // The lease that this node holds already must not prevent it from acquiring the new one.
        self.lease.release(&self.link, on).await?;
        self.new_era(on, &self.link.up_shards()).await
    }
}

/// Counts a failed check of a master, which is down after some of them.
fn note_failure(cluster: &Cluster, failing: &mut HashMap<HostPort, Failing>, master: &HostPort, error: &LinkError) {
    let known = failing.entry(master.clone()).or_insert_with(|| Failing { since: Instant::now(), count: 0 });
    known.count += 1;
    let down = match error {
        LinkError::Broken(_) | LinkError::CertificateRefused(_) => true,
        LinkError::Refused(refusal) if refusal.code == "CLUSTERDOWN" => known.since.elapsed() >= NOT_WHOLE,
        _ => known.count >= FAILURES,
    };
    tracing::debug!(%master, %error, down, "a master of the Redis Cluster failed a check");
    if down {
        tracing::warn!(%master, %error, "a master of the Redis Cluster is down; this node goes on without its shards");
        cluster.note_down(master, fault::link_finding(error));
    }
}

/// Asks a master without shards for an answer.
async fn ping(connection: &Connection, master: &HostPort) -> Result<Found, LinkError> {
    if let Some(mut server) = connection.server(master) {
        let ping = server.ask::<String>(redis::cmd("PING"));
        timeout(RESPONSE_TIMEOUT, ping).await.unwrap_or(Err(LinkError::Timeout))?;
    }
    Ok(Found::default())
}
