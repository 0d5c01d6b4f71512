//! Slow readers, floods, bad clients and crowds: each is bounded, counted and refused clearly, and no other client is
//! affected.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test may panic, and print its figures"
)]
#![allow(unreachable_pub, reason = "parts of one test crate")]

#[path = "../support/mod.rs"]
mod support;

mod bad_clients;
mod budgets;
mod crowds;
mod handshakes;
mod heavy_reads;
mod slow_links;
mod slow_readers;
mod strangers;
mod vanished;

use serde_json::json;
use support::{Client, Node, RawClient, opcode, token};

/// Value of a counter; 0 if the node hasn't counted yet.
async fn count(node: &Node, series: &str) -> f64 {
    node.metrics().await.get(series).unwrap_or(0.0)
}

/// Opens a socket of `user` and reads its greeting.
async fn raw(node: &Node, user: &str) -> RawClient {
    let mut client = RawClient::open(node.address(), &format!("/v1/ws?token={}", token(user))).await;
    client.read_frame().await.expect("the node greets the socket");
    client
}

/// The same, and joins `conversation`.
async fn raw_listener(node: &Node, user: &str, conversation: &str) -> RawClient {
    let client = raw(node, user).await;
    joined(client, conversation).await
}

/// The same, with little room for bytes in the kernel.
async fn narrow_listener(node: &Node, user: &str, conversation: &str) -> RawClient {
    let mut client = RawClient::open_narrow(node.address(), &format!("/v1/ws?token={}", token(user))).await;
    client.read_frame().await.expect("the node greets the socket");
    joined(client, conversation).await
}

async fn joined(mut client: RawClient, conversation: &str) -> RawClient {
    let join = json!({"type": "join", "conversation_id": conversation, "ref": 1}).to_string();
    client.frame(opcode::TEXT, join.as_bytes()).await;
    client.read_frame().await.expect("it joins");
    client
}

/// Checks that the node serves a client.
async fn assert_served(client: &mut Client) {
    client.send(&json!({"type": "ping", "ref": "served"})).await;
    client.until_where(|frame| frame["ref"] == "served").await;
}
