//! Bad bodies, types, numbers and methods: a clear problem, and no change.

use reqwest::{Method, header};
use serde_json::json;

use super::node::{CONVERSATIONS, Cluster, User, assert_problem, conversation_of};

/// Sends a body that may be malformed.
async fn raw(user: &User<'_>, method: &Method, path: &str, body: &str) -> crate::support::Answer {
    user.node.send_raw(method.clone(), path, &user.token, body).await
}

/// Whoever blocks a user "until" a time must not believe in the time.
#[tokio::test]
async fn bodies_of_requests_that_take_none_are_refused() {
    let cluster = Cluster::new().await;
    let node = cluster.node().start().await;
    let alice = User::of(&node, "alice");
    let root = crate::support::token_with("root", json!({"role": "admin"}));
    let messages = alice.group(&["bob"]).await;
    let conversation = format!("{CONVERSATIONS}/{}", conversation_of(&messages));
    let sent = alice.send_text(&messages, "unchanged").await;
    let message = format!("{messages}/{}", sent["seq"]);
    for (method, path, token) in [
        (Method::PUT, "/api/admin/users/bx/block", &root),
        (Method::DELETE, "/api/admin/users/bx/block", &root),
        (Method::POST, "/api/admin/users/bx/disconnect", &root),
        (Method::POST, "/api/blocks/bx", &alice.token),
        (Method::DELETE, "/api/blocks/bx", &alice.token),
        (Method::POST, "/api/websocket/token", &alice.token),
        (Method::POST, &format!("{conversation}/archive"), &alice.token),
        (Method::DELETE, &format!("{conversation}/archive"), &alice.token),
        (Method::DELETE, &format!("{conversation}/members/bob"), &alice.token),
        (Method::PUT, &format!("{message}/reactions/x"), &alice.token),
        (Method::DELETE, &format!("{message}/reactions/x"), &alice.token),
        (Method::DELETE, &message, &alice.token),
    ] {
        for (body, named) in [(r#"{"until":1}"#, "until"), ("[1", "JSON object"), ("{", ""), ("{} {}", "")] {
            let answer = node.send_raw(method.clone(), path, token, body).await;
            assert_problem(&answer, 400, "invalid");
            assert!(answer.json["detail"].as_str().unwrap().contains(named), "{path} {}", answer.text);
        }
        let answer = node.send_raw(method.clone(), path, token, if *path == *message { "null" } else { " {} " }).await;
        assert!(answer.status.is_success(), "{method} {path}: {}", answer.text);
    }
    assert_eq!(node.send_raw(Method::GET, "/api/blocks", &alice.token, "[1").await.status, 200);
}

#[tokio::test]
async fn bad_bodies_are_refused_and_change_nothing() {
    let cluster = Cluster::new().await;
    let node = cluster.node().start().await;
    let alice = User::of(&node, "alice");
    let messages = alice.group(&["bob"]).await;
    let room = conversation_of(&messages);
    let sent = alice.send_text(&messages, "unchanged").await;
    let message = format!("{messages}/{}", sent["seq"]);
    let (members, typing) = (format!("{CONVERSATIONS}/{room}/members"), format!("/api/conversations/{room}/typing"));
    let everywhere = ["", "{", "null", "[]", "\"x\"", "{} {}", "\u{7f}"];
    for (method, path, bad) in [
        (Method::POST, CONVERSATIONS, &[r#"{"name":1}"#, r#"{"is_group":"no"}"#, r#"{"participant_ids":[""]}"#][..]),
        (Method::POST, &messages, &["{}", r#"{"content":1}"#, r#"{"content":"x","client_id":"a b"}"#]),
        (Method::POST, &messages, &[r#"{"content":"x","reply_to":0}"#, r#"{"content":"x","persona_id":"a/b"}"#]),
        (Method::PATCH, &message, &["{}", r#"{"content":""}"#, r#"{"content":"x","client_id":{}}"#]),
        (Method::POST, &members, &["{}", r#"{"user_ids":[]}"#, r#"{"user_ids":"bob"}"#, r#"{"user_ids":[null]}"#]),
        (Method::POST, &typing, &[r#"{"is_typing":1}"#]),
        (Method::POST, "/api/user/status", &["{}", r#"{"status":"asleep"}"#]),
        (Method::POST, "/api/messages/read", &["{}", r#"{"conversation_id":"~a","up_to_seq":1}"#]),
        (
            Method::POST,
            "/api/messages/read",
            &[r#"{"conversation_id":"a"}"#, r#"{"conversation_id":"a","up_to_seq":1.5}"#],
        ),
        (Method::POST, "/api/notifications/read", &[r#"{"ids":1}"#, r#"{"ids":["x"]}"#, r#"{"ids":[1.5]}"#]),
    ] {
        // Typing needs no body.
        for body in everywhere.iter().chain(bad).filter(|body| !body.is_empty() || path != typing) {
            let answer = raw(&alice, &method, path, body).await;
            assert_problem(&answer, 400, "invalid");
            assert!(answer.json["detail"].as_str().is_some_and(|detail| detail.len() > 10), "{}", answer.text);
        }
    }
    assert_eq!(alice.get(CONVERSATIONS).await.json["total"], 1);
    let page = alice.get(&messages).await.json;
    assert_eq!((&page["total"], &page["messages"][0]["content"]), (&json!(1), &json!("unchanged")));
    assert_eq!(alice.get(&format!("{CONVERSATIONS}/{room}")).await.json["seq"], sent["seq"]);
}

#[tokio::test]
async fn a_wrong_method_gets_405_with_the_allowed_methods() {
    let cluster = Cluster::new().await;
    let node = cluster.node().start().await;
    let alice = User::of(&node, "alice");
    for (path, allow) in [
        ("/api/websocket/token", "POST"),
        ("/api/connections/stats", "GET, HEAD"),
        ("/api/chat/conversations/a/messages/1", "DELETE, GET, HEAD, PATCH"),
        ("/api/chat/conversations/a/messages/1/reactions/x", "DELETE, PUT"),
        ("/api/chat/conversations/a/archive", "DELETE, POST"),
    ] {
        for method in [Method::OPTIONS, Method::TRACE] {
            let answer = alice.request(method, path, None).await;
            assert_problem(&answer, 405, "method_not_allowed");
            assert_eq!(answer.headers[header::ALLOW], allow);
        }
    }
    for path in ["/api/websocket/status", "/api/websocket/users/online", CONVERSATIONS] {
        let head = alice.request(Method::HEAD, path, None).await;
        assert_eq!((head.status.as_u16(), head.text.as_str()), (200, ""), "{path}");
    }
    for path in ["/api", "/api/chat", "/api/websocket/users", "/api/messages/", "/api/chat/conversations/a/archive/b"] {
        assert_problem(&alice.get(path).await, 404, "not_found");
    }
}
