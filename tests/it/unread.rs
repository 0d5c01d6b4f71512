//! Unread messages over REST, the native dialect and notifications, on two nodes.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Client, Node, Postgres, RedisServer, eventually, token};

const CONVERSATIONS: &str = "/api/chat/conversations";

/// Two nodes with Redis and PostgreSQL.
async fn nodes() -> (RedisServer, Node, Node) {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let node = || Node::serve(&redis.url(), &database).set("OPEN_CONVERSATIONS", false);
    let (one, two) = (node().start().await, node().start().await);
    (redis, one, two)
}

async fn say(node: &Node, user: &str, room: &str, content: &str) -> Value {
    let path = format!("{CONVERSATIONS}/{room}/messages");
    let sent = node.post(&path, &token(user), &json!({"content": content})).await;
    assert_eq!(sent.status, 201, "{}", sent.text);
    sent.json["seq"].clone()
}

/// The number of a user's unread messages of a conversation, which is the same everywhere; and the user's read mark.
async fn unread(nodes: [&Node; 2], user: &str, room: &str) -> (i64, Value) {
    let mut counts = Vec::new();
    for node in nodes {
        let shown = node.get(&format!("{CONVERSATIONS}/{room}"), &token(user)).await.json;
        let listed = node.get(CONVERSATIONS, &token(user)).await.json;
        let listed = listed["conversations"].as_array().unwrap().iter().find(|one| one["id"] == room).unwrap().clone();
        let mut native = Client::native(node, user).await;
        native.send(&json!({"type": "conversations", "ref": 1})).await;
        let frame = native.until("conversations").await;
        let in_frame = frame["conversations"].as_array().unwrap().iter().find(|one| one["conversation_id"] == room);
        counts
            .extend([&shown["unread_count"], &listed["unread_count"], &in_frame.unwrap()["unread"]].map(Value::clone));
        native.close().await;
    }
    assert!(counts.iter().all(|count| *count == counts[0]), "{user}: {counts:?}");
    let members = nodes[0].get(&format!("{CONVERSATIONS}/{room}/members"), &token(user)).await.json;
    let member = members["members"].as_array().unwrap().iter().find(|member| member["user_id"] == user).unwrap();
    assert!(member["delivered_seq"].as_i64() >= member["read_seq"].as_i64(), "{member}");
    (counts[0].as_i64().unwrap(), member["read_seq"].clone())
}

#[tokio::test]
async fn a_message_reads_what_came_before_and_deleted_ones_dont_count() {
    let (_redis, one, two) = nodes().await;
    let nodes = [&one, &two];
    let room = one.conversation(&token("alice"), &["bob"]).await;
    let first = say(&one, "alice", &room, "one").await;
    let mut native = Client::native(&one, "alice").await;
    let second = native.send_text(&room, "two").await["seq"].clone();
    assert_eq!(unread(nodes, "alice", &room).await, (0, second.clone()));
    assert_eq!(unread(nodes, "bob", &room).await, (2, json!(0)));
    let message = format!("{CONVERSATIONS}/{room}/messages/{first}");
    assert_eq!(two.request(Method::DELETE, &message, Some(&token("alice")), None).await.status, 204);
    assert_eq!(unread(nodes, "bob", &room).await.0, 1);

    let answer = say(&two, "bob", &room, "an answer").await;
    assert_eq!((unread(nodes, "alice", &room).await.0, unread(nodes, "bob", &room).await), (1, (0, answer.clone())));
    native.send(&json!({"type": "read", "conversation_id": room, "seq": second, "ref": 1})).await;
    native.until("ok").await;
    assert_eq!(unread(nodes, "alice", &room).await, (1, second), "a mark up to a message that alice has read already");
    native.send(&json!({"type": "read", "conversation_id": room, "seq": answer, "ref": 2})).await;
    native.until("ok").await;
    assert_eq!(unread(nodes, "alice", &room).await, (0, answer));
}

#[tokio::test]
async fn an_answer_ends_the_notification_of_what_it_answers() {
    let (_redis, one, two) = nodes().await;
    let room = one.conversation(&token("alice"), &["bob"]).await;
    let notifications =
        async || two.get("/api/notifications", &token("bob")).await.json["notifications"].as_array().unwrap().clone();
    let until = async |wanted: &[(&Value, i64, bool)]| {
        eventually(&format!("{wanted:?}"), async || {
            let runs = notifications().await;
            let found: Vec<_> = runs
                .iter()
                .map(|run| (&run["from_seq"], run["count"].as_i64().unwrap(), run["read_at"].is_null()))
                .collect();
            (found == wanted).then_some(())
        })
        .await;
    };
    let first = say(&one, "alice", &room, "one").await;
    let second = say(&one, "alice", &room, "two").await;
    until(&[(&first, 2, true)]).await;
    let message = format!("{CONVERSATIONS}/{room}/messages/{second}");
    assert_eq!(one.request(Method::DELETE, &message, Some(&token("alice")), None).await.status, 204);
    until(&[(&first, 1, true)]).await;
    say(&two, "bob", &room, "an answer, without a socket").await;
    let runs = notifications().await;
    assert_eq!((runs.len(), runs[0]["read_at"].is_null()), (1, false), "at once: {runs:?}");
    let third = say(&one, "alice", &room, "three").await;
    eventually("the next notification", async || (notifications().await.len() == 2).then_some(())).await;
    let newest = notifications().await[0].clone();
    assert_eq!((&newest["from_seq"], &newest["count"]), (&third, &json!(1)), "{newest}");
}

#[tokio::test]
async fn a_device_gets_what_it_missed_although_its_user_has_answered_elsewhere() {
    let (_redis, one, two) = nodes().await;
    let mut alice = Client::native(&one, "alice").await;
    let mut room = Value::Null;
    for text in ["one", "two"] {
        alice.send(&json!({"type": "send", "recipient_id": "bob", "content": text, "ref": text})).await;
        room = alice.until("ack").await["conversation_id"].clone();
    }
    let room = room.as_str().unwrap();
    say(&two, "bob", room, "answered from another device").await;
    assert_eq!(unread([&one, &two], "bob", room).await.0, 0);
    let mut device = Client::connect(&format!("{}/ws", two.ws())).await;
    device.send(&json!({"type": "authenticate", "token": token("bob")})).await;
    device.expect("authenticated").await;
    for text in ["one", "two", "answered from another device"] {
        assert_eq!(device.expect("new_message").await["data"]["content"], text);
    }
}
