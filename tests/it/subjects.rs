//! Subjects of identity providers as user ids, in every dialect, over REST, in both stores and in Redis.

use serde_json::{Value, json};

use crate::support::{Client, Node, Postgres, RedisServer, token};

const AUTH0: &str = "auth0|abc";
const GOOGLE: &str = "google-oauth2|123";
const BOB: &str = "bob+test@example.com";
/// A room whose id has every character that separates ids elsewhere.
const ROOM: &str = "team|1+1=2";
const ROOM_IN_PATH: &str = "team%7C1%2B1%3D2";

fn in_path(id: &str) -> String {
    id.replace('|', "%7C").replace('+', "%2B").replace('@', "%40")
}

/// Sends the greeting of the direct dialect.
async fn direct(node: &Node, user: &str) -> Client {
    let mut client = Client::connect(&format!("{}/ws", node.ws())).await;
    client.send(&json!({"type": "authenticate", "token": token(user)})).await;
    assert_eq!(client.expect("authenticated").await["user_id"], user);
    client
}

/// Users chat in every dialect; `one` and `two` may be the same node.
async fn chat(one: &Node, two: &Node) {
    let new = json!({"id": ROOM, "name": "x", "is_group": true, "participant_ids": [GOOGLE, BOB]});
    let made = one.post("/api/chat/conversations", &token(AUTH0), &new).await;
    assert_eq!((made.status.as_u16(), &made.json["created_by"]), (201, &json!(AUTH0)), "{}", made.text);

    let mut native = Client::native(one, AUTH0).await;
    assert_eq!(native.greeting["user_id"], AUTH0);
    native.join(ROOM).await;
    let mut rooms = Client::rooms(two, ROOM_IN_PATH, GOOGLE).await;
    let url = |path: &str, user: &str| format!("{}{path}?token={}", two.ws(), token(user));
    let mut conversation = Client::connect(&url(&format!("/api/chat/ws/{ROOM_IN_PATH}"), BOB)).await;
    conversation.until_where(|frame| frame["sender_id"] == BOB).await;
    // The path names the token's own user, so this is the personas dialect and no room.
    let mut personas = Client::connect(&url(&format!("/ws/{}", in_path(BOB)), BOB)).await;
    personas.expect("online_users").await;
    personas.send(&json!({"type": "join_conversation", "conversation_id": ROOM})).await;
    personas.until("conversation_joined").await;

    native.send_text(ROOM, "hello").await;
    assert_eq!(rooms.until("new_message").await["data"]["sender_id"], AUTH0);
    assert_eq!(conversation.until("message").await["sender_id"], AUTH0);
    assert_eq!(personas.until("new_message").await["message"]["sender_id"], AUTH0);
    rooms.send(&json!({"type": "typing_start"})).await;
    assert_eq!(native.until("typing").await["user_id"], GOOGLE);

    // Both directions of a pair are one conversation, and other pairs are others.
    let (mut google, mut bob) = (direct(one, GOOGLE).await, direct(two, BOB).await);
    let mut ids = Vec::new();
    google.send(&json!({"type": "send_message", "recipient_id": BOB, "content": "one"})).await;
    ids.push(bob.until("new_message").await["data"]["conversation_id"].clone());
    bob.send(&json!({"type": "send_message", "recipient_id": GOOGLE, "content": "two"})).await;
    let back = google.until("new_message").await;
    assert_eq!((&back["data"]["sender_id"], &back["data"]["recipient_id"]), (&json!(BOB), &json!(GOOGLE)));
    ids.push(back["data"]["conversation_id"].clone());
    assert_eq!(bob.until("message_sent").await["data"]["recipient_id"], GOOGLE);
    bob.send(&json!({"type": "send_message", "recipient_id": AUTH0, "content": "three"})).await;
    ids.push(bob.until("message_sent").await["data"]["conversation_id"].clone());
    assert!(ids[0] == ids[1] && ids[0] != ids[2], "{ids:?}");

    rest(two).await;
    // The inbox of a user is told of the removal, and the socket that is bound to the room is closed.
    let path = format!("/api/chat/conversations/{ROOM_IN_PATH}/members/{}", in_path(BOB));
    let removed = one.request(reqwest::Method::DELETE, &path, Some(&token(AUTH0)), None).await;
    assert_eq!(removed.status, 204, "{}", removed.text);
    let closed = loop {
        if let Err(close) = conversation.recv_or_close().await {
            break close;
        }
    };
    assert_eq!(closed, (1008, "Not a member of this conversation".to_owned()));
}

/// REST with ids in paths, queries and bodies.
async fn rest(node: &Node) {
    let google = token(GOOGLE);
    for user in [AUTH0, GOOGLE, BOB] {
        let found = node.get(&format!("/api/websocket/users/{}/online", in_path(user)), &google).await;
        assert_eq!((&found.json["user_id"], &found.json["online"]), (&json!(user), &json!(true)), "{}", found.text);
    }
    let online = node.get("/api/websocket/users/online", &google).await.json;
    let mut users: Vec<&str> = online["users"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    users.sort_unstable();
    assert_eq!(users, [AUTH0, BOB, GOOGLE]);
    let messages = format!("/api/chat/conversations/{ROOM_IN_PATH}/messages");
    let sent = node.post(&messages, &google, &json!({"content": "rest", "client_id": "c|1+="})).await;
    let again = node.post(&messages, &google, &json!({"content": "rest", "client_id": "c|1+="})).await;
    assert_eq!((sent.status.as_u16(), again.status.as_u16(), &sent.json["seq"]), (201, 200, &again.json["seq"]));
    let found = node.get(&format!("/api/chat/search?q=rest&conversation_id={ROOM_IN_PATH}"), &google).await.json;
    assert_eq!(found["messages"][0]["sender_id"], GOOGLE);
    let read = json!({"conversation_id": ROOM, "message_ids": [sent.json["id"]]});
    assert_eq!(node.post("/api/messages/read", &google, &read).await.json["read_seq"], sent.json["seq"]);
    assert_eq!(node.get("/api/connections/info", &google).await.json["user_id"], GOOGLE);
}

#[tokio::test]
async fn subjects_of_identity_providers_chat_over_two_nodes() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let node = || Node::serve(&redis.url(), &database).set("OPEN_CONVERSATIONS", false).set("PRESENCE_GRACE", "0s");
    let (one, two) = (node().start().await, node().start().await);
    chat(&one, &two).await;
    let mut online: Vec<String> = redis.command(&["SMEMBERS", "ws:online_users"]).await;
    online.sort();
    assert_eq!(online, [AUTH0, BOB, GOOGLE]);
    for key in ["ws:user:auth0|abc", "ws:conns:bob+test@example.com", "room_messages:team|1+1=2"] {
        assert_eq!(redis.command::<i64>(&["EXISTS", key]).await, 1, "{key}");
    }
    let metrics = two.metrics().await;
    assert!(!metrics.0.contains(AUTH0) && !metrics.0.contains(BOB), "no metric has a user's id");
}

#[tokio::test]
async fn subjects_of_identity_providers_chat_on_dev() {
    let node = Node::dev().set("OPEN_CONVERSATIONS", false).set("PRESENCE_GRACE", "0s").start().await;
    chat(&node, &node).await;
}
