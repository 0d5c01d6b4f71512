//! Refusals that a client can match to what it sent, in every dialect.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Client, Link, Node, Postgres, Proxy, RedisServer, token};

/// A text of half a character, which [`Value`] can't hold: the frame has this word in its place.
const HALF: &str = "HALF";

/// A socket of alice, in one dialect.
pub(crate) struct Socket {
    pub(crate) dialect: &'static str,
    pub(crate) client: Client,
    /// A frame that sends a message to bob, without its content and ids.
    empty: Value,
}

impl Socket {
    /// A socket of each dialect, each in a conversation with bob.
    pub(crate) async fn all(node: &Node) -> Vec<Self> {
        let mut all = Vec::new();
        for dialect in ["native", "direct", "rooms", "conversation", "personas"] {
            let room = node.conversation(&token("alice"), &["bob"]).await;
            let (path, greeting, empty) = match dialect {
                "native" => ("/v1/ws".into(), "authenticated", json!({"type": "send", "conversation_id": room})),
                "direct" => ("/ws".into(), "authenticated", json!({"type": "send_message", "recipient_id": "bob"})),
                "rooms" => (format!("/ws/{room}"), "connected", json!({"type": "send_message", "data": {}})),
                "conversation" => (format!("/api/chat/ws/{room}"), "system", json!({"type": "message"})),
                _ => ("/ws/auth".into(), "online_users", json!({"type": "send_message", "conversation_id": room})),
            };
            let mut client = Client::connect(&format!("{}{path}?token={}", node.ws(), token("alice"))).await;
            client.expect(greeting).await;
            if dialect == "personas" {
                client.send(&json!({"type": "join_conversation", "conversation_id": room})).await;
                client.until("conversation_joined").await;
            }
            all.push(Self { dialect, client, empty });
        }
        all
    }

    /// A frame that sends a message.
    pub(crate) fn frame(&self, content: impl Into<Value>, id: &str) -> Value {
        self.frame_with(content, id, json!({}))
    }

    fn frame_with(&self, content: impl Into<Value>, id: &str, more: Value) -> Value {
        let mut frame = self.empty.clone();
        let fields = if self.dialect == "rooms" { &mut frame["data"] } else { &mut frame };
        (fields["content"], fields["client_id"]) = (content.into(), json!(id));
        fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        frame["ref"] = json!({"mark": id});
        frame
    }

    pub(crate) async fn send(&mut self, content: &str, id: &str) {
        let frame = self.frame(content, id);
        self.client.send(&frame).await;
    }

    /// Waits for the ack of a message, or its echo in a dialect without acks.
    pub(crate) async fn acked(&mut self, id: &str) -> Value {
        self.acked_after(id, |_| {}).await
    }

    /// As [`Self::acked`]; `skipped` gets the frames before it.
    pub(crate) async fn acked_after(&mut self, id: &str, mut skipped: impl FnMut(&Value)) -> Value {
        let kind = match self.dialect {
            "native" => "ack",
            "direct" | "rooms" => "message_sent",
            "conversation" => "message",
            _ => "new_message",
        };
        let is_ack = |frame: &Value| {
            let places = [&frame["client_id"], &frame["data"]["client_id"], &frame["message"]["client_id"]];
            frame["type"] == kind && places.contains(&&json!(id))
        };
        self.client
            .until_where(|frame| {
                let found = is_ack(frame);
                if !found {
                    skipped(frame);
                }
                found
            })
            .await
    }

    /// Sends a frame and returns its refusal, which has the frame's marks.
    pub(crate) async fn refusal(&mut self, frame: &Value) -> Value {
        let text = frame.to_string().replace(HALF, r"cut \ud83d off");
        self.client.send_message(Message::text(text)).await;
        let kinds = ["error", "message_error", "rate_limit_exceeded"];
        let refusal = self.client.until_where(|frame| kinds.iter().any(|kind| frame["type"] == *kind)).await;
        let in_data = self.dialect == "rooms";
        let id = |frame: &Value| if in_data { frame["data"]["client_id"].clone() } else { frame["client_id"].clone() };
        let marks = |frame: &Value| (id(frame), frame["ref"].clone());
        assert_eq!(marks(&refusal), marks(frame), "{}: {frame}: {refusal}", self.dialect);
        refusal
    }
}

/// The code of a refusal; the limit of the rooms dialect has a frame of its own.
pub(crate) fn code(refusal: &Value) -> &str {
    let code = refusal["code"].as_str().or(refusal["data"]["code"].as_str());
    code.unwrap_or(if refusal["type"] == "rate_limit_exceeded" { "rate_limited" } else { "none" })
}

#[tokio::test]
async fn every_refusal_has_the_marks_of_its_frame() {
    let node = Node::dev().start().await;
    let long = "x".repeat(5_001);
    for mut socket in Socket::all(&node).await {
        let dialect = socket.dialect;
        let mut unknown = socket.frame("x", "c-1");
        unknown["type"] = json!("dance");
        let mut untyped = socket.frame("x", "c-1");
        untyped.as_object_mut().unwrap().remove("type");
        let mut deep = socket.frame("x", "c-1");
        deep["deep"] = (0..40).fold(json!(1), |deeper, _| json!([deeper]));
        for (frame, expected, words) in [
            (socket.frame("  ", "c-1"), "invalid", "empty"),
            (socket.frame("", "c-1"), "invalid", "empty"),
            (socket.frame(7, "c-1"), "invalid", "content"),
            (socket.frame(HALF, "c-1"), "invalid", "half of a character"),
            (socket.frame(&*long, "c-1"), "invalid", "5000"),
            (socket.frame("a\u{1}b", "c-1"), "invalid", "control"),
            (socket.frame_with("x", "c-1", json!({"reply_to": 0})), "invalid", "reply_to"),
            (socket.frame_with("x", "c-1", json!({"reply_to": 99})), "not_found", "Message"),
            (unknown, "unknown_type", "dance"),
            (untyped, "invalid", "type"),
            (deep, "invalid", "deep"),
        ] {
            let refusal = socket.refusal(&frame).await;
            assert_eq!(code(&refusal), expected, "{dialect}: {frame}: {refusal}");
            assert!(refusal.to_string().contains(words), "{dialect}: {words}: {refusal}");
        }
        socket.send("one", "c-2").await;
        socket.acked("c-2").await;
        let refusal = socket.refusal(&socket.frame("two", "c-2")).await;
        assert_eq!(code(&refusal), "conflict", "{dialect}: {refusal}");
    }
    let mut direct = Socket::all(&node).await.swap_remove(1);
    assert_eq!(node.post("/api/blocks/alice", &token("bob"), &json!({})).await.status, 204);
    let refusal = direct.refusal(&direct.frame("x", "c-3")).await;
    assert_eq!(code(&refusal), "forbidden", "{refusal}");
}

#[tokio::test]
async fn a_limited_send_is_refused_with_its_marks() {
    for at in 0..5 {
        let node = Node::dev().set("MESSAGE_RATE_LIMIT", 1).start().await;
        let mut socket = Socket::all(&node).await.swap_remove(at);
        socket.send("one", "c-1").await;
        socket.acked("c-1").await;
        let refusal = socket.refusal(&socket.frame("two", "c-2")).await;
        assert_eq!(code(&refusal), "rate_limited", "{}: {refusal}", socket.dialect);
    }
}

#[tokio::test]
async fn a_send_without_a_store_is_refused_with_its_marks() {
    let (redis, database) = (RedisServer::start().await, Postgres::shared().await.database().await);
    let proxy = Proxy::to(database.split(['@', '/']).nth(3).unwrap()).await;
    let node = Node::serve(&redis.url(), &proxy.url(&database)).start().await;
    let mut sockets = Socket::all(&node).await;
    proxy.set(Link::Cut);
    node.metric("switchboard_degraded{part=\"store\"}", |down| down == 1.0).await;
    for socket in &mut sockets {
        let refusal = socket.refusal(&socket.frame("x", "c-1")).await;
        assert_eq!(code(&refusal), "unavailable", "{}: {refusal}", socket.dialect);
    }
}

#[tokio::test]
async fn a_command_on_what_is_not_there_is_refused_with_its_marks() {
    let node = Node::dev().set("OPEN_CONVERSATIONS", false).start().await;
    let mut alice = Client::native(&node, "alice").await;
    let team = node.conversation(&token("alice"), &["bob"]).await;
    let marked = |frame: &str, conversation: &str| {
        let mut frame: Value = serde_json::from_str(frame).unwrap();
        (frame["ref"], frame["conversation_id"]) = (json!(1), json!(conversation));
        frame
    };
    for frame in [
        r#"{"type": "send", "client_id": "c-1", "content": "x"}"#,
        r#"{"type": "edit", "client_id": "c-1", "seq": 1, "content": "x"}"#,
        r#"{"type": "delete", "client_id": "c-1", "seq": 1}"#,
        r#"{"type": "react", "client_id": "c-1", "seq": 1, "emoji": "x"}"#,
    ] {
        alice.send(&marked(frame, "nowhere")).await;
        let answer = alice.until("error").await;
        assert_eq!((&answer["client_id"], &answer["ref"]), (&json!("c-1"), &json!(1)), "{answer}");
        assert_eq!(answer["code"], "not_member");
        if !frame.contains("send") {
            alice.send(&marked(frame, &team)).await;
            let answer = alice.until("error").await;
            assert_eq!((&answer["client_id"], &answer["ref"]), (&json!("c-1"), &json!(1)), "{answer}");
            assert_eq!(answer["code"], "not_found");
        }
    }
    for frame in [r#"{"type": "join"}"#, r#"{"type": "history"}"#, r#"{"type": "read", "seq": 1}"#] {
        alice.send(&marked(frame, "nowhere")).await;
        let answer = alice.until("error").await;
        assert_eq!((&answer["code"], &answer["ref"]), (&json!("not_member"), &json!(1)), "{answer}");
    }
    let mut personas = Client::connect(&format!("{}/ws/auth?token={}", node.ws(), token("alice"))).await;
    personas.expect("online_users").await;
    let send = r#"{"type": "send_message", "client_id": "c-1", "content": "x"}"#;
    personas.send(&marked(send, "nowhere")).await;
    let answer = personas.until("error").await;
    assert_eq!((&answer["client_id"], &answer["ref"]), (&json!("c-1"), &json!(1)), "{answer}");
    let mut ask = marked(send, &team);
    ask["persona_id"] = json!("nobody");
    personas.send(&ask).await;
    let answer = personas.until("error").await;
    assert_eq!((&answer["client_id"], &answer["ref"]), (&json!("c-1"), &json!(1)), "{answer}");
}
