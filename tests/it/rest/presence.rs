//! Presence over all nodes, and the state of nodes.

use serde_json::{Value, json};

use super::node::{Cluster, User, assert_problem, conversation_of};
use crate::support::{Client, Node, eventually, token, token_with};

#[tokio::test]
async fn online_users_are_known_on_every_node() {
    let cluster = Cluster::new().await;
    let (one, two) = (cluster.node().start().await, cluster.node().start().await);
    let _bob = Client::native(&one, "bob").await;
    let carol = User::of(&two, "carol");
    let bob = carol.get("/api/websocket/users/bob/online").await;
    let expected = json!({"user_id": "bob", "online": true, "status": "online", "last_seen": null});
    assert_eq!((bob.status.as_u16(), &bob.json), (200, &expected));
    assert_eq!(carol.get("/api/websocket/users/nobody/online").await.json["online"], false);
    assert_problem(&carol.get("/api/websocket/users/a%20b/online").await, 404, "not_found");
    let online = carol.get("/api/websocket/users/online").await.json;
    assert_eq!(online, json!({"users": ["bob"], "count": 1, "next": null}));
    for bad in ["cursor=-1", "cursor=x", "limit=0", "limit=101"] {
        assert_problem(&carol.get(&format!("/api/websocket/users/online?{bad}")).await, 400, "invalid");
    }
}

#[tokio::test]
async fn pages_of_online_users_list_each_user_once() {
    let cluster = Cluster::new().await;
    let node = cluster.node().start().await;
    let alice = User::of(&node, "alice");
    // More members than Redis keeps in the encoding that SSCAN always returns whole.
    let mut connection = cluster.redis.connection().await;
    let names: Vec<String> = (0..700).map(|n| format!("user-{n}")).collect();
    let _: i64 = redis::cmd("SADD").arg("ws:online_users").arg(&names).query_async(&mut connection).await.unwrap();
    let (mut seen, mut cursor) = (Vec::new(), json!(0));
    while !cursor.is_null() {
        let page = alice.get(&format!("/api/websocket/users/online?cursor={cursor}&limit=50")).await.json;
        assert_eq!(page["count"], 700);
        let users: Vec<Value> = page["users"].as_array().unwrap().clone();
        assert!(users.len() < 200, "a page, not everybody");
        seen.extend(users.iter().map(|user| user.as_str().unwrap().to_owned()));
        cursor = page["next"].clone();
    }
    seen.sort();
    let mut names = names;
    names.sort();
    assert_eq!(seen, names);
}

#[tokio::test]
async fn a_status_is_stored_and_invisible_users_are_not_shown() {
    let cluster = Cluster::new().await;
    let node = cluster.node().start().await;
    let (alice, bob) = (User::of(&node, "alice"), User::of(&node, "bob"));
    let _socket = Client::native(&node, "bob").await;
    for (said, kept, online) in [
        ("away", "away", true),
        ("do_not_disturb", "dnd", true),
        ("active", "online", true),
        ("dnd", "dnd", true),
        ("invisible", "invisible", false),
    ] {
        let answer = bob.post("/api/user/status", json!({"status": said})).await;
        assert_eq!((answer.status.as_u16(), &answer.json), (200, &json!({"user_id": "bob", "status": kept})));
        let seen = alice.get("/api/websocket/users/bob/online").await.json;
        assert_eq!(seen["online"], online);
        assert_eq!(seen["status"], if kept == "invisible" { "online" } else { kept });
    }
    assert_eq!(alice.get("/api/websocket/users/online").await.json["users"], json!([]));
    for bad in [json!({"status": "busy"}), json!({"status": 1}), json!({})] {
        assert_problem(&bob.post("/api/user/status", bad).await, 400, "invalid");
    }
}

#[tokio::test]
async fn typing_over_rest_reaches_sockets_and_stops_by_itself() {
    let cluster = Cluster::new().await;
    let node = cluster.node().set("TYPING_TIMEOUT", "1s").start().await;
    let alice = User::of(&node, "alice");
    let messages = alice.group(&["bob"]).await;
    let room = conversation_of(&messages);
    let mut bob = Client::native(&node, "bob").await;
    bob.join(room).await;
    let path = format!("/api/conversations/{room}/typing");
    assert_eq!(alice.post(&path, json!({"is_typing": true})).await.json["is_typing"], true);
    let typing = bob.until("typing").await;
    assert_eq!((&typing["user_id"], &typing["active"]), (&json!("alice"), &json!(true)));
    assert_eq!(bob.until("typing").await["active"], false);
    assert_eq!(alice.request(reqwest::Method::POST, &path, None).await.status, 200);
    assert_eq!(bob.until("typing").await["active"], true);
    assert_eq!(alice.post(&path, json!({"is_typing": false})).await.json["is_typing"], false);
    assert_eq!(bob.until("typing").await["active"], false);
    assert_problem(&alice.post(&path, json!({"is_typing": "yes"})).await, 400, "invalid");
    assert_problem(&User::of(&node, "mallory").post(&path, json!({})).await, 403, "not_member");
    assert_problem(&alice.post("/api/conversations/nowhere/typing", json!({})).await, 403, "not_member");
}

#[tokio::test]
async fn a_users_own_connections_are_listed_with_their_nodes() {
    let cluster = Cluster::new().await;
    let one = cluster.node().set("NODE_ID", "node-one").start().await;
    let two = cluster.node().set("NODE_ID", "node-two").start().await;
    let (on_one, on_two) = (Client::native(&one, "alice").await, Client::native(&two, "alice").await);
    let _bob = Client::native(&two, "bob").await;
    let info = User::of(&two, "alice").get("/api/connections/info").await.json;
    assert_eq!((&info["user_id"], &info["count"]), (&json!("alice"), &json!(2)));
    let held = info["connections"].as_array().unwrap();
    for (client, node) in [(&on_one, "node-one"), (&on_two, "node-two")] {
        let found = held.iter().find(|held| held["node"] == node).unwrap();
        assert_eq!(found["connection_id"], client.greeting["connection_id"]);
        assert!(found["connected_at"].as_str().unwrap().ends_with('Z'));
    }
    let none = json!({"user_id": "carol", "connections": [], "count": 0});
    assert_eq!(User::of(&one, "carol").get("/api/connections/info").await.json, none);
}

#[tokio::test]
async fn connections_of_all_nodes_are_counted() {
    let cluster = Cluster::new().await;
    let one = cluster.node().set("NODE_LEASE", "3s").start().await;
    let two = cluster.node().set("NODE_LEASE", "3s").start().await;
    let (_alice, _bob) = (Client::native(&one, "alice").await, Client::native(&two, "bob").await);
    let admin = token_with("root", json!({"role": "admin"}));
    for node in [&one, &two] {
        let both = || async {
            let stats = node.get("/api/connections/stats", &admin).await.json;
            let health = node.get("/api/health", &admin).await.json;
            (stats["total_connections"] == 2 && health["connections_total"] == 2).then_some(())
        };
        eventually("both nodes know both connections", both).await;
    }
}

#[tokio::test]
async fn stats_are_for_admins() {
    let cluster = Cluster::new().await;
    let node = cluster.node().set("NODE_ID", "node-one").start().await;
    let _bob = Client::native(&node, "bob").await;
    assert_problem(&User::of(&node, "bob").get("/api/connections/stats").await, 403, "forbidden");
    let admin = User { node: &node, token: token_with("root", json!({"role": "admin"})) };
    let stats = admin.get("/api/connections/stats").await.json;
    assert_eq!(
        (&stats["node"], &stats["connections"], &stats["users_online"]),
        (&json!("node-one"), &json!(1), &json!(1))
    );
    assert_eq!((&stats["nodes"][0]["node"], &stats["nodes"][0]["alive"]), (&json!("node-one"), &json!(true)));
}

#[tokio::test]
async fn any_token_may_read_the_state_of_a_node() {
    let cluster = Cluster::new().await;
    let node = cluster.node().set("NODE_ID", "node-one").start().await;
    let _bob = Client::native(&node, "bob").await;
    let status = User::of(&node, "alice").get("/api/websocket/status").await.json;
    assert_eq!((&status["status"], &status["node"]), (&json!("healthy"), &json!("node-one")));
    assert_eq!((&status["connections"], &status["users_online"]), (&json!(1), &json!(1)));
    assert_eq!((&status["redis"]["status"], &status["store"]["status"]), (&json!("up"), &json!("up")));
    assert!(status["redis"]["latency_ms"].is_f64() && status["uptime_seconds"].is_u64());
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));

    let off = crate::support::Node::dev().start().await;
    let status = User::of(&off, "alice").get("/api/websocket/status").await.json;
    assert_eq!((&status["status"], &status["redis"]["status"]), (&json!("healthy"), &json!("off")));
    assert_eq!(status["redis"].get("latency_ms"), None);
}

#[tokio::test]
async fn health_shows_the_recent_latency_of_messages() {
    let cluster = Cluster::new().await;
    let node = cluster.node().start().await;
    let admin = token_with("root", json!({"role": "admin"}));
    let health = async || node.get("/api/health", &admin).await.json;
    assert_eq!(health().await["latency"], json!({"send_ack_ms": null, "delivery_ms": null}));
    let alice = User::of(&node, "alice");
    let messages = alice.group(&["bob"]).await;
    let mut bob = Client::native(&node, "bob").await;
    bob.join(conversation_of(&messages)).await;
    alice.send_text(&messages, "hello").await;
    bob.until("message").await;
    let latency = eventually("the delivery is counted", async || {
        let latency = health().await["latency"].clone();
        (!latency["delivery_ms"].is_null()).then_some(latency)
    })
    .await;
    for what in ["send_ack_ms", "delivery_ms"] {
        let (p50, p99) = (latency[what]["p50"].as_f64().unwrap(), latency[what]["p99"].as_f64().unwrap());
        assert!(0.0 < p50 && p50 <= p99 && p99 < 20_000.0, "{latency}");
    }
}

#[tokio::test]
async fn strangers_see_as_much_of_health_as_configured() {
    let cluster = Cluster::new().await;
    let admin = token_with("root", json!({"role": "admin"}));
    let all = [
        "components",
        "connections",
        "connections_total",
        "latency",
        "node",
        "reasons",
        "status",
        "uptime_seconds",
        "version",
        "works",
    ];
    for (details, shown) in [
        (None, &["components", "node", "reasons", "status", "works"][..]),
        (Some("status"), &["status"]),
        (Some("all"), &all),
    ] {
        let node =
            details.map_or(cluster.node(), |details| cluster.node().set("HEALTH_DETAILS", details)).start().await;
        let fields = |health: &serde_json::Value| health.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        for token in [None, Some(token("alice")), Some("no token".to_owned())] {
            let health = node.request(reqwest::Method::GET, "/api/health", token.as_deref(), None).await;
            assert_eq!(
                (health.status.as_u16(), fields(&health.json)),
                (200, shown.iter().map(ToString::to_string).collect())
            );
        }
        let mut with_faults = all.to_vec();
        with_faults.insert(3, "faults");
        with_faults.insert(7, "redis");
        assert_eq!(fields(&node.get("/api/health", &admin).await.json), with_faults);
        let mut with_tasks = with_faults.clone();
        with_tasks.insert(3, "failing_tasks");
        assert_eq!(fields(&node.admin_get("/api/health").await.json), with_tasks);
    }
}

/// The presence of an invisible user as others see it, on a node with either store.
async fn check_invisible(node: &Node) {
    let (alice, bob) = (User::of(node, "alice"), User::of(node, "bob"));
    let room =
        bob.post(super::node::CONVERSATIONS, json!({"name": "r", "participant_ids": ["alice"]})).await.json["id"]
            .clone();
    let room = room.as_str().unwrap();
    let mut listener = Client::native(node, "alice").await;
    listener.join_with_roster(room).await;
    let mut socket = Client::native(node, "bob").await;
    socket.join(room).await;
    listener.until("user_joined").await;
    bob.post("/api/user/status", json!({"status": "invisible"})).await;
    listener.until("user_left").await;
    assert_eq!(listener.expect("presence").await["online"], false);
    let seen = async || alice.get("/api/websocket/users/bob/online").await.json;
    let hidden = seen().await;
    assert_eq!(hidden["online"], false);
    assert!(hidden["last_seen"].is_string(), "others see when bob went: {hidden}");

    // The next that alice is told of bob is his message.
    socket.send(&json!({"type": "typing", "conversation_id": room})).await;
    bob.post(&format!("/api/conversations/{room}/typing"), json!({})).await;
    socket.send_text(room, "boo").await;
    let next = listener.until_where(|frame| frame["user_id"] == "bob" || frame["sender_id"] == "bob").await;
    assert_eq!((&next["type"], &next["content"]), (&json!("message"), &json!("boo")));

    // Neither the end of a socket nor another one moves the time.
    socket.close().await;
    let gone = async || (bob.get("/api/connections/info").await.json["count"] == 0).then_some(());
    eventually("bob's socket is gone", gone).await;
    Client::native(node, "bob").await.close().await;
    eventually("bob's socket is gone", gone).await;
    let admin = token_with("root", json!({"role": "admin"}));
    let offline = async || (node.get("/api/connections/stats", &admin).await.json["users_online"] == 1).then_some(());
    eventually("bob is offline", offline).await;
    assert_eq!(seen().await, hidden);
}

#[tokio::test]
async fn an_invisible_user_is_not_shown_typing_and_their_last_seen_stays() {
    let cluster = Cluster::new().await;
    check_invisible(&cluster.node().set("PRESENCE_GRACE", "0s").start().await).await;
    check_invisible(&Node::dev().set("PRESENCE_GRACE", "0s").start().await).await;
}
