//! REST alone, as a stranger would use it; health; metrics.

mod support;

use reqwest::Method;
use serde_json::json;
use support::{Client, Node, token, token_with};

#[tokio::test]
async fn conversations_members_and_messages_without_a_socket() {
    let node = Node::dev().set("OPEN_CONVERSATIONS", false).start().await;
    let (alice, bob, mallory) = (token("alice"), token("bob"), token("mallory"));
    let body = json!({"name": "Team Discussion", "description": "Discuss project plans", "is_group": true,
        "participant_ids": ["bob", 456]});
    let made = node.post("/api/chat/conversations", &alice, &body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let id = made.json["id"].as_str().unwrap().to_owned();
    assert_eq!((&made.json["name"], &made.json["is_group"]), (&json!("Team Discussion"), &json!(true)));
    let users: Vec<_> = made.json["users"].as_array().unwrap().iter().map(|user| user["id"].clone()).collect();
    assert_eq!(users, [json!("456"), json!("alice"), json!("bob")]);

    let path = format!("/api/chat/conversations/{id}");
    let messages = format!("{path}/messages");
    for at in 0..3 {
        let sent = node.post(&messages, &bob, &json!({"content": format!("m{at}"), "client_id": at.to_string()})).await;
        assert_eq!(sent.status, 201, "{}", sent.text);
    }
    let again = node.post(&messages, &bob, &json!({"content": "m2", "client_id": "2"})).await;
    assert_eq!(again.status, 200, "a repeat");
    let page = node.get(&format!("{messages}?limit=2&offset=0"), &alice).await.json;
    assert_eq!((&page["total"], &page["limit"], &page["offset"]), (&json!(3), &json!(2), &json!(0)));
    let contents: Vec<_> = page["messages"].as_array().unwrap().iter().map(|m| m["content"].clone()).collect();
    assert_eq!(contents, ["m2", "m1"], "newest first");
    let before = page["messages"][1]["seq"].as_i64().unwrap();
    let page = node.get(&format!("{messages}?before_seq={before}"), &alice).await.json;
    assert_eq!(page["messages"][0]["content"], "m0");
    assert_eq!(page["messages"][0]["is_edited"], false);

    let listed = node.get("/api/chat/conversations?limit=50&offset=0", &bob).await.json;
    assert_eq!((&listed["total"], &listed["conversations"][0]["id"]), (&json!(1), &json!(id)));
    for (method, path) in [(Method::GET, &path), (Method::GET, &messages), (Method::POST, &messages)] {
        let body = json!({"content": "let me in"});
        let body = (method == Method::POST).then_some(&body);
        assert_eq!(node.request(method.clone(), path, Some(&mallory), body).await.status, 403, "{method} {path}");
        let none = node.request(method.clone(), path, None, body).await;
        assert_eq!(none.status, 401);
        assert_eq!(none.headers["content-type"], "application/problem+json");
    }
    assert_eq!(node.get("/api/chat/conversations/nope", &alice).await.status, 404);
    assert_eq!(node.get(&format!("{messages}?limit=101"), &alice).await.status, 400);
    let added = node.post(&format!("{path}/members"), &alice, &json!({"user_ids": ["mallory"]})).await;
    assert_eq!(added.status, 200, "{}", added.text);
    assert_eq!(node.get(&path, &mallory).await.status, 200);
    let member = format!("{path}/members/mallory");
    assert_eq!(node.request(Method::DELETE, &member, Some(&bob), None).await.status, 403, "only the creator");
    assert_eq!(node.request(Method::DELETE, &member, Some(&alice), None).await.status, 204);
    assert_eq!(node.get(&path, &mallory).await.status, 403);
}

#[tokio::test]
async fn a_minted_token_opens_a_socket_and_never_outlives_its_parent() {
    let node = Node::dev().start().await;
    let answer = node.post("/api/websocket/token", &token("alice"), &json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json["expires_in"], 1_800);
    let (url, minted) = (answer.json["websocket_url"].as_str().unwrap(), answer.json["token"].as_str().unwrap());
    let mut alice = Client::connect(url).await;
    alice.send(&json!({"type": "authenticate", "token": minted})).await;
    assert_eq!(alice.expect("authenticated").await["user_id"], "alice");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let brief = token_with("alice", json!({"exp": now + 60}));
    let answer = node.post("/api/websocket/token", &brief, &json!({})).await;
    assert!((50..=60).contains(&answer.json["expires_in"].as_i64().unwrap()), "{}", answer.text);
    assert_eq!(node.request(Method::POST, "/api/websocket/token", None, None).await.status, 401);
}

#[tokio::test]
async fn health_probes_and_metrics_need_no_token() {
    let node = Node::dev().start().await;
    let health = node.request(Method::GET, "/api/health", None, None).await;
    assert_eq!((health.status.as_u16(), &health.json["status"]), (200, &json!("healthy")));
    assert_eq!(health.headers["cache-control"], "no-store");
    assert_eq!(health.json["components"]["redis"]["status"], "off");
    for path in ["/livez", "/readyz"] {
        assert_eq!(node.request(Method::GET, path, None, None).await.status, 200);
        assert_eq!(node.request(Method::HEAD, path, None, None).await.status, 200);
        assert_eq!(node.admin_get(path).await.status, 200);
    }
    assert_eq!(node.request(Method::GET, "/metrics", None, None).await.status, 404, "not for clients");
    let _alice = Client::native(&node, "alice").await;
    assert_eq!(node.metrics().await.get(r#"switchboard_connections{dialect="native"}"#), Some(1.0));
    assert!(node.metrics().await.0.contains("switchboard_build_info{"));
}
