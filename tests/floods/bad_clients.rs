//! Clients that break the protocol, or flood within it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::{
    assert_served, count, raw,
    support::{
        Client, Link, Node, Postgres, Proxy, RawClient, RedisServer, eventually, opcode, resident_bytes, token_with,
    },
};

fn closed(reason: &str) -> String {
    format!(r#"switchboard_closes_total{{reason="{reason}"}}"#)
}

/// Header of a frame that announces this length.
fn frame_header(length: u64) -> Vec<u8> {
    [&[0x81, 0x80 | 127][..], &length.to_be_bytes(), &[0; 4]].concat()
}

#[tokio::test]
async fn a_flood_of_frames_closes_the_socket_with_a_code_and_is_counted() {
    let node = Node::dev().set("MAX_FRAMES_PER_SECOND", 200).set("MAX_CONNECTIONS_PER_USER", 100).start().await;
    let mut bystander = Client::native(&node, "bob").await;
    let fragments = |count: usize, payload: &[u8]| {
        let first = RawClient::encode(false, opcode::TEXT, b"{");
        [first, RawClient::encode(false, opcode::CONTINUATION, payload).repeat(count)].concat()
    };
    for (what, bytes, code, reason) in [
        ("pings", RawClient::encode(true, opcode::PING, &[b'x'; 125]).repeat(1_000), 4429, "flood"),
        ("unsolicited pongs", RawClient::encode(true, opcode::PONG, b"").repeat(1_000), 4429, "flood"),
        ("commands", RawClient::encode(true, opcode::TEXT, br#"{"type":"ping"}"#).repeat(1_000), 4429, "flood"),
        ("empty fragments", fragments(100, b""), 1009, "too_many_fragments"),
        ("fragments without an end", fragments(64, &[b'x'; 10]), 1009, "too_many_fragments"),
        ("fragments of too large a message", fragments(63, &[b'x'; 1_100]), 1009, "too_large"),
        ("a frame too large", RawClient::encode(true, opcode::TEXT, &vec![b'x'; 70_000]), 1009, "too_large"),
        ("the header of a huge frame", frame_header(1 << 40), 1009, "too_large"),
        ("a length beyond 63 bits", frame_header(u64::MAX), 1009, "too_large"),
        ("an unmasked frame", vec![0x81, 0x02, b'{', b'}'], 1002, "protocol"),
        ("a ping too long", RawClient::encode(true, opcode::PING, &[b'x'; 126]), 1002, "protocol"),
        ("a fragmented ping", RawClient::encode(false, opcode::PING, b"x"), 1002, "protocol"),
        ("a continuation of nothing", RawClient::encode(true, opcode::CONTINUATION, b"x"), 1002, "protocol"),
        ("a reserved opcode", RawClient::encode(true, 0x3, b"x"), 1002, "protocol"),
        ("a close of one byte", RawClient::encode(true, opcode::CLOSE, b"x"), 1002, "protocol"),
        ("no UTF-8", RawClient::encode(true, opcode::TEXT, b"\xc3\x28"), 1007, "not_utf8"),
        ("bytes", RawClient::encode(true, opcode::BINARY, b"{}"), 1003, "binary"),
    ] {
        let before = count(&node, &closed(reason)).await;
        let mut client = raw(&node, "mallory").await;
        client.try_write(&bytes).await;
        assert_eq!(client.expect_close().await.0, code, "{what}");
        node.metric(&closed(reason), |count| count == before + 1.0).await;
        assert_served(&mut bystander).await;
    }
}

#[tokio::test]
async fn an_announced_frame_gets_no_memory_before_its_bytes_arrive() {
    let node = Node::dev().set("MAX_CONNECTIONS_PER_USER", 1_000).set("MAX_SOCKETS_PER_USER", 1_000).start().await;
    let mut held = Vec::new();
    for _ in 0..200 {
        held.push(raw(&node, "mallory").await);
    }
    let before = resident_bytes(node.pid());
    for client in &mut held {
        // Begin the largest allowed frame and never finish it.
        client.write(&frame_header(65_536)[..]).await;
        client.write(b"{").await;
    }
    let mut bystander = Client::native(&node, "bob").await;
    assert_served(&mut bystander).await;
    let more = resident_bytes(node.pid()).saturating_sub(before) / held.len() as u64;
    println!("a frame of 64 KiB with only its header sent costs {more} bytes");
    assert!(more < 2 * 65_536, "{more} bytes per socket");
}

#[tokio::test]
async fn unreadable_commands_are_refused_and_counted() {
    let node = Node::dev().start().await;
    let mut alice = Client::native(&node, "alice").await;
    let nested = |depth: usize| format!(r#"{{"type":"ping","x":{}1{}}}"#, "[".repeat(depth), "]".repeat(depth));
    let giant =
        |field: &str| format!(r#"{{"type":"join","conversation_id":"team","{field}":"{}"}}"#, "x".repeat(60_000));
    let deep_objects = format!(r#"{{"type":"ping","x":{}1{}}}"#, r#"{"x":"#.repeat(40), "}".repeat(40));
    let unreadable = r#"switchboard_commands_total{command="unreadable",result="invalid"}"#;
    let bad = [
        nested(40),
        nested(30_000),
        "[".repeat(60_000),
        deep_objects,
        giant("ref"),
        giant("conversation_id"),
        format!(r#"{{"type":"send","conversation_id":"team","content":"x","client_id":"{}"}}"#, "x".repeat(60_000)),
        format!(r#"{{"type":"presence","user_ids":[{}"x"]}}"#, r#""x","#.repeat(10_000)),
        format!(r#"{{"type":"join","conversation_id":{}}}"#, "9".repeat(60_000)),
    ];
    for frame in &bad {
        alice.send_message(Message::text(frame.clone())).await;
        let error = alice.until("error").await;
        assert_eq!(error["code"], "invalid", "{error}: {:.80}", frame);
        assert!(error.to_string().len() < 1_000, "the error does not repeat the long input");
    }
    assert_eq!(count(&node, unreadable).await, bad.len() as f64);
    assert_served(&mut alice).await;
}

/// Starts a node whose link to the database can be frozen.
async fn node_behind_a_proxy(ping_interval: &str) -> (RedisServer, Proxy, Node) {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let proxy = Proxy::to(database.split(['@', '/']).find(|part| part.contains("127.0.0.1:")).unwrap()).await;
    let node = Node::serve(&redis.url(), &proxy.url(&database))
        .set("JWT_LEEWAY", "0s")
        .set("PING_INTERVAL", ping_interval)
        .set("PONG_TIMEOUT", "1s")
        .start()
        .await;
    (redis, proxy, node)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_ends_during_a_join_does_not_detach_other_listeners() {
    let (_redis, proxy, node) = node_behind_a_proxy("25s").await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join("team").await;
    let mut bob = Client::native(&node, "bob").await;
    bob.join("team").await;
    // Open several sockets, so that at least one shares a delivery shard with Bob.
    let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 3;
    let mut leaving = Vec::new();
    for at in 0..5 {
        let token = token_with(&format!("carol-{at}"), json!({ "exp": end }));
        let mut carol = Client::connect(&format!("{}/v1/ws?token={token}", node.ws())).await;
        carol.until("authenticated").await;
        leaving.push(carol);
    }
    // A join waits half a second for the store; the tokens expire before.
    let nearly = (UNIX_EPOCH + Duration::from_secs(end) - Duration::from_millis(250)).duration_since(SystemTime::now());
    tokio::time::sleep(nearly.expect("the tokens have not expired")).await;
    proxy.set(Link::Frozen);
    for carol in &mut leaving {
        carol.send(&json!({"type": "join", "conversation_id": "team", "ref": 1})).await;
    }
    let expired = || async { (count(&node, &closed("token_expired")).await == 5.0).then_some(()) };
    eventually("their tokens to expire", expired).await;
    proxy.set(Link::Open);
    let healthy = || async {
        let health = node.request(reqwest::Method::GET, "/api/health", None, None).await;
        (health.json["status"] == "healthy").then_some(())
    };
    eventually("the store to be healthy", healthy).await;
    node.metric("switchboard_followed_logs", |logs| logs == 3.0).await;
    alice.send_text("team", "still there?").await;
    assert_eq!(bob.until("message").await["content"], "still there?");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pong_that_the_node_has_not_read_yet_does_not_close_the_socket() {
    let (_redis, proxy, node) = node_behind_a_proxy("1s").await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join("team").await;
    proxy.set(Link::Frozen);
    // Until this command is answered, the node reads nothing more from the socket. Meanwhile the next ping and its
    // timeout pass.
    alice.send(&json!({"type": "history", "conversation_id": "team", "ref": 1})).await;
    let thawed = async {
        tokio::time::sleep(Duration::from_millis(3_500)).await;
        proxy.set(Link::Open);
    };
    let read = async {
        let answer = alice.until_where(|frame| frame["ref"] == 1).await;
        println!("after a store that froze: {}", answer["type"]);
        // The answer may come before the store is back. The client goes on answering pings.
        alice.until_where(|_| false).await
    };
    tokio::select! {
        frame = read => panic!("{frame}"),
        () = thawed => {}
    }
    assert_served(&mut alice).await;
}
