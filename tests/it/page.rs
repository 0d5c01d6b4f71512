//! The page that `switchboard dev` prints: every command on it is run as it stands, in bash.

use std::{
    io::Write,
    path::Path,
    process::{ChildStdin, Command, Stdio},
};

use crate::support::{Client, Node, Process, Signal};
use tempfile::TempDir;

const CHROMIUM: &str = "/usr/bin/chromium";
/// What `scripts/setup.sh` fetched.
const NODE_PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/clients/node_modules");
const BROWSER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/browser.cjs");

/// A running dev in a folder whose name bash must have quoted, and its page.
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
        let node = Node::dev().unset("JWT_SECRET").set("DATA_DIR", data.display()).start().await;
        node.logged("This page again").await;
        let page = node.log().join("\n");
        Self { node, page, _folder: folder, elsewhere: tempfile::tempdir().unwrap() }
    }

    /// The commands under a heading, each as it stands.
    fn commands(&self, heading: &str) -> Vec<String> {
        let (_, below) =
            self.page.split_once(&format!("\n{heading}")).unwrap_or_else(|| panic!("{heading}: {}", self.page));
        let blocks = below.split("\n\n").skip(1);
        let commands = blocks.take_while(|block| !block.starts_with("  ") && !is_heading(block));
        commands.map(str::to_owned).collect()
    }

    /// A command in bash, in another folder than dev's.
    fn bash(&self, command: &str) -> Command {
        let mut bash = Command::new("bash");
        bash.args(["-c", command]).current_dir(self.elsewhere.path());
        bash
    }

    /// A chat client from the page, with its keyboard.
    fn chat(&self, command: &str) -> (Process, ChildStdin) {
        Process::spawn_reader("a chat from the page", &mut self.bash(command), Signal::Kill)
    }
}

/// Headings end with a colon; of the commands, only Python's has lines that do.
fn is_heading(block: &str) -> bool {
    block.lines().count() == 1 && block.ends_with(':') || block.starts_with("This page again")
}

async fn prints(process: &Process, line: &str) {
    let pick = |found: &str| (found == line).then_some(());
    process.line(line, pick).await.unwrap_or_else(|why| panic!("{why}"));
}

/// Somebody who listens in the lobby.
async fn listener(dev: &Dev) -> Client {
    let token =
        dev.page.lines().map(str::trim).filter(|line| line.starts_with("eyJ")).nth(2).expect("carol has a token");
    Client::connect(&format!("{}/ws/lobby?token={token}", dev.node.ws())).await
}

async fn hears(client: &mut Client, content: &str) {
    client.until_where(|frame| frame["data"]["content"] == content).await;
}

#[tokio::test]
async fn the_chat_lines_chat() {
    let dev = Dev::start().await;
    assert!(!dev.page.contains("TOKEN") && !dev.page.contains("ROOM"), "nothing is left to fill in: {}", dev.page);
    let commands = dev.commands("Chat, in two terminals:");
    let [one, two] = &commands[..] else { panic!("{commands:?}") };
    let ((alice, mut keyboard), (bob, mut other)) = (dev.chat(one), dev.chat(two));
    let let_in = |line: &str| line.contains("you are").then_some(());
    alice.line("that alice is in", let_in).await.unwrap();
    bob.line("that bob is in", let_in).await.unwrap();
    writeln!(keyboard, "hello bob").unwrap();
    prints(&bob, "alice: hello bob").await;
    writeln!(other, "hello alice").unwrap();
    prints(&alice, "bob: hello alice").await;
    drop((keyboard, other));
    assert_eq!((alice.exit_code().await, bob.exit_code().await), (0, 0));

    let commands = dev.commands("Tokens, good for a day.");
    let made = dev.bash(&commands[0]).output().unwrap();
    let token = String::from_utf8(made.stdout).unwrap();
    assert_eq!(dev.node.get("/api/connections/info", token.trim()).await.status, 200, "{commands:?}");
    let again = dev.bash(dev.page.rsplit_once("Enter, or ").unwrap().1.trim()).output().unwrap();
    assert!(String::from_utf8_lossy(&again.stdout).contains("Chat, in two terminals:"), "{again:?}");
}

#[tokio::test]
async fn the_curl_lines_send_and_read() {
    let dev = Dev::start().await;
    if Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("skipped: there is no curl");
        return;
    }
    let mut carol = listener(&dev).await;
    carol.until("connected").await;
    let commands = dev.commands("curl");
    let [send, read] = &commands[..] else { panic!("{commands:?}") };
    let sent = dev.bash(send).output().unwrap();
    assert!(sent.status.success(), "{sent:?}");
    hears(&mut carol, "hello from curl").await;
    let read = dev.bash(read).output().unwrap();
    assert!(String::from_utf8_lossy(&read.stdout).contains("\"hello from curl\""), "{read:?}");
}

#[tokio::test]
async fn the_browser_line_speaks() {
    let dev = Dev::start().await;
    let mut carol = listener(&dev).await;
    carol.until("connected").await;
    let line = &dev.commands("Browser")[0];
    let _browser = if Path::new(CHROMIUM).exists() { in_chromium(&dev, line) } else { in_node(line) };
    hears(&mut carol, "hello from a browser").await;
}

/// Runs a console line in a page in Chromium.
fn in_chromium(dev: &Dev, line: &str) -> Process {
    let page = dev.elsewhere.path().join("page.html");
    std::fs::write(&page, format!("<!doctype html><script>{line}</script>")).unwrap();
    let profile = format!("--user-data-dir={}", dev.elsewhere.path().join("profile").display());
    let mut command = Command::new(CHROMIUM);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", &profile]);
    command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    command.args(["--remote-debugging-port=0", &format!("file://{}", page.display())]);
    Process::spawn("chromium", &mut command, Signal::Kill)
}

/// Runs it in Node.js, with the WebSocket of a browser.
fn in_node(line: &str) -> Process {
    let mut command = Command::new("node");
    command.args(["--require", BROWSER, "--eval", line]).env("NODE_PATH", NODE_PATH);
    Process::spawn("a browser's stand-in", &mut command, Signal::Kill)
}

#[tokio::test]
async fn the_python_lines_speak() {
    let dev = Dev::start().await;
    let mut carol = listener(&dev).await;
    carol.until("connected").await;
    let commands = dev.commands("Python");
    let [command] = &commands[..] else { panic!("{commands:?}") };
    let mut bash = dev.bash(command);
    let output = tokio::task::spawn_blocking(move || bash.output()).await.unwrap().unwrap();
    let said = [output.stdout.as_slice(), &output.stderr].map(String::from_utf8_lossy).concat();
    // What the line needs of the machine and of the network.
    for lack in ["No matching distribution found", "ensurepip is not available", "python3: command not found"] {
        if !output.status.success() && said.contains(lack) {
            eprintln!("skipped: {lack}");
            return;
        }
    }
    assert!(output.status.success() && said.contains("message_sent"), "{said}");
    hears(&mut carol, "hello from Python").await;
}
