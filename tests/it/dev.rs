//! `switchboard dev` starts without Redis, PostgreSQL or configuration, and keeps its messages over a restart.

use std::{os::unix::fs::PermissionsExt, path::Path};

use serde_json::json;

use crate::support::{Client, Node, RawClient};

/// What `dev` prints: its tokens, in the order alice, bob, carol.
async fn printed_tokens(node: &Node) -> Vec<String> {
    let last = node.logged("Python").await;
    assert!(last.contains("Python"));
    node.log()
        .iter()
        .map(|line| line.trim().to_owned())
        .filter(|line| line.starts_with("eyJ") && !line.contains(' '))
        .collect()
}

#[tokio::test]
async fn messages_survive_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let start = || Node::dev().set("DATA_DIR", data.path().display()).unset("JWT_SECRET").start();
    let node = start().await;
    let tokens = printed_tokens(&node).await;
    assert_eq!(tokens.len(), 3, "{tokens:?}");
    let mut alice = Client::connect(&format!("{}/ws/lobby?token={}", node.ws(), tokens[0])).await;
    alice.expect("connected").await;
    alice.send(&json!({"type": "send_message", "data": {"content": "remember me"}})).await;
    alice.until("message_sent").await;
    node.kill().await;

    let node = start().await;
    let mut bob = Client::connect(&format!("{}/ws/lobby?token={}&since_seq=0", node.ws(), tokens[1])).await;
    assert_eq!(bob.until("new_message").await["data"]["content"], "remember me", "and the tokens are still valid");
    let path = "/api/chat/conversations/lobby/messages";
    assert_eq!(node.get(path, &tokens[1]).await.json["total"], 1);
}

#[tokio::test]
async fn a_page_of_another_site_speaks_as_nobody() {
    let node = Node::dev().start().await;
    for (origin, status) in [
        (None, 101),
        (Some("http://localhost:5173"), 101),
        (Some("file://"), 101),
        (Some("https://evil.example"), 403),
        (Some("null"), 403),
        (Some("http://localhost.evil.example"), 403),
    ] {
        for path in ["/ws/alice", "/v1/ws", "/ws", "/ws/auth", "/api/chat/ws/lobby"] {
            let header = origin.map_or_else(String::new, |origin| format!("Origin: {origin}\r\n"));
            let request =
                RawClient::upgrade(node.address(), path).replace("Connection:", &format!("{header}Connection:"));
            let mut client = RawClient::tcp(node.address()).await;
            client.write(request.as_bytes()).await;
            let head = client.read_head().await;
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{origin:?} {path}: {head}");
        }
    }
    let rebound = RawClient::upgrade(node.address(), "/ws/alice").replace(&node.address().to_string(), "evil.example");
    let mut client = RawClient::tcp(node.address()).await;
    client.write(rebound.as_bytes()).await;
    assert!(client.read_head().await.starts_with("HTTP/1.1 403 "));
    assert!(node.metrics().await.get("switchboard_handshake_refusals_total{reason=\"host\"}").is_some());
}

#[tokio::test]
async fn the_data_folder_is_private() {
    let outer = tempfile::tempdir().unwrap();
    let data = outer.path().join("data");
    let node = Node::dev().set("DATA_DIR", data.display()).unset("JWT_SECRET").start().await;
    printed_tokens(&node).await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    let files: Vec<_> = std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}
