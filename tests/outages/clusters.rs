//! Slots and masters of a Redis Cluster change while users chat over two nodes.

use std::time::{Duration, Instant};

use super::{
    crowd::{HERE, gather, listeners},
    scene::{node_with_short_times, until_status},
};
use crate::support::{Node, Postgres, RedisCluster, allowed, eventually};

/// Time after which a master that does not answer is replaced.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The change that the master of the conversation's channel goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// It is killed.
    Killed,
    /// It is killed, and starts again once its replica has been promoted.
    KilledAndBack,
    /// It freezes, and works again once its replica has been promoted.
    Frozen,
    /// It is killed after its replica got no writes for a while.
    ReplicaLags,
    /// Its replica takes over by hand.
    ByHand,
    /// The slot of the conversation's channel moves to another master, and back.
    SlotMoves,
    /// All nodes of the cluster are killed, and start again empty on their addresses.
    AllRestart,
}

/// The place of the master on which nodes hear the conversation.
async fn master_of_channel(cluster: &RedisCluster) -> (usize, String) {
    let found = async || {
        for (place, server) in cluster.servers.iter().enumerate().filter(|(_, server)| server.is_running()) {
            let channels: Vec<String> = server.command(&["PUBSUB", "SHARDCHANNELS", "*:c:team"]).await;
            if let Some(channel) = channels.into_iter().next() {
                return Some((place, channel));
            }
        }
        None
    };
    eventually("somebody to hear the conversation", found).await
}

impl Change {
    /// True if the masters of the cluster change.
    fn changes_masters(self) -> bool {
        !matches!(self, Self::SlotMoves | Self::AllRestart)
    }

    /// Makes the change, and waits until it is over.
    async fn happen(self, cluster: &mut RedisCluster, nodes: &[Node; 2]) {
        let (struck, channel) = master_of_channel(cluster).await;
        let successor = struck + 3;
        match self {
            Self::Killed | Self::KilledAndBack | Self::ReplicaLags => cluster.servers[struck].kill().await,
            Self::Frozen => cluster.servers[struck].pause(),
            Self::ByHand => cluster.fail_over(successor).await,
            Self::SlotMoves => {
                let slot: u16 = cluster.command_on(&channel, &["CLUSTER", "KEYSLOT", &channel]).await;
                let other = (struck + 1) % 3;
                for (from, to, moves) in [(struck, other, 1.0), (other, struck, 2.0)] {
                    cluster.move_slot(slot, from, to).await;
                    for node in nodes {
                        node.metric("switchboard_redis_shard_moves_total", |count| count == moves).await;
                    }
                }
            }
            Self::AllRestart => {
                for place in 0..cluster.servers.len() {
                    cluster.servers[place].kill().await;
                }
                tokio::join!(until_status(&nodes[0], "degraded"), until_status(&nodes[1], "degraded"));
                for place in 0..cluster.servers.len() {
                    cluster.servers[place].restart().await;
                }
            }
        }
        if self.changes_masters() {
            cluster.until_master(successor).await;
        }
        match self {
            Self::Frozen => cluster.servers[struck].resume(),
            Self::KilledAndBack => cluster.servers[struck].restart().await,
            _ => {}
        }
    }
}

/// Goes through a change while users send, connect and leave.
async fn endure(change: Change) {
    let mut cluster = Box::pin(RedisCluster::start(TIMEOUT)).await;
    let (url, database) = (cluster.url(), Postgres::shared().await.database().await);
    // Nobody reads from some of the sockets while masters change.
    let start = || node_with_short_times(&url, &database).set("PING_INTERVAL", "600s").start();
    let nodes: [Node; 2] = tokio::join!(start(), start()).into();
    tokio::join!(until_status(&nodes[0], "healthy"), until_status(&nodes[1], "healthy"));
    let (mut crowd, mut passers) = gather(&nodes).await;
    let outage = async {
        if change == Change::ReplicaLags {
            let (struck, _) = master_of_channel(&cluster).await;
            cluster.servers[struck + 3].fall_behind(&cluster.servers[struck].url()).await;
        }
        passers.grow(&nodes).await;
        let struck = Instant::now();
        tokio::join!(Box::pin(change.happen(&mut cluster, &nodes)), passers.change_places(&nodes));
        tokio::join!(until_status(&nodes[0], "healthy"), until_status(&nodes[1], "healthy"));
        eprintln!("{change:?}: healthy after {:?}", struck.elapsed());
    };
    crowd.speak_during(change, outage).await;
    until_consistent(&cluster, &HERE).await;
    crowd.assert_shown(change).await;
    for node in &nodes {
        let health = node.admin_get("/api/health").await.json;
        assert_eq!(health["redis"]["shards"], serde_json::json!({"total": 64, "down": 0}), "{change:?}: {health}");
        node.metric("switchboard_redis_shards_down", |down| down == 0.0).await;
        node.metric("switchboard_redis_primary_changes_total", |changes| {
            changes == f64::from(u8::from(change.changes_masters()))
        })
        .await;
    }
    // Listeners get the next message over Redis at once, not only after a comparison with the store.
    crowd.assert_heard("at last").await;
}

/// Waits until the cluster has exactly these users, with one connection each.
async fn until_consistent(cluster: &RedisCluster, users: &[&str]) {
    let mut seen = Vec::new();
    let consistent = async {
        loop {
            let mut online: Vec<String> = Vec::new();
            for key in cluster.keys("ws:online_users:*").await {
                online.extend(cluster.command_on::<Vec<String>>(&key, &["SMEMBERS", &key]).await);
            }
            let mut listening: Vec<String> =
                cluster.command_on("ws:room_users:team", &["SMEMBERS", "ws:room_users:team"]).await;
            online.sort();
            listening.sort();
            let mut lines = 0;
            for key in cluster.keys("ws:conns:*").await {
                let held: Option<String> = cluster.command_on(&key, &["HGET", &key, "c"]).await;
                lines += held.unwrap_or_default().lines().count();
            }
            if online == users && listening == users && lines == users.len() {
                return;
            }
            seen = vec![(online, listening, lines)];
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let done = tokio::time::timeout(allowed(Duration::from_secs(20)), consistent).await;
    assert!(done.is_ok(), "the registry shows {seen:?}");
}

#[tokio::test]
async fn a_killed_master_is_replaced() {
    tokio::spawn(endure(Change::Killed)).await.unwrap();
}

#[tokio::test]
async fn a_killed_master_comes_back_as_a_replica() {
    tokio::spawn(endure(Change::KilledAndBack)).await.unwrap();
}

#[tokio::test]
async fn a_frozen_master_is_replaced() {
    tokio::spawn(endure(Change::Frozen)).await.unwrap();
}

#[tokio::test]
async fn a_replica_that_lost_writes_is_promoted() {
    tokio::spawn(endure(Change::ReplicaLags)).await.unwrap();
}

#[tokio::test]
async fn a_master_is_replaced_by_hand() {
    tokio::spawn(endure(Change::ByHand)).await.unwrap();
}

#[tokio::test]
async fn the_slot_of_a_conversation_moves_and_comes_back() {
    tokio::spawn(endure(Change::SlotMoves)).await.unwrap();
}

#[tokio::test]
async fn the_whole_cluster_starts_again_empty() {
    tokio::spawn(endure(Change::AllRestart)).await.unwrap();
}

#[tokio::test]
async fn a_master_without_a_replica_is_named_until_it_comes_back_empty() {
    let mut cluster = Box::pin(RedisCluster::start(TIMEOUT)).await;
    let (url, database) = (cluster.url(), Postgres::shared().await.database().await);
    let start = || node_with_short_times(&url, &database).start();
    let nodes: [Node; 2] = tokio::join!(start(), start()).into();
    tokio::join!(until_status(&nodes[0], "healthy"), until_status(&nodes[1], "healthy"));
    let [mut alice, mut bob] = listeners(&nodes, ["alice", "bob"]).await;
    cluster.servers[4].kill().await;
    cluster.servers[1].kill().await;
    let address = format!("127.0.0.1:{}", cluster.servers[1].port());
    for node in &nodes {
        until_status(node, "degraded").await;
        node.metric(&format!(r#"switchboard_redis_master_up{{address="{address}"}}"#), |up| up == 0.0).await;
        // A third of the 64 shards.
        node.metric("switchboard_redis_shards_down", |shards| (21.0..=22.0).contains(&shards)).await;
        let health = node.admin_get("/api/health").await.json;
        let masters = health["redis"]["masters"].as_array().unwrap();
        let down: Vec<_> = masters.iter().filter(|master| master["up"] == false).collect();
        assert_eq!((masters.len(), down.len()), (3, 1), "{health}");
        assert_eq!(down[0]["address"], *address);
    }
    for n in 0..5 {
        let content = format!("through the store {n}");
        alice.send_text("team", &content).await;
        assert_eq!(bob.until("message").await["content"], *content);
    }
    cluster.servers[1].restart().await;
    tokio::join!(until_status(&nodes[0], "healthy"), until_status(&nodes[1], "healthy"));
    until_consistent(&cluster, &["alice", "bob"]).await;
    for node in &nodes {
        node.metric("switchboard_redis_shards_down", |shards| shards == 0.0).await;
    }
    alice.send_text("team", "through Redis").await;
    assert_eq!(bob.until("message").await["content"], "through Redis");
}
