//! Promises to users who come, go and delete: each test makes one race certain and checks the right outcome.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::{Client, Link, Node, Postgres, Proxy, RedisServer, eventually, token};

mod incomplete_registry;
mod late_departures;
mod live_presence;
mod lost_answers;
mod races;

const CLOSED: (&str, bool) = ("OPEN_CONVERSATIONS", false);

#[tokio::test]
async fn a_removed_member_reads_nothing_more_on_any_node() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let one = Node::serve(&redis.url(), &database).set(CLOSED.0, CLOSED.1).start().await;
    let two = Node::serve(&redis.url(), &database).set(CLOSED.0, CLOSED.1).start().await;
    let (alice, bob) = (token("alice"), token("bob"));
    for _ in 0..10 {
        let room = one.conversation(&alice, &["bob"]).await;
        let messages = format!("/api/chat/conversations/{room}/messages");
        assert_eq!(two.request(Method::GET, &messages, Some(&bob), None).await.status, StatusCode::OK);
        let member = format!("/api/chat/conversations/{room}/members/bob");
        assert_eq!(one.request(Method::DELETE, &member, Some(&alice), None).await.status, StatusCode::NO_CONTENT);
        let after = two.request(Method::GET, &messages, Some(&bob), None).await;
        assert!(after.status.is_client_error(), "{after:?}");
    }
}

#[tokio::test]
async fn a_join_that_fails_for_want_of_the_store_is_repeated() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let link = Proxy::to(database.split('@').next_back().unwrap().split('/').next().unwrap()).await;
    let one = Node::serve(&redis.url(), &database).set(CLOSED.0, CLOSED.1).start().await;
    let two = Node::serve(&redis.url(), &link.url(&database)).set(CLOSED.0, CLOSED.1).start().await;
    let mut native = Client::native(&two, "bob").await;
    let mut direct = Client::connect(&format!("{}/ws", two.ws())).await;
    direct.send(&json!({"type": "authenticate", "token": token("bob")})).await;
    direct.until("authenticated").await;
    link.set(Link::Cut);
    let mut alice = Client::native(&one, "alice").await;
    let send = json!({"type": "send", "recipient_id": "bob", "content": "psst", "client_id": "1", "ref": 1});
    alice.send(&send).await;
    let ack = alice.until("ack").await;
    native.until("conversation_added").await;
    // Several tries fail before the store is back.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    link.set(Link::Open);
    assert_eq!(native.until("message").await["id"], ack["id"]);
    assert_eq!(direct.until("new_message").await["data"]["id"], ack["id"]);
}

#[tokio::test]
async fn two_users_who_write_to_each_other_first_both_receive() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let one = Node::serve(&redis.url(), &database).start().await;
    let two = Node::serve(&redis.url(), &database).start().await;
    for turn in 0..30 {
        let (a, b) = (format!("a{turn}"), format!("b{turn}"));
        let (mut alice, mut bob) = (Client::native(&one, &a).await, Client::native(&two, &b).await);
        let first = |to: &str, text: &str| json!({"type": "send", "recipient_id": to, "content": text, "client_id": "1", "ref": 1});
        let (to_bob, to_alice) = (first(&b, "from alice"), first(&a, "from bob"));
        tokio::join!(alice.send(&to_bob), bob.send(&to_alice));
        // A socket that joins through its inbox may get a copy of its own message; the other's message must come.
        alice.until_where(|frame| frame["type"] == "message" && frame["content"] == "from bob").await;
        bob.until_where(|frame| frame["type"] == "message" && frame["content"] == "from alice").await;
    }
}

#[tokio::test]
async fn deleted_text_is_not_replayed_from_a_stale_cache() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let link = Proxy::to(redis.url().split("://").nth(1).unwrap().trim_end_matches('/')).await;
    let one = Node::serve(&link.url(&redis.url()), &database).start().await;
    let two = Node::serve(&redis.url(), &database).start().await;
    let mut alice = Client::native(&two, "alice").await;
    let head = alice.join("team").await["head"].as_i64().unwrap();
    let ack = alice.send_text("team", "secret").await;
    let cached = || async { redis.command::<Vec<String>>(&["LRANGE", "room_messages:team", "0", "-1"]).await };
    eventually("the cache", async || (!cached().await.is_empty()).then_some(())).await;
    link.set(Link::Cut);
    let path = format!("/api/chat/conversations/team/messages/{}", ack["id"].as_str().unwrap());
    assert!(one.request(Method::DELETE, &path, Some(&token("alice")), None).await.status.is_success());
    assert!(cached().await[0].contains("secret"), "the cache is stale: the deletion could not reach it");
    let mut bob = Client::native(&two, "bob").await;
    bob.send(&json!({"type": "join", "conversation_id": "team", "since_seq": head, "ref": 1})).await;
    let message = bob.until_where(|frame| frame["id"] == ack["id"]).await;
    assert_eq!((&message["deleted"], &message["content"]), (&json!(true), &json!("")), "{message}");
    // The cache is dropped once the node that deleted reaches Redis again, whatever it stored last.
    let reaction = json!({"type": "react", "conversation_id": "team", "seq": head + 1, "emoji": "👍", "active": true});
    let mut other = Client::native(&one, "carol").await;
    other.join("team").await;
    other.send(&reaction).await;
    link.set(Link::Open);
    let stale = || async { cached().await.iter().any(|entry| entry.contains("secret")) };
    eventually("a cache without deleted text", async || (!stale().await).then_some(())).await;
}

#[tokio::test]
async fn an_acked_message_reaches_others_although_its_node_dies_before_it_publishes() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let link = Proxy::to(redis.url().split("://").nth(1).unwrap().trim_end_matches('/')).await;
    let one = Node::serve(&link.url(&redis.url()), &database).set("NODE_LEASE", "3s").start().await;
    let two = Node::serve(&redis.url(), &database).set("NODE_LEASE", "3s").start().await;
    let mut alice = Client::native(&one, "alice").await;
    let mut bob = Client::native(&two, "bob").await;
    alice.join("team").await;
    bob.join("team").await;
    alice.send_text("team", "published").await;
    bob.until("message").await;
    link.set(Link::Frozen);
    let ack = alice.send_text("team", "stored only").await;
    one.kill().await;
    let message = bob.until("message").await;
    assert_eq!((&message["seq"], &message["content"]), (&ack["seq"], &json!("stored only")));
}

#[tokio::test]
async fn a_removed_members_sockets_see_what_the_pages_of_their_dialects_say() {
    let node = Node::dev().set(CLOSED.0, CLOSED.1).start().await;
    let (alice, bob) = (token("alice"), token("bob"));
    let room = node.conversation(&alice, &["bob"]).await;
    let mut personas = Client::connect(&format!("{}/ws/auth?token={bob}", node.ws())).await;
    let join = json!({"type": "join_conversation", "conversation_id": room});
    personas.send(&join).await;
    personas.until("conversation_joined").await;
    let mut rooms = Client::rooms(&node, &room, "bob").await;
    let mut one = Client::connect(&format!("{}/api/chat/ws/{room}?token={bob}", node.ws())).await;
    one.until("system").await;
    let members = format!("/api/chat/conversations/{room}/members");
    let removed = node.request(Method::DELETE, &format!("{members}/bob"), Some(&alice), None).await;
    assert_eq!(removed.status, StatusCode::NO_CONTENT);
    let closed = (1008, "Not a member of this conversation".to_owned());
    assert_eq!((rooms.expect_close().await, one.expect_close().await), (closed.clone(), closed));

    // A socket for many conversations stays open: no frame comes, and what it asks of this conversation is refused.
    let messages = format!("/api/chat/conversations/{room}/messages");
    node.post(&messages, &alice, &json!({"content": "without you"})).await;
    personas.send(&join).await;
    assert_eq!(personas.expect("error").await["code"], "not_member");
    let added = node.post(&members, &alice, &json!({"user_ids": ["bob"]})).await;
    assert_eq!(added.status, StatusCode::OK, "{}", added.text);
    node.post(&messages, &alice, &json!({"content": "with you"})).await;
    personas.send(&json!({"type": "join_conversation", "conversation_id": room, "since_seq": 2})).await;
    personas.until("conversation_joined").await;
    assert_eq!(personas.until("new_message").await["message"]["content"], "with you");
    let direct =
        node.post("/api/chat/conversations", &alice, &json!({"is_group": false, "participant_ids": ["bob"]})).await;
    let path = format!("/api/chat/conversations/{}/members/bob", direct.json["id"].as_str().unwrap());
    assert_eq!(node.request(Method::DELETE, &path, Some(&alice), None).await.status, StatusCode::FORBIDDEN);
}
