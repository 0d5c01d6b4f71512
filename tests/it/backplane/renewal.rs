//! Keys of a connected user are renewed before their hour is over.

use std::time::Duration;

use switchboard::degrade::LinkState;

use super::{
    node::{Node, room},
    redis_server::Server,
};

/// Advances the node's clock; Redis' clock stands still.
async fn advance_clock(by: Duration) {
    tokio::time::pause();
    tokio::time::advance(by).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_connected_users_keys_are_renewed_every_half_hour() {
    const KEYS: [&str; 3] = ["ws:user:bob", "ws:conns:bob", "ws:room_users:room"];
    let redis = Server::start();
    let node = Node::start("one", Some(&redis.url())).await;
    let (bob, _) = node.connect("bob").await;
    node.backplane.listen(bob, &room("room")).await;
    let seen = || async { redis.query::<String>(&["GET", "ws:user:bob"]).await };
    let lease = || async { redis.query::<Vec<String>>(&["HKEYS", "ws:node_connections"]).await };
    let (first, life) = (seen().await, lease().await);
    // Set the TTLs as they are after half an hour.
    for key in KEYS {
        assert_eq!(redis.query::<i64>(&["EXPIRE", key, "1800"]).await, 1);
    }
    advance_clock(Duration::from_secs(1_700)).await;
    node.redis_is(LinkState::Up).await;
    // The repair check, once a second, renews nothing.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(seen().await, first);
    assert!(redis.query::<i64>(&["TTL", "ws:user:bob"]).await <= 1_800);
    advance_clock(Duration::from_secs(100)).await;
    for key in KEYS {
        let renewed = || async { redis.query::<i64>(&["TTL", key]).await > 3_500 };
        node.until(&format!("{key} renewed"), renewed).await;
    }
    assert_ne!(seen().await, first, "`last_seen` is renewed");
    assert_eq!(lease().await, life, "and the node did not register again");
}
