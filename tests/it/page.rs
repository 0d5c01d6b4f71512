//! The page that `switchboard dev` prints: bash runs every command of it unchanged.

use std::{
    io::Write,
    path::Path,
    process::{ChildStdin, Command, Stdio},
};

use crate::support::{Client, Node, Process, Signal, eventually, within};
use serde_json::{Value, json};
use tempfile::TempDir;

const CHROMIUM: &str = "/usr/bin/chromium";
/// Packages that `scripts/setup.sh` installs.
const NODE_PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/clients/node_modules");
const BROWSER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/browser.cjs");

/// A running dev in a folder with a name that needs quoting in bash, and its page.
struct Dev {
    node: Node,
    page: String,
    _folder: TempDir,
    elsewhere: TempDir,
}

impl Dev {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("it's a folder");
        let node = Node::dev()
            .unset("JWT_SECRET")
            .set("DATA_DIR", data.display())
            // A client that waits while packages are installed reads no ping.
            .set("PING_INTERVAL", "10m")
            .start()
            .await;
        node.logged("This page again").await;
        // Standard output and the log are read side by side.
        let printed = node.log().into_iter().filter(|line| !line.starts_with(r#"{"timestamp""#));
        let page = printed.collect::<Vec<_>>().join("\n");
        Self { node, page, _folder: folder, elsewhere: tempfile::tempdir().unwrap() }
    }

    /// The commands under a heading.
    fn commands(&self, heading: &str) -> Vec<String> {
        let (_, below) =
            self.page.split_once(&format!("\n{heading}")).unwrap_or_else(|| panic!("{heading}: {}", self.page));
        let blocks = below.split("\n\n").skip(1);
        let commands = blocks.take_while(|block| !block.starts_with("  ") && !is_heading(block));
        commands.map(str::to_owned).collect()
    }

    /// Runs a command in bash, in another folder than dev's.
    fn bash(&self, command: &str) -> Command {
        let mut bash = Command::new("bash");
        bash.args(["-c", command]).current_dir(self.elsewhere.path());
        bash
    }

    /// Runs a chat command of the page, with its standard input.
    fn chat(&self, command: &str) -> (Process, ChildStdin) {
        Process::spawn_reader("a chat from the page", &mut self.bash(command), Signal::Kill)
    }
}

/// True for a heading: a block of one line that ends with a colon. Only the Python command has lines that end with a
/// colon too, and it has more than one line.
fn is_heading(block: &str) -> bool {
    block.lines().count() == 1 && block.ends_with(':') || block.starts_with("This page again")
}

async fn prints(process: &Process, line: &str) {
    let pick = |found: &str| (found == line).then_some(());
    process.line(line, pick).await.unwrap_or_else(|why| panic!("{why}"));
}

/// Connects carol as a listener in the lobby.
async fn connect_listener(dev: &Dev) -> Client {
    let token =
        dev.page.lines().map(str::trim).filter(|line| line.starts_with("eyJ")).nth(2).expect("carol has a token");
    Client::connect(&format!("{}/ws/lobby?token={token}", dev.node.ws())).await
}

async fn receives(client: &mut Client, content: &str) {
    client.until_where(|frame| frame["data"]["content"] == content).await;
}

#[tokio::test]
async fn the_chat_commands_connect_two_users() {
    let dev = Dev::start().await;
    assert!(!dev.page.contains("TOKEN") && !dev.page.contains("ROOM"), "nothing is left to fill in: {}", dev.page);
    let commands = dev.commands("Chat, in two terminals:");
    let [one, two] = &commands[..] else { panic!("{commands:?}") };
    let ((alice, mut alice_input), (bob, mut bob_input)) = (dev.chat(one), dev.chat(two));
    let let_in = |line: &str| line.contains("you are").then_some(());
    alice.line("that alice is in", let_in).await.unwrap();
    bob.line("that bob is in", let_in).await.unwrap();
    writeln!(alice_input, "hello bob").unwrap();
    prints(&bob, "alice: hello bob").await;
    writeln!(bob_input, "hello alice").unwrap();
    prints(&alice, "bob: hello alice").await;
    drop((alice_input, bob_input));
    assert_eq!((alice.exit_code().await, bob.exit_code().await), (0, 0));

    let commands = dev.commands("Tokens, good for a day.");
    let made = dev.bash(&commands[0]).output().unwrap();
    let token = String::from_utf8(made.stdout).unwrap();
    assert_eq!(dev.node.get("/api/connections/info", token.trim()).await.status, 200, "{commands:?}");
    let again = dev.bash(dev.page.rsplit_once("Enter, or ").unwrap().1.trim()).output().unwrap();
    assert!(String::from_utf8_lossy(&again.stdout).contains("Chat, in two terminals:"), "{again:?}");
}

#[tokio::test]
async fn the_curl_commands_send_and_list_messages() {
    let dev = Dev::start().await;
    if Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("skipped: there is no curl");
        return;
    }
    let mut carol = connect_listener(&dev).await;
    carol.until("connected").await;
    let commands = dev.commands("curl");
    let [send, read] = &commands[..] else { panic!("{commands:?}") };
    let sent = dev.bash(send).output().unwrap();
    assert!(sent.status.success(), "{sent:?}");
    receives(&mut carol, "hello from curl").await;
    let read = dev.bash(read).output().unwrap();
    assert!(String::from_utf8_lossy(&read.stdout).contains("\"hello from curl\""), "{read:?}");
}

#[tokio::test]
async fn the_browser_line_sends_a_message() {
    let dev = Dev::start().await;
    let mut carol = connect_listener(&dev).await;
    carol.until("connected").await;
    let line = &dev.commands("Browser")[0];
    let _browser = if Path::new(CHROMIUM).exists() { in_chromium(&dev, line).await } else { in_node(line) };
    receives(&mut carol, "hello from a browser").await;
}

/// Opens the page that the text names in Chromium, and pastes a line into its console. Pages from a file won't do: Chromium
/// keeps them from reaching this machine.
async fn in_chromium(dev: &Dev, line: &str) -> Process {
    let profile = dev.elsewhere.path().join("profile");
    let mut command = Command::new(CHROMIUM);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]);
    command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    command.args(["--remote-debugging-port=0", &format!("--user-data-dir={}", profile.display())]);
    command.arg(format!("{}/api/health", dev.node.http()));
    let chromium = Process::spawn("chromium", &mut command, Signal::Kill);
    let listens = |line: &str| line.strip_prefix("DevTools listening on ws://").map(str::to_owned);
    let address = chromium.line("the address of the developer tools", listens).await.unwrap();
    let targets = format!("http://{}/json/list", address.split('/').next().unwrap());
    let opened = async || {
        let targets: Value = reqwest::get(&targets).await.ok()?.json().await.ok()?;
        let is_page = |target: &&Value| target["url"].as_str().is_some_and(|url| url.ends_with("/api/health"));
        let page = targets.as_array()?.iter().find(is_page)?;
        page["webSocketDebuggerUrl"].as_str().map(str::to_owned)
    };
    let mut console = Client::connect(&eventually("the page in Chromium", opened).await).await;
    // The address shows before the page is there.
    let complete = async {
        while run_in(&mut console, "document.readyState + location.pathname").await["value"] != "complete/api/health" {}
    };
    within("the page", complete).await;
    run_in(&mut console, line).await;
    chromium
}

/// Runs a line in the console of a page.
async fn run_in(console: &mut Client, line: &str) -> Value {
    console.send(&json!({"id": 1, "method": "Runtime.evaluate", "params": {"expression": line}})).await;
    let answer = console.recv().await;
    assert!(answer["result"]["exceptionDetails"].is_null(), "{answer}");
    answer["result"]["result"].clone()
}

/// Runs a console line in Node.js with a stand-in for the browser's WebSocket.
fn in_node(line: &str) -> Process {
    let mut command = Command::new("node");
    command.args(["--require", BROWSER, "--eval", line]).env("NODE_PATH", NODE_PATH);
    Process::spawn("a browser's stand-in", &mut command, Signal::Kill)
}

#[tokio::test]
async fn the_python_command_sends_a_message() {
    let dev = Dev::start().await;
    let mut carol = connect_listener(&dev).await;
    carol.until("connected").await;
    let commands = dev.commands("Python");
    let [command] = &commands[..] else { panic!("{commands:?}") };
    let mut bash = dev.bash(command);
    let output = tokio::task::spawn_blocking(move || bash.output()).await.unwrap().unwrap();
    let printed = [output.stdout.as_slice(), &output.stderr].map(String::from_utf8_lossy).concat();
    // Skip if the machine lacks Python's parts or the network.
    for missing in ["No matching distribution found", "ensurepip is not available", "python3: command not found"] {
        if !output.status.success() && printed.contains(missing) {
            eprintln!("skipped: {missing}");
            return;
        }
    }
    assert!(output.status.success() && printed.contains("message_sent"), "{printed}");
    receives(&mut carol, "hello from Python").await;
}
