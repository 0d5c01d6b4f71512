//! The JSON beside the text of a message: exact, bounded, gone once deleted, and part of all that a message passes through.

use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{
    Client, HookResponse, Link, Node, Postgres, Proxy, RawClient, ReceivedRequest, Receiver, RedisServer, eventually,
    opcode, token,
};

const MESSAGES: &str = "/api/chat/conversations/team/messages";

/// Sends a frame of the native dialect whose data is this JSON, and returns the answer.
async fn send_raw(client: &mut Client, data: &str) -> Value {
    let frame = format!(r#"{{"type":"send","conversation_id":"team","content":"x","data":{data},"ref":1}}"#);
    client.send_message(Message::text(frame)).await;
    client.until_where(|frame| frame["ref"] == 1).await
}

/// Reads frames until one has this text, and returns it as it stands.
async fn text_with(client: &mut RawClient, part: &str) -> String {
    loop {
        let frame = client.read_frame().await.unwrap();
        let text = String::from_utf8(frame.payload).unwrap();
        if frame.opcode == opcode::TEXT && text.contains(part) {
            return text;
        }
    }
}

#[tokio::test]
async fn data_arrives_as_it_was_sent_on_every_way() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let one = Node::serve(&redis.url(), &database).start().await;
    let two = Node::serve(&redis.url(), &database).start().await;
    let exact = r#"{"z":1.0,"a":12345678901234567890123,"e":1E+3,"t":"\u00e9 é\/","":[{},[]]}"#;
    let sent = exact.replace(',', " ,\t").replace(':', " :\n");
    let open = async |node: &Node, since: i64| {
        let mut client = RawClient::open(node.address(), &format!("/v1/ws?token={}", token("bob"))).await;
        let join = json!({"type": "join", "conversation_id": "team", "since_seq": since}).to_string();
        client.frame(opcode::TEXT, join.as_bytes()).await;
        text_with(&mut client, "\"joined\"").await;
        client
    };
    let mut alice = Client::native(&one, "alice").await;
    let head = alice.join("team").await["head"].as_i64().unwrap();
    let (mut here, mut there) = (open(&one, head).await, open(&two, head).await);
    let ack = send_raw(&mut alice, &sent).await;
    assert_eq!(ack["type"], "ack", "{ack}");
    let wanted = format!("\"data\":{exact}");
    for client in [&mut here, &mut there] {
        let text = text_with(client, "\"type\":\"message\"").await;
        assert!(text.contains(&wanted), "live: {text}");
    }
    let cached = || async { redis.command::<Vec<String>>(&["LRANGE", "room_messages:team", "0", "-1"]).await };
    let cached = eventually("the cache", async || cached().await.into_iter().find(|one| one.contains("\"x\""))).await;
    assert!(cached.contains(&wanted), "{cached}");
    let from_cache = text_with(&mut open(&two, head).await, "\"type\":\"message\"").await;
    assert!(from_cache.contains(&wanted), "from the cache: {from_cache}");
    let _: i64 = redis.command(&["DEL", "room_messages:team"]).await;
    let from_store = text_with(&mut open(&two, head).await, "\"type\":\"message\"").await;
    assert!(from_store.contains(&wanted), "from the store: {from_store}");
    let seq = ack["seq"].as_i64().unwrap();
    for path in [MESSAGES.to_owned(), format!("{MESSAGES}/{seq}"), "/api/chat/search?q=x".to_owned()] {
        let answer = two.get(&path, &token("bob")).await;
        assert!(answer.text.contains(&wanted), "{path}: {}", answer.text);
    }
    assert_eq!(one.metrics().await.get("switchboard_message_data_bytes_total"), Some(exact.len() as f64));
}

#[tokio::test]
async fn data_that_not_all_could_read_is_refused_by_its_reason() {
    let node = Node::dev().set("MESSAGE_RATE_LIMIT", 1_000).start().await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join("team").await;
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let long = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    for (data, reason) in [
        (r#"{"a":{"b":1,"b":2}}"#.to_owned(), "data has the key \"b\" twice in one object"),
        ("[1e400]".into(), "data has a number beyond the range of a double; write it as text"),
        (format!("[-{}]", "9".repeat(400)), "data has a number beyond the range of a double; write it as text"),
        ("NaN".into(), "NaN"),
        (r#"{"a": -Infinity}"#.into(), "Infinity"),
        (r#""\u0000""#.into(), "data has the character U+0000 in a text"),
        (r#"["\ud83d"]"#.into(), "half of a character (a lone surrogate)"),
        (nested(31), "data is nested too deeply: at most 30 levels"),
        (long(8 * 1_024 + 1), "data has 8193 bytes, and may have 8192"),
    ] {
        let frame = format!(r#"{{"type":"send","conversation_id":"team","content":"x","data":{data}}}"#);
        alice.send_message(Message::text(frame)).await;
        let error = alice.until("error").await;
        assert!(error["code"] == "invalid" && error["message"].as_str().unwrap().contains(reason), "{data}: {error}");
        let body = format!(r#"{{"content":"x","data":{data}}}"#);
        let refused = node.send_raw(Method::POST, MESSAGES, &token("alice"), &body).await;
        assert_eq!((refused.status.as_u16(), &refused.json["code"]), (400, &json!("invalid")), "{}", refused.text);
    }
    // The blanks between tokens don't count, nor does what the JSON needs to be escaped in a text.
    let blanks = format!("[{}{}]", " ".repeat(9_000), long(8 * 1_024 - 2));
    for data in [long(8 * 1_024), blanks, nested(30), format!("[{}]", "\"\\u00e9\",".repeat(909) + "1")] {
        assert_eq!(send_raw(&mut alice, &data).await["type"], "ack", "{}", &data[..40]);
    }
    assert_eq!(node.get(MESSAGES, &token("alice")).await.json["total"], 4, "what was refused is not stored");
    assert_eq!(node.metrics().await.get("switchboard_rate_limit_refusals_total{budget=\"send\"}"), Some(0.0));
}

#[tokio::test]
async fn the_largest_message_fits_the_smallest_outbox() {
    let node = Node::dev().set("OUTBOX_BYTES", "64KiB").set("MAX_DATA_BYTES", "32KiB").start().await;
    let (mut alice, mut bob) = (Client::native(&node, "alice").await, Client::native(&node, "bob").await);
    let mut rooms = Client::rooms(&node, "team", "carol").await;
    alice.join("team").await;
    bob.join("team").await;
    let content = "\u{1F600}".repeat(5_000);
    let data = "x".repeat(32 * 1_024 - 2);
    alice.send(&json!({"type": "send", "conversation_id": "team", "content": content, "data": data, "ref": 1})).await;
    assert_eq!(alice.until_where(|frame| frame["ref"] == 1).await["type"], "ack");
    let message = bob.until("message").await;
    assert_eq!((&message["content"], &message["data"]), (&json!(content), &json!(data)));
    assert_eq!(rooms.until("new_message").await["data"]["data"], data);
    bob.send(&json!({"type": "join", "conversation_id": "team", "since_seq": 0, "ref": 2})).await;
    assert_eq!(bob.until("message").await["data"], data, "replayed");

    let off = Node::dev().set("MAX_DATA_BYTES", 0).start().await;
    let mut alice = Client::native(&off, "alice").await;
    alice.join("team").await;
    assert_eq!(send_raw(&mut alice, "1").await["message"], "data has 1 bytes, and may have 0");
}

#[tokio::test]
async fn the_data_of_a_deleted_message_is_gone_everywhere() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let one = Node::serve(&redis.url(), &database).start().await;
    let two = Node::serve(&redis.url(), &database).start().await;
    let mut alice = Client::native(&one, "alice").await;
    let head = alice.join("team").await["head"].as_i64().unwrap();
    let seq = send_raw(&mut alice, "{\"planted\":1}").await["seq"].clone();
    alice
        .send(&json!({"type": "edit", "conversation_id": "team", "seq": seq, "content": "", "data": {"planted": 2}}))
        .await;
    alice.until("ack").await;
    alice.send(&json!({"type": "delete", "conversation_id": "team", "seq": seq})).await;
    alice.until("ack").await;
    alice.send_text("team", "last").await;
    let cached = || async { redis.command::<Vec<String>>(&["LRANGE", "room_messages:team", "0", "-1"]).await };
    eventually("the cache", async || cached().await.iter().any(|one| one.contains("last")).then_some(())).await;
    assert!(!format!("{:?}", cached().await).contains("planted"));
    let mut bob = Client::native(&two, "bob").await;
    bob.send(&json!({"type": "join", "conversation_id": "team", "since_seq": head})).await;
    let mut replayed = Vec::new();
    while replayed.last().is_none_or(|frame: &Value| frame["content"] != "last") {
        replayed.push(bob.recv().await);
    }
    assert!(!json!(replayed).to_string().contains("planted"), "{replayed:?}");
    assert!(!two.get(MESSAGES, &token("bob")).await.text.contains("planted"));
    let postgres = Postgres::shared().await.connect(database.rsplit('/').next().unwrap()).await;
    let left = postgres.query_one("SELECT count(*) FROM log WHERE data LIKE '%planted%'", &[]).await.unwrap();
    assert_eq!(left.get::<_, i64>(0), 0);
}

#[tokio::test]
async fn data_reaches_members_on_other_nodes_while_redis_is_down() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let link = Proxy::to(redis.url().split("://").nth(1).unwrap().trim_end_matches('/')).await;
    let one = Node::serve(&link.url(&redis.url()), &database).start().await;
    let two = Node::serve(&redis.url(), &database).start().await;
    let (mut alice, mut bob) = (Client::native(&one, "alice").await, Client::native(&two, "bob").await);
    alice.join("team").await;
    bob.join("team").await;
    link.set(Link::Cut);
    let ack = send_raw(&mut alice, "[\"relayed\", 1]").await;
    let message = bob.until("message").await;
    assert_eq!((&message["seq"], &message["data"]), (&ack["seq"], &json!(["relayed", 1])));
}

#[tokio::test]
async fn webhooks_get_data_and_a_persona_answers_with_some() {
    let receiver = Receiver::start(async |_, posted: Arc<ReceivedRequest>| match posted.json["type"].as_str() {
        Some(_) => HookResponse::status(204),
        None => HookResponse::body(
            json!({"data": {"echo": posted.json["data"], "before": posted.json["history"]}}).to_string(),
        ),
    })
    .await;
    let node = Node::dev()
        .set("PERSONA_WEBHOOK_URL", receiver.url())
        .set("PERSONA_IDS", "ada")
        .set("NOTIFICATION_WEBHOOK_URL", receiver.url());
    let node = node.start().await;
    let room = node.conversation(&token("alice"), &["bob"]).await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join(&room).await;
    let send = |data: Value, persona: Value| json!({"type": "send", "conversation_id": room, "data": data, "persona_id": persona});
    alice.send(&send(json!({"n": 1}), Value::Null)).await;
    let notification = receiver.request(0).await;
    let told = &notification.json["message"];
    assert_eq!((&told["content"], &told["data"]), (&json!(""), &json!({"n": 1})), "{told}");
    alice.send(&send(json!({"n": 2}), json!("ada"))).await;
    let answer = alice.until_where(|frame| frame["sender_id"] == "ada" && frame["type"] == "message").await;
    assert_eq!((&answer["content"], &answer["data"]["echo"]), (&json!(""), &json!({"n": 2})), "{answer}");
    assert_eq!(answer["data"]["before"][0]["data"], json!({"n": 1}), "{answer}");
}

#[tokio::test]
async fn a_client_id_with_other_data_is_a_conflict() {
    let node = Node::dev().start().await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join("team").await;
    let send = |data: Value| json!({"type": "send", "conversation_id": "team", "content": "x", "data": data, "client_id": "1"});
    alice.send(&send(json!({"a": 1}))).await;
    let seq = alice.until("ack").await["seq"].clone();
    for other in [json!({"a": 2}), Value::Null] {
        alice.send(&send(other)).await;
        assert_eq!(alice.until("error").await["code"], "conflict");
    }
    alice.send(&send(json!({"a": 1}))).await;
    assert_eq!(alice.until("ack").await["duplicate"], true);
    let edit = |data: Value| json!({"type": "edit", "conversation_id": "team", "seq": seq, "content": "y", "data": data, "client_id": "2"});
    alice.send(&edit(json!([1]))).await;
    alice.until("ack").await;
    alice.send(&edit(Value::Null)).await;
    assert_eq!(alice.until("error").await["code"], "conflict");
    alice.send(&edit(json!([1]))).await;
    assert_eq!(alice.until("ack").await["duplicate"], true);
}
