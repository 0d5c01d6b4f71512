//! Clients that read at once, over a link that is slow: they must get everything in the end.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::{
    count,
    support::{Client, Frame, Link, Node, NodeBuilder, Proxy, RawClient, eventually, opcode, token},
};

/// Bytes a second; a megabyte of messages takes several pings.
const LINK: u32 = 240_000;

/// A node that pings often, so that pings and messages compete for the link.
fn node() -> NodeBuilder {
    Node::dev().set("PING_INTERVAL", "2s").set("PONG_TIMEOUT", "2s").set("SLOW_READER_TIMEOUT", "5s")
}

async fn assert_no_closes(node: &Node) {
    for reason in ["too_slow", "silent"] {
        assert_eq!(count(node, &format!(r#"switchboard_closes_total{{reason="{reason}"}}"#)).await, 0.0, "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_native_client_on_a_slow_link_gets_everything_over_one_connection() {
    const MESSAGES: i64 = 1_200;
    let node = node().start().await;
    let text = "x".repeat(3_000);
    let mut alice = Client::native(&node, "alice").await;
    alice.join("team").await;
    for _ in 0..MESSAGES {
        alice.send_text("team", &text).await;
    }
    alice.close().await;
    let proxy = Proxy::to(node.address().to_string()).await;
    proxy.set(Link::Throttled(LINK));
    let mut bob = Client::connect(&format!("ws://{}/v1/ws?token={}", proxy.address(), token("bob"))).await;
    bob.send(&json!({"type": "join", "conversation_id": "team", "since_seq": 0, "ref": 1})).await;
    let mut got = 0;
    while got < MESSAGES {
        got += i64::from(bob.until("message").await["content"] == *text);
    }
    assert_no_closes(&node).await;
}

/// The frames that a client of the direct dialect read from one connection.
struct Read {
    /// Ids of the messages.
    ids: Vec<String>,
    /// The client answered a ping after it had got a message, and read on for a while.
    confirmed: bool,
}

/// Connects bob over the proxy and reads until a ping was answered and `more` messages followed it, or until `wanted`
/// messages have come and been confirmed.
async fn read(proxy: &Proxy, more: usize, is_all: impl Fn(&[String]) -> bool) -> Read {
    let mut socket = RawClient::open(proxy.address(), &format!("/ws?token={}", token("bob"))).await;
    let mut read = Read { ids: Vec::new(), confirmed: false };
    let mut left = more;
    while let Some(Frame { opcode, payload, .. }) = socket.read_frame().await {
        match opcode {
            opcode::PING => {
                socket.frame(opcode::PONG, &payload).await;
                read.confirmed |= !read.ids.is_empty();
                if is_all(&read.ids) {
                    break;
                }
            }
            opcode::TEXT => {
                let frame: Value = serde_json::from_slice(&payload).unwrap();
                if frame["type"] == "new_message" {
                    read.ids.push(frame["data"]["id"].as_str().unwrap().to_owned());
                    left -= usize::from(read.confirmed);
                }
                if left == 0 {
                    break;
                }
            }
            _ => panic!("closed: {:?}", String::from_utf8_lossy(&payload)),
        }
    }
    read
}

#[tokio::test(flavor = "multi_thread")]
async fn a_direct_client_on_a_slow_link_makes_progress_with_each_connection() {
    const SENDERS: usize = 12;
    const EACH: usize = 100;
    let node = node().start().await;
    let text = "x".repeat(3_000);
    for at in 0..SENDERS {
        let url = format!("{}/ws?token={}", node.ws(), token(&format!("sender-{at}")));
        let mut sender = Client::connect(&url).await;
        sender.until("authenticated").await;
        for _ in 0..EACH {
            sender.send(&json!({"type": "send_message", "recipient_id": "bob", "content": text})).await;
        }
        for _ in 0..EACH {
            sender.until("message_sent").await;
        }
        sender.close().await;
    }
    let proxy = Proxy::to(node.address().to_string()).await;
    proxy.set(Link::Throttled(LINK));
    let (mut all, mut first, mut rounds, mut repeated) = (HashSet::new(), HashSet::new(), 0, 0);
    while all.len() < SENDERS * EACH {
        rounds += 1;
        let before = all.len();
        let read = read(&proxy, 30, |ids| before + ids.len() >= SENDERS * EACH).await;
        assert!(read.confirmed, "a ping comes before the messages that wait");
        // A busy node may learn that the connection ended before it reads its last pong.
        repeated = if first.insert(read.ids[0].clone()) { 0 } else { repeated + 1 };
        assert!(repeated <= 1, "round {rounds} and the one before it begin where an earlier one began");
        all.extend(read.ids);
        assert!(rounds <= 20, "{} of {} after {rounds} connections", all.len(), SENDERS * EACH);
    }
    println!("{rounds} connections");
    assert!(rounds > 1, "the link is too fast for this test");
    // The node records the confirmed messages soon after the pong.
    eventually("a connection that repeats nothing", async || {
        let mut bob = Client::connect(&format!("{}/ws?token={}", node.ws(), token("bob"))).await;
        bob.until("authenticated").await;
        let mut sender = Client::connect(&format!("{}/ws?token={}", node.ws(), token("sender-0"))).await;
        sender.send(&json!({"type": "send_message", "recipient_id": "bob", "content": "the last"})).await;
        let next = bob.until("new_message").await;
        bob.close().await;
        (next["data"]["content"] == "the last").then_some(())
    })
    .await;
    assert_no_closes(&node).await;
}
