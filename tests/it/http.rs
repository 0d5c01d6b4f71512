//! REST as its documents show it, on one node.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Client, Node, token, token_with};

const CONVERSATIONS: &str = "/api/chat/conversations";

/// Checks that a response is a problem of this status and code.
fn assert_problem(answer: &crate::support::Answer, status: u16, code: &str) {
    assert_eq!((answer.status.as_u16(), answer.json["code"].as_str()), (status, Some(code)), "{}", answer.text);
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    assert_eq!(answer.json["status"].as_u64(), Some(u64::from(status)));
}

#[tokio::test]
async fn conversations_are_created_listed_and_shown() {
    let node = Node::dev().start().await;
    let (alice, bob, mallory) = (token("alice"), token("bob"), token("mallory"));
    let new =
        json!({"name": "Team Discussion", "description": "Plans", "is_group": true, "participant_ids": ["bob", 7]});
    let made = node.post(CONVERSATIONS, &alice, &new).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let id = made.json["id"].as_str().unwrap().to_owned();
    assert_eq!((&made.json["name"], &made.json["description"]), (&json!("Team Discussion"), &json!("Plans")));
    assert_eq!(
        (&made.json["is_group"], &made.json["open"], &made.json["created_by"]),
        (&json!(true), &json!(false), &json!("alice"))
    );
    let users: Vec<&str> = made.json["users"].as_array().unwrap().iter().map(|u| u["id"].as_str().unwrap()).collect();
    assert_eq!(users, ["7", "alice", "bob"]);
    assert!(made.json["created_at"].as_str().unwrap().ends_with('Z'));

    let one = format!("{CONVERSATIONS}/{id}");
    assert_eq!(node.get(&one, &bob).await.json["name"], "Team Discussion");
    assert_problem(&node.get(&one, &mallory).await, 403, "not_member");
    assert_problem(&node.get(&format!("{CONVERSATIONS}/nowhere"), &bob).await, 403, "not_member");
    let list = node.get(&format!("{CONVERSATIONS}?limit=100&offset=0"), &bob).await.json;
    assert_eq!((&list["total"], &list["limit"], &list["offset"]), (&json!(1), &json!(100), &json!(0)));
    assert_eq!(list["conversations"][0]["id"], id);
    assert_eq!(node.get(CONVERSATIONS, &mallory).await.json["total"], 0);

    let taken = json!({"id": id, "name": "mine"});
    assert_problem(&node.post(CONVERSATIONS, &mallory, &taken).await, 409, "conflict");
}

#[tokio::test]
async fn two_people_have_one_direct_conversation() {
    let node = Node::dev().start().await;
    let direct = async |from: &str, to: &str| {
        let body = json!({"is_group": false, "participant_ids": [to]});
        let made = node.post(CONVERSATIONS, &token(from), &body).await;
        assert_eq!(made.json["is_group"], false, "{}", made.text);
        made.json["id"].clone()
    };
    let id = direct("alice", "bob").await;
    assert_eq!(direct("bob", "alice").await, id);
    assert_ne!(direct("alice", "carol").await, id);
}

#[tokio::test]
async fn messages_are_sent_once_and_read_newest_first() {
    let node = Node::dev().start().await;
    let (alice, bob) = (token("alice"), token("bob"));
    let id = node.conversation(&alice, &["bob"]).await;
    let messages = format!("{CONVERSATIONS}/{id}/messages");
    let mut listener = Client::rooms(&node, &id, "bob").await;

    let body = json!({"content": "one", "client_id": "c-1"});
    let sent = node.post(&messages, &alice, &body).await;
    assert_eq!(
        (sent.status, &sent.json["seq"], &sent.json["client_id"]),
        (StatusCode::CREATED, &json!(1), &json!("c-1"))
    );
    let again = node.post(&messages, &alice, &body).await;
    assert_eq!((again.status, &again.json["id"]), (StatusCode::OK, &sent.json["id"]));
    assert_eq!(listener.expect("new_message").await["data"]["content"], "one", "sockets get messages sent over REST");

    let reply = json!({"content": "two", "reply_to": sent.json["id"]});
    assert_eq!(node.post(&messages, &bob, &reply).await.status, StatusCode::CREATED);
    let page = node.get(&messages, &bob).await.json;
    assert_eq!((&page["total"], &page["limit"], &page["offset"]), (&json!(2), &json!(50), &json!(0)));
    let list = page["messages"].as_array().unwrap();
    let contents: Vec<&Value> = list.iter().map(|message| &message["content"]).collect();
    assert_eq!(contents, ["two", "one"]);
    assert_eq!((&list[0]["reply_to"], &list[0]["sender_username"]), (&json!(1), &json!("Bob")));
    assert_eq!(
        (&list[1]["id"], &list[1]["is_edited"], &list[1]["is_deleted"]),
        (&sent.json["id"], &json!(false), &json!(false))
    );

    let before = node.get(&format!("{messages}?before_seq=2&limit=1"), &bob).await.json;
    assert_eq!((before["messages"].as_array().unwrap().len(), &before["messages"][0]["content"]), (1, &json!("one")));
    assert_eq!(node.get(&format!("{messages}?offset=1"), &bob).await.json["messages"][0]["content"], "one");
    assert_problem(&node.post(&messages, &token("mallory"), &body).await, 403, "not_member");
    assert_problem(&node.post(&messages, &alice, &json!({"content": "x".repeat(5_001)})).await, 400, "invalid");
}

#[tokio::test]
async fn members_are_added_and_removed() {
    let node = Node::dev().start().await;
    let (alice, bob) = (token("alice"), token("bob"));
    let id = node.conversation(&alice, &[]).await;
    let (one, members) = (format!("{CONVERSATIONS}/{id}"), format!("{CONVERSATIONS}/{id}/members"));
    assert_problem(&node.get(&one, &bob).await, 403, "not_member");
    let added = node.post(&members, &alice, &json!({"user_ids": ["bob", "c:d@e"]})).await;
    assert_eq!(
        (added.status, added.json["users"].as_array().map(Vec::len)),
        (StatusCode::OK, Some(3)),
        "{}",
        added.text
    );
    assert_eq!(node.get(&one, &bob).await.status, StatusCode::OK);
    for user in ["bob", "c%3Ad%40e"] {
        let gone = node.request(Method::DELETE, &format!("{members}/{user}"), Some(&alice), None).await;
        assert_eq!((gone.status, gone.text.as_str()), (StatusCode::NO_CONTENT, ""));
    }
    assert_eq!(node.get(&one, &alice).await.json["users"].as_array().map(Vec::len), Some(1));
    assert_problem(&node.get(&one, &bob).await, 403, "not_member");
}

#[tokio::test]
async fn sends_are_limited_with_retry_after() {
    let node = Node::dev().set("MESSAGE_RATE_LIMIT", 1).set("MESSAGE_RATE_LIMITS", "pro=2").start().await;
    let (alice, pro) = (token("alice"), token_with("bob", json!({"tier": "pro"})));
    let id = node.conversation(&alice, &["bob"]).await;
    let messages = format!("{CONVERSATIONS}/{id}/messages");
    let send = async |token: &str| node.post(&messages, token, &json!({"content": "hi"})).await;
    assert_eq!(send(&alice).await.status, StatusCode::CREATED);
    let refused = send(&alice).await;
    assert_problem(&refused, 429, "rate_limited");
    let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait));
    assert_eq!((send(&pro).await.status, send(&pro).await.status), (StatusCode::CREATED, StatusCode::CREATED));
    assert_problem(&send(&pro).await, 429, "rate_limited");
}

#[tokio::test]
async fn a_websocket_token_opens_a_socket() {
    let node = Node::dev().start().await;
    let answer = node.post("/api/websocket/token", &token("alice"), &Value::Null).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let (url, minted) = (answer.json["websocket_url"].as_str().unwrap(), answer.json["token"].as_str().unwrap());
    assert_eq!(url, format!("{}/ws", node.ws()));
    assert!(answer.json["expires_in"].as_u64().unwrap() <= 1_800);
    let mut client = Client::connect(url).await;
    client.send(&json!({"type": "authenticate", "token": minted})).await;
    assert_eq!(client.expect("authenticated").await["user_id"], "alice");
    let refused = node.request(Method::POST, "/api/websocket/token", None, None).await;
    assert_problem(&refused, 401, "invalid_token");
    assert_eq!(refused.headers["www-authenticate"], "Bearer");
    node.assert_never_logged(&[&token("alice"), minted]);
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
    assert_eq!(
        node.request(Method::GET, "/metrics", None, None).await.status,
        404,
        "the clients' address has no /metrics"
    );
    let _alice = Client::native(&node, "alice").await;
    assert_eq!(node.metrics().await.get(r#"switchboard_connections{dialect="native"}"#), Some(1.0));
    assert!(node.metrics().await.0.contains("switchboard_build_info{"));
}

#[tokio::test]
async fn tasks_are_counted_and_end_with_their_connections() {
    const CLIENTS: usize = 20;
    let node = Node::dev().start().await;
    let idle = node.metric("switchboard_tasks", |tasks| tasks > 0.0).await;
    let mut clients = Vec::new();
    for at in 0..CLIENTS {
        clients.push(Client::native(&node, &format!("user-{at}")).await);
    }
    let busy = node.metrics().await.get("switchboard_tasks").unwrap();
    assert!(busy >= idle + CLIENTS as f64, "{idle} tasks before, and {busy} with {CLIENTS} clients");
    for client in clients {
        client.close().await;
    }
    // The request for the metrics is one, and a task of the node's own may run beside it.
    node.metric("switchboard_tasks", |tasks| tasks <= idle + 3.0).await;
}
