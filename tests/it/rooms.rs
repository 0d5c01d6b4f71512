//! The rooms dialect as its protocol document shows it: message types, close codes, the rate limit's answer, and the
//! Redis keys.

use serde_json::{Value, json};

use crate::support::{Client, Node, Postgres, RedisServer, token, token_with};

async fn node(set: impl Fn(crate::support::NodeBuilder) -> crate::support::NodeBuilder) -> (RedisServer, Node) {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let node = set(Node::serve(&redis.url(), &database)).start().await;
    (redis, node)
}

async fn close_of(node: &Node, room: &str, token: &str) -> (u16, String) {
    Client::connect(&format!("{}/ws/{room}?token={token}", node.ws())).await.expect_close().await
}

#[tokio::test]
async fn bad_tokens_and_strangers_are_closed_with_1008() {
    let (_redis, node) = node(|node| node.set("OPEN_CONVERSATIONS", false)).await;
    let room = node.conversation(&token("alice"), &["bob"]).await;
    assert_eq!(close_of(&node, &room, "nonsense").await, (1008, "Invalid token".into()));
    let expired = token_with("bob", json!({"exp": 1_000_000}));
    assert_eq!(close_of(&node, &room, &expired).await, (1008, "Token expired".into()));
    let mut forged = token("bob");
    forged.replace_range(forged.len() - 4.., "AAAA");
    assert_eq!(close_of(&node, &room, &forged).await.0, 1008);
    let (code, reason) = close_of(&node, &room, &token("mallory")).await;
    assert_eq!((code, reason.as_str()), (1008, "Not a member of this conversation"));
    let (code, same) = close_of(&node, "no-such-room", &token("mallory")).await;
    assert_eq!((code, same), (1008, reason), "a missing room gets the same answer as a foreign one");
    Client::rooms(&node, &room, "bob").await;
    node.assert_never_logged(&[&token("bob"), &expired, &forged]);
}

#[tokio::test]
async fn the_protocol_document_is_followed() {
    let (_redis, node) = node(|node| node).await;
    let mut alice = Client::rooms(&node, "room-1", "alice").await;
    assert_eq!(alice.greeting["data"]["room_id"], "room-1");
    assert_eq!(alice.greeting["data"]["user_id"], "alice");
    let mut bob = Client::rooms(&node, "room-1", "bob").await;
    assert_eq!(alice.until("user_joined").await["data"]["user_id"], "bob");

    bob.send(&json!({"type": "typing_start"})).await;
    assert_eq!(alice.expect("user_typing").await["data"]["username"], "Bob");
    bob.send(&json!({"type": "typing_stop"})).await;
    assert_eq!(alice.expect("user_stopped_typing").await["data"]["user_id"], "bob");
    bob.send(&json!({"type": "ping"})).await;
    assert_eq!(bob.until("pong").await, json!({"type": "pong"}));
    bob.send(&json!({"type": "dance"})).await;
    assert_eq!(bob.expect("error").await["data"]["error"], "Unknown message type: dance");
    bob.send(&json!({"type": "send_message"})).await;
    bob.expect("error").await;
    bob.send(&json!({"type": "send_message", "data": {"content": "   "}})).await;
    assert_eq!(bob.expect("error").await["data"]["error"], "Message content cannot be empty");
    bob.send(&json!({"type": "send_message", "data": {"content": "x".repeat(5_001)}})).await;
    bob.expect("error").await;
    bob.send(&json!({"type": "send_message", "data": {"content": "x".repeat(5_000)}})).await;
    bob.until("message_sent").await;
}

#[tokio::test]
async fn the_rate_limit_answers_as_documented_and_counts_all_dialects() {
    let (redis, node) = node(|node| node.set("MESSAGE_RATE_LIMIT", 10)).await;
    let mut alice = Client::rooms(&node, "room-1", "alice").await;
    let mut native = Client::native(&node, "alice").await;
    native.join("room-1").await;
    for at in 0..5 {
        native.send_text("room-1", &at.to_string()).await;
        alice.send(&json!({"type": "send_message", "data": {"content": "x"}})).await;
        alice.until("message_sent").await;
    }
    alice.send(&json!({"type": "send_message", "data": {"content": "one too many", "client_id": "c"}})).await;
    let refused = alice.until("rate_limit_exceeded").await;
    let info = &refused["data"]["rate_limit_info"];
    assert_eq!(refused["data"]["error"], "Rate limit exceeded");
    assert_eq!((&info["messages_sent"], &info["max_messages"]), (&json!(10), &json!(10)));
    assert!((1..=60).contains(&info["time_until_reset"].as_i64().unwrap()), "{refused}");
    native.send(&json!({"type": "send", "conversation_id": "room-1", "content": "no", "ref": 1})).await;
    let error = native.until("error").await;
    assert_eq!(error["code"], "rate_limited");
    assert!(error["retry_after_ms"].as_i64().unwrap() > 0);
    let answer =
        node.post("/api/chat/conversations/room-1/messages", &token("alice"), &json!({"content": "nor here"})).await;
    assert_eq!(answer.status, 429);
    let ttl: i64 = redis.command(&["TTL", "rate_limit:message:alice"]).await;
    assert!((1..=60).contains(&ttl), "{ttl}");
    let mut bob = Client::rooms(&node, "room-1", "bob").await;
    bob.send(&json!({"type": "send_message", "data": {"content": "others may"}})).await;
    bob.until("message_sent").await;
}

#[tokio::test]
async fn the_redis_keys_are_the_documented_ones() {
    let (redis, node) = node(|node| node.set("NODE_ID", "main")).await;
    let mut alice = Client::rooms(&node, "room-1", "alice").await;
    for at in 0..60 {
        alice.send(&json!({"type": "send_message", "data": {"content": at.to_string()}})).await;
        alice.until("message_sent").await;
    }
    let user: Value = serde_json::from_str(&redis.command::<String>(&["GET", "ws:user:alice"]).await).unwrap();
    assert_eq!(user["server_id"], "main");
    assert!(user["connected_at"].as_str().unwrap().ends_with('Z') && user["last_seen"].is_string());
    let ttl: i64 = redis.command(&["TTL", "ws:user:alice"]).await;
    assert!((3_500..=3_600).contains(&ttl), "{ttl}");
    let recent = crate::support::eventually("the recent cache to have the messages", || async {
        let recent: Vec<String> = redis.command(&["LRANGE", "room_messages:room-1", "0", "-1"]).await;
        let newest: Value = serde_json::from_str(recent.first()?).ok()?;
        (newest["content"] == "59").then_some(recent)
    })
    .await;
    assert_eq!(recent.len(), 50);
    let newest: Value = serde_json::from_str(&recent[0]).unwrap();
    assert_eq!((&newest["sender_id"], &newest["conversation_id"]), (&json!("alice"), &json!("room-1")));
    let ttl: i64 = redis.command(&["TTL", "room_messages:room-1"]).await;
    assert!((590..=600).contains(&ttl), "{ttl}");
}

#[tokio::test]
async fn the_greeting_is_the_first_frame_in_a_busy_room() {
    let (_redis, node) = node(|node| node.set("MAX_CONNECTIONS_PER_USER", 1_000)).await;
    let mut talker = Client::rooms(&node, "lobby", "talker").await;
    let stop = tokio_util::sync::CancellationToken::new();
    let stopped = stop.clone();
    let talking = tokio::spawn(async move {
        let mut pace = tokio::time::interval(std::time::Duration::from_millis(2));
        while !stopped.is_cancelled() {
            pace.tick().await;
            for kind in ["typing_start", "typing_stop"] {
                talker.send(&json!({"type": kind})).await;
            }
            talker.drain().await;
        }
    });
    for turn in 0..40 {
        let (url, greeting) = match turn % 2 {
            0 => (format!("{}/ws/lobby?token={}", node.ws(), token("bob")), "connected"),
            _ => (format!("{}/api/chat/ws/lobby?token={}", node.ws(), token("bob")), "system"),
        };
        let mut bob = Client::connect(&url).await;
        let first = bob.recv().await;
        assert_eq!(first["type"], greeting, "{first}");
        if greeting == "system" {
            assert_eq!(first["sender_id"], "bob", "the greeting of this socket, not of another: {first}");
        }
    }
    stop.cancel();
    talking.await.unwrap();
}

#[tokio::test]
async fn every_room_has_an_address_whatever_its_name() {
    let node = Node::dev().start().await;
    for name in ["auth", "alice", "rooms", "team"] {
        let room = format!("rooms/{name}");
        let (mut alice, mut bob) =
            (Client::rooms(&node, &room, "alice").await, Client::rooms(&node, &room, "bob").await);
        assert_eq!(bob.greeting["data"]["room_id"], name);
        bob.send(&json!({"type": "send_message", "data": {"content": "hello"}})).await;
        assert_eq!(alice.until("new_message").await["data"]["room_id"], name);
    }
}
