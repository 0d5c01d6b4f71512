//! Clients that never finish a handshake, or send a wrong one.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::{
    assert_served, count,
    support::{Client, Node, RawClient, token},
};

/// Time that the node waits for a first request, and extra time for a busy machine.
const FIRST_REQUEST: Duration = Duration::from_secs(10);
const SLACK: Duration = Duration::from_secs(5);

fn refused(reason: &str) -> String {
    format!(r#"switchboard_handshake_refusals_total{{reason="{reason}"}}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_handshakes_are_closed_and_others_are_admitted_meanwhile() {
    const EACH: usize = 60;
    let node = Node::dev().start().await;
    let (address, began) = (node.address(), Instant::now());
    let mut held = JoinSet::new();
    for _ in 0..EACH {
        // One byte at a time, which would take a minute.
        held.spawn(async move {
            let mut client = RawClient::tcp(address).await;
            for byte in RawClient::upgrade(address, "/v1/ws").into_bytes() {
                tokio::time::sleep(Duration::from_millis(300)).await;
                if !client.try_write(&[byte]).await {
                    break;
                }
            }
            client.read_head().await
        });
        // Half a header, then nothing.
        held.spawn(async move {
            let mut client = RawClient::tcp(address).await;
            client.write(b"GET /v1/ws HTTP/1.1\r\nHost: chat.example.com\r\nConnec").await;
            client.read_head().await
        });
    }
    let mut bystander = Client::native(&node, "bob").await;
    while let Some(head) = held.join_next().await {
        assert_eq!(head.unwrap(), "", "no answer");
        assert_served(&mut bystander).await;
    }
    let after = began.elapsed();
    println!("{} slow handshakes were closed after {after:?}", 2 * EACH);
    assert!(after > FIRST_REQUEST && after < FIRST_REQUEST + SLACK, "{after:?}");
    assert_eq!(count(&node, &refused("slow_handshake")).await, 2.0 * EACH as f64);
}

#[tokio::test]
async fn a_request_without_a_valid_handshake_is_refused_and_counted() {
    let node = Node::dev().start().await;
    let mut bystander = Client::native(&node, "bob").await;
    let upgrade = RawClient::upgrade(node.address(), &format!("/v1/ws?token={}", token("alice")));
    let large = upgrade.replacen("\r\n", &format!("\r\nX-Padding: {}\r\n", "x".repeat(20_000)), 1);
    let many = upgrade.replacen("\r\n", &format!("\r\n{}", "X-Header: x\r\n".repeat(100)), 1);
    for (request, status, reason) in [
        (large.as_bytes(), "431", "head_too_large"),
        (many.as_bytes(), "431", "head_too_large"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "400", "bad_handshake"),
        (b"hello?\r\n\r\n", "400", "bad_handshake"),
        (upgrade.replace("Version: 13", "Version: 8").as_bytes(), "426", "bad_handshake"),
        (upgrade.replace("Key: dGhl", "Key: ").as_bytes(), "400", "bad_handshake"),
    ] {
        let before = count(&node, &refused(reason)).await;
        let mut client = RawClient::tcp(node.address()).await;
        client.try_write(request).await;
        let head = client.read_head().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{reason}: {head}");
        drop(client);
        node.metric(&refused(reason), |count| count == before + 1.0).await;
        assert_served(&mut bystander).await;
    }
}
