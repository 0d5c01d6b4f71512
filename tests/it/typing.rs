//! Typing ends: with the typist's node, with a message, and with the last of a user's sockets.

use serde_json::{Value, json};

use crate::support::{Client, Node, NodeBuilder, Postgres, RedisServer};

async fn member(node: &Node, user: &str) -> Client {
    let mut client = Client::native(node, user).await;
    client.join("team").await;
    client
}

async fn type_on(client: &mut Client, active: bool) {
    client.send(&json!({"type": "typing", "conversation_id": "team", "active": active})).await;
}

fn typing_of<'a>(user: &'a str, active: bool) -> impl FnMut(&Value) -> bool + 'a {
    move |frame| frame["type"] == "typing" && frame["user_id"] == user && frame["active"] == active
}

#[tokio::test]
async fn listeners_see_the_end_of_typing_though_the_typists_node_died() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let node = || Node::serve(&redis.url(), &database).set("TYPING_TIMEOUT", "2s").start();
    let (one, two) = (node().await, node().await);
    let mut bob = member(&two, "bob").await;
    let mut rita = Client::rooms(&two, "team", "rita").await;
    let mut alice = member(&one, "alice").await;
    type_on(&mut alice, true).await;
    bob.until_where(typing_of("alice", true)).await;
    one.kill().await;
    bob.until_where(typing_of("alice", false)).await;
    rita.until_where(|frame| frame["type"] == "user_stopped_typing" && frame["data"]["user_id"] == "alice").await;
}

#[tokio::test]
async fn a_message_ends_the_typing_of_its_sender_on_every_node() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let node = || Node::serve(&redis.url(), &database).set("TYPING_TIMEOUT", "60s").start();
    let (one, two) = (node().await, node().await);
    let (mut near, mut far) = (member(&one, "near").await, member(&two, "far").await);
    let mut alice = member(&one, "alice").await;
    type_on(&mut alice, true).await;
    near.until_where(typing_of("alice", true)).await;
    far.until_where(typing_of("alice", true)).await;
    alice.send_text("team", "done").await;
    near.until_where(typing_of("alice", false)).await;
    far.until_where(typing_of("alice", false)).await;
    // She begins anew at once.
    type_on(&mut alice, true).await;
    far.until_where(typing_of("alice", true)).await;
}

#[tokio::test]
async fn the_end_of_one_tab_does_not_stop_another() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let node = || Node::serve(&redis.url(), &database).set("TYPING_TIMEOUT", "60s").start();
    let (one, two) = (node().await, node().await);
    let mut bob = member(&two, "bob").await;
    // Two tabs on one node, and one on another.
    let (mut first, mut second, mut third) =
        (member(&one, "alice").await, member(&one, "alice").await, member(&two, "alice").await);
    for tab in [&mut first, &mut second, &mut third] {
        type_on(tab, true).await;
        // The pong comes after what was done before: else the first tab could end before the second one's start.
        tab.send(&json!({"type": "ping"})).await;
        tab.until("pong").await;
    }
    bob.until_where(typing_of("alice", true)).await;
    // A stop on one node is followed by the news that she types on the other one.
    first.close().await;
    type_on(&mut second, false).await;
    bob.until_where(typing_of("alice", false)).await;
    bob.until_where(typing_of("alice", true)).await;
    type_on(&mut third, false).await;
    bob.until_where(typing_of("alice", false)).await;
    // The marker comes behind everything that was told about typing.
    third.send_text("team", "marker").await;
    bob.until_where(|frame| {
        assert_ne!(frame["type"], "typing", "{frame}");
        frame["content"] == "marker"
    })
    .await;
}

/// Types and stops some times at once, and at last stops.
async fn hesitate(tab: &mut Client) {
    for _ in 0..5 {
        type_on(tab, true).await;
        type_on(tab, false).await;
    }
    // What comes behind this event was told after the last stop.
    tab.send(&json!({"type": "event", "conversation_id": "team", "name": "end"})).await;
}

/// Receives frames until this number of tabs ended. Returns the number of frames about typing, and the last one.
async fn last_told(listener: &mut Client, tabs: usize) -> (usize, Value) {
    let (mut ended, mut told, mut last) = (0, 0, Value::Null);
    while ended < tabs {
        let frame = listener.recv().await;
        ended += usize::from(frame["type"] == "event");
        if frame["type"] == "typing" {
            (told, last) = (told + 1, frame);
        }
    }
    (told, last)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stopped_on_two_nodes_at_once_is_not_shown_typing() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let unbounded = |node: NodeBuilder| node.set("MAX_EVENTS_PER_RECEIVER", 0).set("MAX_FRAMES_PER_SECOND", 100_000);
    let node = || unbounded(Node::serve(&redis.url(), &database).set("TYPING_TIMEOUT", "60s")).start();
    let (one, two) = (node().await, node().await);
    let mut listeners = [member(&one, "near").await, member(&two, "far").await];
    let (mut left, mut right) = (member(&one, "alice").await, member(&two, "alice").await);
    for round in 0..200 {
        tokio::join!(hesitate(&mut left), hesitate(&mut right));
        for listener in &mut listeners {
            let (told, last) = last_told(listener, 2).await;
            assert!(told >= 2 && last["active"] == false, "round {round}: told {told} times, at last {last}");
        }
        // A tab hears the other one.
        last_told(&mut left, 1).await;
        last_told(&mut right, 1).await;
    }
}
