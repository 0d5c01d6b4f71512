//! Runs the files in `examples/` unchanged: they chat with each other, and reconnect after a restart of the server.
//!
//! `tests/clients` has the stand-ins for a browser; `scripts/setup.sh` installs the packages.

use std::{
    io::Write,
    process::{ChildStdin, Command},
};

use crate::support::{Client, Node, Process, Signal, free_port, sign, token};
use reqwest::{Method, StatusCode};
use serde_json::json;
use tempfile::TempDir;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Packages that `scripts/setup.sh` installs.
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/clients/python/bin/python");
const NODE_PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/clients/node_modules");

/// A running example with its standard input.
struct Example {
    process: Process,
    input: ChildStdin,
}

impl Example {
    fn start(command: &mut Command) -> Self {
        command.current_dir(ROOT).env("NODE_PATH", NODE_PATH).env("PYTHONUNBUFFERED", "1");
        let (process, input) = Process::spawn_reader(format!("{command:?}"), command, Signal::Kill);
        Self { process, input }
    }

    fn terminal(program: &str, file: &str, node: &Node, user: &str) -> Self {
        let mut command = Command::new(program);
        command.args([file, "lobby"]).env("SWITCHBOARD_URL", node.ws()).env("TOKEN", token(user));
        Self::start(&mut command)
    }

    fn type_line(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    /// Waits for a printed line that contains all these parts in this order.
    async fn prints(&self, parts: &[&str]) {
        let pick = |line: &str| {
            let mut rest = Some(line);
            for part in parts {
                rest = rest.and_then(|rest| rest.split_once(part)).map(|(_, rest)| rest);
            }
            rest.map(drop)
        };
        self.process.line(&format!("{parts:?}"), pick).await.unwrap_or_else(|why| panic!("{why}"));
    }

    fn printed(&self, line: &str) -> usize {
        self.process.log().iter().filter(|printed| *printed == line).count()
    }
}

/// A node that can be killed and started again with its data and its port.
struct Restarting {
    port: u16,
    data: TempDir,
}

impl Restarting {
    fn new() -> Self {
        Self { port: free_port(), data: tempfile::tempdir().unwrap() }
    }

    async fn start(&self) -> Node {
        let node = Node::dev().set("LISTEN", format!("127.0.0.1:{}", self.port));
        node.set("DATA_DIR", self.data.path().display()).start().await
    }
}

#[tokio::test]
async fn the_terminal_clients_chat_and_resume_after_a_restart() {
    let server = Restarting::new();
    let node = server.start().await;
    let mut alice = Example::terminal("node", "examples/node/chat.js", &node, "alice");
    let mut bob = Example::terminal(PYTHON, "examples/python/chat.py", &node, "bob");
    for client in [&alice, &bob] {
        client.prints(&["* joined lobby"]).await;
    }
    alice.type_line("hello from JavaScript");
    bob.prints(&["Alice: hello from JavaScript"]).await;
    bob.type_line("hello from Python");
    alice.prints(&["Bob: hello from Python"]).await;

    node.kill().await;
    alice.type_line("typed while it was away");
    bob.type_line("so was this");
    let _node = server.start().await;
    bob.prints(&["Alice: typed while it was away"]).await;
    alice.prints(&["Bob: so was this"]).await;
    for (client, line) in [
        (&bob, "Alice: hello from JavaScript"),
        (&bob, "Alice: typed while it was away"),
        (&alice, "Bob: hello from Python"),
        (&alice, "Bob: so was this"),
    ] {
        assert_eq!(client.printed(line), 1, "{line}: {:?}", client.process.log());
    }
}

#[tokio::test]
async fn the_terminal_clients_exit_if_their_token_is_refused() {
    let node = Node::dev().start().await;
    for (program, file) in [("node", "examples/node/chat.js"), (PYTHON, "examples/python/chat.py")] {
        let mut command = Command::new(program);
        command.args([file, "lobby"]).env("SWITCHBOARD_URL", node.ws()).env("TOKEN", "no token");
        let client = Example::start(&mut command);
        client.prints(&["closed: 4401"]).await;
        assert_eq!(client.process.exit_code().await, 1, "{file}");
    }
}

#[tokio::test]
async fn the_page_shows_each_message_once_in_order() {
    let server = Restarting::new();
    let node = server.start().await;
    let mut command = Command::new("node");
    let mut page = Example::start(command.args(["tests/clients/page.cjs", "examples/browser/chat.html"]));
    let fill = json!({"server": node.ws(), "token": token("alice")});
    page.type_line(&json!({"fill": fill, "submit": "login"}).to_string());
    page.prints(&["In lobby as Alice"]).await;
    let mut bob = Client::rooms(&node, "lobby", "bob").await;
    page.type_line(&json!({"fill": {"content": "from a page"}, "submit": "say"}).to_string());
    assert_eq!(bob.until("new_message").await["data"]["content"], "from a page");
    bob.send(&json!({"type": "send_message", "data": {"content": "<b>from a room</b>"}})).await;
    page.prints(&["In lobby", " | Alice: from a page | Bob: <b>from a room</b>"]).await;

    node.kill().await;
    page.type_line(&json!({"fill": {"content": "typed while it was away"}, "submit": "say"}).to_string());
    let node = server.start().await;
    let mut bob = Client::connect(&format!("{}/ws/lobby?token={}&since_seq=0", node.ws(), token("bob"))).await;
    bob.until_where(|frame| frame["data"]["content"] == "typed while it was away").await;
    bob.send(&json!({"type": "send_message", "data": {"content": "the last"}})).await;
    page.prints(&["the last"]).await;
    let shown = page.process.log().pop().unwrap();
    let expected = ["Alice: from a page", "Bob: <b>from a room</b>", "Alice: typed while it was away", "Bob: the last"];
    assert_eq!(shown, format!("shows: In lobby as Alice | {}", expected.join(" | ")));
}

#[tokio::test]
async fn the_react_component_shows_messages_and_typing() {
    let node = Node::dev().set("PRESENCE_GRACE", "0s").start().await;
    let props = json!({"url": node.ws(), "token": token("alice"), "conversation": "lobby"}).to_string();
    let mut command = Command::new("node");
    command.args(["--require", "./tests/clients/browser.cjs", "tests/clients/component.cjs"]);
    let mut alice = Example::start(command.args(["examples/react/Chat.jsx", &props]));
    alice.prints(&["shows: In lobby"]).await;
    let mut bob = Client::rooms(&node, "lobby", "bob").await;
    bob.send(&json!({"type": "send_message", "data": {"content": "Hello, component"}})).await;
    alice.prints(&["Bob : Hello, component", "Send"]).await;
    bob.send(&json!({"type": "typing_start"})).await;
    alice.prints(&["Bob typing…"]).await;
    alice.type_line("Hello from React");
    bob.until("user_typing").await;
    bob.until_where(|frame| frame["data"]["content"] == "Hello from React").await;
    alice.prints(&["Bob : Hello, component", "Alice : Hello from React"]).await;
    drop(alice.input);
    bob.until_where(|frame| frame["type"] == "user_left" && frame["data"]["user_id"] == "alice").await;
    assert_eq!(alice.process.exit_code().await, 0, "{:?}", alice.process.log());
}

#[tokio::test]
async fn the_persona_answers_signed_requests_only() {
    let secret = "planted-webhook-secret";
    let mut command = Command::new("python3");
    command.arg("examples/persona/persona.py").env("PERSONA_WEBHOOK_SECRET", secret).env("PORT", "0");
    let persona = Example::start(&mut command);
    let address = |line: &str| line.strip_prefix("listening on ").map(str::to_owned);
    let url = persona.process.line("its address", address).await.unwrap_or_else(|why| panic!("{why}"));
    let node = Node::dev().set("PERSONA_WEBHOOK_URL", &url).set("PERSONA_WEBHOOK_SECRET", secret);
    let node = node.set("PERSONA_IDS", "echo,other").start().await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join("lobby").await;
    let message_to = |persona: &str| json!({"type": "send", "conversation_id": "lobby", "content": "hello", "persona_id": persona, "client_id": persona});
    alice.send(&message_to("echo")).await;
    let answer = alice.until("message").await;
    assert_eq!((&answer["sender_id"], &answer["content"]), (&json!("echo"), &json!("Alice said: hello")));
    assert_eq!(answer["is_ai"], true);
    alice.send(&message_to("other")).await;
    let error = alice.until("error").await;
    assert_eq!((&error["code"], &error["client_id"]), (&json!("persona_failed"), &json!("other")));

    let body = json!({"persona_id": "echo", "sender_name": "Mallory", "message": "hello"}).to_string();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let post = async |signature: Option<String>| {
        let request = reqwest::Client::new().request(Method::POST, &url).body(body.clone());
        let request = signature.iter().fold(request, |r, signature| r.header("x-switchboard-signature", signature));
        crate::support::within("an answer", request.send()).await.unwrap().status()
    };
    assert_eq!(post(Some(sign(secret, &now.to_string(), body.as_bytes()))).await, StatusCode::OK);
    let refused: [Option<String>; 5] = [
        None,
        Some("t=,v1=".into()),
        Some(format!("t={now},v1=é")),
        Some(sign("another secret", &now.to_string(), body.as_bytes())),
        Some(sign(secret, &(now - 3_600).to_string(), body.as_bytes())),
    ];
    for signature in refused {
        assert_eq!(post(signature.clone()).await, StatusCode::UNAUTHORIZED, "{signature:?}");
    }
}

#[tokio::test]
async fn the_webhook_receiver_answers_and_notifies_for_signed_requests_only() {
    let secret = "planted-webhook-secret";
    let mut command = Command::new("node");
    command.arg("examples/webhooks/receiver.js").env("WEBHOOK_SECRET", secret).env("PORT", "0");
    let receiver = Example::start(&mut command);
    let address = |line: &str| line.strip_prefix("listening on ").map(str::to_owned);
    let url = receiver.process.line("its address", address).await.unwrap_or_else(|why| panic!("{why}"));
    let node = Node::dev()
        .set("PERSONA_WEBHOOK_URL", format!("{url}/persona"))
        .set("PERSONA_WEBHOOK_SECRET", secret)
        .set("PERSONA_IDS", "helper")
        .set("NOTIFICATION_WEBHOOK_URL", format!("{url}/notification"))
        .set("NOTIFICATION_WEBHOOK_SECRET", secret)
        .start()
        .await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join("lobby").await;
    let question = json!({"type": "send", "conversation_id": "lobby", "content": "hello", "persona_id": "helper", "client_id": "q"});
    alice.send(&question).await;
    let answer = alice.until("message").await;
    assert_eq!((&answer["sender_id"], &answer["content"]), (&json!("helper"), &json!("Alice, you asked: hello")));
    // Dave has no socket.
    alice.send(&json!({"type": "send", "recipient_id": "dave", "content": "are you there?", "client_id": "d"})).await;
    receiver.prints(&["notify dave: Alice: are you there?"]).await;

    let body = json!({"notification_id": 7, "user_id": "eve", "message": {"sender_name": "Mallory", "content": "x"}})
        .to_string();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let post = async |path: &str, signature: Option<String>| {
        let request = reqwest::Client::new().post(format!("{url}{path}")).body(body.clone());
        let request = signature.iter().fold(request, |r, signature| r.header("x-switchboard-signature", signature));
        crate::support::within("an answer", request.send()).await.unwrap().status()
    };
    let signed = |at: u64, secret: &str| Some(sign(secret, &at.to_string(), body.as_bytes()));
    for signature in [None, Some("t=,v1=".into()), signed(now, "another secret"), signed(now - 3_600, secret)] {
        assert_eq!(post("/notification", signature.clone()).await, StatusCode::UNAUTHORIZED, "{signature:?}");
    }
    assert_eq!(post("/nothing", signed(now, secret)).await, StatusCode::NOT_FOUND);
    for _ in 0..2 {
        assert_eq!(post("/notification", signed(now, secret)).await, StatusCode::OK);
    }
    receiver.prints(&["notify eve: Mallory: x"]).await;
    assert_eq!(receiver.printed("notify eve: Mallory: x"), 1, "a repeated request notifies once");
}
