//! A native socket learns of new messages in conversations to which it doesn't listen.

use serde_json::{Value, json};

use crate::support::{Client, Node, NodeBuilder, Postgres, RedisServer, eventually, token};

const CONVERSATIONS: &str = "/api/chat/conversations";

fn unlimited(node: NodeBuilder) -> NodeBuilder {
    node.set("MESSAGE_RATE_LIMIT", 0).set("WRITE_RATE_LIMIT", 0).set("READ_RATE_LIMIT", 0)
}

async fn say(node: &Node, user: &str, room: &str, content: &str) -> i64 {
    let sent = node.post(&format!("{CONVERSATIONS}/{room}/messages"), &token(user), &json!({"content": content})).await;
    assert_eq!(sent.status, 201, "{}", sent.text);
    sent.json["seq"].as_i64().unwrap()
}

/// Reads until a hint of this conversation has this head, and returns it.
async fn hinted(client: &mut Client, room: &str, head: i64) -> Value {
    let hint = |frame: &Value| frame["type"] == "hint" && frame["conversation_id"] == *room && frame["head"] == head;
    client.until_where(hint).await
}

/// Hints reach the members' sockets that don't listen, and no others.
async fn members_are_hinted(one: &Node, two: &Node) {
    let bob = token("bob");
    let (room, other) =
        (one.conversation(&bob, &["alice", "carol", "mallory"]).await, one.conversation(&bob, &["alice"]).await);
    let mut idle = Client::native(two, "alice").await;
    let mut listens = Client::native(two, "alice").await;
    listens.join(&room).await;
    let mut near = Client::native(one, "carol").await;
    let mut stranger = Client::native(two, "dave").await;
    let mut removed = Client::native(two, "mallory").await;
    let path = format!("{CONVERSATIONS}/{room}/members/mallory");
    assert_eq!(one.request(reqwest::Method::DELETE, &path, Some(&bob), None).await.status, 204);
    removed.until("conversation_removed").await;

    say(one, "bob", &room, "first").await;
    let head = say(one, "bob", &room, "second").await;
    for client in [&mut idle, &mut near] {
        let hint = hinted(client, &room, head).await;
        assert_eq!(hint, json!({"type": "hint", "conversation_id": room, "head": head, "unread": 2}));
    }
    // A mark for the sockets that get nothing: a hint of another conversation came after all others.
    let marks = one.conversation(&bob, &["dave", "mallory"]).await;
    for client in [&mut stranger, &mut removed] {
        client.until("joined").await;
    }
    say(one, "bob", &marks, "a mark").await;
    for client in [&mut stranger, &mut removed] {
        let next = client.until_where(|frame| frame["type"] == "message" || frame["type"] == "hint").await;
        assert_eq!(next["type"], "message", "{next}");
    }
    let head = say(one, "bob", &other, "elsewhere").await;
    let mut kinds = Vec::new();
    loop {
        let frame = listens.recv().await;
        if frame["type"] == "hint" {
            assert_eq!((&frame["conversation_id"], &frame["head"]), (&json!(other), &json!(head)));
            break;
        }
        kinds.push(frame["type"].clone());
    }
    assert_eq!(kinds.iter().filter(|kind| **kind == "message").count(), 2);

    // Once it listens, messages come instead of hints.
    hinted(&mut idle, &other, head).await;
    idle.join(&other).await;
    say(one, "bob", &other, "to a listener").await;
    let next = idle.until_where(|frame| frame["type"] == "message" || frame["type"] == "hint").await;
    assert_eq!(next["content"], "to a listener", "{next}");
    assert!(two.metrics().await.get("switchboard_hints_total").unwrap() >= 3.0);
}

#[tokio::test]
async fn members_on_two_nodes_are_hinted() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let node = || unlimited(Node::serve(&redis.url(), &database)).set("OPEN_CONVERSATIONS", false);
    let (one, two) = (node().start().await, node().start().await);
    members_are_hinted(&one, &two).await;
}

#[tokio::test]
async fn members_are_hinted_on_sqlite() {
    let node = unlimited(Node::dev()).set("OPEN_CONVERSATIONS", false).start().await;
    members_are_hinted(&node, &node).await;
}

#[tokio::test]
async fn members_on_another_node_are_hinted_while_redis_is_down() {
    let mut redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let node = || unlimited(Node::serve(&redis.url(), &database)).set("OPEN_CONVERSATIONS", false);
    let (one, two) = (node().start().await, node().start().await);
    let room = one.conversation(&token("bob"), &["alice"]).await;
    let mut alice = Client::native(&two, "alice").await;
    redis.kill().await;
    for node in [&one, &two] {
        let relays = async || {
            let health = node.get("/api/health", &token("anyone")).await.json;
            (health["works"]["fanout"] == "relayed").then_some(())
        };
        eventually("nodes to relay", relays).await;
    }
    let head = say(&one, "bob", &room, "through the store").await;
    assert_eq!(hinted(&mut alice, &room, head).await["unread"], 1);
}

#[tokio::test]
async fn many_messages_at_once_are_few_hints() {
    let node = unlimited(Node::dev()).set("OPEN_CONVERSATIONS", false).start().await;
    let room = node.conversation(&token("bob"), &["alice"]).await;
    let mut alice = Client::native(&node, "alice").await;
    let mut bob = Client::native(&node, "bob").await;
    bob.join(&room).await;
    for at in 0..200 {
        bob.send(&json!({"type": "send", "conversation_id": room, "content": "more", "ref": at})).await;
    }
    let last = bob.until_where(|frame| frame["ref"] == 199).await;
    let head = last["seq"].as_i64().unwrap();
    let mut hints = 0;
    loop {
        let frame = alice.until("hint").await;
        hints += 1;
        if frame["head"] == head {
            break;
        }
    }
    assert!(hints < 100, "{hints} hints of 200 messages");
}
