//! Redis dies, hangs, forgets, refuses: noticed soon, slow for nobody, and all is true again when it is back.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use super::{
    ear::Ear,
    scene::{Said, TEAM, assert_read, brisk, listener, presence, rest, speak, status, until_offline, until_status},
};
use crate::support::{Client, Node, Postgres, RedisServer, eventually};

/// The longest until health or metrics tell of it.
const NOTICED: Duration = Duration::from_secs(2);
/// The longest until all is well, once Redis answers again.
const HEALED: Duration = Duration::from_secs(5);
/// What beyond the usual counts as a slow ack; and the one bounded wait for an answer of Redis, as `link` has it.
const SLOW: Duration = Duration::from_millis(300);
const WAIT: Duration = Duration::from_millis(500);

/// What happens to Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Killed, and started again on an empty memory.
    Killed,
    /// Frozen: connections stay open, nothing answers.
    Frozen,
    /// `CLIENT PAUSE`: accepts, reads, answers nothing.
    Paused,
    /// `DEBUG SLEEP`: one command that takes seconds.
    Asleep,
    /// Out of memory: reads, but takes no writes.
    Full,
    /// A replica of a master that is dead: reads, but takes no writes.
    ReadOnly,
    /// The connections of subscribers are closed.
    SubscribersKilled,
    /// All connections for commands are closed.
    CommandsKilled,
    /// Subscribers fall behind and are closed for it.
    SubscribersOverrun,
    /// All keys are gone.
    Wiped,
    /// All scripts are gone.
    ScriptsForgotten,
}

/// By what an outage is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// Health says degraded until Redis is back.
    Degraded,
    /// Followed logs are compared with the store.
    Missed,
    /// Nothing: it costs one repeated call.
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

    async fn strike(self, redis: &mut RedisServer) {
        match self {
            Self::Killed => redis.kill().await,
            Self::Frozen => redis.pause(),
            Self::Paused => redis.command(&["CLIENT", "PAUSE", "4000", "ALL"]).await,
            Self::Asleep => {
                let mut connection = redis.connection().await;
                tokio::spawn(async move {
                    let mut sleep = redis::cmd("DEBUG");
                    // The answer comes when everybody else's does.
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

    /// Ends the fault; those that are over at once need nothing.
    async fn mend(self, redis: &mut RedisServer) {
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

/// Waits for the end of a pause that nothing can shorten.
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
        let start = || brisk(&redis.url(), &database).start();
        let nodes = tokio::join!(start(), start()).into();
        Self { redis, nodes }
    }

    /// A socket on each node.
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

    /// Waits until Redis knows exactly these users, one connection each, and no gap is open.
    async fn true_again(&self, users: &[&str]) {
        let mut connection = self.redis.connection().await;
        for view in ["ws:online_users", "ws:room_users:team"] {
            let mut shown: Vec<String> = Vec::new();
            let told = tokio::time::timeout(HEALED, async {
                while shown != users {
                    shown = redis::cmd("SMEMBERS").arg(view).query_async(&mut connection).await.unwrap();
                    shown.sort();
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
            assert!(told.await.is_ok(), "{view} shows {shown:?} instead of {users:?}");
        }
        for user in users {
            let mut ask = redis::cmd("HGET");
            let lines: Option<String> =
                ask.arg(format!("ws:conns:{user}")).arg("c").query_async(&mut connection).await.unwrap();
            assert_eq!(lines.as_deref().unwrap_or_default().lines().count(), 1, "{user}: {lines:?}");
        }
        for node in &self.nodes {
            eventually("every gap to be healed", || async {
                (node.metrics().await.get("switchboard_gaps_open") == Some(0.0)).then_some(())
            })
            .await;
        }
    }
}

/// What a fault came to.
#[derive(Debug)]
struct Figures {
    /// Until both nodes showed it.
    noticed: Duration,
    slowest_ack: Duration,
    /// The most slow acks that one speaker had.
    slow_acks: usize,
    /// How long two users took meanwhile to connect and join.
    newcomer: Duration,
    /// From Redis' first answer until both nodes were healthy.
    healthy: Duration,
}

/// Goes through a fault while people talk, come and leave.
async fn endure(fault: Fault) {
    let mut pair = Pair::start(RedisServer::with(&["--enable-debug-command", "yes"]).await).await;
    let [mut alice, mut dave] = pair.listeners(["alice", "dave"]).await;
    let mut readers = pair.listeners(["bob", "carol"]).await;
    let leavers = pair.listeners(["erin", "frank"]).await;
    let mut watchers = pair.listeners(["wade", "xena"]).await;
    let mut acked = BTreeMap::new();
    let stop = AtomicBool::new(true);
    let before = [speak(&mut alice, 10, &stop).await, speak(&mut dave, 10, &stop).await];
    let limit = SLOW + before.iter().map(Said::slowest).max().unwrap();

    let missed = pair.missed().await;
    stop.store(false, Ordering::Release);
    let struck = Instant::now();
    fault.strike(&mut pair.redis).await;
    let outage = async {
        pair.noticed(fault.sign(), missed).await;
        let noticed = struck.elapsed();
        drop(leavers);
        let came = Instant::now();
        let newcomers = pair.listeners(["gina", "henry"]).await;
        let newcomer = came.elapsed();
        let mut told = Vec::new();
        for (watcher, leaver) in watchers.iter_mut().zip(["erin", "frank"]) {
            told.push(until_offline(watcher, leaver).await);
        }
        fault.mend(&mut pair.redis).await;
        let mended = Instant::now();
        pair.healthy().await;
        let healthy = mended.elapsed();
        stop.store(true, Ordering::Release);
        (noticed, newcomer, healthy, newcomers, told)
    };
    let during = async { tokio::join!(speak(&mut alice, 30, &stop), speak(&mut dave, 30, &stop)) };
    let (during, (noticed, newcomer, healthy, _newcomers, told)) = tokio::join!(during, outage);
    let during = <[Said; 2]>::from(during);
    let figures = Figures {
        noticed,
        newcomer,
        healthy,
        slowest_ack: during.iter().map(Said::slowest).max().unwrap(),
        slow_acks: during.iter().map(|said| said.slower_than(limit)).max().unwrap(),
    };
    eprintln!("{fault:?}: {figures:?}");
    assert!(figures.noticed < NOTICED && figures.healthy < HEALED, "{fault:?}: {figures:?}");
    assert!(figures.slow_acks <= 2 && figures.slowest_ack < limit + WAIT, "{fault:?}: {figures:?}");
    assert!(figures.newcomer < limit + 2 * WAIT, "{fault:?}: {figures:?}");

    before.into_iter().chain(during).for_each(|said| acked.extend(said.acked));
    for reader in &mut readers {
        assert_read(reader, &acked).await;
    }
    pair.true_again(&["alice", "bob", "carol", "dave", "gina", "henry", "wade", "xena"]).await;
    for (watcher, mut told) in watchers.iter_mut().zip(told) {
        for leaver in ["erin", "frank"] {
            if !presence(&told).contains(&(leaver.to_owned(), false)) {
                told.extend(until_offline(watcher, leaver).await);
            }
        }
        told.extend(rest(watcher).await);
        let gone = presence(&told).into_iter().filter(|(_, online)| !online);
        assert_eq!(gone.count(), 2, "{fault:?}: each told once, on both nodes: {:?}", presence(&told));
    }
}

async fn endure_all(faults: &[Fault]) {
    let mut all: JoinSet<()> = faults.iter().map(|fault| endure(*fault)).collect();
    while let Some(ended) = all.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test]
async fn a_redis_that_dies_or_falls_silent_is_done_without() {
    endure_all(&[Fault::Killed, Fault::Frozen, Fault::Paused, Fault::Asleep]).await;
}

#[tokio::test]
async fn broken_connections_are_made_anew() {
    endure_all(&[Fault::SubscribersKilled, Fault::CommandsKilled, Fault::SubscribersOverrun]).await;
}

#[tokio::test]
async fn a_redis_that_forgets_or_takes_no_writes_is_told_again() {
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
    let first = alice.say(TEAM, "alone").await;
    pair.redis.restart().await;
    let back = Instant::now();
    pair.healthy().await;
    assert!(back.elapsed() < HEALED, "healthy after {:?}", back.elapsed());
    let second = alice.say(TEAM, "together").await;
    let acked = [(&first, "alone"), (&second, "together")];
    let acked = acked.map(|(ack, content)| (ack["seq"].as_i64().unwrap(), content.to_owned()));
    assert_read(&mut bob, &acked.into()).await;
    pair.true_again(&["alice", "bob"]).await;
}

/// The command link is well, so health has nothing to say; the node's own canary falls silent.
#[tokio::test]
async fn a_dead_subscription_behind_a_live_link_is_made_anew() {
    let redis = RedisServer::start().await;
    let ear = Ear::before(redis.port(), "SUBSCRIBE").await;
    let database = Postgres::shared().await.database().await;
    let one = brisk(&redis.url(), &database).start().await;
    let two = brisk(&format!("redis://127.0.0.1:{}/", ear.port()), &database).start().await;
    let (mut alice, mut bob) = (listener(&one, "alice").await, listener(&two, "bob").await);
    let missed = two.metrics().await.get("switchboard_bus_missed_total").unwrap();
    ear.deafen();
    let deaf = Instant::now();
    let ack = alice.say(TEAM, "can you hear me?").await;
    // It makes a new connection, and goes on trying for as long as that one is deaf too.
    two.logged("the subscription to Redis broke").await;
    ear.heal();
    two.metric("switchboard_bus_missed_total", |now| now > missed).await;
    eprintln!("a deaf subscription: noticed after {:?}", deaf.elapsed());
    assert!(deaf.elapsed() < NOTICED, "noticed after {:?}", deaf.elapsed());
    assert_eq!(status(&two).await, "healthy");
    assert_read(&mut bob, &[(ack["seq"].as_i64().unwrap(), "can you hear me?".to_owned())].into()).await;
    alice.say(TEAM, "and now?").await;
    assert_eq!(bob.until("message").await["content"], "and now?");
}
