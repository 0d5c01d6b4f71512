//! Joins that the client did not ask for: its cursor begins at the `head` of `joined`, so nothing at or below that follows, and
//! nothing above it is missing.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// Reads until an automatic join, and asserts that the next entry is the one after its head. Returns the head.
async fn expect_next_after_head(client: &mut Client, conversation: Option<&str>) -> i64 {
    let joined = client
        .until_where(|frame| frame["type"] == "joined" && conversation.is_none_or(|id| frame["conversation_id"] == id))
        .await;
    let head = joined["head"].as_i64().unwrap();
    let next = client
        .until_where(|frame| frame["conversation_id"] == joined["conversation_id"] && frame["seq"].is_i64())
        .await;
    assert_eq!(next["seq"], head + 1, "{joined} {next}");
    head
}

/// Users who never met before.
fn stranger(of: &str) -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    format!("{of}{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

async fn check_automatic_joins(one: &Node, two: &Node) {
    // A first direct message, which races with the join that it causes.
    for _ in 0..6 {
        let (sender, name) = (stranger("sender"), stranger("receiver"));
        let mut receiver = Client::native(two, &name).await;
        let mut sends = Client::native(one, &sender).await;
        let to = json!({"type": "send", "recipient_id": name, "content": "hello", "client_id": "c"});
        sends.send(&to).await;
        let head = expect_next_after_head(&mut receiver, None).await;
        assert_eq!(head, 0);
    }
    // Removed and added again.
    let (owner, guest) = (stranger("owner"), stranger("guest"));
    let room = one.conversation(&token(&owner), &[&guest]).await;
    let mut guests = Client::native(two, &guest).await;
    guests.join(&room).await;
    let path = format!("/api/chat/conversations/{room}/members");
    for _ in 0..3 {
        let removed = one.request(Method::DELETE, &format!("{path}/{guest}"), Some(&token(&owner)), None).await;
        assert!(removed.status.is_success(), "{}", removed.text);
        guests.until("left").await;
        let added = one.post(&path, &token(&owner), &json!({"user_ids": [guest]})).await;
        assert!(added.status.is_success(), "{}", added.text);
        expect_next_after_head(&mut guests, Some(&room)).await;
    }
    // More conversations than a socket may join: joins are given up, and come back when something is said.
    let crowd = stranger("crowd");
    let mut socket = Client::native(two, &crowd).await;
    let (mut rooms, owner) = (Vec::new(), token(&owner));
    for _ in 0..5 {
        rooms.push(one.conversation(&owner, &[&crowd]).await);
    }
    let say = async |room: &str| {
        let said =
            one.post(&format!("/api/chat/conversations/{room}/messages"), &owner, &json!({"content": "hi"})).await;
        assert_eq!(said.status.as_u16(), 201, "{}", said.text);
    };
    let (mut cursors, mut rejoined) = (std::collections::BTreeMap::<String, i64>::new(), 0);
    for round in 0..15 {
        let room = &rooms[round % rooms.len()];
        say(room).await;
        loop {
            let frame = socket.until_where(|frame| frame["conversation_id"] == **room).await;
            let cursor = cursors.entry(room.clone()).or_default();
            match frame["type"].as_str().unwrap() {
                "joined" => {
                    let head = frame["head"].as_i64().unwrap();
                    assert!(head >= *cursor, "{frame}: the client has {cursor}");
                    (*cursor, rejoined) = (head, rejoined + 1);
                }
                "message" => {
                    assert_eq!(frame["seq"], *cursor + 1, "{frame}");
                    *cursor += 1;
                    break;
                }
                _ => {}
            }
        }
    }
    assert!(rejoined > rooms.len(), "joins were given up and came back: {rejoined}");
}

#[tokio::test]
async fn an_automatic_join_names_the_seq_before_what_follows() {
    let (redis, database) = (RedisServer::start().await, Postgres::shared().await.database().await);
    let node = || Node::serve(&redis.url(), &database).set("MAX_CONVERSATIONS_PER_CONNECTION", 3).start();
    check_automatic_joins(&node().await, &node().await).await;
    let dev = Node::dev().set("MAX_CONVERSATIONS_PER_CONNECTION", 3).set("MESSAGE_RATE_LIMIT", 0).start().await;
    check_automatic_joins(&dev, &dev).await;
}

/// The direct dialect, whose client names no seq, gets the newest 100, and is told that there was more.
#[tokio::test]
async fn a_client_that_missed_more_than_is_replayed_is_told_so() {
    let (redis, database) = (RedisServer::start().await, Postgres::shared().await.database().await);
    let node = Node::serve(&redis.url(), &database).start().await;
    let mut alice = Client::native(&node, "alice").await;
    for count in 0..130 {
        let to = json!({"type": "send", "recipient_id": "bob", "content": "hi", "client_id": count.to_string()});
        alice.send(&to).await;
        alice.until("ack").await;
    }
    let mut bob = Client::connect(&format!("{}/ws?token={}", node.ws(), token("bob"))).await;
    let resync = bob.until("resync").await;
    assert_eq!((&resync["data"]["first_seq"], &resync["data"]["head"]), (&json!(1), &json!(30)), "{resync}");
    for seq in 31..=130 {
        assert_eq!(bob.until("new_message").await["data"]["seq"], seq);
    }
}
