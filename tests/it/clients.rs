//! Runs clients that were written for the dialects of other systems, unchanged: they must keep working with
//! Switchboard.
//!
//! `tests/clients/<dialect>_*` are verbatim copies from the documents that first described each dialect. A test
//! replaces the host, the ids and the tokens, which a reader would fill in. It adds lines before or after the copy that
//! act as the person at the keyboard. `browser.cjs` and `standins` replace a browser and other frameworks;
//! `scripts/setup.sh` installs the packages. Clients for newcomers to copy are in `examples/`; `tests/it/examples.rs`
//! runs them.

use std::{io::Write, path::PathBuf, process::Command};

use crate::support::{Client, Node, Postgres, Process, RedisServer, Signal, token, token_with};
use serde_json::{Value, json};
use tempfile::TempDir;

const CLIENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients");
/// Packages that `scripts/setup.sh` installs.
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/clients/python/bin/python");
const NODE_PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/clients/node_modules");

/// A client's source, prepared to run.
struct Copy {
    name: &'static str,
    text: String,
    folder: TempDir,
}

impl Copy {
    /// Reads the source, and replaces the host and the placeholders that a reader would fill in.
    fn of(name: &'static str, node: &Node, filled_in: &[(&str, &str)]) -> Self {
        let path = format!("{CLIENTS}/{name}");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let address = node.address().to_string();
        let filled_in = [("localhost:8000", address.as_str())].iter().chain(filled_in).copied().collect::<Vec<_>>();
        let text = filled_in.into_iter().fold(text, |text, (shown, real)| text.replace(shown, real));
        Self { name, text, folder: tempfile::tempdir().unwrap() }
    }

    /// Adds the test's lines before the source.
    fn after(mut self, lines: &str) -> Self {
        self.text = format!("{lines}\n{}", self.text);
        self
    }

    /// Adds the test's lines after the source.
    fn then(mut self, lines: &str) -> Self {
        self.text = format!("{}\n{lines}\n", self.text);
        self
    }

    fn write(&self, extension: &str) -> PathBuf {
        let path = self.folder.path().join(format!("client.{extension}"));
        std::fs::write(&path, &self.text).unwrap();
        path
    }

    /// Runs it as a page's script; `token` is the page's stored token of an earlier login.
    fn in_browser(self, node: &Node, token: &str) -> Running {
        let mut command = Command::new("node");
        command.args(["--require", &format!("{CLIENTS}/browser.cjs")]).arg(self.write("mjs"));
        command.env("NODE_PATH", NODE_PATH).env("BASE_URL", node.http()).env("ACCESS_TOKEN", token);
        Running { process: Process::spawn(self.name, &mut command, Signal::Kill), _folder: self.folder }
    }

    fn in_python(self) -> Running {
        self.in_python_with_input().0
    }

    /// Runs it in Python, with its standard input.
    fn in_python_with_input(self) -> (Running, std::process::ChildStdin) {
        let mut command = Command::new(PYTHON);
        let (process, stdin) = Process::spawn_reader(self.name, command.arg("-u").arg(self.write("py")), Signal::Kill);
        (Running { process, _folder: self.folder }, stdin)
    }
}

/// A running client; dropping it ends the process.
struct Running {
    process: Process,
    _folder: TempDir,
}

impl Running {
    /// Waits for a printed line that contains all these parts.
    async fn prints(&self, parts: &[&str]) {
        let pick = |line: &str| parts.iter().all(|part| line.contains(part)).then_some(());
        self.process.line(&format!("{parts:?}"), pick).await.unwrap_or_else(|why| panic!("{why}"));
    }

    /// Number of printed lines that contain this part.
    fn printed(&self, part: &str) -> usize {
        self.process.log().iter().filter(|line| line.contains(part)).count()
    }
}

/// Two nodes in production mode, with Redis and PostgreSQL.
async fn deployed() -> (RedisServer, Node, Node) {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let node = || Node::serve(&redis.url(), &database).set("OPEN_CONVERSATIONS", false).set("PRESENCE_GRACE", "0s");
    let (one, two) = (node().start().await, node().start().await);
    (redis, one, two)
}

/// Contents of a conversation's messages, oldest first.
async fn contents(node: &Node, token: &str, conversation: &str) -> Vec<String> {
    let answer = node.get(&format!("/api/chat/conversations/{conversation}/messages"), token).await;
    let messages = answer.json["messages"].as_array().unwrap_or_else(|| panic!("{}", answer.text)).iter().rev();
    messages.map(|message| message["content"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn the_direct_frontend_gets_a_token_and_chats() {
    let (redis, one, two) = deployed().await;
    let bob = Copy::of("direct_frontend.js", &two, &[("session-token", &token("bob"))])
        .then("displayMessage = (message) => { console.log(message.content); sendMessage(message.sender_id, 'Hello back'); };")
        .in_browser(&two, "");
    bob.prints(&["Connected as user: bob"]).await;
    let alice = Copy::of("direct_frontend.js", &one, &[("session-token", &token("alice"))])
        .then(
            "ws.addEventListener('message', ({ data }) => {
               if (JSON.parse(data).type === 'authenticated') sendMessage('bob', 'Hello from a browser');
             });",
        )
        .in_browser(&one, "");
    alice.prints(&["Connected as user: alice"]).await;
    bob.prints(&["Hello from a browser"]).await;
    alice.prints(&["displayMessage", r#""sender_id":"bob""#, r#""recipient_id":"alice""#, "Hello back"]).await;
    assert_eq!(alice.printed("Hello from a browser"), 0, "the socket that sent it gets no copy");

    let conversations = one.get("/api/chat/conversations", &token("alice")).await.json;
    let direct = conversations["conversations"][0]["id"].as_str().unwrap();
    assert_eq!(contents(&two, &token("bob"), direct).await, ["Hello from a browser", "Hello back"]);
    let mut online: Vec<String> = redis.command(&["SMEMBERS", "ws:online_users"]).await;
    online.sort();
    assert_eq!(online, ["alice", "bob"]);
}

#[tokio::test]
async fn the_rooms_load_test_sends_its_messages() {
    let (_redis, one, _two) = deployed().await;
    let room = one.conversation(&token("alice"), &["bob"]).await;
    let mut bob = Client::rooms(&one, &room, "bob").await;
    let run = format!("import json\nasyncio.run(simulate_user('{room}', '{}', 5))", token("alice"));
    let user = Copy::of("rooms_load_test.py", &one, &[]).then(&run).in_python();
    assert_eq!(user.process.exit_code().await, 0, "{:?}", user.process.log());
    for at in 0..5 {
        assert_eq!(bob.until("new_message").await["data"]["content"], format!("Load test message {at}"));
    }
}

#[tokio::test]
async fn the_conversation_clients_chat_with_each_other() {
    let (_redis, one, two) = deployed().await;
    let named = |user: &str, name: &str| token_with(user, json!({"username": name}));
    let (john, jane) = (named("user-123", "john_doe"), named("user-456", "jane_roe"));
    let conv = one.conversation(&john, &["user-456"]).await;

    let python =
        Copy::of("conversation_client.py", &two, &[("conv-123", &conv), ("your-jwt-token", &jane)]).in_python();
    python.prints(&["[System] User jane_roe joined the conversation"]).await;
    let filled_in = [("conv-123", &*conv), ("your-jwt-token", &*john)];
    // The document's example sends before the socket is open, and its client drops that message.
    let browser = Copy::of("conversation_client.js", &one, &filled_in)
        .then(
            "client.ws.addEventListener('open', () => {
               client.sendMessage('Hello, everyone!');
               client.sendTyping();
             });",
        )
        .in_browser(&one, &john);
    browser.prints(&["Connected to conversation"]).await;
    browser.prints(&["[System] User john_doe joined the conversation"]).await;
    browser.prints(&["john_doe: Hello, everyone!"]).await;
    python.prints(&["[System] User john_doe joined the conversation"]).await;
    python.prints(&["john_doe: Hello, everyone!"]).await;

    // The Python client again, with its methods instead of its example.
    let again = Copy::of("conversation_client.py", &two, &[])
        .after("import asyncio\nrun, asyncio.run = asyncio.run, lambda example: example.close()")
        .then(&format!(
            "async def talk():\n    client = ChatClient('{conv}', '{jane}')\n    \
             connected = asyncio.create_task(client.connect())\n    while client.ws is None:\n        \
             await asyncio.sleep(0.01)\n    await client.send_message('Hello from Python')\n    await connected\n\
             run(talk())"
        ))
        .in_python();
    for client in [&browser, &python, &again] {
        client.prints(&["jane_roe: Hello from Python"]).await;
    }
    assert_eq!(contents(&one, &john, &conv).await, ["Hello, everyone!", "Hello from Python"]);
    for client in [&browser, &python] {
        assert_eq!(client.printed("Hello, everyone!") + client.printed("Hello from Python"), 2, "each once");
    }
}

#[tokio::test]
async fn the_conversation_browser_shows_typing_and_departures() {
    let (_redis, one, two) = deployed().await;
    let conv = one.conversation(&token("alice"), &["bob"]).await;
    let filled_in = [("conv-123", &*conv), ("your-jwt-token", &token("alice"))];
    let alice = Copy::of("conversation_client.js", &one, &filled_in).in_browser(&one, "");
    alice.prints(&["[System] User Alice joined the conversation"]).await;
    // The shorter example, with the stored token of an earlier login.
    let bob = Copy::of("conversation_connection.js", &two, &[("conv-123", &conv)])
        .then("ws.onmessage = ({ data }) => { console.log(data); ws.send('{\"type\": \"typing\"}'); };")
        .in_browser(&two, &token("bob"));
    alice.prints(&["[System] User Bob joined the conversation"]).await;
    alice.prints(&["Bob is typing..."]).await;
    bob.prints(&[r#""type":"system""#, "User Bob joined"]).await;
    drop(bob);
    alice.prints(&["[System] User Bob left the conversation"]).await;
}

/// Replacements for the ids in the protocol document of the personas dialect.
const IDS: [(&str, &str); 1] = [("conversation-uuid", "lounge")];

fn personas_browser(node: &Node, user: &str, lines: &str) -> Running {
    let filled_in = [&[("user-uuid-here", user)], &IDS[..]].concat();
    Copy::of("personas_browser.js", node, &filled_in).then(lines).in_browser(node, "")
}

#[tokio::test]
async fn the_personas_browser_shows_messages_typing_and_presence() {
    let node = Node::dev().set("PRESENCE_GRACE", "0s").start().await;
    let bob = personas_browser(&node, "bob", "");
    bob.prints(&["updateOnlineUsersList"]).await;
    bob.prints(&["Connected to WebSocket"]).await;
    joined_lounge(&node, "bob").await;
    let alice = personas_browser(
        &node,
        "alice",
        "ws.addEventListener('message', ({ data }) => {
           if (JSON.parse(data).type !== 'conversation_joined') return;
           sendMessage('lounge', 'Hello from a browser');
           handleTyping('lounge');
         });",
    );
    bob.prints(&["updateUserPresence", r#"["alice",true]"#]).await;
    for client in [&alice, &bob] {
        client.prints(&["displayMessage", "Hello from a browser", r#""sender_id":"alice""#, r#""is_ai":false"#]).await;
    }
    bob.prints(&["showTypingIndicator", r#"["alice",true]"#]).await;
    bob.prints(&["showTypingIndicator", r#"["alice",false]"#]).await;
    drop(alice);
    bob.prints(&["updateUserPresence", r#"["alice",false]"#]).await;
    assert_eq!(bob.printed("WebSocket error"), 0, "{:?}", bob.process.log());
}

/// Waits until a user is a member of the lounge; joining an open conversation adds the user.
async fn joined_lounge(node: &Node, user: &str) {
    crate::support::eventually(&format!("{user} to join"), || async {
        let answer = node.get("/api/chat/conversations/lounge", &token(user)).await;
        (answer.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_personas_python_client_sends_typed_lines() {
    let node = Node::dev().start().await;
    let filled_in = [&[("'user-uuid'", "'alice'")], &IDS[..]].concat();
    let (alice, mut input) = Copy::of("personas_client.py", &node, &filled_in).in_python_with_input();
    writeln!(input, "Hello from Python").unwrap();
    joined_lounge(&node, "alice").await;
    let mut bob = Client::connect(&format!("{}/ws/lounge?token={}&since_seq=0", node.ws(), token("bob"))).await;
    assert_eq!(bob.until("new_message").await["data"]["content"], "Hello from Python");
    writeln!(input, "And again").unwrap();
    assert_eq!(bob.until("new_message").await["data"]["content"], "And again");
    // Its blocking input() prevents it from receiving; at the end of its input it prints all received messages.
    drop(input);
    for part in ["'online_users'", "'conversation_joined'", "Hello from Python", "And again"] {
        alice.prints(&["Received: ", part]).await;
    }
    assert_eq!(alice.printed("And again"), 1);
}

#[tokio::test]
async fn the_personas_pytest_examples_pass() {
    let node = Node::dev().start().await;
    let output = tokio::process::Command::new(PYTHON)
        .args(["-m", "pytest", "--quiet", "-p", "no:cacheprovider", &format!("{CLIENTS}/personas_pytest.py")])
        .env("PYTHONPATH", format!("{CLIENTS}/standins"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("SWITCHBOARD_URL", node.ws())
        .output()
        .await
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && printed.contains("2 passed"), "{printed}{output:?}");
}

/// The React component of a user in the lounge, rendered without a browser, and its standard input.
fn personas_component(node: &Node, user: &str) -> (Running, std::process::ChildStdin) {
    let copy = Copy::of("personas_component.jsx", node, &[]);
    let mut command = Command::new("node");
    command.args(["--require", &format!("{CLIENTS}/browser.cjs"), &format!("{CLIENTS}/component.cjs")]);
    let properties = json!({"userId": user, "conversationId": "lounge"});
    command.arg(copy.write("jsx")).arg(properties.to_string()).env("NODE_PATH", NODE_PATH);
    let (process, input) = Process::spawn_reader("component", &mut command, Signal::Kill);
    (Running { process, _folder: copy.folder }, input)
}

#[tokio::test]
async fn the_react_components_of_two_users_count_both() {
    let node = Node::dev().set("PRESENCE_GRACE", "0s").start().await;
    let (alice, mut alices_input) = personas_component(&node, "alice");
    alice.prints(&["shows: Online: 1 "]).await;
    joined_lounge(&node, "alice").await;
    let (bob, bobs_input) = personas_component(&node, "bob");
    for page in [&alice, &bob] {
        page.prints(&["shows: Online: 2 "]).await;
    }
    writeln!(alices_input, "Hello from React").unwrap();
    for page in [&alice, &bob] {
        page.prints(&["shows: Online: 2 ", "Hello from React"]).await;
    }
    drop(bobs_input);
    alice.prints(&["shows: Online: 1 ", "Hello from React"]).await;
}

#[tokio::test]
async fn the_personas_react_component_shows_messages_and_typing() {
    let node = Node::dev().set("PRESENCE_GRACE", "0s").start().await;
    let (alice, mut input) = personas_component(&node, "alice");
    alice.prints(&["shows: Online: 1 "]).await;
    joined_lounge(&node, "alice").await;

    let mut bob = Client::rooms(&node, "lounge", "bob").await;
    alice.prints(&["shows: Online: 2 "]).await;
    bob.send(&json!({"type": "send_message", "data": {"content": "Hello, component"}})).await;
    alice.prints(&["shows:", "Hello, component", "Send"]).await;
    bob.send(&json!({"type": "typing_start"})).await;
    alice.prints(&["shows:", "Someone is typing..."]).await;
    writeln!(input, "Hello from React").unwrap();
    let typing = |frame: &Value, kind: &str| frame["type"] == kind && frame["data"]["user_id"] == "alice";
    // Nothing orders the end of the typing and the message.
    let (mut said, mut stopped) = (false, false);
    bob.until_where(|frame| {
        said |= frame["data"]["content"] == "Hello from React";
        stopped |= typing(frame, "user_stopped_typing");
        said && stopped
    })
    .await;
    alice.prints(&["shows:", "Hello, component", "Hello from React"]).await;
    drop(input);
    bob.until_where(|frame| typing(frame, "user_left")).await;
    assert_eq!(alice.process.exit_code().await, 0, "{:?}", alice.process.log());
}
