//! A user's presence is told once per socket, however many conversations they share.

use serde_json::{Value, json};

use crate::support::{Client, Node, NodeBuilder, Postgres, RedisServer, token};

/// Conversations that the users share.
const SHARED: usize = 50;

fn quick(node: NodeBuilder) -> NodeBuilder {
    let node = node.set("PRESENCE_GRACE", "0s").set("MESSAGE_RATE_LIMIT", 0);
    node.set("WRITE_RATE_LIMIT", 0).set("READ_RATE_LIMIT", 0)
}

async fn sync(client: &mut Client, rooms: &[String]) {
    let cursors: serde_json::Map<String, Value> = rooms.iter().map(|room| (room.clone(), json!(0))).collect();
    client.send(&json!({"type": "sync", "conversations": cursors, "ref": "s"})).await;
    let answer = client.until("synced").await;
    assert!(answer["conversations"].as_array().unwrap().iter().all(|one| one["error"].is_null()), "{answer}");
}

/// A message in every conversation: what was published there before it arrives before it.
async fn speak_everywhere(node: &Node, rooms: &[String]) {
    for room in rooms {
        let path = format!("/api/chat/conversations/{room}/messages");
        let sent = node.post(&path, &token("dora"), &json!({"content": "a mark"})).await;
        assert_eq!(sent.status, 201, "{}", sent.text);
    }
}

/// The frames about bob until the message of each conversation has come.
async fn about_bob(client: &mut Client) -> Vec<Value> {
    let (mut marks, mut found) = (0, Vec::new());
    while marks < SHARED {
        let frame = client.recv().await;
        match frame["type"].as_str() {
            Some("message" | "new_message") => marks += 1,
            _ if frame["user_id"] == "bob" => found.push(frame),
            _ => {}
        }
    }
    found
}

async fn a_socket_is_told_once(one: &Node, two: &Node) {
    let mut rooms = Vec::new();
    for _ in 0..SHARED {
        rooms.push(one.conversation(&token("dora"), &["alice", "bob", "carol"]).await);
    }
    let mut alice = Client::native(one, "alice").await;
    sync(&mut alice, &rooms).await;
    let mut carol = Client::connect(&format!("{}/ws/auth?token={}", one.ws(), token("carol"))).await;
    carol.until("online_users").await;
    for room in &rooms {
        carol.send(&json!({"type": "join_conversation", "conversation_id": room})).await;
        carol.until("conversation_joined").await;
    }

    let mut bob = Client::native(two, "bob").await;
    sync(&mut bob, &rooms).await;
    speak_everywhere(two, &rooms).await;
    let came = about_bob(&mut alice).await;
    assert_eq!(came, [json!({"type": "presence", "user_id": "bob", "online": true, "status": "online"})]);
    let came = about_bob(&mut carol).await;
    assert_eq!((came.len(), &came[0]["type"], &came[0]["online"]), (1, &"presence_update".into(), &true.into()));

    bob.send(&json!({"type": "status", "status": "dnd", "ref": 1})).await;
    bob.until("ok").await;
    speak_everywhere(two, &rooms).await;
    let moved = about_bob(&mut alice).await;
    assert_eq!(moved, [json!({"type": "presence", "user_id": "bob", "online": true, "status": "dnd"})]);

    bob.close().await;
    let gone = alice.until_where(|frame| frame["user_id"] == "bob").await;
    assert_eq!(gone, json!({"type": "presence", "user_id": "bob", "online": false, "status": "online"}));
    for node in [one, two] {
        speak_everywhere(node, &rooms).await;
        assert_eq!(about_bob(&mut alice).await, [Value::Null; 0]);
    }
    // A return is news again.
    let mut bob = Client::native(one, "bob").await;
    bob.join(&rooms[7]).await;
    let back = alice.until_where(|frame| frame["user_id"] == "bob").await;
    assert_eq!((&back["type"], &back["online"]), (&"presence".into(), &true.into()), "{back}");
    alice.close().await;
    carol.close().await;
    bob.close().await;
    one.metric("switchboard_presence_told", |told| told == 0.0).await;
}

#[tokio::test]
async fn a_change_is_told_once_per_socket_on_two_nodes() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let node = || quick(Node::serve(&redis.url(), &database)).set("OPEN_CONVERSATIONS", false);
    let (one, two) = (node().start().await, node().start().await);
    a_socket_is_told_once(&one, &two).await;
}

#[tokio::test]
async fn a_change_is_told_once_per_socket_on_sqlite() {
    let node = quick(Node::dev()).start().await;
    a_socket_is_told_once(&node, &node).await;
}

#[tokio::test]
async fn who_begins_to_listen_is_told_to_sockets_that_want_the_roster() {
    let node = quick(Node::dev()).start().await;
    let room = node.conversation(&token("alice"), &["bob"]).await;
    let (mut watching, mut other) = (Client::native(&node, "alice").await, Client::native(&node, "alice").await);
    watching.join_with_roster(&room).await;
    other.join(&room).await;
    let mut bob = Client::native(&node, "bob").await;
    bob.join(&room).await;
    assert_eq!(watching.until("user_joined").await["user_id"], "bob");
    bob.send(&json!({"type": "leave", "conversation_id": room, "ref": 1})).await;
    assert_eq!(watching.until("user_left").await["user_id"], "bob");
    bob.send_text(&room, "still a member").await;
    let mut seen = Vec::new();
    while seen.last().is_none_or(|kind| kind != "message") {
        seen.push(other.recv().await["type"].clone());
    }
    assert_eq!(seen, ["presence", "message"]);
    // A later join decides anew.
    watching.join(&room).await;
    bob.join(&room).await;
    bob.send_text(&room, "and back").await;
    let next = watching.until_where(|frame| frame["type"] != "presence").await;
    assert_eq!(next["content"], "and back", "{next}");
}
