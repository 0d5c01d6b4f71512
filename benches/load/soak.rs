//! A long run: two nodes under a fixed load of sends, clients that come and go, reads over REST, and faults in turn. Rooms and
//! users are the same from begin to end, so memory, open files, tasks, keys and connections must stay flat.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    rc::Rc,
    time::Duration,
};

use tokio::{
    sync::watch,
    task::{JoinHandle, LocalSet, spawn_local},
    time::{Instant, interval, sleep, timeout},
};

use self::{
    churn::Visitor,
    clients::{Phase, Shared, Talker, Witness},
    faults::Fault,
    frames::Dialect,
    ledger::Ledger,
    samples::{Samples, Series},
    trend::{Trend, averaged, sparkline},
};
use crate::{
    BenchResult,
    args::Args,
    record::Record,
    support::{Node, Postgres, RedisServer},
};

mod churn;
mod clients;
mod connection;
mod faults;
mod frames;
mod ledger;
mod samples;
mod trend;

const NODES: usize = 2;
const ROOMS: usize = 20;
/// Talkers of each dialect on each node.
const TALKERS: usize = 4;
/// Messages per second of all talkers.
const RATE: f64 = 50.0;
const VISITORS: usize = 20;
/// Interval between two samples.
const SAMPLING: Duration = Duration::from_secs(3);
/// Interval between the begins of two faults.
const FAULTS: Duration = Duration::from_secs(10);
/// Time at the end of the load without faults: the longest fault ends within it.
const CALM: Duration = Duration::from_secs(5);
/// Part of the run that is warm-up, and the longest one.
const WARM_UP: (f64, f64) = (1.0 / 3.0, 300.0);
/// Maximum time until all messages have their answers and deliveries at the end.
const SETTLING: Duration = Duration::from_secs(30);
/// Width of a series in the output.
const WIDTH: usize = 30;

/// Servers and nodes.
struct Cluster {
    redis: RedisServer,
    _postgres: Postgres,
    database: String,
    nodes: Vec<Node>,
}

impl Cluster {
    async fn start(args: &Args) -> Self {
        let redis = RedisServer::start().await;
        let postgres = Postgres::start(&[]).await;
        let database = postgres.database().await;
        let mut nodes = Vec::new();
        for _ in 0..NODES {
            // Short lifetimes, so that the number of keys reaches its plateau within the warm-up.
            let node = Node::serve(&redis.url(), &database).set("CACHE_TTL", "20s").set("PRESENCE_GRACE", "2s");
            let node = node.set("MESSAGE_RATE_LIMIT", 1_000_000);
            let node = args.settings.iter().fold(node, |node, (name, value)| node.set(name, value));
            nodes.push(node.start().await);
        }
        Self { redis, _postgres: postgres, database, nodes }
    }
}

/// Runs the part.
pub async fn measure(args: &Args) -> BenchResult<Record> {
    LocalSet::new().run_until(run(args)).await
}

async fn run(args: &Args) -> BenchResult<Record> {
    let length = Duration::from_secs(args.soak_seconds);
    println!(
        "\nSoak: {RATE} sends/s of {} users in 5 dialects, {VISITORS} who come and go, {NODES} nodes, a fault every {} s",
        TALKERS * NODES * Dialect::ALL.len(),
        FAULTS.as_secs()
    );
    let cluster = Cluster::start(args).await;
    let shared = Rc::new(Shared {
        addresses: cluster.nodes.iter().map(Node::address).collect(),
        ledger: RefCell::new(Ledger::new(NODES)),
        phase: watch::Sender::new(Phase::Load),
        moves: watch::Sender::new(0),
    });
    let rooms: Vec<String> = (0..ROOMS).map(|room| format!("soak-{room}")).collect();
    let witnesses = witnesses(&shared, &rooms).await?;
    let talkers = talkers(&shared, &rooms);
    let visitors = visitors(&shared, &rooms);
    let (samples, injected) = drive(&cluster, &shared, length).await?;
    shared.phase.send_replace(Phase::Settle);
    for visitor in visitors {
        visitor.await?;
    }
    settle(&shared).await;
    shared.phase.send_replace(Phase::End);
    let mut unanswered = 0;
    for talker in talkers {
        unanswered += talker.await?;
    }
    for witness in witnesses {
        witness.await?;
    }
    let warm_up = (args.soak_seconds as f64 * WARM_UP.0).min(WARM_UP.1);
    let mut record = Record::of("soak");
    print_series(&samples.series, warm_up, &mut record);
    print_messages(&shared.ledger.borrow(), unanswered, &injected, &mut record);
    Ok(record)
}

/// Starts the witnesses, and waits until they listen to all rooms.
async fn witnesses(shared: &Rc<Shared>, rooms: &[String]) -> BenchResult<Vec<JoinHandle<()>>> {
    let live = watch::Sender::new(0);
    let started = (0..NODES)
        .map(|index| {
            let user = format!("witness-{index}");
            let witness = Witness { index, user, node: index, rooms: rooms.to_vec(), last: BTreeMap::new() };
            let (shared, live) = (Rc::clone(shared), live.clone());
            spawn_local(async move { witness.run(&shared, live).await })
        })
        .collect();
    timeout(SETTLING, live.subscribe().wait_for(|live| *live == NODES)).await??;
    Ok(started)
}

fn talkers(shared: &Rc<Shared>, rooms: &[String]) -> Vec<JoinHandle<usize>> {
    let talkers = TALKERS * NODES * Dialect::ALL.len();
    let start = |index: usize| {
        let dialect = Dialect::ALL[index % Dialect::ALL.len()];
        let within = index / Dialect::ALL.len();
        let name = |within: usize| format!("{dialect:?}-{within}").to_lowercase();
        // In the direct dialect two users write each other, who are on different nodes.
        let to = if dialect == Dialect::Direct { name(within ^ 1) } else { rooms[index % rooms.len()].clone() };
        let (user, pace) = (name(within), Duration::from_secs_f64(talkers as f64 / RATE));
        let node = within % NODES;
        let talker = Talker { index, talkers, dialect, user, to, node, pace, under_way: HashMap::new() };
        let shared = Rc::clone(shared);
        spawn_local(async move { talker.run(&shared).await })
    };
    (0..talkers).map(start).collect()
}

fn visitors(shared: &Rc<Shared>, rooms: &[String]) -> Vec<JoinHandle<()>> {
    let http = reqwest::Client::new();
    let start = |index: usize| {
        let visitor = Visitor { index, user: format!("visitor-{index}"), rooms: rooms.to_vec() };
        let (shared, http) = (Rc::clone(shared), http.clone());
        spawn_local(async move { visitor.run(&shared, &http).await })
    };
    (0..VISITORS).map(start).collect()
}

/// Takes samples and injects faults for this time. Returns the samples and the number of each fault.
async fn drive(
    cluster: &Cluster,
    shared: &Shared,
    length: Duration,
) -> BenchResult<(Samples, BTreeMap<&'static str, u64>)> {
    let (mut samples, mut injected, began) = (Samples::begin(), BTreeMap::new(), Instant::now());
    let mut pace = interval(SAMPLING);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let (mut due, mut faults) = (FAULTS, Fault::ALL.iter().cycle());
    while began.elapsed() < length {
        pace.tick().await;
        // One after the other: a sample needs Redis and PostgreSQL.
        samples.take(&cluster.nodes, &cluster.redis, &cluster.database).await?;
        if began.elapsed() >= due && began.elapsed() + CALM < length {
            due += FAULTS;
            if let Some(fault) = faults.next() {
                fault.inject(&cluster.redis, &cluster.database, &shared.moves).await;
                *injected.entry(fault.label()).or_default() += 1;
            }
        }
    }
    Ok((samples, injected))
}

/// Waits until all messages have their answers and deliveries.
async fn settle(shared: &Shared) {
    let until = Instant::now() + SETTLING;
    let settled = || {
        let ledger = shared.ledger.borrow();
        ledger.acked() == ledger.sent && ledger.lost().is_empty()
    };
    while Instant::now() < until && !settled() {
        sleep(Duration::from_millis(200)).await;
    }
}

/// Prints each series and its trend after the warm-up, and keeps them.
fn print_series(all: &[Series], warm_up: f64, record: &mut Record) {
    let after = format!("after {warm_up:.0} s of warm-up");
    println!(
        "  {after:<26} {:<WIDTH$} {:>9} {:>9} {:<8} {:>7}",
        "from begin to end", "mean", "per hour", "", "of mean"
    );
    for Series { name, unit, points } in all {
        // Each fault opens and closes what belongs to it: only whole rounds of them are like each other.
        let rounds = averaged(points, warm_up, FAULTS.as_secs_f64() * Fault::ALL.len() as f64);
        let values: Vec<f64> = points.iter().map(|(_, value)| *value).collect();
        let bars = sparkline(&values, WIDTH);
        let (Some(trend), Some((last, _))) = (Trend::of(&rounds), points.last()) else {
            println!("  {name:<26} {bars}  too few samples");
            continue;
        };
        let Trend { mean, per_hour, error } = trend;
        let part = trend.part_per_hour().map_or("–".to_owned(), |part| format!("{:+.0} %", 100.0 * part));
        let verdict = if trend.grows(last - warm_up) { "  GROWS" } else { "" };
        println!("  {name:<26} {bars:<WIDTH$} {mean:>9.1} {per_hour:>+9.1} ±{error:<7.1} {part:>7} {unit}{verdict}");
        record.add(format!("{name}, mean"), mean, unit, mean * 0.1);
        record.add(format!("{name}, growth"), per_hour, &format!("{unit} per hour"), 3.0 * error);
    }
}

/// Prints what became of the messages, and keeps it.
fn print_messages(ledger: &Ledger, unanswered: usize, injected: &BTreeMap<&str, u64>, record: &mut Record) {
    let (acked, lost) = (ledger.acked(), ledger.lost());
    println!("  faults: {injected:?}");
    println!("  connects: {}; ended by the nodes or in vain: {:?}", ledger.connects, ledger.ended);
    println!("  reads over REST, by status: {:?}", ledger.reads);
    println!("  refused, and sent again: {:?}; resyncs: {}", ledger.refused, ledger.resyncs);
    println!(
        "  messages: {} sent, {acked} acked, {unanswered} without an answer, {} acked and LOST, {} repeated ({} to clients that \
         can't name the last entry they have)",
        ledger.sent,
        lost.len(),
        ledger.repeated(),
        ledger.repeated_direct()
    );
    if !lost.is_empty() {
        println!(
            "  an acked message that reaches no listener is a bug: {:?}",
            lost.iter().take(20).collect::<Vec<_>>()
        );
    }
    record.faults("acked messages that were lost", lost.len() as u64);
    record.faults("messages repeated", ledger.repeated());
    record.faults("messages without an answer", unanswered as u64);
    record.faults("resyncs", ledger.resyncs);
}
