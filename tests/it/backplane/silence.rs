//! Silent connections give way to new ones of their user at a cap.

use switchboard::{
    backplane::{Scope, TooMany},
    model::ConnectionId,
};

use super::{
    node::{Node, registration, room, user},
    redis_server::Server,
};

const FULL: Result<bool, TooMany> = Err(TooMany { retry_may_succeed: false });

async fn held(node: &Node, id: &str) -> Vec<ConnectionId> {
    let mut held: Vec<_> =
        node.backplane.connections_of(&user(id)).await.into_iter().map(|one| one.connection).collect();
    held.sort();
    held
}

fn sorted<const N: usize>(mut connections: [ConnectionId; N]) -> [ConnectionId; N] {
    connections.sort();
    connections
}

#[tokio::test]
async fn the_connection_that_was_silent_first_gives_way_over_all_nodes() {
    let redis = Server::start();
    let (one, other) = (Node::start("one", Some(&redis.url())).await, Node::start("two", Some(&redis.url())).await);
    let (a, _) = one.connect("alice").await;
    let (b, _) = one.connect("alice").await;
    let new = registration("alice", Scope::User);
    assert_eq!(other.backplane.register(&new).await, FULL, "both live");
    for connection in [b, a] {
        assert!(one.backplane.set_silent(connection, true).await);
    }
    assert_eq!(other.backplane.register(&new).await, Ok(false));
    assert_eq!(held(&one, "alice").await, sorted([a, new.connection]));
    assert_eq!(other.metrics.gave_way.get(), 1);
    // The one that is left answers again and keeps its place; the other one has none any more.
    assert!(one.backplane.set_silent(a, false).await);
    assert!(!one.backplane.set_silent(b, false).await);
    assert_eq!(one.backplane.register(&registration("alice", Scope::User)).await, FULL);
    one.backplane.unregister(b).await;
    assert_eq!(held(&other, "alice").await, sorted([a, new.connection]), "its end takes nothing from the new one");
    assert!(one.online("alice").await);
}

#[tokio::test]
async fn silent_connections_give_way_on_one_node_with_and_without_redis() {
    let redis = Server::start();
    for url in [Some(redis.url()), None] {
        let node = Node::start("one", url.as_deref()).await;
        let (a, _) = node.connect("bob").await;
        let (b, _) = node.connect("bob").await;
        node.backplane.set_silent(a, true).await;
        let (c, first) = node.connect("bob").await;
        assert!(!first);
        assert_eq!(held(&node, "bob").await, sorted([b, c]));
        assert!(!node.backplane.set_silent(a, false).await);
        assert_eq!(node.backplane.register(&registration("bob", Scope::User)).await, FULL);
        node.backplane.unregister(a).await;
        assert_eq!(held(&node, "bob").await, sorted([b, c]));
        assert_eq!(node.metrics.gave_way.get(), 1);
    }
}

#[tokio::test]
async fn only_connections_that_make_room_give_way() {
    let redis = Server::start();
    let (one, other) = (Node::start("one", Some(&redis.url())).await, Node::start("two", Some(&redis.url())).await);
    let bound = |id: &str| registration("carol", Scope::Conversation(room(id)));
    let (a, _) = one.connect("carol").await;
    let (b, c) = (bound("r1"), bound("r1"));
    for new in [&b, &c] {
        assert_eq!(one.backplane.register(new).await, Ok(false));
    }
    one.backplane.set_silent(a, true).await;
    assert_eq!(
        other.backplane.register(&bound("r1")).await,
        FULL,
        "a user-scoped socket makes no room in a conversation"
    );
    assert!(one.backplane.set_silent(a, true).await, "and keeps its place");
    // At the cap of all sockets, any silent one makes room.
    assert_eq!(other.backplane.register(&bound("r2")).await, Ok(false));
    assert_eq!(other.backplane.register(&bound("r2")).await, Ok(false));
    assert!(!one.backplane.set_silent(a, false).await);
    assert_eq!(other.backplane.register(&bound("r3")).await, FULL);
}

#[tokio::test]
async fn a_connection_that_gave_way_does_not_come_back_with_a_new_redis() {
    let redis = Server::start();
    let node = Node::start("one", Some(&redis.url())).await;
    let (a, _) = node.connect("dave").await;
    let (b, _) = node.connect("dave").await;
    node.backplane.set_silent(a, true).await;
    let (c, _) = node.connect("dave").await;
    redis.query::<()>(&["FLUSHALL"]).await;
    node.until("the connections to be written again", || async { held(&node, "dave").await == sorted([b, c]) }).await;
}

/// A node that writes its connections again does not know yet which of them gave way on other nodes.
#[tokio::test]
async fn a_connection_that_gave_way_is_not_written_again_by_its_node() {
    let redis = Server::start();
    let (one, other) = (Node::start("one", Some(&redis.url())).await, Node::start("two", Some(&redis.url())).await);
    let (dead, _) = one.connect("erin").await;
    let (alive, _) = one.connect("erin").await;
    one.backplane.set_silent(dead, true).await;
    let (new, _) = other.connect("erin").await;
    for _ in 0..2 {
        redis.query::<i64>(&["HDEL", "ws:conns:erin", "n"]).await;
        let leases: Vec<String> = redis.query(&["ZRANGE", "ws:nodes", "0", "-1"]).await;
        for lease in leases.iter().filter(|lease| lease.starts_with("one#")) {
            redis.query::<i64>(&["ZREM", "ws:nodes", lease]).await;
        }
        one.until("the node to write its connections again", || async {
            redis.query::<i64>(&["HEXISTS", "ws:conns:erin", "n"]).await == 1
        })
        .await;
        assert_eq!(held(&other, "erin").await, sorted([alive, new]));
        assert!(!one.backplane.set_silent(dead, false).await, "it has no place any more");
    }
    one.backplane.unregister(dead).await;
    assert_eq!(held(&one, "erin").await, sorted([alive, new]));
    one.until("nothing to be left of it", || async {
        redis.query::<i64>(&["HEXISTS", "ws:conns:erin", "g"]).await == 0
    })
    .await;
}
