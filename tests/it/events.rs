//! Events: passed on to listeners or to a user's sockets on every node, in order, within their rights and budgets, and never
//! stored.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Client, Link, Node, NodeBuilder, Postgres, Proxy, RedisServer, token, token_with, within};

const TEAM: &str = "/api/conversations/team/events";
const MEMBERS: &str = "/api/chat/conversations/team/members";

/// Two nodes with a closed conversation `team` of alice, bob and carol.
struct Stage {
    one: Node,
    two: Node,
    _redis: RedisServer,
}

impl Stage {
    async fn new(set: impl Fn(NodeBuilder) -> NodeBuilder) -> Self {
        let redis = RedisServer::start().await;
        let database = Postgres::shared().await.database().await;
        let node = || set(Node::serve(&redis.url(), &database).set("OPEN_CONVERSATIONS", false)).start();
        let (one, two) = (node().await, node().await);
        create(&one).await;
        Self { one, two, _redis: redis }
    }
}

async fn create(node: &Node) {
    let new = json!({"id": "team", "is_group": true, "participant_ids": ["bob", "carol"]});
    assert_eq!(node.post("/api/chat/conversations", &token("alice"), &new).await.status, 201);
}

async fn listener(node: &Node, user: &str) -> Client {
    let mut client = Client::native(node, user).await;
    client.join("team").await;
    client
}

/// Sends a native frame and returns its answer.
async fn ask(client: &mut Client, mut frame: Value) -> Value {
    frame["ref"] = json!("asked");
    client.send(&frame).await;
    client.until_where(|answer| answer["ref"] == "asked").await
}

/// Sends a frame again and again until its answer is the wanted one.
async fn ask_until(client: &mut Client, frame: &Value, wanted: impl Fn(&Value) -> bool) {
    within("the wanted answer", async {
        while !wanted(&ask(client, frame.clone()).await) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

fn to_team(name: &str, data: Value) -> Value {
    json!({"type": "event", "conversation_id": "team", "name": name, "data": data})
}

fn to_user(user: &str, name: &str) -> Value {
    json!({"type": "event", "recipient_id": user, "name": name})
}

/// The next event of the client.
async fn event(client: &mut Client) -> Value {
    let mut event = client.until("event").await;
    let fields = event.as_object_mut().unwrap();
    assert!(fields.remove("timestamp").unwrap().as_str().unwrap().ends_with('Z'));
    event
}

/// Checks that a client has got no event, once it has got the message `marker` of the conversation.
async fn no_event_before(client: &mut Client, marker: &str) {
    client
        .until_where(|frame| {
            assert_ne!(frame["type"], "event", "{frame}");
            frame["content"] == marker
        })
        .await;
}

#[tokio::test]
async fn listeners_on_all_nodes_get_the_events_of_a_conversation_in_order() {
    let stage = Stage::new(|node| node).await;
    let mut alice = listener(&stage.one, "alice").await;
    let mut phone = listener(&stage.two, "alice").await;
    let (mut near, mut far) = (listener(&stage.one, "bob").await, listener(&stage.two, "carol").await);
    let mut elsewhere = Client::native(&stage.two, "bob").await;
    for n in 0..50 {
        alice.send(&to_team("cursor", json!({"n": n, "at": [1.50, "é"]}))).await;
    }
    for client in [&mut phone, &mut near, &mut far] {
        for n in 0..50 {
            let wanted = json!({"type": "event", "conversation_id": "team", "user_id": "alice", "name": "cursor",
                "data": {"n": n, "at": [1.5, "é"]}});
            assert_eq!(event(client).await, wanted);
        }
    }
    // Over REST, all sockets of the sender get it too; without data, the event has no such field.
    assert_eq!(stage.two.post(TEAM, &token("alice"), &json!({"name": "recording"})).await.status, 204);
    for client in [&mut alice, &mut near, &mut far] {
        let wanted = json!({"type": "event", "conversation_id": "team", "user_id": "alice", "name": "recording"});
        assert_eq!(event(client).await, wanted);
    }
    assert!(elsewhere.drain().await.iter().all(|frame| frame["type"] != "event"), "it does not listen");
    let history = ask(&mut alice, json!({"type": "history", "conversation_id": "team"})).await;
    assert_eq!(history["total"], 0, "{history}");
}

#[tokio::test]
async fn the_data_arrives_as_it_was_sent() {
    let stage = Stage::new(|node| node).await;
    let mut alice = listener(&stage.one, "alice").await;
    let mut bob = listener(&stage.two, "bob").await;
    let text = r#"{"type":"event","conversation_id":"team","name":"x","data":{"z": 1.0, "a": 12345678901234567890}}"#;
    alice.send_message(Message::text(text)).await;
    let event = bob.until("event").await;
    assert_eq!(event["data"].to_string(), r#"{"a":12345678901234567890,"z":1.0}"#);
}

#[tokio::test]
async fn all_sockets_of_a_user_get_the_events_for_that_user() {
    let stage = Stage::new(|node| node).await;
    let mut alice = Client::native(&stage.one, "alice").await;
    let mut bob = [Client::native(&stage.one, "bob").await, Client::native(&stage.two, "bob").await];
    let mut carol = Client::native(&stage.two, "carol").await;
    assert_eq!(ask(&mut alice, to_user("bob", "call.offer")).await["type"], "ok");
    for socket in &mut bob {
        assert_eq!(event(socket).await, json!({"type": "event", "user_id": "alice", "name": "call.offer"}));
    }
    // One of the called user's devices tells the others that it took the call.
    let [first, second] = &mut bob;
    assert_eq!(ask(first, to_user("bob", "call.taken")).await["type"], "ok");
    assert_eq!(event(second).await, json!({"type": "event", "user_id": "bob", "name": "call.taken"}));
    let by_rest = stage.two.post("/api/users/bob/events", &token("alice"), &json!({"name": "bell", "data": 7})).await;
    assert_eq!(by_rest.status, 204);
    let wanted = json!({"type": "event", "user_id": "alice", "name": "bell", "data": 7});
    assert_eq!(event(first).await, wanted);
    assert_eq!(event(second).await, wanted);
    for client in [&mut alice, &mut carol] {
        assert!(client.drain().await.iter().all(|frame| frame["type"] != "event"));
    }
}

#[tokio::test]
async fn a_stranger_an_unknown_user_and_a_blocker_look_the_same() {
    let stage = Stage::new(|node| node).await;
    let sqlite = Node::dev().set("OPEN_CONVERSATIONS", false).set("WRITE_RATE_LIMIT", 0).start().await;
    create(&sqlite).await;
    for node in [&stage.one, &sqlite] {
        let mut alice = Client::native(node, "alice").await;
        let _mallory = Client::native(node, "mallory").await;
        let mut bob = Client::native(node, "bob").await;
        assert_eq!(ask(&mut alice, to_user("bob", "before")).await["type"], "ok");
        event(&mut bob).await;
        assert_eq!(node.post("/api/blocks/alice", &token("bob"), &json!({})).await.status, 204);
        let refused = ask(&mut alice, to_user("bob", "blocked")).await;
        assert_eq!(refused["code"], "forbidden", "at once: {refused}");
        for other in ["mallory", "nobody-at-all"] {
            assert_eq!(ask(&mut alice, to_user(other, "x")).await, refused, "{other}");
        }
        assert_eq!(ask(&mut bob, to_user("alice", "x")).await, refused, "who blocks can't reach the other either");
        let paths = ["bob", "mallory", "nobody-at-all"].map(|user| format!("/api/users/{user}/events"));
        for path in paths {
            let answer = node.post(&path, &token("alice"), &json!({"name": "x"})).await;
            assert_eq!((answer.status.as_u16(), &answer.json["code"]), (403, &json!("forbidden")), "{path}");
        }
        let unblocked = node.request(reqwest::Method::DELETE, "/api/blocks/alice", Some(&token("bob")), None).await;
        assert_eq!(unblocked.status, 204);
        assert_eq!(ask(&mut alice, to_user("bob", "after")).await["type"], "ok");
        assert_eq!(event(&mut bob).await["name"], "after", "none between");
    }
}

#[tokio::test]
async fn a_block_ends_events_on_other_nodes_and_in_the_direct_conversation() {
    let stage = Stage::new(|node| node).await;
    let mut alice = Client::native(&stage.one, "alice").await;
    let ack = ask(&mut alice, json!({"type": "send", "recipient_id": "bob", "content": "hi"})).await;
    let direct = json!({"type": "event", "conversation_id": ack["conversation_id"], "name": "x"});
    alice.join(ack["conversation_id"].as_str().unwrap()).await;
    assert_eq!(ask(&mut alice, direct.clone()).await["type"], "ok");
    assert_eq!(ask(&mut alice, to_user("bob", "x")).await["type"], "ok");
    assert_eq!(stage.two.post("/api/blocks/alice", &token("bob"), &json!({})).await.status, 204);
    for frame in [to_user("bob", "x"), direct] {
        // What the other node remembers lasts for five seconds.
        ask_until(&mut alice, &frame, |answer| answer["code"] == "forbidden").await;
    }
    // In groups a block changes nothing.
    assert_eq!(ask(&mut alice, to_team("x", json!(1))).await["type"], "ok");
}

#[tokio::test]
async fn removed_members_neither_send_nor_hear() {
    let stage = Stage::new(|node| node).await;
    let mut alice = listener(&stage.one, "alice").await;
    let (mut bob, mut carol) = (listener(&stage.two, "bob").await, listener(&stage.two, "carol").await);
    assert_eq!(ask(&mut bob, to_team("x", json!(1))).await["type"], "ok");
    let path = format!("{MEMBERS}/bob");
    assert_eq!(stage.one.request(reqwest::Method::DELETE, &path, Some(&token("alice")), None).await.status, 204);
    for n in 0..20 {
        alice.send(&to_team("secret", json!(n))).await;
    }
    bob.until_where(|frame| {
        assert_ne!(frame["name"], "secret", "{frame}");
        frame["type"] == "left"
    })
    .await;
    assert_eq!(ask(&mut bob, to_team("x", json!(2))).await["code"], "not_member");
    assert_eq!(stage.two.post(TEAM, &token("bob"), &json!({"name": "x"})).await.status, 403);
    for n in 0..20 {
        let event = carol.until_where(|frame| frame["name"] == "secret").await;
        assert_eq!(event["data"], n);
    }
    assert!(bob.drain().await.iter().all(|frame| frame["type"] != "event"));
    assert_eq!(
        ask(&mut Client::native(&stage.one, "mallory").await, to_team("x", json!(1))).await["code"],
        "not_member"
    );
}

#[tokio::test]
async fn other_dialects_get_no_events() {
    let stage = Stage::new(|node| node).await;
    let mut alice = listener(&stage.one, "alice").await;
    let url = |path: &str| format!("{}{path}?token={}", stage.two.ws(), token("bob"));
    let mut others = Vec::new();
    for path in ["/ws", "/ws/team", "/api/chat/ws/team", "/ws/auth"] {
        others.push(Client::connect(&url(path)).await);
    }
    others[3].send(&json!({"type": "join_conversation", "conversation_id": "team"})).await;
    others[3].until("conversation_joined").await;
    for other in &mut others {
        other.send(&json!({"type": "event", "conversation_id": "team", "name": "x"})).await;
        let error = other.until("error").await;
        assert!(error.to_string().contains("Unknown message type: event"), "{error}");
    }
    let mut native = listener(&stage.two, "bob").await;
    assert_eq!(ask(&mut alice, to_team("x", json!(1))).await["type"], "ok");
    assert_eq!(ask(&mut alice, to_user("bob", "y")).await["type"], "ok");
    assert_eq!(event(&mut native).await["name"], "x");
    assert_eq!(event(&mut native).await["name"], "y");
    for other in &mut others {
        assert!(other.drain().await.iter().all(|frame| !frame.to_string().contains("event")));
    }
}

#[tokio::test]
async fn unfit_events_are_refused_by_their_fault() {
    let node = Node::dev().set("OPEN_CONVERSATIONS", true).set("EVENT_RATE_LIMIT", 0).start().await;
    let mut alice = listener(&node, "alice").await;
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let long = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    for (data, reason) in [
        (long(4_097), "data has 4097 bytes, and may have 4096"),
        (nested(31), "data is nested too deeply: at most 30 levels"),
        (r#"{"a":1,"a":2}"#.into(), "data has the key \"a\" twice in one object"),
        (r#""\u0000""#.into(), "data has the character U+0000 in a text"),
    ] {
        let frame = format!(r#"{{"type":"event","conversation_id":"team","name":"x","data":{data}}}"#);
        alice.send_message(Message::text(frame)).await;
        let error = alice.until("error").await;
        assert!(error["code"] == "invalid" && error["message"].as_str().unwrap().contains(reason), "{data}: {error}");
        let body = format!(r#"{{"name":"x","data":{data}}}"#);
        let refused = node.send_raw(reqwest::Method::POST, TEAM, &token("alice"), &body).await;
        assert_eq!((refused.status.as_u16(), &refused.json["code"]), (400, &json!("invalid")), "{}", refused.text);
    }
    let name = "name must be 1 to 64 of A-Z a-z 0-9 . _ : -";
    for (frame, reason) in [
        (json!({"conversation_id": "team", "name": ""}), name),
        (json!({"conversation_id": "team", "name": "a b"}), name),
        (json!({"conversation_id": "team", "name": "x".repeat(65)}), name),
        (json!({"conversation_id": "team"}), "missing"),
        (json!({"name": "x"}), "event needs conversation_id or recipient_id, and not both"),
        (json!({"conversation_id": "team", "recipient_id": "bob", "name": "x"}), "and not both"),
        (json!({"conversation_id": "team", "name": "x", "client_id": "c"}), "client_id: unknown field"),
    ] {
        let mut frame = frame;
        frame["type"] = json!("event");
        let error = ask(&mut alice, frame).await;
        assert!(error["code"] == "invalid" && error["message"].as_str().unwrap().contains(reason), "{error}");
    }
    for data in [long(4_096), nested(30), "null".into(), "7".into()] {
        let frame = format!(r#"{{"type":"event","conversation_id":"team","name":"x","data":{data},"ref":1}}"#);
        alice.send_message(Message::text(frame)).await;
        assert_eq!(alice.until_where(|frame| frame["ref"] == 1).await["type"], "ok");
    }
}

#[tokio::test]
async fn events_have_a_budget_over_sockets_rest_and_nodes_and_by_tier() {
    let stage = Stage::new(|node| node.set("EVENT_RATE_LIMIT", 6).set("EVENT_RATE_LIMITS", "bot=0")).await;
    let mut alice = listener(&stage.one, "alice").await;
    // Each started KiB counts.
    assert_eq!(ask(&mut alice, to_team("x", json!("x".repeat(3_100)))).await["type"], "ok");
    assert_eq!(stage.two.post(TEAM, &token("alice"), &json!({"name": "x", "data": 1})).await.status, 204);
    assert_eq!(ask(&mut alice, to_team("x", Value::Null)).await["type"], "ok");
    let refused = ask(&mut alice, to_team("x", json!(1))).await;
    assert_eq!((&refused["code"], &refused["retryable"]), (&json!("rate_limited"), &json!(true)), "{refused}");
    assert!((1..=60_000).contains(&refused["retry_after_ms"].as_i64().unwrap()), "{refused}");
    let refused = stage.two.post("/api/users/bob/events", &token("alice"), &json!({"name": "x"})).await;
    assert_eq!((refused.status.as_u16(), &refused.json["code"]), (429, &json!("rate_limited")));
    assert!(refused.headers.contains_key("retry-after"));
    let refusals = r#"switchboard_rate_limit_refusals_total{budget="event"}"#;
    assert_eq!(stage.one.metrics().await.get(refusals), Some(1.0));
    assert_eq!(stage.one.metrics().await.get(r#"switchboard_commands_total{command="event",result="ok"}"#), Some(2.0));
    // Other budgets and users are not concerned.
    alice.send_text("team", "hello").await;
    let mut bob =
        Client::connect(&format!("{}/v1/ws?token={}", stage.one.ws(), token_with("bob", json!({"tier": "bot"})))).await;
    for _ in 0..20 {
        assert_eq!(ask(&mut bob, to_team("x", json!(1))).await["type"], "ok");
    }
}

#[tokio::test]
async fn one_conversation_takes_a_bounded_number_of_events_per_second() {
    let node = Node::dev().set("EVENT_RATE_LIMIT", 0).set("MAX_EVENTS_PER_RECEIVER", 5).start().await;
    let mut alice = listener(&node, "alice").await;
    let mut bob = listener(&node, "bob").await;
    let mut refused = Value::Null;
    for _ in 0..50 {
        refused = ask(&mut alice, to_team("x", json!(1))).await;
        if refused["type"] == "error" {
            break;
        }
    }
    assert_eq!(refused["code"], "rate_limited", "{refused}");
    let wait = refused["retry_after_ms"].as_u64().unwrap();
    assert!((1..=1_000).contains(&wait), "{refused}");
    // Typing and messages have their own way, and so has another receiver.
    alice.send(&json!({"type": "typing", "conversation_id": "team"})).await;
    bob.until("typing").await;
    alice.send_text("team", "hello").await;
    bob.until("message").await;
    assert_eq!(ask(&mut alice, to_user("alice", "x")).await["type"], "ok");
    assert!(node.metrics().await.get("switchboard_events_refused_total") >= Some(1.0));
    tokio::time::sleep(Duration::from_millis(wait)).await;
    assert_eq!(ask(&mut alice, to_team("x", json!(1))).await["type"], "ok");
}

#[tokio::test]
async fn without_the_store_events_pass_for_a_few_seconds_and_then_fail() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let link = Proxy::to(database.split('@').nth(1).unwrap().split('/').next().unwrap()).await;
    let node = Node::serve(&redis.url(), &link.url(&database)).start().await;
    let mut alice = listener(&node, "alice").await;
    let mut bob = listener(&node, "bob").await;
    assert_eq!(ask(&mut alice, to_team("x", json!(1))).await["type"], "ok");
    link.set(Link::Cut);
    assert_eq!(ask(&mut alice, to_team("x", json!(2))).await["type"], "ok", "the right is remembered");
    for n in 1..=2 {
        assert_eq!(event(&mut bob).await["data"], n);
    }
    ask_until(&mut alice, &to_team("x", json!(3)), |answer| answer["code"] == "unavailable").await;
    link.set(Link::Open);
    ask_until(&mut alice, &to_team("y", json!(4)), |answer| answer["type"] == "ok").await;
    bob.until_where(|frame| frame["name"] == "y").await;
}

#[tokio::test]
async fn an_event_comes_after_the_messages_before_it() {
    let stage = Stage::new(|node| node).await;
    let mut alice = listener(&stage.one, "alice").await;
    let mut bob = listener(&stage.two, "bob").await;
    for n in 0..20 {
        alice.send_text("team", &format!("m{n}")).await;
        alice.send(&to_team("seen", json!(n))).await;
        let mut text = Value::Null;
        let event = bob.until_where(|frame| {
            if frame["type"] == "message" {
                text = frame["content"].clone();
            }
            frame["type"] == "event"
        });
        let event = event.await;
        assert_eq!((&event["data"], text), (&json!(n), json!(format!("m{n}"))));
    }
    stage.two.post("/api/chat/conversations/team/messages", &token("bob"), &json!({"content": "end"})).await;
    no_event_before(&mut bob, "end").await;
}
