//! Telling once who is no longer there: departures whose grace is over, and users of dead nodes.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use redis::Pipeline;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    era::Era,
    incarnation::Incarnation,
    keys,
    lease::{Doubt, Lease},
    link::{Link, LinkError, Replies},
    local::Local,
    ops::Op,
    registry::{Registry, Synced, add_listener, look_at, sync_call},
    scripts::CLAIM,
    types::{Departure, Notice},
};
use crate::{
    degrade::{Degrade, Feature, Mode},
    metrics::Metrics,
    model::{ConversationId, UserId},
};

/// Between two sweeps, give or take a tenth.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Departures per sweep's round, users per round of reaping.
const BATCH: usize = 100;
/// How long a lease must have been out before its users are reaped, beyond what clocks and round trips blur.
const REAP_MARGIN_MILLIS: i64 = 100;
/// Users whose departure other nodes are still to be told of; beyond that it is told to those who ask.
const UNHEARD_MAX: usize = 100_000;

/// Departures that only this node's own listeners were told of, because Redis was away.
type Unheard = HashMap<UserId, Departure>;

/// Departures, over all nodes where Redis is there, else on this one.
pub(super) struct Presence {
    pub(super) link: Arc<Link>,
    pub(super) lease: Arc<Lease>,
    pub(super) local: Arc<Local>,
    pub(super) registry: Arc<Registry>,
    pub(super) degrade: Arc<Degrade>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) notices: mpsc::Sender<Notice>,
}

impl Presence {
    /// Sweeps and reaps until stopped.
    pub(super) async fn run(&self, eras: watch::Receiver<Era>, stop: CancellationToken) {
        let lease = &self.lease;
        let (mut reap_at, mut unheard) = (Instant::now(), Unheard::new());
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(SWEEP_EVERY.min(lease.interval()).mul_f64(rand::random_range(0.9..1.1))) => {}
            }
            self.sweep_here(&mut unheard).await;
            let era = *eras.borrow();
            if !era.up {
                continue;
            }
            if era.reaped {
                // Others heard of them by the node that took this one for dead.
                unheard.clear();
            }
            let swept = self.sweep().await;
            if swept.is_ok() && Instant::now() >= reap_at && era.since.elapsed() >= lease.length() {
                for (node, _) in lease.doubtful().into_iter().filter(|(_, doubt)| *doubt == Doubt::Dead) {
                    // What fails here is done at the next round, by this node or another.
                    let _ = self.reap(&node).await;
                }
                let _ = self.tell_others(&mut unheard).await;
                reap_at = Instant::now() + lease.interval();
            }
        }
    }

    /// Departures as this node alone knows them: told where it is on its own, else left to Redis.
    async fn sweep_here(&self, unheard: &mut Unheard) {
        let departures = self.local.departures(Instant::now());
        if self.degrade.mode(Feature::Presence) == Mode::Shared {
            return;
        }
        for departure in departures {
            self.registry.told(&departure.user);
            self.note_unheard(unheard, &departure);
            self.tell(departure).await;
        }
    }

    /// Without a Redis there are no other nodes to be told.
    fn note_unheard(&self, unheard: &mut Unheard, departure: &Departure) {
        let user = &departure.user;
        if self.link.client().is_none() || unheard.len() >= UNHEARD_MAX && !unheard.contains_key(user) {
            return;
        }
        let known = unheard.entry(user.clone()).or_insert_with(|| Departure {
            left: Vec::new(),
            offline: false,
            told_here: true,
            ..departure.clone()
        });
        known.offline |= departure.offline;
        known.left.extend(departure.left.iter().cloned());
    }

    /// Tells other nodes of those who left while Redis was away, as far as it still holds. By now every node has
    /// registered anew what it holds: who is in Redis is here, or will be told to have left like anybody.
    async fn tell_others(&self, unheard: &mut Unheard) -> Result<(), LinkError> {
        while !unheard.is_empty() {
            let some: Vec<_> = unheard.values().take(BATCH).cloned().collect();
            let mut pipeline = Pipeline::new();
            for Departure { user, left, .. } in &some {
                pipeline.cmd("EXISTS").arg(keys::entry(user));
                for room in left {
                    pipeline.cmd("HEXISTS").arg(keys::entry(user)).arg(format!("r/{room}"));
                }
            }
            let mut replies = self.link.run(Op::Sweep, keys::LEAVING, &pipeline).await?;
            let mut index = 0..;
            let mut gone = || index.next().is_some_and(|index| replies.take(index) == Ok(false));
            let still = some.into_iter().map(|mut departure| {
                unheard.remove(&departure.user);
                departure.offline &= gone();
                departure.left.retain(|_| gone());
                departure
            });
            let still: Vec<_> = still.filter(|departure| departure.offline || !departure.left.is_empty()).collect();
            // Views that stay wrong are set right by the half-hourly renewal.
            let _ = self.hide(&still).await;
            for departure in still {
                self.tell(departure).await;
            }
        }
        Ok(())
    }

    /// Claims departures whose grace is over.
    async fn sweep(&self) -> Result<(), LinkError> {
        let link = &self.link;
        loop {
            let now = self.lease.redis_micros();
            let mut pipeline = Pipeline::new();
            pipeline.cmd("ZRANGEBYSCORE").arg(keys::LEAVING).arg("-inf").arg(now).arg("LIMIT").arg(0).arg(BATCH);
            let members: Vec<String> = link.run(Op::Sweep, keys::LEAVING, &pipeline).await?.take(0)?;
            if members.is_empty() {
                return Ok(());
            }
            let users: HashSet<_> = members.iter().filter_map(|member| keys::leaving_user(member)).collect();
            let users: Vec<_> = users.into_iter().collect();
            let mut pipeline = Pipeline::new();
            for user in &users {
                CLAIM.call(&mut pipeline, &keys::entry(user));
            }
            pipeline.cmd("ZREM").arg(keys::LEAVING).arg(&members);
            let replies = link.run(Op::Sweep, keys::LEAVING, &pipeline).await?;
            self.take_claims(users.into_iter().enumerate(), replies).await?;
            if members.len() < BATCH {
                return Ok(());
            }
        }
    }

    /// Reads answers of `claim.lua`, brings the views in line and tells what was claimed.
    async fn take_claims(
        &self,
        users: impl Iterator<Item = (usize, UserId)>,
        mut replies: Replies,
    ) -> Result<(), LinkError> {
        let (mut departures, mut again) = (Vec::new(), Pipeline::new());
        for (index, user) in users {
            let claimed: Result<(bool, String, String, Vec<String>), _> = replies.take(index);
            let Ok((offline, name, next_due, left)) = claimed else { continue };
            let left: Vec<_> = left.iter().filter_map(|id| ConversationId::parse(id).ok()).collect();
            if let Ok(due) = next_due.parse::<i64>() {
                look_at(&mut again, &user, due);
            }
            if offline || !left.is_empty() {
                departures.push(Departure { user, name: name.into(), left, offline, told_here: false });
            }
        }
        let asked = if again.is_empty() { Ok(()) } else { self.order(&again).await };
        let shown = self.hide(&departures).await;
        for departure in departures {
            self.tell(departure).await;
        }
        asked.and(shown)
    }

    /// Takes those who went out of the views; whoever came back meanwhile is put in again.
    async fn hide(&self, departures: &[Departure]) -> Result<(), LinkError> {
        let mut pipeline = Pipeline::new();
        for Departure { user, left, offline, .. } in departures {
            if *offline {
                pipeline.cmd("SREM").arg(keys::ONLINE).arg(user.as_str()).cmd("DEL").arg(keys::summary(user));
            }
            for room in left {
                pipeline.cmd("SREM").arg(keys::audience(room)).arg(user.as_str());
            }
        }
        let first_check = pipeline.len();
        for Departure { user, left, .. } in departures {
            pipeline.cmd("HEXISTS").arg(keys::entry(user)).arg("c");
            for room in left {
                pipeline.cmd("HEXISTS").arg(keys::entry(user)).arg(format!("r/{room}"));
            }
        }
        if first_check == 0 {
            return Ok(());
        }
        let mut replies = self.link.run(Op::Sweep, keys::LEAVING, &pipeline).await?;
        let (mut back, mut index) = (Pipeline::new(), first_check..);
        let mut is_back = || index.next().is_some_and(|index| replies.take(index) == Ok(true));
        for Departure { user, left, .. } in departures {
            if is_back() {
                back.cmd("SADD").arg(keys::ONLINE).arg(user.as_str());
            }
            for room in left.iter().filter(|_| is_back()) {
                add_listener(&mut back, room, user);
            }
        }
        if back.is_empty() { Ok(()) } else { self.order(&back).await }
    }

    /// Removes a dead node's connections; its users depart at once, each told by exactly one node.
    async fn reap(&self, node: &Incarnation) -> Result<(), LinkError> {
        let link = &self.link;
        let mut pipeline = Pipeline::new();
        pipeline.cmd("ZSCORE").arg(keys::NODES).arg(node.as_str());
        // The lease may have been renewed since this node last looked.
        let Some(out): Option<f64> = link.run(Op::Reap, node.as_str(), &pipeline).await?.take(0)? else {
            return Ok(());
        };
        if out as i64 + REAP_MARGIN_MILLIS > self.lease.redis_micros() / 1_000 {
            return Ok(());
        }
        let (key, mut cursor, mut removed) = (keys::node_users(node), 0_u64, 0);
        loop {
            let mut pipeline = Pipeline::new();
            pipeline.cmd("SSCAN").arg(&key).arg(cursor).arg("COUNT").arg(BATCH);
            let (next, users): (u64, Vec<String>) = link.run(Op::Reap, node.as_str(), &pipeline).await?.take(0)?;
            let users: Vec<_> = users.iter().filter_map(|user| UserId::parse(user).ok()).collect();
            removed += self.reap_users(node, users).await?;
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        let mut pipeline = Pipeline::new();
        pipeline.cmd("DEL").arg(&key).cmd("ZREM").arg(keys::NODES).arg(node.as_str());
        pipeline.cmd("HDEL").arg(keys::CONNECTIONS).arg(node.as_str());
        self.order(&pipeline).await?;
        self.metrics.reaped.inc_by(removed);
        tracing::info!(%node, removed, "removed what a dead node left behind");
        Ok(())
    }

    async fn reap_users(&self, node: &Incarnation, users: Vec<UserId>) -> Result<u64, LinkError> {
        if users.is_empty() {
            return Ok(0);
        }
        let mut pipeline = Pipeline::new();
        for user in &users {
            sync_call(&mut pipeline, user, (node, None), None, Duration::ZERO);
            CLAIM.call(&mut pipeline, &keys::entry(user));
        }
        let mut replies = self.link.run(Op::Reap, node.as_str(), &pipeline).await?;
        let synced = (0..users.len()).filter_map(|n| Synced::take(&mut replies, 2 * n).ok());
        let removed = synced.map(|synced| synced.removed).sum();
        self.take_claims(users.into_iter().enumerate().map(|(n, user)| (2 * n + 1, user)), replies).await?;
        Ok(removed)
    }

    async fn tell(&self, departure: Departure) {
        // Nobody listens any more where the node has ended.
        let _ = self.notices.send(Notice::Departed(departure)).await;
    }

    async fn order(&self, pipeline: &Pipeline) -> Result<(), LinkError> {
        self.link.run(Op::Sweep, keys::LEAVING, pipeline).await.map(|_| ())
    }
}
