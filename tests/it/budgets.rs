//! The budgets of users: each is enforced over sockets, REST and nodes, costs others nothing, and never refuses a repeat
//! of what is stored.

mod repeats;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Client, Node, NodeBuilder, Postgres, RedisServer, token, token_with};

const MESSAGES: &str = "/api/chat/conversations/team/messages";

fn refusals(budget: &str) -> String {
    format!(r#"switchboard_rate_limit_refusals_total{{budget="{budget}"}}"#)
}

async fn two_nodes(set: impl Fn(NodeBuilder) -> NodeBuilder) -> (RedisServer, Node, Node) {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let one = set(Node::serve(&redis.url(), &database)).start().await;
    let two = set(Node::serve(&redis.url(), &database)).start().await;
    (redis, one, two)
}

/// Sends a native frame and returns its answer.
async fn ask(client: &mut Client, mut frame: Value) -> Value {
    frame["ref"] = json!("asked");
    client.send(&frame).await;
    client.until_where(|answer| answer["ref"] == "asked").await
}

async fn edit(client: &mut Client, seq: i64, content: &str) -> Value {
    ask(client, json!({"type": "edit", "conversation_id": "team", "seq": seq, "content": content})).await
}

/// Checks that an answer is a refusal that names the time to wait.
fn assert_limited(answer: &Value) {
    assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!("rate_limited")), "{answer}");
    assert_eq!(answer["retryable"], true);
    assert!((1..=60_000).contains(&answer["retry_after_ms"].as_i64().unwrap()), "{answer}");
}

#[tokio::test]
async fn changes_and_reads_have_budgets_apart_from_messages() {
    let node = Node::dev().set("MESSAGE_RATE_LIMIT", 2).set("WRITE_RATE_LIMIT", 4).set("READ_RATE_LIMIT", 40);
    let node = node.start().await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join("team").await;
    let seq = alice.send_text("team", "text").await["seq"].as_i64().unwrap();
    for text in ["a", "b", "c"] {
        assert_eq!(edit(&mut alice, seq, text).await["type"], "ack");
    }
    assert_limited(&edit(&mut alice, seq, "d").await);
    let react = json!({"type": "react", "conversation_id": "team", "seq": seq, "emoji": "👍"});
    assert_limited(&ask(&mut alice, react).await);
    assert_limited(&ask(&mut alice, json!({"type": "status", "status": "away"})).await);
    // The other budgets have room.
    alice.send_text("team", "more").await;
    for _ in 0..7 {
        let page = ask(&mut alice, json!({"type": "history", "conversation_id": "team"})).await;
        assert_eq!(page["type"], "history");
    }
    assert_eq!(ask(&mut alice, json!({"type": "conversations"})).await["type"], "conversations");
    assert_limited(&ask(&mut alice, json!({"type": "conversations"})).await);
    // What is free stays free.
    assert_eq!(ask(&mut alice, json!({"type": "ping"})).await["type"], "pong");
    assert_eq!(ask(&mut alice, json!({"type": "leave", "conversation_id": "team"})).await["type"], "left");
    let metrics = node.metrics().await;
    let counted = ["send", "write", "read"].map(|budget| metrics.get(&refusals(budget)).unwrap_or(0.0));
    assert_eq!(counted, [0.0, 3.0, 1.0]);
    // Each user has budgets of their own.
    let mut bob = Client::native(&node, "bob").await;
    bob.join("team").await;
    let seq = bob.send_text("team", "text").await["seq"].as_i64().unwrap();
    assert_eq!(edit(&mut bob, seq, "e").await["type"], "ack");
}

#[tokio::test]
async fn sockets_rest_and_nodes_share_a_budget() {
    let (_redis, one, two) = two_nodes(|node| node.set("WRITE_RATE_LIMIT", 5).set("READ_RATE_LIMIT", 24)).await;
    let mut alice = Client::native(&one, "alice").await;
    alice.join("team").await;
    let seq = alice.send_text("team", "text").await["seq"].as_i64().unwrap();
    let reaction = |emoji: &str| format!("{MESSAGES}/{seq}/reactions/{emoji}");
    let put = async |emoji: &str| two.request(Method::PUT, &reaction(emoji), Some(&token("alice")), None).await;
    assert_eq!(edit(&mut alice, seq, "a").await["type"], "ack");
    assert_eq!(put("x").await.status, 204);
    assert_eq!(edit(&mut alice, seq, "b").await["type"], "ack");
    assert_eq!(put("y").await.status, 204);
    let refused = put("z").await;
    assert_eq!((refused.status.as_u16(), &refused.json["code"]), (429, &json!("rate_limited")));
    let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait) && refused.json["retry_after_ms"].as_u64().unwrap() <= 60_000);
    assert_limited(&edit(&mut alice, seq, "c").await);
    // One join, then pages of 5.
    for _ in 0..4 {
        assert_eq!(two.get(MESSAGES, &token("alice")).await.status, 200);
    }
    assert_eq!(ask(&mut alice, json!({"type": "history", "conversation_id": "team"})).await["type"], "history");
    assert_eq!(two.get(MESSAGES, &token("alice")).await.status, 429);
}

#[tokio::test]
async fn without_redis_each_node_counts_alone() {
    let (mut redis, one, two) = two_nodes(|node| node.set("WRITE_RATE_LIMIT", 3)).await;
    let mut alice = [Client::native(&one, "alice").await, Client::native(&two, "alice").await];
    alice[0].join("team").await;
    let seq = alice[0].send_text("team", "text").await["seq"].as_i64().unwrap();
    redis.kill().await;
    for node in [&one, &two] {
        node.metric(r#"switchboard_degraded{part="redis"}"#, |degraded| degraded == 1.0).await;
    }
    // The join was the first change on the first node.
    for (alice, left) in alice.iter_mut().zip([2, 3]) {
        for at in 0..left {
            assert_eq!(edit(alice, seq, &at.to_string()).await["type"], "ack");
        }
        assert_limited(&edit(alice, seq, "c").await);
    }
}

#[tokio::test]
async fn a_tier_selects_the_budgets() {
    let node = Node::dev().set("WRITE_RATE_LIMIT", 1).set("WRITE_RATE_LIMITS", "pro=2,bot=0").start().await;
    for (tier, admitted) in [(None, 1), (Some("pro"), 2), (Some("bot"), 5)] {
        let user = format!("user-{}", tier.unwrap_or("plain"));
        let token = token_with(&user, tier.map_or_else(|| json!({}), |tier| json!({"tier": tier})));
        let mut done = 0;
        for _ in 0..5 {
            let made = node.post("/api/chat/conversations", &token, &json!({"is_group": true})).await;
            assert!([201, 429].contains(&made.status.as_u16()), "{}", made.text);
            done += i32::from(made.status == 201);
        }
        assert_eq!(done, admitted, "{tier:?}");
    }
}

#[tokio::test]
async fn members_weigh_as_much_as_they_are() {
    let node = Node::dev().set("WRITE_RATE_LIMIT", 300).start().await;
    let alice = token("alice");
    let id = node.conversation(&alice, &[]).await;
    let add = async |first: usize, count: usize| {
        let users: Vec<String> = (first..first + count).map(|n| format!("user-{n}")).collect();
        let path = format!("/api/chat/conversations/{id}/members");
        node.post(&path, &alice, &json!({ "user_ids": users })).await.status.as_u16()
    };
    // A request that is larger than the whole budget passes once, and uses all of it.
    assert_eq!((add(0, 10).await, add(10, 400).await, add(410, 1).await), (200, 200, 429));
}

#[tokio::test]
async fn presence_of_many_users_does_not_load_redis() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let node = Node::serve(&redis.url(), &database).unset("READ_RATE_LIMIT").start().await;
    let mut mallory = Client::native(&node, "mallory").await;
    let processed = async || -> u64 {
        let info: String = redis.command(&["INFO", "stats"]).await;
        let line = info.lines().find_map(|line| line.strip_prefix("total_commands_processed:")).unwrap();
        line.trim().parse().unwrap()
    };
    let before = processed().await;
    let users: Vec<String> = (0..1_000).map(|n| format!("user-{n}")).collect();
    let mut answered = 0;
    for _ in 0..100 {
        answered +=
            i32::from(ask(&mut mallory, json!({"type": "presence", "user_ids": users})).await["type"] != "error");
    }
    let commands = processed().await - before;
    println!("100 queries of 1,000 users: {answered} answered, {commands} commands in Redis");
    assert!((6..=7).contains(&answered), "{answered}");
    assert!(commands < 10_000, "{commands}");
    assert_eq!(node.metrics().await.get(&refusals("read")), Some(f64::from(100 - answered)));
}

#[tokio::test]
async fn typing_beyond_the_budget_is_dropped_in_silence() {
    let node = Node::dev().set("READ_RATE_LIMIT", 21).start().await;
    let mut bob = Client::native(&node, "bob").await;
    bob.join("team").await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join("team").await;
    for active in [true, false, true, false] {
        alice.send(&json!({"type": "typing", "conversation_id": "team", "active": active})).await;
    }
    // Only a client that marked the frame is answered.
    assert_limited(&ask(&mut alice, json!({"type": "typing", "conversation_id": "team"})).await);
    assert!(alice.drain().await.iter().all(|frame| frame["type"] != "error"));
    for active in [true, false] {
        assert_eq!(bob.until("typing").await["active"], active);
    }
    // The marker comes behind all that was told about typing.
    alice.send_text("team", "marker").await;
    bob.until_where(|frame| {
        assert_ne!(frame["type"], "typing", "{frame}");
        frame["content"] == "marker"
    })
    .await;
    let metrics = node.metrics().await;
    assert_eq!(metrics.get(r#"switchboard_commands_total{command="typing",result="rate_limited"}"#), Some(3.0));
    let refused = node.post("/api/conversations/team/typing", &token("alice"), &json!({})).await;
    assert_eq!(refused.status, 429, "a request is always answered");
}

#[tokio::test]
async fn what_others_do_uses_up_no_budget() {
    let node = Node::dev().set("READ_RATE_LIMIT", 2).start().await;
    let mut bob = Client::native(&node, "bob").await;
    // The server joins these conversations for Bob's socket.
    for at in 0..10 {
        let id = node.conversation(&token("alice"), &["bob"]).await;
        let message = json!({"content": format!("{at}")});
        node.post(&format!("/api/chat/conversations/{id}/messages"), &token("alice"), &message).await;
        bob.until("message").await;
    }
    assert_eq!(ask(&mut bob, json!({"type": "join", "conversation_id": "own"})).await["type"], "joined");
}

#[tokio::test]
async fn a_join_that_makes_a_member_is_a_change() {
    let node = Node::dev().set("WRITE_RATE_LIMIT", 2).start().await;
    let mut alice = Client::native(&node, "alice").await;
    for room in ["a", "b"] {
        alice.join(room).await;
    }
    let join = |room: &str| json!({"type": "join", "conversation_id": room});
    assert_limited(&ask(&mut alice, join("c")).await);
    assert_eq!(ask(&mut alice, join("a")).await["type"], "joined", "she is a member there");
    let mut refused = Client::connect(&format!("{}/ws/d?token={}", node.ws(), token("alice"))).await;
    assert_eq!(refused.expect_close().await, (1008, "Rate limit exceeded".into()));
    Client::rooms(&node, "b", "alice").await;
}

#[tokio::test]
async fn a_busy_client_does_not_meet_the_default_budgets() {
    let node = Node::dev().unset("WRITE_RATE_LIMIT").unset("READ_RATE_LIMIT").set("WRITE_RATE_LIMITS", "bot=0");
    let node = node.set("READ_RATE_LIMITS", "bot=0").start().await;
    let alice = token("alice");
    let cursors: serde_json::Map<String, Value> = (0..500).map(|n| (format!("room-{n}"), json!(0))).collect();
    let cursors = Value::from(cursors);
    // Alice becomes a member of these conversations, at no cost in this tier.
    let unlimited = token_with("alice", json!({"tier": "bot"}));
    let mut socket = Client::connect(&format!("{}/v1/ws?token={unlimited}", node.ws())).await;
    assert_eq!(ask(&mut socket, json!({"type": "sync", "conversations": cursors})).await["type"], "synced");
    socket.close().await;
    let id = node.conversation(&alice, &[]).await;
    let members: Vec<String> = (0..199).map(|n| format!("user-{n}")).collect();
    let path = format!("/api/chat/conversations/{id}/members");
    assert_eq!(node.post(&path, &alice, &json!({"user_ids": members})).await.status, 200);
    let users: Vec<String> = (0..500).map(|n| format!("user-{n}")).collect();
    for _ in 0..3 {
        let mut socket = Client::native(&node, "alice").await;
        assert_eq!(ask(&mut socket, json!({"type": "sync", "conversations": cursors})).await["type"], "synced");
        let present = ask(&mut socket, json!({"type": "presence", "user_ids": users})).await;
        assert_eq!(present["type"], "presence_list");
        socket.close().await;
    }
    let mut socket = Client::native(&node, "alice").await;
    socket.join("team").await;
    let seq = socket.send_text("team", "text").await["seq"].as_i64().unwrap();
    for at in 0..90 {
        assert_eq!(edit(&mut socket, seq, &at.to_string()).await["type"], "ack");
    }
    for _ in 0..100 {
        let page = ask(&mut socket, json!({"type": "history", "conversation_id": "team"})).await;
        assert_eq!(page["type"], "history");
    }
    for _ in 0..60 {
        let typing = ask(&mut socket, json!({"type": "typing", "conversation_id": "team"})).await;
        assert_eq!(typing["type"], "ok");
    }
    assert_eq!(node.metrics().await.sum("switchboard_rate_limit_refusals_total"), 0.0);
}
