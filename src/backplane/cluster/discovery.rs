//! Finds the masters by asking some nodes of the cluster: at the start, from time to time, and as soon as a reply or a broken
//! connection says that slots have moved.
//!
//! A node that was cut off or frozen tells what it knew before. So the node with the highest epoch is believed, and one that knows
//! only a lower epoch moves nobody back until no other one answers for a while.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use futures_util::{StreamExt, stream::FuturesUnordered};
use rand::seq::SliceRandom;
use redis::{AsyncConnectionConfig, Pipeline, Value, aio::MultiplexedConnection};
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};

use super::{
    super::{
        connector::{Connector, Place},
        fault,
        link_error::{LinkError, Refusal},
        route::Route,
        shards::{Layout, Shard},
    },
    masters::Masters,
    topology::{Reading, Topology, slot},
};
use crate::{
    config::HostPort,
    degrade::{Fault, Finding},
    metrics::Metrics,
};

/// Interval between two rounds of questions, varied by a fifth.
const ASK_EVERY: Duration = Duration::from_secs(30);
/// The same while a master is down, or slots have none: another one may replace it.
const ASK_SOON: Duration = Duration::from_millis(400);
/// Minimum pause between two rounds.
const PAUSE: Duration = Duration::from_millis(200);
/// Number of known nodes, and of those in REDIS_URL, that a round asks.
const ASKED: (usize, usize) = (4, 2);
/// Time in which a round waits for further answers after the first one.
const FURTHER: Duration = Duration::from_millis(150);
/// Maximum wait for a connection, and for an answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// Time for which only lower epochs must be told until one is believed.
const LOWER_AFTER: Duration = Duration::from_secs(15);

/// A cluster.
pub(in crate::backplane) struct Cluster {
    /// The nodes in REDIS_URL.
    seeds: Vec<HostPort>,
    connector: Connector,
    /// Nodes are reached by their names.
    names: bool,
    topology: ArcSwapOption<Topology>,
    state: Mutex<State>,
    /// Which masters answer.
    pub(super) health: Masters,
    /// Changes with the topology, and when a master goes down or comes up.
    pub(super) changes: watch::Sender<u64>,
    ask_now: Notify,
    /// Connections for questions.
    connections: tokio::sync::Mutex<HashMap<HostPort, MultiplexedConnection>>,
}

#[derive(Default)]
struct State {
    /// The epoch of the believed topology, and since when only lower ones are told.
    epoch: u64,
    lower_since: Option<Instant>,
    /// Nodes that were asked in the last round and told no topology, and why.
    failed: Vec<(HostPort, Finding)>,
    /// Changes of the masters, and of the masters of shards, that are not yet in the metrics.
    changes: u64,
    moves: u64,
}

/// The topology that a node tells, with its epoch.
struct View {
    /// The epoch up to which it knows changes; 0 if its login may not ask.
    epoch: u64,
    topology: Topology,
}

impl Cluster {
    /// The cluster of these nodes. Makes no connection.
    pub(in crate::backplane) fn new(seeds: Vec<HostPort>, connector: Connector, names: bool) -> Self {
        Self {
            seeds,
            connector,
            names,
            topology: ArcSwapOption::empty(),
            state: Mutex::default(),
            health: Masters::default(),
            changes: watch::Sender::new(0),
            ask_now: Notify::new(),
            connections: tokio::sync::Mutex::default(),
        }
    }

    /// Asks until the task is stopped.
    pub(in crate::backplane) async fn run(&self, route: &watch::Sender<Route>, metrics: &Metrics) {
        loop {
            self.ask_once(route).await;
            self.report(metrics);
            sleep(PAUSE).await;
            let pause = match self.topology() {
                None => PAUSE * 5,
                Some(_) if self.shards_down() != 0 || self.lacking_slots().is_some() => ASK_SOON,
                Some(_) => ASK_EVERY,
            };
            // The time is over if nobody wants to know sooner.
            let _ = timeout(pause.mul_f64(rand::random_range(0.8..1.2)), self.ask_now.notified()).await;
        }
    }

    /// Sets the metrics.
    fn report(&self, metrics: &Metrics) {
        metrics.redis_master_up.reset();
        for (master, up) in self.states() {
            metrics.redis_master_up.with_label_values(&[&master.to_string()]).set(up.into());
        }
        metrics.redis_shards_down.set(self.shards_down().count_ones().into());
        let mut state = self.state();
        metrics.redis_shard_moves.inc_by(std::mem::take(&mut state.moves));
        metrics.redis_primary_changes.inc_by(std::mem::take(&mut state.changes));
    }

    /// Wakes the task to ask now.
    pub(in crate::backplane) fn ask_now(&self) {
        self.ask_now.notify_one();
    }

    /// The believed topology; `None` before the first one.
    pub(super) fn topology(&self) -> Option<Arc<Topology>> {
        self.topology.load_full()
    }

    /// The nodes in REDIS_URL.
    pub(in crate::backplane) fn seeds(&self) -> &[HostPort] {
        &self.seeds
    }

    /// The masters with slots; none before the first answer.
    pub(in crate::backplane) fn masters(&self) -> Vec<HostPort> {
        self.topology().map_or_else(Vec::new, |topology| topology.masters().to_vec())
    }

    /// The master of a key or channel.
    pub(in crate::backplane) fn owner_of(&self, key: &[u8]) -> Option<HostPort> {
        self.topology()?.owner(slot(key)).cloned()
    }

    /// These shards by their masters.
    pub(in crate::backplane) fn shards_by_master(
        &self,
        shards: impl Iterator<Item = Shard>,
    ) -> HashMap<HostPort, Vec<Shard>> {
        let (topology, mut held) = (self.topology(), HashMap::<HostPort, Vec<Shard>>::new());
        for shard in shards {
            let owner = topology.as_ref().and_then(|topology| topology.owner(slot(shard.tag().as_bytes())));
            if let Some(owner) = owner {
                held.entry(owner.clone()).or_default().push(shard);
            }
        }
        held
    }

    /// Connects to a node.
    pub(in crate::backplane) async fn connect(
        &self,
        address: &HostPort,
        config: &AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection, LinkError> {
        self.connector.connect(&Place::Host(address.clone()), config).await.map_err(|error| match error {
            LinkError::Broken(why) => LinkError::Broken(format!("{address}: {why}")),
            LinkError::CertificateRefused(why) => LinkError::CertificateRefused(format!("{address}: {why}")),
            error => error,
        })
    }

    /// The address by which a node is reached that another one calls so.
    pub(super) fn resolve(&self, called: HostPort) -> HostPort {
        match self.topology() {
            Some(topology) => topology.resolve(called),
            None => called,
        }
    }

    /// Records that a node names another owner of a slot, and asks for the rest.
    pub(super) fn note_moved(&self, slot: u16, owner: &HostPort) {
        {
            let mut state = self.state();
            let moved = self.topology().and_then(|topology| topology.with_owner(slot, owner));
            if let Some(moved) = moved {
                let is_shard = |shard: Shard| super::topology::slot(shard.tag().as_bytes()) == slot;
                state.moves += u64::from(Shard::all(Layout::Cluster).any(is_shard));
                self.topology.store(Some(Arc::new(moved)));
                self.changes.send_modify(|count| *count += 1);
            }
        }
        self.ask_now();
    }

    /// Asks some nodes, and takes over what they tell. The route changes if other nodes than before are masters.
    pub(in crate::backplane) async fn ask_once(&self, route: &watch::Sender<Route>) {
        let (mut views, mut failed) = (Vec::new(), Vec::new());
        let asked = self.candidates();
        let mut connections = self.connections.lock().await;
        connections.retain(|address, _| asked.contains(address));
        let ask = |address: HostPort, known: Option<MultiplexedConnection>| async move {
            (self.ask(&address, known).await, address)
        };
        let questions = asked.into_iter().map(|address| {
            let known = connections.remove(&address);
            ask(address, known)
        });
        let mut questions: FuturesUnordered<_> = questions.collect();
        let mut first_at = None;
        loop {
            let next = match first_at {
                None => questions.next().await,
                Some(at) => {
                    timeout(FURTHER.saturating_sub(Instant::elapsed(&at)), questions.next()).await.unwrap_or(None)
                }
            };
            match next {
                Some((Ok((connection, view)), address)) => {
                    first_at.get_or_insert_with(Instant::now);
                    connections.insert(address, connection);
                    views.push(view);
                }
                Some((Err(finding), address)) => failed.push((address, finding)),
                None => break,
            }
        }
        drop((questions, connections));
        // Of several with one epoch, the one that covers most slots.
        let best = views.into_iter().max_by_key(|view| (view.epoch, std::cmp::Reverse(view.topology.uncovered())));
        self.accept(best, failed, route);
    }

    /// Takes over the best view of a round.
    fn accept(&self, best: Option<View>, failed: Vec<(HostPort, Finding)>, route: &watch::Sender<Route>) {
        let mut state = self.state();
        state.failed = failed;
        let Some(View { epoch, topology }) = best else { return };
        if epoch < state.epoch && state.lower_since.get_or_insert_with(Instant::now).elapsed() < LOWER_AFTER {
            return;
        }
        (state.epoch, state.lower_since) = (epoch, None);
        let before = self.topology();
        if before.as_deref() == Some(&topology) {
            return;
        }
        let same = before.as_ref().is_some_and(|before| before.masters() == topology.masters());
        if let Some(before) = &before {
            let slots = Shard::all(Layout::Cluster).map(|shard| slot(shard.tag().as_bytes()));
            state.moves += slots.filter(|slot| before.owner(*slot) != topology.owner(*slot)).count() as u64;
            state.changes += u64::from(!same);
        }
        if let Some(before) = &before {
            // A replica that took over may lack the last writes. Nobody uses it until this node has registered anew.
            for master in promoted(before, &topology) {
                self.health.note_down(master, None);
            }
        }
        self.health.retain(topology.masters());
        if !same {
            let list = topology.masters().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            tracing::info!(masters = list, epoch, "the masters of the Redis Cluster");
        }
        self.topology.store(Some(Arc::new(topology)));
        drop(state);
        self.changes.send_modify(|count| *count += 1);
        if !same {
            let place = Place::Host(self.seeds[0].clone());
            route.send_modify(|route| route.change(place));
        }
    }

    /// Some of the nodes, each once.
    fn candidates(&self) -> Vec<HostPort> {
        let pick = |mut from: Vec<HostPort>, count: usize| {
            from.shuffle(&mut rand::rng());
            from.truncate(count);
            from
        };
        let known = self.topology().map_or_else(Vec::new, |topology| topology.nodes().cloned().collect());
        let seeds = if known.is_empty() { self.seeds.len() } else { ASKED.1 };
        let mut picked = [pick(known, ASKED.0), pick(self.seeds.clone(), seeds)].concat();
        picked.sort_unstable();
        picked.dedup();
        picked
    }

    /// Asks one node.
    async fn ask(
        &self,
        address: &HostPort,
        known: Option<MultiplexedConnection>,
    ) -> Result<(MultiplexedConnection, View), Finding> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(ANSWER_TIMEOUT));
        if let Some(mut connection) = known
            && let Ok(view) = self.view(address, &mut connection).await
        {
            return Ok((connection, view));
        }
        let mut connection = self.connect(address, &config).await.map_err(|error| fault::link_finding(&error))?;
        let view = self.view(address, &mut connection).await?;
        Ok((connection, view))
    }

    async fn view(&self, address: &HostPort, on: &mut MultiplexedConnection) -> Result<View, Finding> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("CLUSTER").arg("SLOTS").cmd("CLUSTER").arg("INFO");
        let replies = on.send_packed_commands(&pipeline, 0, 2).await;
        let replies = replies.map_err(|error| fault::finding(&error))?;
        let [slots, info] = &replies[..] else { return Err(fault::link_finding(&LinkError::Unexpected)) };
        if let Value::ServerError(error) = slots {
            return Err(refused(address, &Refusal::from(error)));
        }
        let known = self.topology();
        let reading = Reading { asked: address, names: self.names, known: known.as_deref() };
        let topology = Topology::parse(slots, reading).ok_or_else(|| {
            Finding::new(Fault::RedisClusterDown, "the reply to CLUSTER SLOTS has an unexpected form")
        })?;
        let info: String = redis::from_redis_value_ref(info).unwrap_or_default();
        let epoch = info.lines().find_map(|line| line.trim_end().strip_prefix("cluster_current_epoch:"));
        Ok(View { epoch: epoch.and_then(|epoch| epoch.parse().ok()).unwrap_or_default(), topology })
    }

    /// The finding if the addresses lead to servers that belong to no cluster: one says so, and no other knows better.
    pub(in crate::backplane) fn misfit(&self) -> Option<Finding> {
        let state = self.state();
        let wrong = state.failed.iter().find(|(_, finding)| finding.fault == Fault::RedisIsNoCluster);
        wrong.filter(|_| self.topology.load().is_none()).map(|(_, finding)| finding.clone())
    }

    /// Why commands reach no master; `None` if the first shard has one.
    pub(super) fn unfound(&self) -> Option<Finding> {
        let (state, home) = (self.state(), slot(Shard::HOME.tag().as_bytes()));
        match self.topology.load().as_ref().map(|topology| (topology.owner(home), topology.uncovered())) {
            Some((Some(_), _)) => None,
            Some((None, slots)) => {
                Some(Finding::new(Fault::RedisClusterDown, format!("{slots} of 16384 slots have no master")))
            }
            None => {
                let worst = |fault| state.failed.iter().any(|(_, finding)| finding.fault == fault).then_some(fault);
                let fault = worst(Fault::RedisIsNoCluster).or_else(|| worst(Fault::RedisDeniesAccess));
                let list: Vec<_> =
                    state.failed.iter().map(|(address, finding)| format!("{address}: {}", finding.detail)).collect();
                let list = if list.is_empty() { "none was asked yet".to_owned() } else { list.join("; ") };
                let why = format!("no node tells the masters of the cluster: {list}");
                Some(Finding::new(fault.unwrap_or(Fault::RedisUnreachable), why))
            }
        }
    }

    /// The cluster in words, for an operator.
    pub(in crate::backplane) fn in_words(&self) -> String {
        let masters: Vec<_> = self.masters().iter().map(ToString::to_string).collect();
        format!("cluster with {} masters: {}", masters.len(), masters.join(", "))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The masters that took over from one that is none any more. A slot that moved from a master that stays has lost nothing.
fn promoted<'a>(before: &'a Topology, now: &'a Topology) -> impl Iterator<Item = &'a HostPort> {
    let gone = before.masters().iter().any(|master| now.masters().binary_search(master).is_err());
    now.masters().iter().filter(move |master| gone && before.masters().binary_search(master).is_err())
}

/// The finding behind a refusal of CLUSTER SLOTS.
fn refused(address: &HostPort, refusal: &Refusal) -> Finding {
    let finding = fault::refused(refusal);
    let lower = refusal.words.to_lowercase();
    if finding.fault == Fault::RedisLacksCommand || lower.contains("cluster support disabled") {
        let why = format!(
            "{address} belongs to no cluster: for one server write redis://host:port, for sentinels redis+sentinel://"
        );
        return Finding::new(Fault::RedisIsNoCluster, why);
    }
    finding
}
