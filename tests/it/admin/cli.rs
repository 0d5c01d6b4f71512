//! `switchboard admin` on a console.

use std::process::Stdio;

use tokio::process::Command;

use super::*;
use crate::support::{Process, Signal};

/// Runs `switchboard admin` against a node's console; returns exit code, standard output and standard error.
async fn run(node: &Node, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    command.arg("admin").args(arguments).env_clear().env("ADMIN_TOKEN", ADMIN_TOKEN).env("NO_COLOR", "1");
    command.args(["--console", &node.admin()]).stdin(Stdio::null()).current_dir(std::env::temp_dir());
    let output = within("the command", command.output()).await.unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    (output.status.code().unwrap(), out, err)
}

async fn done(node: &Node, arguments: &[&str]) -> String {
    let (code, out, err) = run(node, arguments).await;
    assert_eq!((code, &*err), (0, ""), "{arguments:?}");
    out
}

#[tokio::test]
async fn it_shows_and_does_what_the_console_does() {
    let stage = Stage::new().await;
    let node = &stage.one;
    let mut bob = Client::native(&stage.two, "bob").await;
    let room = node.conversation(&token("alice"), &["bob"]).await;
    let path = format!("/api/chat/conversations/{room}/messages");
    node.post(&path, &token("alice"), &json!({"content": "hello"})).await;
    let text = done(node, &["overview"]).await;
    assert!(text.contains("one is healthy") && text.contains("deliveries/s") && text.contains("NODE"), "{text}");
    let text = done(node, &["connections", "bob"]).await;
    assert!(text.contains("two") && text.contains("native"), "{text}");
    assert!(done(node, &["user", "bob"]).await.contains("bob: online"));
    assert_eq!(done(node, &["users"]).await, "bob\n1 online\n");
    let text = done(node, &["conversation", &room]).await;
    assert!(text.contains("MEMBER") && text.contains("alice: hello"), "{text}");
    assert!(done(node, &["conversations", "bob"]).await.contains(&room));
    assert!(done(node, &["search", &room, "hel"]).await.contains("alice: hello"));
    assert_eq!(done(node, &["delete", &room, "1"]).await, format!("{room}: message 1 is deleted\n"));
    assert!(done(node, &["conversation", &room]).await.contains("(deleted)"));
    let json: Value = serde_json::from_str(&done(node, &["--json", "connections", "bob"]).await).unwrap();
    assert_eq!(json["connections"][0]["node"], "two");
    let text = done(node, &["disconnect", "bob", "--by", "eve"]).await;
    assert!(text.contains("bob: the sockets end") && text.contains("by console:eve"), "{text}");
    assert_eq!(bob.expect_close().await.0, 4410);
    assert!(done(node, &["block", "bob"]).await.contains("bob: blocked"));
    assert!(done(node, &["blocked"]).await.starts_with("bob blocked at"));
    assert!(done(node, &["blocked", "bob"]).await.starts_with("bob blocked at"));
    assert_eq!(done(node, &["unblock", "bob"]).await, "bob is not blocked\n");
    let revoked: Value = serde_json::from_str(&done(node, &["revoke", "bob", "--jti", "t-1", "--json"]).await).unwrap();
    assert_eq!(revoked["jti"], "t-1");
    let text = done(node, &["token", "nonsense"]).await;
    assert!(text.contains("FAIL  token: it is not a JWT"), "{text}");
    assert!(done(node, &["settings"]).await.contains("ADMIN_TOKEN=(secret)  [environment]"));
    assert!(
        done(node, &["retention", &room])
            .await
            .contains("are kept as RETENTION_DAYS says (for ever); the first one is 1")
    );
    assert!(done(node, &["retention", &room, "--days", "30"]).await.contains("are kept for 30 days"));
    assert!(done(node, &["retention", &room, "--days", "0"]).await.contains("are kept for ever"));
    assert!(done(node, &["retention", &room, "--default"]).await.contains("as RETENTION_DAYS says"));
    assert!(done(node, &["webhooks"]).await.starts_with("NUMBER"));
    let text = done(&stage.two, &["tail"]).await;
    assert!(text.contains("connect") && text.contains("user=bob") && text.contains("COUNT"), "{text}");
    let (code, _, err) = run(node, &["conversation", "none"]).await;
    assert!(code == 1 && err.contains("Conversation not found"), "{err}");
}

#[tokio::test]
async fn it_follows_the_tail_and_names_the_remedy_of_a_wrong_token() {
    let node = Node::dev().with_console().start().await;
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_switchboard"));
    command.args(["admin", "tail", "--follow", "--console", &node.admin()]).env_clear().env("ADMIN_TOKEN", ADMIN_TOKEN);
    let following = Process::spawn("a follower", &mut command, Signal::Kill);
    let _alice = Client::native(&node, "alice").await;
    following.line("the connect", |line| line.contains("user=alice").then_some(())).await.unwrap();

    let fails = async |console: &str, token: &[(&str, &str)], words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
        command.args(["admin", "overview", "--console", console]).env_clear().envs(token.iter().copied());
        let output = within("the command", command.current_dir(std::env::temp_dir()).output()).await.unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{err}");
        for word in words {
            assert!(err.contains(word), "{word} in: {err}");
        }
    };
    let wrong = [("ADMIN_TOKEN", "0123456789abcdef0123456789abcdef")];
    fails(&node.admin(), &wrong, &["401", "Give the token of these nodes: ADMIN_TOKEN"]).await;
    fails(&node.admin(), &[], &["the console needs its token"]).await;
    fails(&node.http(), &wrong, &["404"]).await;
    fails("127.0.0.1:1", &wrong, &["must be http://HOST:PORT"]).await;
    fails("http://127.0.0.1:1", &wrong, &["no answer", "--console http://HOST:8001"]).await;
}
