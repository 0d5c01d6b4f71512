//! What Redis holds of a user outlives the hour for as long as they are connected.

use std::time::Duration;

use switchboard::degrade::Link;

use super::{
    node::{Node, room},
    redis_server::Server,
};

/// Lets the node's clocks jump, as if nothing had happened meanwhile; Redis' own clock stands.
async fn jump(by: Duration) {
    tokio::time::pause();
    tokio::time::advance(by).await;
    tokio::time::resume();
}

#[tokio::test]
async fn what_is_held_is_renewed_each_half_hour() {
    const KEYS: [&str; 3] = ["ws:user:bob", "ws:conns:bob", "ws:room_users:room"];
    let redis = Server::start();
    let node = Node::start("one", Some(&redis.url())).await;
    let (bob, _) = node.connect("bob").await;
    node.backplane.listen(bob, &room("room")).await;
    let seen = || async { redis.query::<String>(&["GET", "ws:user:bob"]).await };
    let lease = || async { redis.query::<Vec<String>>(&["HKEYS", "ws:node_connections"]).await };
    let (first, life) = (seen().await, lease().await);
    // As they stand when half of the hour is over.
    for key in KEYS {
        assert_eq!(redis.query::<i64>(&["EXPIRE", key, "1800"]).await, 1);
    }
    jump(Duration::from_secs(1_700)).await;
    node.redis_is(Link::Up).await;
    // A look at what is to be repaired, once a second, renews nothing.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(seen().await, first);
    assert!(redis.query::<i64>(&["TTL", "ws:user:bob"]).await <= 1_800);
    jump(Duration::from_secs(100)).await;
    for key in KEYS {
        let renewed = || async { redis.query::<i64>(&["TTL", key]).await > 3_500 };
        node.until(&format!("{key} renewed"), renewed).await;
    }
    assert_ne!(seen().await, first, "it says when the user was last seen");
    assert_eq!(lease().await, life, "and not because the node registered anew");
}
