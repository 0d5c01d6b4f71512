//! Deliberate panics in a running node: each loses what it worked on, is counted with the name of its task, and ends
//! nothing else.

use serde_json::json;

use crate::support::{Client, HookResponse, Node, Postgres, Receiver, RedisServer, eventually, token};

fn series(task: &str) -> String {
    format!(r#"switchboard_task_panics_total{{task="{task}"}}"#)
}

/// A node whose `task` panics once.
async fn node(task: &str) -> Node {
    Node::dev().set("TEST_PANICS", format!("{task}=1")).start().await
}

async fn panicked(node: &Node, task: &str) {
    node.metric(&series(task), |count| count == 1.0).await;
    let logged = node.logged("a task panicked").await;
    assert!(logged.contains(&format!(r#""task":"{task}""#)), "{logged}");
}

fn message(content: &str, client_id: &str) -> serde_json::Value {
    json!({"type": "send", "conversation_id": "team", "content": content, "client_id": client_id, "ref": client_id})
}

#[tokio::test]
async fn every_task_has_a_series_before_its_first_panic() {
    let node = Node::dev().start().await;
    let metrics = node.metrics().await;
    for task in switchboard::supervise::TaskName::ALL {
        assert_eq!(metrics.get(&series(task.label())), Some(0.0), "{}", task.label());
    }
    assert_eq!(metrics.get("switchboard_tasks_failing"), Some(0.0));
}

#[tokio::test]
async fn an_append_whose_lane_panics_is_unknown_and_its_repetition_is_stored() {
    let node = node("writer_lane").await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join("team").await;
    alice.send(&message("panic:writer_lane", "a")).await;
    let error = alice.until("error").await;
    assert_eq!((&error["ref"], &error["code"]), (&json!("a"), &json!("unknown")), "{error}");
    alice.send(&message("panic:writer_lane", "a")).await;
    assert_eq!(alice.until("ack").await["seq"], 1, "nothing was stored before");
    alice.send_text("team", "and on").await;
    panicked(&node, "writer_lane").await;
}

#[tokio::test]
async fn an_entry_whose_delivery_panics_is_found_again_like_a_gap() {
    let node = node("router").await;
    let (mut alice, mut bob) = (Client::native(&node, "alice").await, Client::native(&node, "bob").await);
    alice.join("team").await;
    bob.join("team").await;
    alice.send_text("team", "panic:router").await;
    assert_eq!(bob.until("message").await["content"], "panic:router");
    panicked(&node, "router").await;
}

#[tokio::test]
async fn a_hand_over_that_panics_closes_its_socket_and_the_others_get_the_entry() {
    let node = node("delivery_shard").await;
    let mut alice = Client::native(&node, "alice").await;
    let mut hit = Client::native(&node, "panic:delivery_shard").await;
    alice.join("team").await;
    // Arrivals are deliveries too, so the socket may be closed before the message, even before it is told that it joined.
    hit.send(&json!({"type": "join", "conversation_id": "team", "ref": "join"})).await;
    let mut bob = Client::native(&node, "bob").await;
    bob.join("team").await;
    alice.send_text("team", "hello").await;
    assert_eq!(bob.until("message").await["content"], "hello");
    assert_eq!(hit.expect_close().await.0, 1011);
    panicked(&node, "delivery_shard").await;
    let mut back = Client::native(&node, "panic:delivery_shard").await;
    back.send(&json!({"type": "join", "conversation_id": "team", "since_seq": 0, "ref": 1})).await;
    assert_eq!(back.until("message").await["content"], "hello", "it resumes");
}

#[tokio::test]
async fn an_event_that_cannot_be_encoded_is_skipped_and_later_ones_go_on() {
    let node = node("encoder").await;
    let (mut alice, mut bob) = (Client::native(&node, "alice").await, Client::native(&node, "bob").await);
    alice.join("team").await;
    bob.join("team").await;
    alice.send_text("team", "panic:encoder").await;
    alice.send_text("team", "next").await;
    assert_eq!(bob.until("message").await["content"], "next");
    panicked(&node, "encoder").await;
}

#[tokio::test]
async fn a_panic_in_a_session_ends_that_socket_only() {
    let node = Node::dev().set("TEST_PANICS", "session=1").set("PRESENCE_GRACE", "0s").start().await;
    let (mut alice, mut bob) = (Client::native(&node, "alice").await, Client::native(&node, "bob").await);
    alice.join("team").await;
    bob.join("team").await;
    let mut second = Client::native(&node, "alice").await;
    alice.send(&json!({"type": "ping", "ref": "panic:session"})).await;
    assert_eq!(alice.expect_close().await, (1011, "Internal error: reconnect and resume".into()));
    second.send(&json!({"type": "ping", "ref": 1})).await;
    second.until_where(|frame| frame["ref"] == 1).await;
    bob.send_text("team", "still here").await;
    panicked(&node, "session").await;
    node.metric(r#"switchboard_connections{dialect="native"}"#, |open| open == 2.0).await;
    second.close().await;
    let gone = |frame: &serde_json::Value| frame["type"] == "presence" && frame["online"] == false;
    assert_eq!(bob.until_where(gone).await["user_id"], "alice", "the closed socket is not registered any more");
}

#[tokio::test]
async fn a_panic_in_a_request_is_a_500_and_the_next_request_is_answered() {
    let node = node("request").await;
    assert_eq!(node.get("/panic:request", &token("alice")).await.status, 500);
    assert_eq!(node.get("/panic:request", &token("alice")).await.status, 404);
    panicked(&node, "request").await;
}

#[tokio::test]
async fn a_question_to_a_persona_that_panics_is_refused_and_the_next_is_answered() {
    let receiver = Receiver::start(async |_, _| HookResponse::content("yes")).await;
    let node = Node::dev()
        .set("PERSONA_WEBHOOK_URL", receiver.url())
        .set("PERSONA_IDS", "ada")
        .set("TEST_PANICS", "personas=1");
    let node = node.start().await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join("team").await;
    let ask = |content: &str| {
        json!({"type": "send", "conversation_id": "team", "content": content, "persona_id": "ada",
            "client_id": content, "ref": 1})
    };
    alice.send(&ask("panic:personas")).await;
    let error = alice.until("error").await;
    assert_eq!((&error["code"], &error["client_id"]), (&json!("persona_failed"), &json!("panic:personas")));
    alice.send(&ask("hello")).await;
    alice.until_where(|frame| frame["type"] == "message" && frame["sender_id"] == "ada").await;
    panicked(&node, "personas").await;
}

#[tokio::test]
async fn a_task_that_keeps_failing_is_named_to_admins_and_runs_again() {
    let node = Node::dev().set("TEST_PANICS", "store_watch=4").start().await;
    node.metric("switchboard_tasks_failing", |failing| failing == 1.0).await;
    let health = node.admin_get("/api/health").await.json;
    assert_eq!((&health["status"], &health["failing_tasks"]), (&json!("degraded"), &json!(["store_watch"])));
    let public = node.get("/api/health", &token("alice")).await.json;
    assert_eq!((&public["status"], public.get("failing_tasks")), (&json!("degraded"), None));
    node.metric(&series("store_watch"), |panics| panics == 4.0).await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join("team").await;
    alice.send_text("team", "hello").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_every_task_panicked_once_serves_as_before() {
    const TASKS: [&str; 13] = [
        "store_watch",
        "departures",
        "registry",
        "watchdog",
        "batch_loader",
        "user_upserts",
        "typing",
        "reconciler",
        "publisher",
        "subscriber",
        "backplane_events",
        "writer_lane",
        "rosters",
    ];
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let start = || Node::serve(&redis.url(), &database).set("PRESENCE_GRACE", "0s");
    let panics = TASKS.map(|task| format!("{task}=1")).join(",");
    let (hurt, well) = (start().set("TEST_PANICS", panics).start().await, start().start().await);
    // A socket whose lookup is lost with the batch that panics is told to try again later.
    let mut alice = loop {
        let mut client = Client::connect(&format!("{}/v1/ws?token={}", hurt.ws(), token("alice"))).await;
        match client.recv_or_close().await {
            Ok(_) => break client,
            Err((code, _)) => assert_eq!(code, 1013),
        }
    };
    let mut bob = Client::native(&well, "bob").await;
    alice.join("team").await;
    bob.join("team").await;
    alice.send(&message("panic:writer_lane", "lost")).await;
    assert_eq!(alice.until_where(|frame| frame["ref"] == "lost").await["code"], "unknown");
    alice.send_text("team", "panic:publisher").await;
    for content in ["panic:subscriber", "panic:backplane_events"] {
        bob.send_text("team", content).await;
    }
    bob.send_text("team", "from the other node").await;
    alice.until_where(|frame| frame["content"] == "from the other node").await;
    alice.send_text("team", "from this node").await;
    bob.until_where(|frame| frame["content"] == "from this node").await;
    // The roster names the listeners of a conversation at each arrival.
    let url = format!("{}/api/chat/ws/team?token={}", hurt.ws(), token("carol"));
    let _carol = Client::connect(&url).await;
    for task in TASKS {
        hurt.metric(&series(task), |count| count == 1.0).await;
    }
    let health = async || {
        let health = hurt.admin_get("/api/health").await.json;
        (health["status"] == "healthy").then_some(())
    };
    eventually("the node to be healthy", health).await;
    for at in 0..10 {
        alice.send_text("team", &format!("a{at}")).await;
        bob.until_where(|frame| frame["content"] == format!("a{at}")).await;
        bob.send_text("team", &format!("b{at}")).await;
        alice.until_where(|frame| frame["content"] == format!("b{at}")).await;
    }
}
