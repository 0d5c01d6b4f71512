//! A Redis Cluster that works in part, as health and `switchboard check` show it.

use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

use crate::support::{Client, Node, Postgres, RedisCluster, SECRET, eventually, within};

async fn check(url: &str, database: &str) -> (String, i32) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    command.arg("check").env_clear().env("JWT_SECRET", SECRET).env("REDIS_URL", url).env("DATABASE_URL", database);
    let done = within("the check", command.output()).await.unwrap();
    (String::from_utf8(done.stdout).unwrap(), done.status.code().unwrap())
}

async fn until_health(node: &Node, wanted: impl Fn(&Value) -> bool) -> Value {
    eventually("the health to change", async || Some(node.admin_get("/api/health").await.json).filter(&wanted)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_without_a_master_dead_addresses_and_missing_replicas_are_told() {
    let mut cluster = RedisCluster::with(Duration::from_secs(2), &["--cluster-require-full-coverage", "no"]).await;
    let (url, database) = (cluster.url(), Postgres::shared().await.database().await);
    let node = Node::serve(&url, &database).set("MESSAGE_RATE_LIMIT", 1_000).start().await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join("team").await;
    alice.send_text("team", "before").await;
    // Before anything was written, a replica does not count as in step.
    eventually("the replicas to be in step", async || {
        let (printed, code) = check(&url, &database).await;
        assert!(code == 0 && !printed.contains("redis-addresses-away"), "{printed}");
        (!printed.contains("redis-no-replica")).then_some(())
    })
    .await;

    let key = "rate_limit:message:alice";
    let owner = cluster.master_of(key).await;
    let slot: u16 = cluster.command_on(key, &["CLUSTER", "KEYSLOT", key]).await;
    let slot = slot.to_string();
    let first = [owner].into_iter().chain((0..cluster.servers.len()).filter(|place| *place != owner));
    for place in first {
        let _: String = cluster.servers[place].command(&["CLUSTER", "DELSLOTS", &slot]).await;
    }
    alice.send_text("team", "counted by the node").await;
    let health = until_health(&node, |health| health["status"] == "degraded").await;
    assert_eq!(health["redis"]["shards"]["down"], 0, "{health}");
    assert_eq!((&health["works"]["limits"], &health["works"]["fanout"]), (&"local".into(), &"shared".into()));
    let fault = health["faults"].as_array().unwrap().iter().find(|fault| fault["name"] == "redis-cluster-down");
    assert!(fault.unwrap().to_string().contains("1 of 16384 slots have no master"), "{health}");
    let (printed, code) = check(&url, &database).await;
    assert!(code == 1 && printed.contains("redis-cluster-down: 1 of 16384 slots have no master"), "{printed}");
    let _: String = cluster.servers[owner].command(&["CLUSTER", "ADDSLOTS", &slot]).await;
    until_health(&node, |health| health["status"] == "healthy").await;

    let dead = cluster.servers[3].address();
    cluster.servers[3].kill().await;
    let bare = cluster.servers[0].address();
    eventually("the replica to be known as away", async || {
        let (printed, code) = check(&url, &database).await;
        assert!(code == 0 && printed.contains(&format!("note  Redis: redis-addresses-away: {dead}: ")), "{printed}");
        printed.contains(&format!("note  Redis: redis-no-replica: no replica that works: {bare};")).then_some(())
    })
    .await;
}
