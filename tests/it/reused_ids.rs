//! A `client_id` that is reused for another command is a conflict, in every dialect and over REST.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    refusals::{Socket, code},
    support::{Client, Node, Postgres, RedisServer, token},
};

#[tokio::test]
async fn another_message_with_the_same_id_is_a_conflict_in_every_dialect() {
    let node = Node::dev().start().await;
    for mut socket in Socket::all(&node).await {
        socket.send("one", "c-1").await;
        socket.acked("c-1").await;
        let refused = socket.refusal(&socket.frame("two", "c-1")).await;
        assert_eq!(code(&refused), "conflict", "{}: {refused}", socket.dialect);
        // The repeat of the message itself is none; the next one is stored.
        socket.send("one", "c-1").await;
        socket.send("three", "c-2").await;
        let mut seen = Vec::new();
        socket.acked_after("c-2", |frame| seen.push(frame.clone())).await;
        assert!(!seen.iter().any(|frame| frame.to_string().contains("conflict")), "{}: {seen:?}", socket.dialect);
    }
}

/// Sends a native frame and returns its answer.
async fn ask(client: &mut Client, mut frame: Value) -> Value {
    frame["ref"] = json!("asked");
    client.send(&frame).await;
    client.until_where(|answer| answer["ref"] == "asked").await
}

fn assert_conflict(answer: &Value, id: &str) {
    let found = (&answer["type"], &answer["code"], &answer["client_id"], &answer["retryable"]);
    assert_eq!(found, (&json!("error"), &json!("conflict"), &json!(id), &json!(false)), "{answer}");
}

#[tokio::test]
async fn commands_of_every_kind_keep_their_ids_on_all_nodes() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    // The third change and the second message are over the limits: a reused id is a conflict nevertheless.
    let node = || Node::serve(&redis.url(), &database).set("MESSAGE_RATE_LIMIT", 1).set("WRITE_RATE_LIMIT", 2);
    let (one, two) = (node().start().await, node().start().await);
    let mut alice = [Client::native(&one, "alice").await, Client::native(&two, "alice").await];
    let bob = token("bob");
    let team = one.conversation(&bob, &["alice"]).await;
    let frame = |kind: &str, fields: Value| {
        let mut frame = json!({"type": kind, "conversation_id": team});
        frame.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        frame
    };
    let send = |text: &str, id: &str| frame("send", json!({"content": text, "client_id": id}));
    let edit = |text: &str, id: &str| frame("edit", json!({"seq": 1, "content": text, "client_id": id}));
    let react = |emoji: &str, active: bool, id: &str| {
        frame("react", json!({"seq": 1, "emoji": emoji, "active": active, "client_id": id}))
    };
    let delete = |id: &str| frame("delete", json!({"seq": 1, "client_id": id}));
    let stored = [send("one", "m"), edit("two", "e"), react("x", true, "r")];
    let mut seqs = Vec::new();
    for command in &stored {
        seqs.push(ask(&mut alice[0], command.clone()).await["seq"].clone());
    }
    assert_eq!(seqs, [1, 2, 3]);
    for alice in &mut alice {
        for (id, other) in [
            ("m", vec![send("two", "m"), edit("one", "m"), react("x", true, "m"), delete("m")]),
            ("e", vec![edit("one", "e"), send("two", "e"), delete("e")]),
            ("r", vec![react("y", true, "r"), react("x", false, "r"), send("x", "r")]),
        ] {
            for command in other {
                assert_conflict(&ask(alice, command).await, id);
            }
        }
        for (command, seq) in stored.iter().zip(&seqs) {
            let again = ask(alice, command.clone()).await;
            assert_eq!((&again["type"], &again["seq"], &again["duplicate"]), (&json!("ack"), seq, &json!(true)));
        }
        assert_eq!(ask(alice, send("new", "n")).await["code"], "rate_limited");
    }
    let path = format!("/api/chat/conversations/{team}/messages");
    let alice = token("alice");
    for (method, path, body) in [
        (Method::POST, path.clone(), json!({"content": "two", "client_id": "m"})),
        (Method::POST, path.clone(), json!({"content": "one", "client_id": "m", "reply_to": 1})),
        (Method::PATCH, format!("{path}/1"), json!({"content": "one", "client_id": "e"})),
        (Method::PATCH, format!("{path}/1"), json!({"content": "two", "client_id": "m"})),
    ] {
        let refused = two.request(method, &path, Some(&alice), Some(&body)).await;
        assert_eq!((refused.status.as_u16(), &refused.json["code"]), (409, &json!("conflict")), "{}", refused.text);
    }
    let again = two.post(&path, &alice, &json!({"content": "one", "client_id": "m"})).await;
    assert_eq!((again.status.as_u16(), &again.json["seq"]), (200, &json!(1)), "{}", again.text);
    let page = two.get(&path, &bob).await.json;
    assert_eq!((&page["total"], &page["messages"][0]["content"]), (&json!(1), &json!("two")));
}
