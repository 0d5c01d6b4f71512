//! `switchboard dev` starts without Redis, PostgreSQL or configuration, and keeps its messages over a restart.

use serde_json::json;

use crate::support::{Client, Node};

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
