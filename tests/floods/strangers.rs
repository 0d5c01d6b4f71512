//! Sockets without a token: they take no place of those with one, and a crowd of them displaces only itself.

use std::{net::Ipv4Addr, time::Duration};

use serde_json::json;
use tokio::net::{TcpSocket, TcpStream};

use crate::{
    assert_served, count,
    support::{Client, Node, RawClient, eventually, token, within},
};

const STRANGERS: &str = "switchboard_unauthenticated_sockets";

fn refused(reason: &str) -> String {
    format!(r#"switchboard_handshake_refusals_total{{reason="{reason}"}}"#)
}

/// Connects from an address of its own.
async fn from(address: u8, node: &Node) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::new(127, 0, 2, address), 0).into()).unwrap();
    within("a connection", socket.connect(node.address())).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_without_a_token_take_no_place_of_those_with_one() {
    let node = Node::dev().set("MAX_CONNECTIONS", 100).set("MAX_CONNECTIONS_PER_USER", 100).start().await;
    let mut held = Vec::new();
    for at in 0..300 {
        held.push(match at % 3 {
            // Each dialect with the token in the first frame, and a request that never ends.
            0 => RawClient::open(node.address(), "/v1/ws").await,
            1 => RawClient::open(node.address(), "/ws").await,
            _ => {
                let mut client = RawClient::tcp(node.address()).await;
                client.write(b"GET /v1/ws HTTP/1.1\r\nHost: chat").await;
                client
            }
        });
    }
    node.metric(STRANGERS, |strangers| strangers == 300.0).await;
    let mut clients = Vec::new();
    for _ in 0..50 {
        clients.push(Client::native(&node, "alice").await);
    }
    for _ in 0..50 {
        let mut client = Client::connect(&format!("{}/v1/ws", node.ws())).await;
        client.send(&json!({"type": "authenticate", "token": token("bob")})).await;
        client.expect("authenticated").await;
        clients.push(client);
    }
    assert_eq!(count(&node, "switchboard_sockets").await, 100.0);
    let url = format!("{}/v1/ws?token={}", node.ws(), token("carol"));
    assert_eq!(
        Client::try_connect(url.as_str()).await.err().map(|status| status.as_u16()),
        Some(503),
        "now it is full"
    );
    for client in &mut clients {
        assert_served(client).await;
    }
    // The life of a stranger is short.
    node.metric(STRANGERS, |strangers| strangers == 0.0).await;
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_without_tokens_from_one_address_displaces_only_itself() {
    const PLACES: usize = 50;
    let node = Node::dev()
        .set("MAX_UNAUTHENTICATED", PLACES)
        .set("AUTH_TIMEOUT", "60s")
        .set("UNAUTHENTICATED_TIMEOUT", "60s")
        .start()
        .await;
    let patient = from(1, &node).await;
    let mut crowd = Vec::new();
    for _ in 0..PLACES - 1 {
        crowd.push(from(2, &node).await);
    }
    node.metric(STRANGERS, |strangers| strangers == PLACES as f64).await;
    // If none has waited for long enough yet, a newcomer is refused, with a time to come back.
    let mut early = RawClient::tcp(node.address()).await;
    early.write(RawClient::upgrade(node.address(), "/v1/ws").as_bytes()).await;
    let head = early.read_head().await;
    if head.starts_with("HTTP/1.1 503 ") {
        assert!(head.to_lowercase().contains("retry-after: 1"), "{head}");
        node.metric(&refused("unauthenticated_full"), |refused| refused == 1.0).await;
    }
    // Later each newcomer gets a place, and the crowd goes on coming.
    for at in 0..30 {
        eventually("a place for a client with a token", || async {
            let url = format!("{}/v1/ws?token={}", node.ws(), token("alice"));
            Client::try_connect(url.as_str()).await.ok().map(drop)
        })
        .await;
        crowd.push(from(2, &node).await);
        assert!(count(&node, STRANGERS).await <= PLACES as f64, "{at}");
    }
    node.metric(&refused("silent"), |silent| silent >= 10.0).await;
    let mut byte = [0];
    let read = tokio::time::timeout(Duration::from_millis(100), patient.readable()).await;
    let cut = read.is_ok() && patient.try_read(&mut byte).is_ok_and(|read| read == 0);
    assert!(!cut, "the address with one socket kept its place");
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_admin_connections_keep_no_probe_out() {
    let node = Node::dev().start().await;
    let admin = node.admin().trim_start_matches("http://").parse().unwrap();
    let mut idle = Vec::new();
    for _ in 0..500 {
        let mut client = RawClient::tcp(admin).await;
        client.write(b"GET /livez HTTP/1.1\r\nHost: local").await;
        idle.push(client);
    }
    for path in ["/livez", "/readyz", "/metrics", "/api/health"] {
        let mut probe = RawClient::tcp(admin).await;
        probe.write(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes()).await;
        assert!(probe.read_head().await.starts_with("HTTP/1.1 200 "), "{path}");
    }
}
