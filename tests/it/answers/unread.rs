//! Answers over REST that their client does not read have a bound.

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use super::{CONVERSATIONS, fill, unlimited};
use crate::support::{Client, Node, token};

const WAITING: &str = "switchboard_unread_answer_bytes";

/// Asks for a long page over a socket of its own, whose client reads nothing so far.
async fn ask(node: &Node, user: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut socket = socket.connect(node.address()).await.unwrap();
    let request = format!(
        "GET {CONVERSATIONS}/team/messages?limit=100 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
        token(user)
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    socket
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_answers_of_a_user_have_a_bound_and_cost_others_nothing() {
    let node = unlimited(Node::dev())
        .set("UNREAD_ANSWER_BYTES_PER_USER", "1MiB")
        .set("SLOW_READER_TIMEOUT", "60s")
        .set("MAX_PAGE_BYTES", "16MiB")
        .set("MAX_DATA_BYTES", "32KiB")
        .start()
        .await;
    // A page of 4 MB, of which the kernel takes up to 2.5.
    let data = json!({ "text": "x".repeat(32_000) });
    let mut alice = fill(&node, 0).await;
    for at in 0..100 {
        let id = format!("long-{at}");
        alice.send(&json!({"type": "send", "conversation_id": "team", "client_id": id, "content": "好".repeat(3_000), "data": data})).await;
        alice.until("ack").await;
    }
    for user in ["bob", "carol"] {
        Client::native(&node, user).await.join("team").await;
    }
    let mut first = ask(&node, "bob").await;
    node.metric(WAITING, |bytes| bytes > 1_000_000.0).await;

    let path = format!("{CONVERSATIONS}/team/messages?limit=100");
    let (bob, carol) = (token("bob"), token("carol"));
    let refused = node.get(&path, &bob).await;
    assert_eq!(
        (refused.status.as_u16(), refused.json["code"].as_str()),
        (429, Some("rate_limited")),
        "{:?}",
        refused.json
    );
    assert_eq!(refused.json["retry_after_ms"], 1_000);
    assert_eq!(node.get(&format!("{CONVERSATIONS}/team"), &bob).await.status.as_u16(), 200, "a short answer passes");
    assert_eq!(node.get(&path, &carol).await.status.as_u16(), 200, "another user is not concerned");

    let mut all = Vec::new();
    first.read_to_end(&mut all).await.unwrap();
    assert!(all.len() > 1_000_000 && all.starts_with(b"HTTP/1.1 200"));
    node.metric(WAITING, |bytes| bytes == 0.0).await;
    assert_eq!(node.get(&path, &bob).await.status.as_u16(), 200);

    // A socket that is closed takes its answer with it.
    let second = ask(&node, "bob").await;
    node.metric(WAITING, |bytes| bytes > 1_000_000.0).await;
    drop(second);
    node.metric(WAITING, |bytes| bytes == 0.0).await;
    let refusals = node.metrics().await.get("switchboard_unread_answer_refusals_total");
    assert_eq!(refusals, Some(1.0));
}
