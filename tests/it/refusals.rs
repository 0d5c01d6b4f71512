//! Refusals that a client can match to what it sent, in every dialect.

use serde_json::{Value, json};

use crate::support::{Client, Node, token};

/// A socket of each dialect, the frame that sends a text, and the place of `client_id` in its refusals.
async fn sockets(node: &Node) -> Vec<(&'static str, Client, String, &'static str)> {
    let room = node.conversation(&token("alice"), &["bob"]).await;
    let native = Client::native(node, "alice").await;
    let mut direct = Client::connect(&format!("{}/ws", node.ws())).await;
    direct.send(&json!({"type": "authenticate", "token": token("alice")})).await;
    direct.until("authenticated").await;
    let rooms = Client::rooms(node, &room, "alice").await;
    let url = |path: &str| format!("{}{path}?token={}", node.ws(), token("alice"));
    let conversation = Client::connect(&url(&format!("/api/chat/ws/{room}"))).await;
    let mut personas = Client::connect(&url("/ws/auth")).await;
    personas.until("online_users").await;
    let native_frame =
        format!(r#"{{"type":"send","ref":1,"client_id":"c-1","conversation_id":"{room}","content":TEXT}}"#);
    let personas_frame =
        format!(r#"{{"type":"send_message","client_id":"c-1","conversation_id":"{room}","content":TEXT}}"#);
    vec![
        ("native", native, native_frame, "client_id"),
        (
            "direct",
            direct,
            r#"{"type":"send_message","client_id":"c-1","recipient_id":"bob","content":TEXT}"#.to_owned(),
            "client_id",
        ),
        ("rooms", rooms, r#"{"type":"send_message","data":{"client_id":"c-1","content":TEXT}}"#.to_owned(), "data"),
        (
            "conversation",
            conversation,
            r#"{"type":"message","client_id":"c-1","content":TEXT}"#.to_owned(),
            "client_id",
        ),
        ("personas", personas, personas_frame, "client_id"),
    ]
}

#[tokio::test]
async fn a_refused_send_is_answered_with_its_client_id() {
    let node = Node::dev().start().await;
    for (dialect, mut client, frame, place) in sockets(&node).await {
        for (text, reason) in [
            (r#""  ""#, "empty"),
            ("7", ""),
            (r#""cut \ud83d off""#, "half of a character"),
            (&*format!("\"{}\"", "x".repeat(5_001)), "5000"),
        ] {
            client.send_message(frame.replace("TEXT", text).into()).await;
            let answer = client.until_where(|frame| frame["type"] == "error").await;
            let id = if place == "data" { &answer["data"]["client_id"] } else { &answer[place] };
            assert_eq!(*id, json!("c-1"), "{dialect}: {text}: {answer}");
            assert!(answer.to_string().contains(reason), "{dialect}: {reason}: {answer}");
            if dialect == "native" {
                assert_eq!((&answer["ref"], &answer["code"]), (&json!(1), &json!("invalid")));
            }
        }
    }
}

#[tokio::test]
async fn a_send_to_what_is_not_there_is_answered_with_its_client_id() {
    let node = Node::dev().set("OPEN_CONVERSATIONS", false).start().await;
    let mut alice = Client::native(&node, "alice").await;
    let frames: [Value; 3] = [
        json!({"type": "send", "ref": 1, "client_id": "c-1", "conversation_id": "nowhere", "content": "x"}),
        json!({"type": "edit", "ref": 1, "client_id": "c-1", "conversation_id": "nowhere", "seq": 1, "content": "x"}),
        json!({"type": "delete", "ref": 1, "client_id": "c-1", "conversation_id": "nowhere", "seq": 1}),
    ];
    for frame in frames {
        alice.send(&frame).await;
        let answer = alice.until("error").await;
        assert_eq!((&answer["client_id"], &answer["ref"]), (&json!("c-1"), &json!(1)), "{answer}");
    }
}
