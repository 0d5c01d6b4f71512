//! Each kind of answer whose length grows with what is stored or asked for, with small outboxes and ids of full length.

use std::collections::HashSet;

use reqwest::StatusCode;
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

use super::{CONVERSATIONS, TOO_SLOW, ask, length, seqs, unlimited};
use crate::support::{Client, Node, token};

/// An outbox of the smallest size: answers have at most a quarter of it.
const OUTBOX: &str = "64KiB";
const ANSWER: usize = 16 * 1_024;

async fn node() -> Node {
    unlimited(Node::dev()).set("OUTBOX_BYTES", OUTBOX).set("MAX_PAGE_BYTES", "64KiB").start().await
}

/// Ids of full length.
fn long_ids(count: usize) -> Vec<String> {
    (0..count).map(|at| format!("{at:04}{}", "x".repeat(124))).collect()
}

/// All parts of an answer.
async fn parts(client: &mut Client, frame: &Value) -> Vec<Value> {
    client.send(frame).await;
    let mut parts = Vec::new();
    loop {
        let part = client.until_where(|answer| answer["ref"] == frame["ref"]).await;
        assert!(length(&part) <= ANSWER, "{}", length(&part));
        let more = part["more"] == true;
        parts.push(part);
        if !more {
            return parts;
        }
    }
}

async fn assert_not_slow(node: &Node) {
    assert_eq!(node.metrics().await.get(TOO_SLOW).unwrap_or(0.0), 0.0);
}

#[tokio::test]
async fn a_sync_of_many_conversations_is_answered_in_parts() {
    let node = node().await;
    let mut alice = Client::native(&node, "alice").await;
    let ids: Vec<String> = (0..1_000).map(|at| format!("room-{at}-{}", "r".repeat(40))).collect();
    let cursors: Map<String, Value> = ids.iter().map(|id| (id.clone(), json!(0))).collect();
    let parts = parts(&mut alice, &json!({"type": "sync", "ref": "s", "conversations": cursors})).await;
    assert!(parts.len() > 5);
    let answered: Vec<&Value> = parts.iter().flat_map(|part| part["conversations"].as_array().unwrap()).collect();
    assert_eq!(answered.len(), 1_000);
    assert_eq!(answered.iter().filter(|one| one["head"].is_number()).count(), 500);
    assert_not_slow(&node).await;
}

#[tokio::test]
async fn the_presence_of_many_users_is_answered_in_parts() {
    let node = node().await;
    let mut alice = Client::native(&node, "alice").await;
    let ids: Vec<String> = (0..1_000).map(|at| format!("{at:04}{}", "u".repeat(50))).collect();
    let parts = parts(&mut alice, &json!({"type": "presence", "ref": "p", "user_ids": ids})).await;
    assert!(parts.len() > 5);
    let users = parts.iter().flat_map(|part| part["users"].as_array().unwrap());
    assert_eq!(users.map(|user| user["user_id"].as_str().unwrap()).collect::<Vec<_>>(), ids);
    assert_not_slow(&node).await;
}

#[tokio::test]
async fn threads_and_searches_come_in_pages() {
    let node = node().await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join("team").await;
    let root = alice.send_text("team", "the root").await["seq"].as_i64().unwrap();
    let mut replies = Vec::new();
    for at in 0..12 {
        let content = format!("green tea {}", "茶 ".repeat(2_000));
        let send = json!({"type": "send", "conversation_id": "team", "content": content, "reply_to": root, "ref": at});
        alice.send(&send).await;
        replies.push(alice.until_where(|frame| frame["ref"] == at).await["seq"].as_i64().unwrap());
    }
    replies.reverse();
    let (mut found, mut before) = (Vec::new(), Value::Null);
    loop {
        let frame = json!({"type": "history", "conversation_id": "team", "thread_seq": root, "before_seq": before});
        let page = ask(&mut alice, frame).await;
        assert!(length(&page) <= ANSWER && page["total"] == 12, "{}", length(&page));
        found.extend(seqs(&page));
        before = page["next_before_seq"].clone();
        if before.is_null() {
            break;
        }
    }
    assert_eq!(found, replies);
    let (mut found, mut over_rest) = (Vec::new(), Vec::new());
    let mut offset = json!(0);
    while !offset.is_null() {
        let page = ask(&mut alice, json!({"type": "search", "words": "green tea", "offset": offset})).await;
        assert!(length(&page) <= ANSWER);
        found.extend(seqs(&page));
        offset = page["next_offset"].clone();
    }
    let mut offset = json!(0);
    while !offset.is_null() {
        let path = format!("/api/chat/search?q=green%20tea&offset={offset}");
        let page = node.get(&path, &token("alice")).await;
        assert!(page.text.len() <= 64 * 1_024);
        over_rest.extend(seqs(&page.json));
        offset = page.json["next_offset"].clone();
    }
    assert_eq!((&found, &over_rest), (&replies, &replies));
    assert_not_slow(&node).await;
}

/// A single item that is longer than an answer may be comes alone, in an outbox in which nothing else waits.
#[tokio::test]
async fn an_item_that_is_longer_than_an_answer_comes_alone() {
    let node = node().await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join("team").await;
    for _ in 0..3 {
        alice.send_text("team", &"😀".repeat(5_000)).await;
    }
    for at in 0..6 {
        alice.send(&json!({"type": "history", "conversation_id": "team", "ref": at})).await;
    }
    for at in 0..6 {
        let page = alice.until("history").await;
        assert_eq!((&page["ref"], seqs(&page)), (&json!(at), vec![seqs(&page)[0]]));
        assert_eq!(page["next_before_seq"], page["messages"][0]["seq"]);
    }
    assert_not_slow(&node).await;
}

/// These lists are bounded in number, so that they need no pages.
#[tokio::test]
async fn members_and_blocks_are_bounded_in_number() {
    let node = unlimited(Node::dev()).start().await;
    let ids = long_ids(1_000);
    let body = json!({"is_group": true, "participant_ids": ids});
    let made = node.post(CONVERSATIONS, &token("alice"), &body).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let path = format!("{CONVERSATIONS}/{}", made.json["id"].as_str().unwrap());
    for path in [path.clone(), format!("{path}/members")] {
        let answer = node.get(&path, &token("alice")).await;
        assert!(answer.status.is_success() && answer.text.len() < 1_024 * 1_024, "{path}: {}", answer.text.len());
    }
    let more: Vec<String> = (0..500).map(|at| format!("more-{at:04}{}", "y".repeat(110))).collect();
    for more in more.chunks(250) {
        let added = node.post(&format!("{path}/members"), &token("alice"), &json!({"user_ids": more})).await;
        assert!(added.status.is_success() && added.json["users"].as_array().unwrap().len() == 1_000);
        assert!(added.text.len() < 1_024 * 1_024);
    }
    for id in &ids[..1_000] {
        let path = format!("/api/blocks/{id}");
        let blocked = node.request(reqwest::Method::POST, &path, Some(&token("alice")), None).await;
        assert_eq!(blocked.status, StatusCode::NO_CONTENT, "{}", blocked.text);
    }
    let blocks = node.get("/api/blocks", &token("alice")).await;
    assert_eq!(blocks.json["user_ids"].as_array().unwrap().len(), 1_000);
    assert!(blocks.text.len() < 256 * 1_024);
}

/// The dialects that name the users who are present name as many as fit.
#[tokio::test]
async fn rosters_fit_into_an_eighth_of_the_outbox() {
    let node = node().await;
    let ids = long_ids(80);
    let url = |id: &str| format!("{}/api/chat/ws/team?token={}", node.ws(), token(id));
    let mut watcher = Client::connect(&url(&ids[0])).await;
    let mut readers = JoinSet::new();
    for (at, id) in ids.iter().enumerate().skip(1) {
        let mut socket = Client::connect(&url(id)).await;
        let greeting = socket.expect("system").await;
        let arrival = watcher.until_where(|frame| frame["sender_id"] == **id).await;
        for frame in [greeting, arrival] {
            let (count, bytes) = (frame["active_users"].as_array().unwrap().len(), length(&frame["active_users"]));
            assert!(bytes <= ANSWER / 2 + 2 && (count == at + 1 || bytes > ANSWER / 2 - 200), "{count}, {bytes}");
        }
        readers.spawn(async move { while socket.recv_or_close().await.is_ok() {} });
    }
    let mut personas = Client::connect(&format!("{}/ws/auth?token={}", node.ws(), token("0000"))).await;
    personas.send(&json!({"type": "get_online_status", "user_ids": long_ids(400)})).await;
    let mut answer = personas.until("online_users").await;
    while answer["users"].as_array().unwrap().len() < 80 {
        answer = personas.until("online_users").await;
    }
    assert_not_slow(&node).await;
}

/// A client of the direct dialect that missed too much of many conversations is told so of each, however small its outbox.
#[tokio::test]
async fn a_greeting_with_many_resyncs_fits() {
    let node = unlimited(Node::dev()).set("OUTBOX_BYTES", OUTBOX).set("RESUME_MAX", 1).start().await;
    let ids: Vec<String> = (0..150).map(|at| format!("{at:04}{}", "x".repeat(100))).collect();
    let bob = json!({"participant_ids": ["bob"]});
    for id in &ids {
        let made = node.post(CONVERSATIONS, &token(id), &bob).await.json["id"].as_str().unwrap().to_owned();
        for content in ["one", "two", "three"] {
            let path = format!("{CONVERSATIONS}/{made}/messages");
            assert_eq!(node.post(&path, &token(id), &json!({"content": content})).await.status, StatusCode::CREATED);
        }
    }
    let mut socket = Client::connect(&format!("{}/ws?token={}", node.ws(), token("bob"))).await;
    socket.expect("authenticated").await;
    let mut told = HashSet::new();
    while told.len() < ids.len() {
        let resync = socket.until("resync").await;
        assert!(told.insert(resync.to_string()), "each once: {resync}");
    }
    assert_not_slow(&node).await;
}
