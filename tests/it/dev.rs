//! `switchboard dev` starts without Redis, PostgreSQL or configuration, and keeps its messages over a restart.

use std::process::Stdio;

use serde_json::json;
use tokio::process::Command;

use crate::support::{Client, Node};

/// Python with the packages that clients need; `scripts/setup.sh` installs it.
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/clients/python/bin/python");

/// Tokens that `dev` prints, in the order alice, bob, carol.
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
async fn javascript_and_python_chat_with_each_other() {
    let node = Node::dev().unset("JWT_SECRET").start().await;
    let tokens = printed_tokens(&node).await;
    let client = |program: &str, script: &str, at: usize, user: &str, words: &str, hear: &str| {
        let script = format!("{}/tests/clients/{script}", env!("CARGO_MANIFEST_DIR"));
        let url = format!("{}/ws/lobby?token={}&since_seq=0", node.ws(), tokens[at]);
        let mut command = Command::new(program);
        command.env("NODE_PATH", concat!(env!("CARGO_MANIFEST_DIR"), "/target/clients/node_modules"));
        command.args([&script, &url, user, words, hear]).stdin(Stdio::null()).kill_on_drop(true).output()
    };
    let (one, other) = tokio::join!(
        client("node", "chat.js", 0, "alice", "hello from JavaScript", "hello from Python"),
        client(PYTHON, "chat.py", 1, "bob", "hello from Python", "hello from JavaScript"),
    );
    for (output, heard) in [(one, "hello from Python"), (other, "hello from JavaScript")] {
        let output = output.unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), format!("[\"{heard}\"]"));
    }
}
