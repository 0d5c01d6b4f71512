//! Limits and bad input: the node refuses them clearly, counts them, and other clients are not affected.

use std::time::Duration;

use serde_json::json;

use crate::support::{Client, Node, NodeBuilder, Postgres, RawClient, RedisServer, allowed, opcode, token};

async fn dev() -> Node {
    Node::dev().start().await
}

async fn serve(set: impl Fn(NodeBuilder) -> NodeBuilder) -> (RedisServer, Node, Node) {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let one = set(Node::serve(&redis.url(), &database)).start().await;
    let two = set(Node::serve(&redis.url(), &database)).start().await;
    (redis, one, two)
}

async fn raw(node: &Node, user: &str) -> RawClient {
    let mut client = RawClient::open(node.address(), &format!("/v1/ws?token={}", token(user))).await;
    client.read_frame().await.unwrap();
    client
}

#[tokio::test]
async fn the_sixth_connection_of_a_user_is_refused_over_all_nodes() {
    let (_redis, one, two) = serve(|node| node).await;
    let mut held = Vec::new();
    for at in 0..5 {
        held.push(Client::native(if at % 2 == 0 { &one } else { &two }, "alice").await);
    }
    let url = |node: &Node| format!("{}/v1/ws?token={}", node.ws(), token("alice"));
    for node in [&one, &two] {
        let close = Client::connect(&url(node)).await.expect_close().await;
        assert_eq!(close, (1008, "Too many connections".into()));
    }
    // Rooms sockets count per user and conversation.
    for room in ["a", "b"] {
        for _ in 0..5 {
            held.push(Client::rooms(&one, room, "alice").await);
        }
        let sixth = format!("{}/ws/{room}?token={}", two.ws(), token("alice"));
        assert_eq!(Client::connect(&sixth).await.expect_close().await.0, 1008);
    }
    held.remove(0).close().await;
    Client::native(&two, "alice").await;
    assert!(two.metrics().await.sum("switchboard_handshake_refusals_total") >= 3.0);
}

#[tokio::test]
async fn conversations_per_socket_are_limited() {
    let node = Node::dev().set("MAX_CONVERSATIONS_PER_CONNECTION", 2).start().await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join("one").await;
    alice.join("two").await;
    alice.send(&json!({"type": "join", "conversation_id": "three", "ref": 1})).await;
    assert_eq!(alice.until("error").await["code"], "too_many_conversations");
    alice.send(&json!({"type": "leave", "conversation_id": "one", "ref": 2})).await;
    alice.until("left").await;
    alice.join("three").await;
}

#[tokio::test]
async fn connections_per_address_are_limited() {
    let node = Node::dev().set("MAX_CONNECTIONS_PER_IP", 2).start().await;
    let url = format!("{}/v1/ws?token={}", node.ws(), token("alice"));
    let _held = (Client::native(&node, "alice").await, Client::native(&node, "alice").await);
    let refused = Client::try_connect(url.as_str()).await.expect_err("a third is refused");
    assert!(refused.is_client_error() || refused.is_server_error(), "{refused}");
}

#[tokio::test]
async fn bad_frames_get_an_error_and_change_nothing() {
    let node = dev().await;
    let mut alice = Client::native(&node, "alice").await;
    let mut bob = Client::native(&node, "bob").await;
    alice.join("team").await;
    bob.join("team").await;
    let deep = format!(r#"{{"type":"ping","x":{}1{}}}"#, "[".repeat(40), "]".repeat(40));
    let long_id = format!(r#"{{"type":"join","conversation_id":"{}"}}"#, "x".repeat(129));
    let long_ref = format!(r#"{{"type":"ping","ref":"{}"}}"#, "x".repeat(300));
    for (frame, code) in [
        ("", "invalid"),
        ("nonsense", "invalid"),
        ("[]", "invalid"),
        ("null", "invalid"),
        ("\"ping\"", "invalid"),
        (r#"["ping"]"#, "invalid"),
        (r#"{"type":1}"#, "invalid"),
        (r#"{"type":"ping""#, "invalid"),
        (r#"{"type":"ping"} {"type":"ping"}"#, "invalid"),
        (r#"{"no":"type"}"#, "invalid"),
        (r#"{"type":"dance"}"#, "unknown_type"),
        (&deep, "invalid"),
        (&long_id, "invalid"),
        (&long_ref, "invalid"),
        (r#"{"type":"join","conversation_id":"a b"}"#, "invalid"),
        (r#"{"type":"join","conversation_id":"~alice"}"#, "invalid"),
        (r#"{"type":"join","conversation_id":1.5}"#, "invalid"),
        (r#"{"type":"join","conversation_id":"team","since_seq":-1}"#, "invalid"),
        (r#"{"type":"send","content":"x"}"#, "invalid"),
        (r#"{"type":"send","conversation_id":"team","recipient_id":"bob","content":"x"}"#, "invalid"),
        (r#"{"type":"send","conversation_id":"team","content":" \n "}"#, "invalid"),
        (r#"{"type":"send","conversation_id":"team","content":"a\u0000b"}"#, "invalid"),
        (r#"{"type":"send","conversation_id":"team","content":5}"#, "invalid"),
        (r#"{"type":"send","conversation_id":"team","content":"x","client_id":"a b"}"#, "invalid"),
        (r#"{"type":"send","conversation_id":"nowhere","content":"x"}"#, "not_member"),
        (r#"{"type":"edit","conversation_id":"team","seq":99,"content":"x"}"#, "not_found"),
        (r#"{"type":"react","conversation_id":"team","seq":1,"emoji":"a b"}"#, "invalid"),
        (r#"{"type":"status","status":"asleep"}"#, "invalid"),
        (r#"{"type":"join","conversation_id":"team","colour":"blue"}"#, "invalid"),
    ] {
        alice.send_message(tokio_tungstenite::tungstenite::Message::text(frame)).await;
        let error = alice.until("error").await;
        assert_eq!(error["code"], code, "{frame}: {error}");
        assert!(!error["message"].as_str().unwrap().is_empty());
    }
    alice.send_text("team", "still here").await;
    let seen = bob.until("message").await;
    assert_eq!(seen["content"], "still here", "nothing else was stored or delivered");
    // Numbers are accepted as ids.
    alice.send(&json!({"type": "join", "conversation_id": 123, "ref": {"any": ["json"]}})).await;
    let joined = alice.until("joined").await;
    assert_eq!((&joined["conversation_id"], &joined["ref"]), (&json!("123"), &json!({"any": ["json"]})));
}

#[tokio::test]
async fn broken_frames_close_only_that_socket() {
    let node = Node::dev().set("MAX_FRAGMENTS", 8).set("MAX_CONNECTIONS_PER_USER", 50).start().await;
    let mut bystander = Client::native(&node, "bob").await;
    let close_of = |frames: Vec<Vec<u8>>| {
        let node = &node;
        async move {
            let mut client = raw(node, "alice").await;
            for frame in frames {
                client.try_write(&frame).await;
            }
            client.expect_close().await
        }
    };
    let code_of = async |frames| close_of(frames).await.0;
    let text = |payload: &[u8]| RawClient::encode(true, opcode::TEXT, payload);
    assert_eq!(code_of(vec![text(b"\xff\xfe")]).await, 1007, "not UTF-8");
    assert_eq!(code_of(vec![text(&vec![b'x'; 70_000])]).await, 1009, "too large");
    // An unmasked frame: the mask bit is off.
    assert_eq!(code_of(vec![vec![0x81, 0x02, b'{', b'}']]).await, 1002, "unmasked");
    assert_eq!(code_of(vec![RawClient::encode(true, opcode::BINARY, b"x")]).await, 1003, "binary");
    assert_eq!(code_of(vec![vec![0xf1, 0x80, 0, 0, 0, 0]]).await, 1002, "reserved bits");
    let fragments = |count: usize, last: &[u8]| -> Vec<Vec<u8>> {
        let first = RawClient::encode(false, opcode::TEXT, br#"{"type":"ping","#);
        let between = RawClient::encode(false, opcode::CONTINUATION, b" ");
        let last = RawClient::encode(true, opcode::CONTINUATION, last);
        std::iter::once(first).chain(std::iter::repeat_n(between, count - 2)).chain([last]).collect()
    };
    let close = close_of(fragments(9, br#""ref":1}"#)).await;
    assert_eq!(close, (1009, "Too many fragments".to_owned()));
    for frames in [fragments(8, br#""ref":1}"#), {
        let mut frames = fragments(8, b"");
        frames[6] = RawClient::encode(false, opcode::CONTINUATION, br#""ref":1}"#);
        frames.insert(1, RawClient::encode(false, opcode::CONTINUATION, b""));
        frames
    }] {
        let mut client = raw(&node, "alice").await;
        for frame in frames {
            client.try_write(&frame).await;
        }
        let answered = async {
            while let Some(frame) = client.read_frame().await {
                if String::from_utf8_lossy(&frame.payload).contains("pong") {
                    return true;
                }
            }
            false
        };
        assert!(answered.await);
    }
    bystander.send(&json!({"type": "ping", "ref": 1})).await;
    bystander.until("pong").await;
}

#[tokio::test]
async fn a_flood_of_frames_closes_only_that_socket() {
    let node = Node::dev().set("MAX_FRAMES_PER_SECOND", 50).start().await;
    let mut bystander = Client::native(&node, "bob").await;
    let mut client = raw(&node, "alice").await;
    let ping = RawClient::encode(true, opcode::PING, b"x");
    client.try_write(&ping.repeat(500)).await;
    assert_eq!(client.expect_close().await.0, 4429);
    bystander.send(&json!({"type": "ping", "ref": 1})).await;
    bystander.until("pong").await;
}

#[tokio::test]
async fn a_silent_socket_is_closed() {
    let node = Node::dev().set("AUTH_TIMEOUT", "1s").set("PING_INTERVAL", "1s").set("PONG_TIMEOUT", "1s").start().await;
    let mut silent = RawClient::open(node.address(), "/v1/ws").await;
    let (code, reason) = silent.expect_close().await;
    assert_eq!((code, reason.as_str()), (4401, "Authentication timeout"));
    let mut first = Client::connect(&format!("{}/v1/ws", node.ws())).await;
    first.send(&json!({"type": "authenticate", "token": token("alice")})).await;
    first.expect("authenticated").await;
    let mut early = Client::connect(&format!("{}/v1/ws", node.ws())).await;
    early.send(&json!({"type": "join", "conversation_id": "team"})).await;
    assert_eq!(early.expect_close().await.0, 4401);
    // A client that never answers pings.
    let mut deaf = raw(&node, "bob").await;
    let (code, reason) = deaf.expect_close().await;
    assert_eq!((code, reason.as_str()), (1008, "No answer to ping"));
}

#[tokio::test]
async fn a_slow_reader_is_closed_and_resumes_exactly() {
    let node = Node::dev().set("OUTBOX_BYTES", "64KiB").start().await;
    let mut alice = Client::native(&node, "alice").await;
    let mut bob = Client::native(&node, "bob").await;
    alice.join("team").await;
    let from = bob.join("team").await["head"].as_i64().unwrap();
    let mut slow = raw(&node, "carol").await;
    slow.frame(opcode::TEXT, br#"{"type":"join","conversation_id":"team","ref":1}"#).await;
    slow.read_frame().await.unwrap();
    // More than the kernel's buffers and the outbox hold together.
    let content = "x".repeat(5_000);
    let cut = async {
        loop {
            alice.send_text("team", &content).await;
            bob.until("message").await;
            if node.metrics().await.get(r#"switchboard_closes_total{reason="too_slow"}"#) == Some(1.0) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), cut).await.expect("the slow reader is closed");
    // The messages that arrived before the close are a prefix; the client resumes after it.
    let mut has = from;
    while let Some(frame) = slow.read_frame().await {
        if let Some((code, _)) = frame.close() {
            assert_eq!(code, 4408);
            break;
        }
        let frame: serde_json::Value = serde_json::from_slice(&frame.payload).unwrap();
        if frame["type"] == "message" {
            assert!(frame["seq"].as_i64().unwrap() > has);
            has = frame["seq"].as_i64().unwrap();
        }
    }
    let mut back = Client::native(&node, "carol").await;
    back.send(&json!({"type": "join", "conversation_id": "team", "since_seq": has, "ref": 1})).await;
    let last = alice.send_text("team", "the end").await["seq"].as_i64().unwrap();
    for expected in has + 1..=last {
        let entry = back.until_where(|frame| frame["seq"].is_i64()).await;
        assert_eq!(entry["seq"], expected);
    }
}

/// A node that may open 300 files: clients that connect and say nothing take no place from probes, and end soon.
#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_on_a_node_with_few_files_hide_no_probe() {
    const SILENT: usize = 400;
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let node = Node::serve(&redis.url(), &database).open_files(300).start().await;
    node.logged("at most 126 connections instead of 100000").await;
    let mut bob = Client::native(&node, "bob").await;
    bob.join("team").await;
    // The node may reset a connection before the connect returns.
    let connect = async |address: std::net::SocketAddr| tokio::net::TcpStream::connect(address).await.ok();
    let mut held = Vec::new();
    let admin = node.admin().trim_start_matches("http://").parse().unwrap();
    for at in 0..SILENT {
        held.push(connect(node.address()).await);
        if at % 4 == 0 {
            held.push(connect(admin).await);
        }
    }
    // After this time a silent connection can lose its place.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let asked = std::time::Instant::now();
    let health = node.request(reqwest::Method::GET, "/api/health", None, None).await;
    assert_eq!(health.json["status"], "healthy", "{}", health.text);
    assert_eq!(node.admin_get("/livez").await.status, 200);
    let metrics = node.metrics().await;
    assert!(metrics.get("process_open_fds").unwrap() < 300.0);
    assert!(metrics.get(r#"switchboard_handshake_refusals_total{reason="silent"}"#).unwrap() >= 1.0);
    let mut alice = Client::native(&node, "alice").await;
    alice.join("team").await;
    alice.send_text("team", "there is room").await;
    assert_eq!(bob.until("message").await["content"], "there is room");
    assert!(asked.elapsed() < allowed(Duration::from_secs(5)), "{:?}", asked.elapsed());
    let full = node.log().iter().filter(|line| line.contains("this node has its maximum of sockets")).count();
    assert_eq!(full, 1, "said once");
    assert!(!node.log().iter().any(|line| line.contains("could not accept a connection")));
    // The header timeout ends the others.
    node.metric("switchboard_sockets", |sockets| sockets <= 3.0).await;
    drop(held);
}
