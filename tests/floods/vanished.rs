//! Clients that vanish without closing their connection.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Client, Link, Node, Proxy, token};

const SILENT: &str = r#"switchboard_closes_total{reason="silent"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes_is_found_by_pings_and_goes_offline() {
    const PING_AND_PATIENCE: Duration = Duration::from_secs(4);
    let node =
        Node::dev().set("PING_INTERVAL", "2s").set("PONG_TIMEOUT", "2s").set("PRESENCE_GRACE", "0s").start().await;
    let mut bob = Client::native(&node, "bob").await;
    bob.join("team").await;
    let proxy = Proxy::to(node.address().to_string()).await;
    let mut alice = Client::connect(&format!("ws://{}/v1/ws?token={}", proxy.address(), token("alice"))).await;
    alice.join("team").await;
    let online =
        |online: bool| move |frame: &serde_json::Value| frame["type"] == "presence" && frame["online"] == online;
    bob.until_where(online(true)).await;
    // Alice's client answers pings while they reach it.
    let reading = tokio::spawn(async move { alice.recv_or_close().await });
    let left = tokio::time::timeout(PING_AND_PATIENCE * 3 / 2, bob.until_where(online(false))).await;
    assert!(left.is_err(), "{left:?}");
    proxy.set(Link::Frozen);
    let vanished = Instant::now();
    // Bob's client must read meanwhile, because otherwise it would be closed as silent too.
    let found = async {
        node.metric(SILENT, |count| count == 1.0).await;
        vanished.elapsed()
    };
    let (found, gone) = tokio::join!(found, bob.until_where(online(false)));
    println!("the vanished client was found after {found:?}, and others got `offline` after {:?}", vanished.elapsed());
    assert_eq!(gone["user_id"], json!("alice"));
    drop(reading);
    crate::assert_served(&mut bob).await;
}
