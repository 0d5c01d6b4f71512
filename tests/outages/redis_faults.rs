//! Redis dies, hangs, loses data or refuses writes: nodes notice soon, acks stay fast, and all is consistent again once
//! Redis is back.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use super::{
    answer_blocker::AnswerBlocker,
    scene::{
        Sent, TEAM, assert_read, listener, node_with_short_times, presence, remaining_frames, send_messages, status,
        until_offline, until_status,
    },
};
use crate::support::{Client, Node, Postgres, RedisServer, allowed, eventually};

/// Maximum time until health or metrics show the fault.
const NOTICED: Duration = Duration::from_secs(5);
/// Maximum time from Redis' first answer until the nodes are healthy.
const RECOVERED_WITHIN: Duration = Duration::from_secs(5);
/// An ack slower than this counts as slow. `WAIT` is the one bounded wait for an answer of Redis, as in `link`.
const SLOW: Duration = Duration::from_millis(300);
const WAIT: Duration = Duration::from_millis(500);

/// A fault of Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Killed, and started again empty.
    Killed,
    /// Frozen: connections stay open, nothing answers.
    Frozen,
    /// `CLIENT PAUSE`: accepts, reads, answers nothing.
    Paused,
    /// `DEBUG SLEEP`: one command that takes seconds.
    Asleep,
    /// Out of memory: answers reads, refuses writes.
    Full,
    /// A replica whose master is dead: answers reads, refuses writes.
    ReadOnly,
    /// Closes the connections of subscribers.
    SubscribersKilled,
    /// Closes all connections for commands.
    CommandsKilled,
    /// Subscribers fall behind, and Redis closes them for it.
    SubscribersOverrun,
    /// All keys are lost.
    Wiped,
    /// All scripts are lost.
    ScriptsForgotten,
}

/// The sign by which a node shows the fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// Health reports `degraded` until Redis is back.
    Degraded,
    /// The node compares followed logs with the store.
    Missed,
    /// No sign: the fault costs one repeated call.
    None,
}

impl Fault {
    fn sign(self) -> Sign {
        match self {
            Self::Killed | Self::Frozen | Self::Paused | Self::Asleep | Self::Full | Self::ReadOnly => Sign::Degraded,
            Self::SubscribersKilled | Self::SubscribersOverrun | Self::Wiped => Sign::Missed,
            Self::CommandsKilled | Self::ScriptsForgotten => Sign::None,
        }
    }

    async fn begin_fault(self, redis: &mut RedisServer) {
        match self {
            Self::Killed => redis.kill().await,
            Self::Frozen => redis.pause(),
            Self::Paused => redis.command(&["CLIENT", "PAUSE", "4000", "ALL"]).await,
            Self::Asleep => {
                let mut connection = redis.connection().await;
                tokio::spawn(async move {
                    let mut sleep = redis::cmd("DEBUG");
                    // The answer comes when those of other clients do.
                    let _ = sleep.arg("SLEEP").arg(4).exec_async(&mut connection).await;
                });
            }
            Self::Full => redis.command(&["CONFIG", "SET", "maxmemory", "1"]).await,
            Self::ReadOnly => redis.command(&["REPLICAOF", "127.0.0.1", "1"]).await,
            Self::SubscribersKilled => {
                assert_eq!(redis.command::<i64>(&["CLIENT", "KILL", "TYPE", "pubsub"]).await, 2);
            }
            Self::CommandsKilled => {
                assert!(redis.command::<i64>(&["CLIENT", "KILL", "TYPE", "normal"]).await >= 8);
            }
            Self::SubscribersOverrun => {
                let limit = "pubsub 65536 0 0";
                redis.command::<()>(&["CONFIG", "SET", "client-output-buffer-limit", limit]).await;
                let channels: Vec<String> = redis.command(&["PUBSUB", "CHANNELS", &format!("*:c:{TEAM}")]).await;
                redis.command::<()>(&["PUBLISH", &channels[0], &"x".repeat(100_000)]).await;
            }
            Self::Wiped => redis.command(&["FLUSHALL"]).await,
            Self::ScriptsForgotten => redis.command(&["SCRIPT", "FLUSH"]).await,
        }
    }

    /// Ends the fault; faults that are over at once need nothing.
    async fn end_fault(self, redis: &mut RedisServer) {
        match self {
            Self::Killed => redis.restart().await,
            Self::Frozen => redis.resume(),
            Self::Paused | Self::Asleep => until_it_answers(redis).await,
            Self::Full => redis.command(&["CONFIG", "SET", "maxmemory", "0"]).await,
            Self::ReadOnly => redis.command(&["REPLICAOF", "NO", "ONE"]).await,
            _ => {}
        }
    }
}

/// Waits for the end of a pause, which nothing can shorten.
async fn until_it_answers(redis: &RedisServer) {
    let client = redis::Client::open(redis.url()).unwrap();
    eventually("Redis to answer", || async { client.get_multiplexed_async_connection().await.ok() }).await;
}

/// Two nodes on one Redis.
struct Pair {
    redis: RedisServer,
    nodes: [Node; 2],
}

impl Pair {
    async fn start(redis: RedisServer) -> Self {
        let database = Postgres::shared().await.database().await;
        let start = || node_with_short_times(&redis.url(), &database).start();
        let nodes = tokio::join!(start(), start()).into();
        Self { redis, nodes }
    }

    /// Opens a socket on each node.
    async fn listeners(&self, users: [&str; 2]) -> [Client; 2] {
        tokio::join!(listener(&self.nodes[0], users[0]), listener(&self.nodes[1], users[1])).into()
    }

    async fn missed(&self) -> [f64; 2] {
        let missed = async |node: &Node| node.metrics().await.get("switchboard_bus_missed_total").unwrap();
        [missed(&self.nodes[0]).await, missed(&self.nodes[1]).await]
    }

    /// Waits until both nodes show the sign.
    async fn noticed(&self, sign: Sign, missed: [f64; 2]) {
        let [one, two] = &self.nodes;
        match sign {
            Sign::Degraded => {
                tokio::join!(until_status(one, "degraded"), until_status(two, "degraded"));
            }
            Sign::Missed => {
                one.metric("switchboard_bus_missed_total", |now| now > missed[0]).await;
                two.metric("switchboard_bus_missed_total", |now| now > missed[1]).await;
            }
            Sign::None => {}
        }
    }

    async fn healthy(&self) {
        tokio::join!(until_status(&self.nodes[0], "healthy"), until_status(&self.nodes[1], "healthy"));
    }

    /// Waits until Redis has exactly these users, one connection each, and no gap is open.
    async fn until_consistent(&self, users: &[&str]) {
        let mut connection = self.redis.connection().await;
        for view in ["ws:online_users", "ws:room_users:team"] {
            let mut shown: Vec<String> = Vec::new();
            let consistent = tokio::time::timeout(allowed(RECOVERED_WITHIN), async {
                while shown != users {
                    shown = redis::cmd("SMEMBERS").arg(view).query_async(&mut connection).await.unwrap();
                    shown.sort();
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
            assert!(consistent.await.is_ok(), "{view} shows {shown:?} instead of {users:?}");
        }
        for user in users {
            let mut ask = redis::cmd("HGET");
            let lines: Option<String> =
                ask.arg(format!("ws:conns:{user}")).arg("c").query_async(&mut connection).await.unwrap();
            assert_eq!(lines.as_deref().unwrap_or_default().lines().count(), 1, "{user}: {lines:?}");
        }
        for node in &self.nodes {
            eventually("every gap to be backfilled", || async {
                (node.metrics().await.get("switchboard_gaps_open") == Some(0.0)).then_some(())
            })
            .await;
        }
    }
}

/// Figures of a fault.
#[derive(Debug)]
struct Figures {
    /// Time until both nodes showed it.
    noticed: Duration,
    slowest_ack: Duration,
    /// The larger number of slow acks of the two senders.
    slow_acks: usize,
    /// Time that two users took meanwhile to connect and join.
    newcomer: Duration,
    /// Time from Redis' first answer until both nodes were healthy.
    healthy: Duration,
}

/// Goes through a fault while users send, connect and leave.
async fn endure(fault: Fault) {
    let mut pair = Pair::start(RedisServer::with(&["--enable-debug-command", "yes"]).await).await;
    let [mut alice, mut dave] = pair.listeners(["alice", "dave"]).await;
    let mut readers = pair.listeners(["bob", "carol"]).await;
    let leavers = pair.listeners(["erin", "frank"]).await;
    let mut watchers = pair.listeners(["wade", "xena"]).await;
    let mut acked = BTreeMap::new();
    let stop = AtomicBool::new(true);
    let before = [send_messages(&mut alice, 10, &stop).await, send_messages(&mut dave, 10, &stop).await];
    let limit = SLOW + before.iter().map(Sent::slowest).max().unwrap();

    let missed = pair.missed().await;
    stop.store(false, Ordering::Release);
    let struck = Instant::now();
    fault.begin_fault(&mut pair.redis).await;
    let outage = async {
        pair.noticed(fault.sign(), missed).await;
        let noticed = struck.elapsed();
        drop(leavers);
        let came = Instant::now();
        let newcomers = pair.listeners(["gina", "henry"]).await;
        let newcomer = came.elapsed();
        let mut received = Vec::new();
        for (watcher, leaver) in watchers.iter_mut().zip(["erin", "frank"]) {
            received.push(until_offline(watcher, leaver).await);
        }
        fault.end_fault(&mut pair.redis).await;
        let mended = Instant::now();
        pair.healthy().await;
        let healthy = mended.elapsed();
        stop.store(true, Ordering::Release);
        (noticed, newcomer, healthy, newcomers, received)
    };
    let during = async { tokio::join!(send_messages(&mut alice, 30, &stop), send_messages(&mut dave, 30, &stop)) };
    let (during, (noticed, newcomer, healthy, _newcomers, received)) = tokio::join!(during, outage);
    let during = <[Sent; 2]>::from(during);
    let figures = Figures {
        noticed,
        newcomer,
        healthy,
        slowest_ack: during.iter().map(Sent::slowest).max().unwrap(),
        slow_acks: during.iter().map(|said| said.slower_than(limit)).max().unwrap(),
    };
    eprintln!("{fault:?}: {figures:?}");
    assert!(
        figures.noticed < allowed(NOTICED) && figures.healthy < allowed(RECOVERED_WITHIN),
        "{fault:?}: {figures:?}"
    );
    let few = allowed(Duration::from_secs(4)).as_secs() as usize;
    assert!(figures.slow_acks <= few && figures.slowest_ack < allowed(limit + 3 * WAIT), "{fault:?}: {figures:?}");
    assert!(figures.newcomer < allowed(limit + 4 * WAIT), "{fault:?}: {figures:?}");

    before.into_iter().chain(during).for_each(|said| acked.extend(said.acked));
    for reader in &mut readers {
        assert_read(reader, &acked).await;
    }
    pair.until_consistent(&["alice", "bob", "carol", "dave", "gina", "henry", "wade", "xena"]).await;
    for (watcher, mut received) in watchers.iter_mut().zip(received) {
        for leaver in ["erin", "frank"] {
            if !presence(&received).contains(&(leaver.to_owned(), false)) {
                received.extend(until_offline(watcher, leaver).await);
            }
        }
        received.extend(remaining_frames(watcher).await);
        let gone = presence(&received).into_iter().filter(|(_, online)| !online);
        assert_eq!(gone.count(), 2, "{fault:?}: each reported once, on both nodes: {:?}", presence(&received));
    }
}

async fn endure_all(faults: &[Fault]) {
    let mut all: JoinSet<()> = faults.iter().map(|fault| endure(*fault)).collect();
    while let Some(ended) = all.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test]
async fn nodes_work_without_a_redis_that_dies_or_falls_silent() {
    endure_all(&[Fault::Killed, Fault::Frozen, Fault::Paused, Fault::Asleep]).await;
}

#[tokio::test]
async fn broken_connections_are_replaced() {
    endure_all(&[Fault::SubscribersKilled, Fault::CommandsKilled, Fault::SubscribersOverrun]).await;
}

#[tokio::test]
async fn a_redis_that_loses_data_or_refuses_writes_is_repaired() {
    endure_all(&[Fault::Wiped, Fault::ScriptsForgotten, Fault::Full, Fault::ReadOnly]).await;
}

#[tokio::test]
async fn nodes_start_without_redis_and_find_each_other_later() {
    let mut redis = RedisServer::start().await;
    redis.kill().await;
    let mut pair = Pair::start(redis).await;
    let [mut alice, mut bob] = pair.listeners(["alice", "bob"]).await;
    for node in &pair.nodes {
        assert_eq!(status(node).await, "degraded");
    }
    let first = alice.send_text(TEAM, "alone").await;
    pair.redis.restart().await;
    let back = Instant::now();
    pair.healthy().await;
    assert!(back.elapsed() < allowed(RECOVERED_WITHIN), "healthy after {:?}", back.elapsed());
    let second = alice.send_text(TEAM, "together").await;
    let acked = [(&first, "alone"), (&second, "together")];
    let acked = acked.map(|(ack, content)| (ack["seq"].as_i64().unwrap(), content.to_owned()));
    assert_read(&mut bob, &acked.into()).await;
    pair.until_consistent(&["alice", "bob"]).await;
}

/// The command link is up, so health shows nothing; the node's own canary is lost.
#[tokio::test]
async fn a_dead_subscription_beside_a_live_link_is_replaced() {
    let redis = RedisServer::start().await;
    let answer_blocker = AnswerBlocker::before(redis.port(), "SUBSCRIBE").await;
    let database = Postgres::shared().await.database().await;
    let one = node_with_short_times(&redis.url(), &database).start().await;
    let two = node_with_short_times(&format!("redis://127.0.0.1:{}/", answer_blocker.port()), &database).start().await;
    let (mut alice, mut bob) = (listener(&one, "alice").await, listener(&two, "bob").await);
    let missed = two.metrics().await.get("switchboard_bus_missed_total").unwrap();
    answer_blocker.block();
    let deaf = Instant::now();
    let ack = alice.send_text(TEAM, "can you hear me?").await;
    // It makes a new connection, and retries while the answers on that one are blocked too.
    two.metric("switchboard_redis_subscriptions_broken_total", |broken| broken > 0.0).await;
    answer_blocker.unblock();
    two.metric("switchboard_bus_missed_total", |now| now > missed).await;
    eprintln!("a silent subscription: noticed after {:?}", deaf.elapsed());
    assert!(deaf.elapsed() < allowed(NOTICED), "noticed after {:?}", deaf.elapsed());
    // The next canary proves that the new subscription works.
    eventually("the node to be healthy", async || (status(&two).await == "healthy").then_some(())).await;
    assert_read(&mut bob, &[(ack["seq"].as_i64().unwrap(), "can you hear me?".to_owned())].into()).await;
    alice.send_text(TEAM, "and now?").await;
    assert_eq!(bob.until("message").await["content"], "and now?");
}

/// From the first moment of a silent Redis, members on the same node get messages at once, and members on other nodes within
/// the time that a late check and one reading of the notices take.
#[tokio::test]
async fn a_frozen_redis_delays_members_on_other_nodes_by_less_than_a_second() {
    const LOCAL: Duration = Duration::from_millis(400);
    const REMOTE: Duration = Duration::from_secs(1);
    let database = Postgres::shared().await.database().await;
    let mut figures = Vec::new();
    for round in 0..5 {
        let redis = RedisServer::start().await;
        let limited = || node_with_short_times(&redis.url(), &database).set("MESSAGE_RATE_LIMIT", 1_000).start();
        let (one, two) = tokio::join!(limited(), limited());
        let (mut alice, mut near, mut far) =
            (listener(&one, "alice").await, listener(&one, "near").await, listener(&two, "far").await);
        alice.send_text(TEAM, "before").await;
        for reader in [&mut near, &mut far] {
            assert_eq!(reader.until("message").await["content"], "before");
        }
        // Freeze at another moment between two probes each time.
        tokio::time::sleep(Duration::from_millis(500 + 50 * round)).await;
        redis.pause();
        let frozen = Instant::now();
        let content = format!("frozen {round}");
        alice.send_text(TEAM, &content).await;
        let acked = frozen.elapsed();
        assert_eq!(near.until("message").await["content"], *content);
        let local = frozen.elapsed();
        assert_eq!(far.until("message").await["content"], *content);
        figures.push((acked, local, frozen.elapsed()));
        redis.resume();
        tokio::join!(until_status(&one, "healthy"), until_status(&two, "healthy"));
        for reader in [&mut near, &mut far] {
            let again = reader.drain().await;
            assert!(again.iter().all(|frame| frame["type"] != "message"), "nothing twice: {again:?}");
        }
    }
    eprintln!("frozen Redis (acked, near, far): {figures:?}");
    let (local, remote) = (allowed(LOCAL), allowed(REMOTE));
    assert!(figures.iter().all(|(acked, near, far)| acked.max(near) < &local && far < &remote), "{figures:?}");
}
