//! One run in four phases: warm-up, torture, quiet, leave; returns its evidence.

use std::{collections::BTreeSet, fs, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{
    checker::shown_is_true,
    cluster::{Cluster, Defects},
    crowd::{ALL, Crowd, Scene, USERS, user},
    engine::Engine,
    evidence::{Evidence, Figure, Presence},
    faults::run_plan,
    history::{Name, Recorder},
    nemesis::{NODES, Plan},
    orders::{Order, Orders},
    support::resident_bytes,
    views,
};

/// Time during which clients chat undisturbed before anything is measured.
const WARM_UP: Duration = Duration::from_secs(5);
/// Maximum time until a sound cluster is quiet.
const QUIET: Duration = Duration::from_secs(60);
/// Maximum time from an ack until every listener has the entry. A node whose link to Redis is broken may get no
/// entries, so this is longer than faults of Redis and its links can take one after the other.
const DELIVERED_WITHIN: Duration = Duration::from_secs(30);
/// Allowed growth of a node's memory in bytes and of its open files. Connections to PostgreSQL stay open once made.
const MEMORY_SLACK: u64 = 48 * 1024 * 1024;
const FILES_SLACK: u64 = 16;

/// Interval between two pairs of users who write to each other for the first time.
const CONTACTS_APART: Duration = Duration::from_millis(700);
/// Part of the time after which some clients leave for good, so that nobody may see them in the end.
const RETIRE_AT: f64 = 0.8;
/// Maximum time in a sound cluster until sockets were shown who is there.
const SHOWN_WITHIN: Duration = Duration::from_secs(15);
/// Time for which presence must stay true: longer than leases, after which nodes reap what nobody renewed.
const STEADY: Duration = Duration::from_secs(5);

/// Parameters of a run.
#[derive(Debug, Clone)]
pub struct Run {
    pub engine: Engine,
    pub seed: u64,
    pub plan: Plan,
    /// Duration of the plan.
    pub time: Duration,
    pub defects: Defects,
    /// Maximum time until the cluster is quiet after the last fault.
    pub quiet: Duration,
}

impl Run {
    /// A run with a plan drawn from the seed, on a sound cluster.
    pub fn drawn(engine: Engine, seed: u64, time: Duration) -> Self {
        Self { engine, seed, plan: Plan::draw(engine, seed, time), time, defects: Defects::default(), quiet: QUIET }
    }
}

/// Runs it. Returns the evidence for the checker, and the cluster for its logs.
pub async fn run(run: &Run) -> (Evidence, Arc<Cluster>) {
    let cluster = Arc::new(Cluster::start(run.engine, run.defects).await);
    let mut scene = Scene::make(&cluster).await;
    let recorder = Recorder::new();

    let mut crowd = Crowd::enter(0, &cluster, &scene, run.seed, &recorder);
    sleep(WARM_UP).await;
    scene.churned = crowd.settle(&cluster, run.quiet).await;
    crowd.leave().await;
    until(run.quiet, async || presence_is_empty(&cluster).await).await;
    let before = figures(&cluster).await;

    let mut crowd = Crowd::enter(ALL, &cluster, &scene, run.seed, &recorder);
    let mut evidence =
        Evidence { users: (0..2 * ALL).map(user).collect(), delivered_within: DELIVERED_WITHIN, ..Evidence::default() };
    let contacts = tokio::spawn(Crowd::make_contacts(crowd.orders.clone(), run.seed, CONTACTS_APART));
    let retiring = tokio::spawn(retire(crowd.orders.clone(), run.time.mul_f64(RETIRE_AT)));
    let (begun, tormented) = (Instant::now(), run_plan(&run.plan, &cluster, &crowd.orders, &recorder));
    evidence.lost = tormented.await;
    sleep((begun + run.time).saturating_duration_since(Instant::now())).await;
    let healed = Instant::now();

    if !until(run.quiet, async || cluster.is_healthy().await).await {
        evidence.lost.push(format!("not every node is healthy {:?} after the last fault", run.quiet));
    }
    crowd.settle(&cluster, run.quiet).await;
    let (_contacts, _retired) = (contacts.await, retiring.await);
    evidence.presence = until_presence_is_steady(&cluster, &crowd, run.quiet).await;
    evidence.right_after = healed.elapsed();
    until(run.quiet.min(SHOWN_WITHIN), async || crowd.shown(&scene).iter().all(shown_is_true)).await;
    evidence.shown = crowd.shown(&scene);
    evidence.history = recorder.history();
    evidence.shards = cluster.redis.shards_of((0..USERS).map(user)).await;
    evidence.store = cluster.logs().await;
    evidence.views = views::read_all(&cluster, &evidence.store).await;

    crowd.leave().await;
    let has_come_back = async || compare(&before, figures(&cluster).await).iter().all(Figure::is_well);
    until(run.quiet, has_come_back).await;
    evidence.figures = compare(&before, figures(&cluster).await);
    (evidence, cluster)
}

async fn retire(orders: Orders, after: Duration) {
    sleep(after).await;
    orders.give(Order::Retire);
}

/// Waits until the registry and all nodes name the users with a socket, and returns what they say: after [`STEADY`], or as
/// soon as they say something else.
async fn until_presence_is_steady(cluster: &Cluster, crowd: &Crowd, limit: Duration) -> Vec<Presence> {
    let is_true = |presence: &[Presence]| presence.iter().all(|one| one.reported == one.live);
    until(limit, async || is_true(&presence(cluster, crowd).await)).await;
    let since = Instant::now();
    loop {
        let presence = presence(cluster, crowd).await;
        if since.elapsed() > STEADY || !is_true(&presence) {
            return presence;
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// Polls until the condition holds; false if it never does.
pub async fn until(limit: Duration, ask: impl AsyncFn() -> bool) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < limit {
        if ask().await {
            return true;
        }
        sleep(Duration::from_millis(200)).await;
    }
    false
}

/// Measures what nodes and Redis keep of connected users; it must return to its former values once they have left.
async fn figures(cluster: &Cluster) -> Vec<(String, u64, u64)> {
    let (keys, channels) = (cluster.redis.keys().await, cluster.redis.channels().await);
    let (mut memory, mut files) = (0, 0);
    for place in &cluster.places {
        let place = place.lock().await;
        let pid = place.node.as_ref().map_or(0, |node| node.pid());
        memory = memory.max(resident_bytes(pid));
        files = files.max(fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |open| open.count() as u64));
    }
    vec![
        (format!("Redis keys {keys:?}"), keys.len() as u64, 0),
        (format!("Redis channels {channels:?}"), channels.len() as u64, 0),
        ("memory of the largest node".into(), memory, MEMORY_SLACK),
        ("open files of the node with most".into(), files, FILES_SLACK),
    ]
}

fn compare(before: &[(String, u64, u64)], now: Vec<(String, u64, u64)>) -> Vec<Figure> {
    let pairs = before.iter().zip(now);
    pairs.map(|((_, before, _), (name, after, slack))| Figure { name, before: *before, after, slack }).collect()
}

/// True if no user is online and Redis keeps no connection of former users.
async fn presence_is_empty(cluster: &Cluster) -> bool {
    cluster.redis.online().await.is_empty() && cluster.redis.connections().await.is_empty()
}

/// Users online according to Redis and to each node, and the number of sockets of each user in the registry.
async fn presence(cluster: &Cluster, crowd: &Crowd) -> Vec<Presence> {
    let sockets = crowd.live();
    let live: BTreeSet<Name> = sockets.keys().cloned().collect();
    let counted = |(user, count): (&Name, &usize)| format!("{user} × {count}").into();
    let users: Vec<Name> = (0..USERS).map(user).collect();

    let online = cluster.redis.online().await;
    let registered = cluster.redis.connections().await.iter().map(counted).collect();
    let mut all = vec![
        Presence { place: "ws:online_users".into(), reported: names(online), live: live.clone() },
        Presence { place: "ws:conns:*".into(), reported: registered, live: sockets.iter().map(counted).collect() },
    ];
    for node in 0..NODES {
        let list = cluster.get_json(node, "/api/websocket/users/online?limit=100").await.unwrap_or_default();
        let reported = names(list["users"].as_array().into_iter().flatten().filter_map(|user| user.as_str()));
        all.push(Presence { place: format!("node {node}, all"), reported, live: live.clone() });
        let mut reported = BTreeSet::new();
        for user in &users {
            let answer =
                cluster.get_json(node, &format!("/api/websocket/users/{user}/online")).await.unwrap_or_default();
            reported.extend((answer["online"] == true).then(|| user.clone()));
        }
        all.push(Presence { place: format!("node {node}, one by one"), reported, live: live.clone() });
    }
    all
}

fn names(names: impl IntoIterator<Item = impl AsRef<str>>) -> BTreeSet<Name> {
    names.into_iter().map(|name| name.as_ref().into()).collect()
}
