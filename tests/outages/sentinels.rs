//! The primary of Redis changes while users chat over two nodes, which find it by sentinels.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::{
    crowd::{HERE, gather, listeners},
    scene::{TEAM, node_with_short_times, status, until_status},
};
use crate::support::{Node, Postgres, RedisServer, Replicated, allowed, eventually};

/// Time after which sentinels replace a primary that does not answer.
const DOWN_AFTER: Duration = Duration::from_secs(2);
/// Maximum time from the change of the primary until presence is right.
const RIGHT_WITHIN: Duration = Duration::from_secs(15);

/// The change that the primary goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// It is killed.
    Killed,
    /// It is killed, and starts again empty on its old address as soon as nodes have moved.
    KilledAndBack,
    /// It freezes, and works again as it was once nodes have moved.
    Frozen,
    /// It is killed after its replica got no writes for a while.
    ReplicaLags,
    /// It is replaced by hand, and goes on to take writes for some seconds.
    ByHand,
    /// It is killed while the first sentinel of the URL is frozen.
    FirstSentinelFrozen,
    /// It is killed, and the first address of the URL is a sentinel that names another server for ever.
    SentinelStale,
}

/// Two nodes that find the primary by sentinels.
struct Pair {
    set: Replicated,
    nodes: [Node; 2],
}

impl Pair {
    async fn start(set: Replicated, url: &str) -> Self {
        let database = Postgres::shared().await.database().await;
        // Nobody reads from some of the sockets while the primary changes.
        let start = || node_with_short_times(url, &database).set("PING_INTERVAL", "600s").start();
        let nodes: [Node; 2] = tokio::join!(start(), start()).into();
        tokio::join!(until_status(&nodes[0], "healthy"), until_status(&nodes[1], "healthy"));
        Self { set, nodes }
    }

    /// Waits until both nodes use the other server.
    async fn moved(&self, number: f64) {
        for node in &self.nodes {
            node.metric("switchboard_redis_primary_changes_total", |changes| changes >= number).await;
        }
        tokio::join!(until_status(&self.nodes[0], "healthy"), until_status(&self.nodes[1], "healthy"));
    }

    /// Waits until the new primary has exactly these users, with one connection each.
    async fn until_consistent(&self, users: &[&str]) {
        let mut connection = self.set.servers[1].connection().await;
        for view in ["ws:online_users", "ws:room_users:team"] {
            let mut shown: Vec<String> = Vec::new();
            let consistent = tokio::time::timeout(allowed(RIGHT_WITHIN), async {
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
            ask.arg(format!("ws:conns:{user}")).arg("c");
            let one = async || {
                let lines: Option<String> = ask.query_async(&mut connection.clone()).await.unwrap();
                (lines.as_deref().unwrap_or_default().lines().count() == 1).then_some(())
            };
            eventually(&format!("one connection of {user}"), one).await;
        }
    }
}

impl Change {
    async fn begin(self, set: &mut Replicated) {
        match self {
            Self::Killed | Self::KilledAndBack | Self::SentinelStale | Self::ReplicaLags => {
                set.servers[0].kill().await;
            }
            Self::Frozen => set.servers[0].pause(),
            Self::ByHand => set.fail_over().await,
            Self::FirstSentinelFrozen => {
                set.sentinels[0].pause();
                set.servers[0].kill().await;
            }
        }
    }

    /// True if the former primary is a replica in the end.
    fn leaves_a_replica(self) -> bool {
        matches!(self, Self::Frozen | Self::KilledAndBack | Self::ByHand)
    }

    /// The former primary comes back.
    async fn end(self, set: &mut Replicated) {
        match self {
            Self::Frozen => set.servers[0].resume(),
            Self::KilledAndBack => set.servers[0].restart().await,
            Self::FirstSentinelFrozen => set.sentinels[0].resume(),
            _ => {}
        }
    }
}

/// Goes through a change of the primary while users send, connect and leave.
async fn endure(change: Change) {
    let set = Replicated::start(DOWN_AFTER).await;
    let stranger = RedisServer::start().await;
    let stale = Replicated::lone_sentinel(&stranger).await;
    let mut ports: Vec<u16> = set.sentinels.iter().map(RedisServer::port).collect();
    if change == Change::SentinelStale {
        ports.insert(0, stale.port());
    }
    let url = set.url_with(&ports);
    let mut pair = Pair::start(set, &url).await;
    let (mut crowd, mut passers) = gather(&pair.nodes).await;
    let outage = async {
        if change == Change::ReplicaLags {
            pair.set.servers[1].fall_behind(&pair.set.servers[0].url()).await;
        }
        passers.grow(&pair.nodes).await;
        let struck = Instant::now();
        change.begin(&mut pair.set).await;
        passers.change_places(&pair.nodes).await;
        pair.moved(1.0).await;
        eprintln!("{change:?}: nodes use the new primary after {:?}", struck.elapsed());
        change.end(&mut pair.set).await;
        if change.leaves_a_replica() {
            pair.set.servers[0].logged("REPLICAOF 127.0.0.1:").await;
        }
    };
    crowd.speak_during(change, outage).await;
    pair.until_consistent(&HERE).await;
    crowd.assert_shown(change).await;
    for node in &pair.nodes {
        let metrics = node.metrics().await;
        assert_eq!(metrics.get("switchboard_redis_primary_changes_total"), Some(1.0), "{change:?}: nobody moved back");
        let address = format!(r#"switchboard_redis_primary{{address="127.0.0.1:{}"}}"#, pair.set.servers[1].port());
        assert_eq!(metrics.get(&address), Some(1.0), "{change:?}: {}", metrics.0);
    }
    assert_eq!(stranger.command::<i64>(&["DBSIZE"]).await, 0, "{change:?}: a node used the server of a stale sentinel");
}

async fn endure_all(changes: &[Change]) {
    let mut all: JoinSet<()> = changes.iter().map(|change| endure(*change)).collect();
    while let Some(ended) = all.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test]
async fn nodes_follow_a_primary_that_is_killed() {
    endure_all(&[Change::Killed]).await;
}

#[tokio::test]
async fn nodes_stay_with_the_new_primary_when_the_former_one_comes_back() {
    endure_all(&[Change::KilledAndBack, Change::Frozen]).await;
}

#[tokio::test]
async fn what_a_replica_that_lagged_lacks_is_registered_anew() {
    endure_all(&[Change::ReplicaLags]).await;
}

#[tokio::test]
async fn users_notice_nothing_of_a_failover_by_hand() {
    endure_all(&[Change::ByHand]).await;
}

#[tokio::test]
async fn a_frozen_or_stale_sentinel_misleads_and_delays_nobody() {
    endure_all(&[Change::FirstSentinelFrozen, Change::SentinelStale]).await;
}

/// The names of the faults in the health report for admins.
async fn faults(node: &Node) -> Vec<String> {
    let health = node.admin_get("/api/health").await.json;
    let faults = health["faults"].as_array().unwrap().iter();
    faults.map(|fault| fault["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn without_sentinels_nodes_go_on_and_operators_are_told() {
    let set = Replicated::start(DOWN_AFTER).await;
    let url = set.url();
    let mut pair = Pair::start(set, &url).await;
    let [mut alice, mut bob] = listeners(&pair.nodes, ["alice", "bob"]).await;
    let health = pair.nodes[0].admin_get("/api/health").await.json;
    let primary = format!("127.0.0.1:{}", pair.set.servers[0].port());
    assert_eq!(health["redis"]["primary"], *primary, "{health}");
    assert_eq!(health["redis"]["sentinels"], serde_json::json!({"answering": 3, "listed": 3}));
    for sentinel in &mut pair.set.sentinels {
        sentinel.kill().await;
    }
    for node in &pair.nodes {
        let told = async || faults(node).await.contains(&"redis-sentinels-away".to_owned()).then_some(());
        eventually("the warning", told).await;
        node.metric("switchboard_redis_sentinels_answering", |count| count == 0.0).await;
        node.metric(r#"switchboard_fault{fault="redis-sentinels-away"}"#, |stands| stands == 1.0).await;
        assert_eq!(status(node).await, "healthy");
    }
    for at in 0..5 {
        let content = format!("still here {at}");
        alice.send_text(TEAM, &content).await;
        assert_eq!(bob.until("message").await["content"], *content);
    }
    let health = pair.nodes[1].admin_get("/api/health").await.json;
    assert_eq!((&health["works"]["fanout"], &health["redis"]["primary"]), (&"shared".into(), &(*primary).into()));
}

/// Prints the times for docs/operations/redis.md.
#[tokio::test]
#[ignore = "it measures, and takes a minute"]
async fn measure_changes_of_the_primary() {
    for (name, by_hand) in [("killed", false), ("by hand", true)] {
        for _ in 0..5 {
            let set = Replicated::start(Duration::from_secs(5)).await;
            let url = set.url();
            let mut pair = Pair::start(set, &url).await;
            let [mut alice, mut bob] = listeners(&pair.nodes, ["alice", "bob"]).await;
            alice.send_text(TEAM, "first").await;
            bob.until("message").await;
            let struck = Instant::now();
            if by_hand {
                pair.set.fail_over().await
            } else {
                pair.set.servers[0].kill().await
            }
            let new = async {
                pair.set.servers[1].logged("MASTER MODE enabled").await;
                struck.elapsed()
            };
            let works = async |node: &Node| {
                node.metric("switchboard_redis_primary_changes_total", |changes| changes == 1.0).await;
                node.metric(r#"switchboard_degraded{part="redis"}"#, |degraded| degraded == 0.0).await;
                struck.elapsed()
            };
            let client = redis::Client::open(pair.set.servers[1].url()).unwrap();
            let subscribed = async {
                eventually("both subscriptions", async || {
                    // A server that is promoted closes its connections.
                    let mut connection = client.get_multiplexed_async_connection().await.ok()?;
                    let mut ask = redis::cmd("PUBSUB");
                    ask.arg("CHANNELS").arg("*:n:*");
                    let channels: Vec<String> = ask.query_async(&mut connection).await.ok()?;
                    (channels.len() == 2).then_some(())
                })
                .await;
                struck.elapsed()
            };
            let times = tokio::join!(new, works(&pair.nodes[0]), works(&pair.nodes[1]), subscribed, async {
                let (mut slowest, until) = (Duration::ZERO, struck + Duration::from_secs(12));
                while Instant::now() < until {
                    let asked = Instant::now();
                    alice.send_text(TEAM, "again").await;
                    bob.until("message").await;
                    slowest = slowest.max(asked.elapsed());
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                slowest
            });
            println!("{name}: new primary, commands on both nodes, both subscriptions, slowest delivery: {times:?}");
        }
    }
}
