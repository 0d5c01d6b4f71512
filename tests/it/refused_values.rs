//! Refusals of bad values name the field and what is expected, in every dialect and over REST.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};

use crate::support::{Client, Node, RawClient, token};

/// The texts of serde that no client understands.
const RIDDLES: [&str; 8] = [
    "untagged",
    "did not match any variant",
    "TextOrNumber",
    "invalid type",
    "sequence",
    " map",
    "hex escape",
    "struct ",
];

/// Sends a frame and returns the text of the error.
async fn error(client: &mut Client, frame: &str) -> String {
    client.send_message(Message::text(frame)).await;
    let error = client.until_where(|frame| matches!(frame["type"].as_str(), Some("error" | "message_error"))).await;
    // The rooms dialect has its fields in `data`.
    let places = ["/message", "/error", "/content", "/data/error", "/data/message"];
    let text = places.iter().find_map(|place| error.pointer(place)?.as_str());
    text.unwrap_or_else(|| panic!("{frame}: {error}")).to_owned()
}

fn check(frame: &str, text: &str, expected: &[&str]) {
    assert!(expected.iter().all(|part| text.contains(part)), "{frame}: {text}");
    assert!(!RIDDLES.iter().any(|riddle| text.contains(riddle)), "{frame}: {text}");
}

#[tokio::test]
async fn frames_of_every_dialect_are_refused_by_field() {
    let node = Node::dev().start().await;
    let mut native = Client::native(&node, "alice").await;
    native.join("team").await;
    for (frame, expected) in [
        (r#"{"type":"join","conversation_id":456.0}"#, &["conversation_id", "text or a whole number"][..]),
        (r#"{"type":"join","conversation_id":["a"]}"#, &["conversation_id", "text or a whole number, found an array"]),
        (r#"{"type":"join","conversation_id":"a b"}"#, &["conversation_id", "1 to 128"]),
        (r#"{"type":"join","conversation_id":"team","since_seq":38.0}"#, &["since_seq", "whole number from 0"]),
        (r#"{"type":"join","conversation_id":"team","since_seq":"undefined"}"#, &["since_seq", "whole number from 0"]),
        (r#"{"type":"sync","conversations":{"team":38.5}}"#, &["seq", "whole number from 0"]),
        (r#"{"type":"send","conversation_id":"team","content":"x","client_id":1.5}"#, &["client_id", "whole number"]),
        (r#"{"type":"send","conversation_id":"team","content":5}"#, &["content: expected a text, found 5"]),
        (r#"{"type":"presence","user_ids":["a",1.5]}"#, &["user_ids", "whole number"]),
        (
            r#"{"type":"typing","conversation_id":"team","active":"yes"}"#,
            &["active: expected true or false, found a text"],
        ),
    ] {
        check(frame, &error(&mut native, frame).await, expected);
    }
    for frame in [r#"{"type":["join"]}"#, r#"{"type":7}"#, r#"{"type":null}"#] {
        check(frame, &error(&mut native, frame).await, &["type: expected a text, found "]);
    }
    let mut rooms = Client::rooms(&node, "team", "alice").await;
    for (frame, expected) in [
        (
            r#"{"type":"send_message","data":{"content":"x","client_id":456.0}}"#,
            &["data.client_id", "whole number"][..],
        ),
        (r#"{"type":"send_message","data":{"content":"x","reply_to":38.0}}"#, &["reply_to", "whole number"]),
        (r#"{"type":"send_message","data":{"content":["x"]}}"#, &["data.content: expected a text, found an array"]),
    ] {
        check(frame, &error(&mut rooms, frame).await, expected);
    }
    let token = token("alice");
    let mut conversation = Client::connect(&format!("{}/api/chat/ws/team?token={token}", node.ws())).await;
    conversation.recv().await;
    let mut personas = Client::connect(&format!("{}/ws/auth?token={token}", node.ws())).await;
    personas.expect("online_users").await;
    let mut direct = Client::connect(&format!("{}/ws?token={token}", node.ws())).await;
    direct.expect("authenticated").await;
    let frame = r#"{"type":"message","content":"x","client_id":456.0}"#;
    check(frame, &error(&mut conversation, frame).await, &["client_id", "whole number"]);
    for (frame, expected) in [
        (r#"{"type":"join_conversation","conversation_id":456.0}"#, &["conversation_id", "whole number"][..]),
        (
            r#"{"type":"join_conversation","conversation_id":"team","since_seq":"undefined"}"#,
            &["since_seq", "whole number from 0"],
        ),
    ] {
        check(frame, &error(&mut personas, frame).await, expected);
    }
    for (frame, expected) in [
        (r#"{"type":"send_message","recipient_id":456.0,"content":"x"}"#, &["recipient_id", "whole number"][..]),
        (r#"{"type":"send_message","recipient_id":{"id":4},"content":"x"}"#, &["recipient_id", "found an object"]),
    ] {
        check(frame, &error(&mut direct, frame).await, expected);
    }
    let half = &["half of a character"];
    for (client, frame) in [
        (&mut native, r#"{"type":"send","conversation_id":"team","content":"\ud83d"}"#),
        (&mut direct, r#"{"type":"send_message","recipient_id":"bob","content":"x\ude00"}"#),
        (&mut rooms, r#"{"type":"send_message","data":{"content":"\ud83d!"}}"#),
        (&mut conversation, r#"{"type":"message","content":"\ud83d\ud83d"}"#),
        (&mut personas, r#"{"type":"send_message","conversation_id":"team","content":"\ud83d"}"#),
    ] {
        check(frame, &error(client, frame).await, half);
    }
}

#[tokio::test]
async fn invisible_messages_are_blank_everywhere() {
    let node = Node::dev().start().await;
    let mut native = Client::native(&node, "alice").await;
    native.join("team").await;
    let mut rooms = Client::rooms(&node, "team", "alice").await;
    let token = token("alice");
    for blank in ["\u{200B}", "\u{2800}", "\u{3164}", "\u{AD}", "\u{2060}", "\u{FE0F}", "\u{E0041}", " \u{200D}\n"] {
        let frame = json!({"type": "send", "conversation_id": "team", "content": blank}).to_string();
        check(&frame, &error(&mut native, &frame).await, &["Message content cannot be empty"]);
        let frame = json!({"type": "send_message", "data": {"content": blank}}).to_string();
        check(&frame, &error(&mut rooms, &frame).await, &["Message content cannot be empty"]);
        let path = "/api/chat/conversations/team/messages";
        let refused = node.post(path, &token, &json!({"content": blank})).await;
        assert_eq!(
            (refused.status.as_u16(), &refused.json["detail"]),
            (400, &json!("Message content cannot be empty"))
        );
    }
    native.send_text("team", "❤\u{FE0F}\u{200D}").await;
}

#[tokio::test]
async fn requests_are_refused_by_field() {
    let node = Node::dev().start().await;
    let mut native = Client::native(&node, "alice").await;
    native.join("team").await;
    let token = token("alice");
    let detail = async |method: reqwest::Method, path: &str, body: &str| {
        let answer = node.send_raw(method, path, &token, body).await;
        assert_eq!((answer.status.as_u16(), &answer.json["code"]), (400, &json!("invalid")), "{path} {body}");
        answer.json["detail"].as_str().unwrap().to_owned()
    };
    let messages = "/api/chat/conversations/team/messages";
    for (path, body, expected) in [
        (messages, r#"{"content":"x","client_id":456.0}"#, &["client_id", "whole number"][..]),
        (messages, r#"{"content":"x","reply_to":38.0}"#, &["reply_to", "its seq, a whole number, or its id"]),
        (messages, r#"{"content":"\ud83d"}"#, &["half of a character"]),
        (
            messages,
            r#"{"content":"x","client_id":["c"]}"#,
            &["client_id: expected an id: text or a whole number, found an array"],
        ),
        (messages, r#"{"content":null}"#, &["content: expected a text, found null"]),
        ("/api/chat/conversations", r#"{"id":456.0}"#, &["id", "text or a whole number"]),
        ("/api/chat/conversations", r#"{"participant_ids":["a",456.0]}"#, &["participant_ids", "whole number"]),
        ("/api/messages/read", r#"{"conversation_id":"team","message_ids":[38.0]}"#, &["message_ids", "its seq"]),
        ("/api/messages/read", r#"{"conversation_id":"team","up_to_seq":38.0}"#, &["up_to_seq", "whole number from 1"]),
        ("/api/user/status", r#"{"status":1}"#, &["status"]),
    ] {
        check(body, &detail(reqwest::Method::POST, path, body).await, expected);
    }
    for (query, field) in [("limit=undefined", "limit"), ("before_seq=38.0", "before_seq"), ("offset=NaN", "offset")] {
        check(query, &detail(reqwest::Method::GET, &format!("{messages}?{query}"), "").await, &[field, "whole number"]);
    }
    for since in ["undefined", "38.0", "null", "-1", ""] {
        let mut client = RawClient::tcp(node.address()).await;
        let path = format!("/ws/team?token={token}&since_seq={since}");
        client.write(RawClient::upgrade(node.address(), &path).as_bytes()).await;
        let head = client.read_head().await;
        assert!(head.starts_with("HTTP/1.1 400 "), "{since}: {head}");
    }
}

/// Opens a native socket that offers these subprotocols: the status, and the chosen one.
async fn offer(node: &Node, path: &str, protocols: &str) -> (u16, Option<String>, Value) {
    let mut request = format!("{}{path}", node.ws()).into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", protocols.parse().unwrap());
    let headers = request.headers().clone();
    let http = format!("{}{path}", node.http());
    let answer = reqwest::Client::new().get(http).headers(headers).send().await.unwrap();
    let chosen = answer.headers().get("sec-websocket-protocol").map(|name| name.to_str().unwrap().to_owned());
    let status = answer.status().as_u16();
    let body = if status == 101 { Value::Null } else { answer.json().await.unwrap_or_default() };
    (status, chosen, body)
}

#[tokio::test]
async fn no_answer_repeats_a_token() {
    let node = Node::dev().start().await;
    let token = token("alice");
    for path in ["/v1/ws", "/ws", "/ws/auth", "/ws/lobby", "/api/chat/ws/lobby"] {
        let (status, chosen, _) = offer(&node, path, &format!("switchboard, bearer.{token}")).await;
        assert_eq!((status, chosen.as_deref()), (101, Some("switchboard")), "{path}");
        for alone in [format!("bearer.{token}"), format!("graphql-ws, bearer.{token}")] {
            let (status, chosen, body) = offer(&node, path, &alone).await;
            assert_eq!((status, chosen), (400, None), "{path}");
            let detail = body["detail"].as_str().unwrap();
            assert!(detail.contains(r#"["switchboard", "bearer." + token]"#) && !detail.contains(&token), "{detail}");
        }
        let (status, chosen, _) = offer(&node, path, "graphql-ws").await;
        assert_eq!((status, chosen), (101, None), "{path}");
    }
}
