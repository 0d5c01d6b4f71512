//! Entries that a node left in Redis because it ended between two steps are removed.

use std::time::Duration;

use switchboard::backplane::Settings;

use super::{
    node::{Node, room, settings},
    redis_server::Server,
};

/// Members of `ws:nodes` while one node runs.
const LEASE_AND_EPOCH: i64 = 2;

#[tokio::test]
async fn views_and_late_writes_of_dead_nodes_are_cleaned() {
    let redis = Server::start();
    let short = Settings { lease: Duration::from_millis(800), ..settings("one", Some(&redis.url())) };
    let node = Node::with(short).await;
    let (bob, _) = node.connect("bob").await;
    node.backplane.listen(bob, &room("room")).await;
    // A node died after it claimed departures, and before it removed the users from the views.
    for key in ["ws:room_users:room", "ws:room_users:elsewhere", "ws:online_users"] {
        redis.query::<i64>(&["SADD", key, "ghost"]).await;
    }
    // A frozen node wrote after it was reaped.
    redis.query::<i64>(&["SADD", "ws:node_users:dead#0123456789abcdef", "late"]).await;
    let line = "0199f300-0000-7000-8000-000000000001 dead#0123456789abcdef 1 \n";
    redis.query::<i64>(&["HSET", "ws:conns:late", "c", line, "n", "Late"]).await;
    let members = async |key: &str| redis.query::<Vec<String>>(&["SMEMBERS", key]).await;
    let clean = || async {
        members("ws:room_users:room").await == ["bob"]
            && members("ws:room_users:elsewhere").await.is_empty()
            && members("ws:online_users").await == ["bob"]
            && redis.query::<Vec<String>>(&["KEYS", "ws:*late*"]).await.is_empty()
            && redis.query::<Vec<String>>(&["KEYS", "ws:*dead*"]).await.is_empty()
            && redis.query::<i64>(&["ZCARD", "ws:nodes"]).await == LEASE_AND_EPOCH
    };
    node.until("a clean registry", clean).await;
}
