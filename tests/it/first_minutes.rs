//! A newcomer's first commands: `switchboard chat`, the page of `dev`, and the error messages.

use std::{
    io::Write,
    path::Path,
    process::{ChildStdin, Command, Output, Stdio},
};

use crate::support::{Client, Node, Postgres, Process, RedisServer, SECRET, Signal, token, within};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_switchboard");

/// The program with a minimal environment: only `PATH`.
fn program(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").current_dir(folder);
    command
}

pub(crate) fn run(folder: &Path, arguments: &[&str]) -> Output {
    program(folder, arguments).stdin(Stdio::null()).output().unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A running `switchboard chat` with its standard input.
struct Chat {
    process: Process,
    input: Option<ChildStdin>,
}

impl Chat {
    fn start(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = program(folder, &[&["chat"], arguments].concat());
        command.envs(environment.iter().copied());
        let (process, input) = Process::spawn_reader("switchboard chat", &mut command, Signal::Kill);
        Self { process, input: Some(input) }
    }

    fn of_dev(data: &Path, user: &str) -> Self {
        Self::start(data, &["--user", user, "--data-dir", data.to_str().unwrap()], &[])
    }

    fn type_line(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    async fn prints(&self, line: &str) {
        let pick = |found: &str| (found == line).then_some(());
        self.process.line(line, pick).await.unwrap_or_else(|why| panic!("{why}"));
    }

    async fn prints_part(&self, part: &str) {
        let pick = |found: &str| found.contains(part).then_some(());
        self.process.line(part, pick).await.unwrap_or_else(|why| panic!("{why}"));
    }

    /// The messages that it has printed, without status lines.
    fn messages(&self) -> Vec<String> {
        let is_status = |line: &String| line.starts_with("switchboard: ") || line.starts_with("* ");
        self.process.log().into_iter().filter(|line| !is_status(line)).collect()
    }

    /// Ends its input and returns its exit code.
    async fn end_input(&mut self) -> i32 {
        drop(self.input.take());
        self.process.exit_code().await
    }
}

/// A dev with this data folder and a secret that it generates.
async fn dev(data: &Path) -> Node {
    Node::dev().unset("JWT_SECRET").set("DATA_DIR", data.display()).start().await
}

#[tokio::test]
async fn two_chat_clients_talk_through_dev() {
    let data = tempfile::tempdir().unwrap();
    let _node = dev(data.path()).await;
    let mut alice = Chat::of_dev(data.path(), "alice");
    alice.prints("switchboard: you are alice in lobby; /help says what you can do").await;
    let mut bob = Chat::of_dev(data.path(), "bob");
    alice.prints("* bob joined").await;
    bob.prints_part("you are bob").await;
    alice.type_line("hello bob");
    bob.prints("alice: hello bob").await;
    bob.type_line("//me waves");
    alice.prints("bob: /me waves").await;
    bob.type_line("/who");
    bob.prints("* online: alice, bob (you)").await;
    bob.type_line("/history 2");
    bob.prints_part("  alice: hello bob").await;
    bob.type_line("/dance");
    bob.prints_part("there is no /dance").await;
    assert_eq!(
        alice.messages(),
        ["alice: hello bob", "bob: /me waves"],
        "a client prints its own line once it is stored"
    );
    assert_eq!(alice.end_input().await, 0);
    bob.prints("* alice left").await;
    bob.type_line("/quit");
    assert_eq!(bob.process.exit_code().await, 1, "the exit code reports that /dance is unknown");
}

#[tokio::test]
async fn piped_input_is_sent_line_by_line_and_exits_with_0() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::dev().unset("JWT_SECRET").set("DATA_DIR", data.path().display()).start().await;
    let script = format!(
        "printf 'one\\ntwo\\n' | {PROGRAM} chat --user alice && printf 'three' | {PROGRAM} chat --user bob --history 5"
    );
    let output = Command::new("bash").args(["-c", &script]).env("DATA_DIR", data.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = stdout(&output);
    let lines: Vec<_> = text.lines().map(|line| line.rsplit("  ").next().unwrap()).collect();
    assert_eq!(lines, ["alice: one", "alice: two", "alice: one", "alice: two", "bob: three"], "{text}");
    drop(node);
}

#[tokio::test]
async fn a_second_dev_with_the_same_data_folder_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let dev = || Node::dev().unset("JWT_SECRET").set("DATA_DIR", data.path().display());
    let first = dev().start().await;
    let (status, log) = dev().try_start().await.unwrap_err();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("runs already") && log.contains("--data-dir"), "{log}");
    first.kill().await;
    dev().start().await;
}

#[tokio::test]
async fn requests_of_piped_input_are_answered_before_it_ends() {
    let data = tempfile::tempdir().unwrap();
    let _node = Node::dev().unset("JWT_SECRET").set("DATA_DIR", data.path().display()).start().await;
    let script = format!("printf 'one\\n/who\\n/history\\n' | {PROGRAM} chat --user alice");
    let output = Command::new("bash").args(["-c", &script]).env("DATA_DIR", data.path()).output().unwrap();
    let text = stdout(&output);
    assert!(output.status.success() && text.contains("* online: alice (you)"), "{text}");
    assert!(text.contains("* the last 1 messages:"), "{text}");
}

#[tokio::test]
async fn chat_neither_loses_nor_repeats_lines_when_nodes_end() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let port = crate::support::free_port();
    let serve = || Node::serve(&redis.url(), &database).set("PRESENCE_GRACE", "0s");
    let stable = serve().start().await;
    let node = || serve().set("LISTEN", format!("127.0.0.1:{port}"));
    let mut other = node().start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut alice = Chat::start(
        folder.path(),
        &["--url", &format!("ws://127.0.0.1:{port}"), "--room", "team", "--user", "alice"],
        &[("JWT_SECRET", SECRET)],
    );
    let mut bob = Chat::start(
        folder.path(),
        &["--url", &stable.http(), "--room", "team"],
        &[("SWITCHBOARD_TOKEN", &token("bob"))],
    );
    alice.prints_part("you are alice").await;
    bob.prints_part("you are Bob in team").await;
    let mut sent = Vec::new();
    let mut at = 0;
    let mut send_ten_each = |alice: &mut Chat, bob: &mut Chat| {
        for _ in 0..10 {
            at += 1;
            alice.type_line(&format!("a{at}"));
            bob.type_line(&format!("b{at}"));
            sent.extend([format!("alice: a{at}"), format!("Bob: b{at}")]);
        }
    };
    send_ten_each(&mut alice, &mut bob);
    for round in 0..3 {
        bob.prints(&format!("alice: a{at}", at = (round + 1) * 10)).await;
        send_ten_each(&mut alice, &mut bob);
        // Lines are in flight: some are stored without an ack, some are not stored.
        if round == 1 {
            assert_eq!(other.terminate().await, 0)
        } else {
            other.kill().await
        }
        send_while_away(&mut bob, round);
        other = node().start().await;
        alice.prints(&format!("alice: a{at}", at = (round + 2) * 10)).await;
        alice.prints(&format!("Bob: later {round}")).await;
    }
    sent.extend((0..3).map(|round| format!("Bob: later {round}")));
    for client in [&alice, &bob] {
        for line in &sent {
            client.prints(line).await;
        }
    }
    assert_eq!((alice.end_input().await, bob.end_input().await), (0, 0));
    let mut shown = alice.messages();
    assert_eq!(shown, bob.messages(), "both saw the same, in the same order");
    shown.sort();
    sent.sort();
    assert_eq!(shown, sent, "each line once");
    drop((stable, other));
}

/// Sends a line through bob's node while alice's node is down.
fn send_while_away(bob: &mut Chat, round: usize) {
    bob.type_line(&format!("later {round}"));
}

#[tokio::test]
async fn chat_exits_with_a_remedy_if_a_retry_cannot_help() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::dev().set("DATA_DIR", data.path().display()).set("OPEN_CONVERSATIONS", false).start().await;
    let (url, other) = (node.ws(), tempfile::tempdir().unwrap());
    let chat = |more: &[&str]| run(other.path(), &[&["chat"], more].concat());
    let bad = chat(&["--url", &url, "--token", "e.e.e"]);
    assert!(
        bad.status.code() == Some(1) && stderr(&bad).contains("does not take the token (Invalid token: "),
        "{bad:?}"
    );
    let outside = chat(&["--url", &url, "--token", &token("alice"), "--room", "secret"]);
    assert!(outside.status.code() == Some(1) && stderr(&outside).contains("not a member of secret"), "{outside:?}");
    let somebody = chat(&["--url", &url, "--token", &token("alice"), "--user", "bob"]);
    assert!(somebody.status.code() == Some(1) && stderr(&somebody).contains("alice's, not bob's"), "{somebody:?}");
    let nowhere = chat(&["--url", "ws://127.0.0.1:1", "--token", &token("alice")]);
    assert!(stderr(&nowhere).contains("nothing listens at ws://127.0.0.1:1/v1/ws"), "{nowhere:?}");
    let far = chat(&["--url", "ws://203.0.113.1:80", "--user", "alice"]);
    assert!(stderr(&far).contains("a token is needed for ws://203.0.113.1:80/v1/ws"), "{far:?}");
    let nobody = chat(&["--url", &url]);
    assert!(stderr(&nobody).contains("--user"), "{nobody:?}");
}

#[tokio::test]
async fn commands_in_another_folder_create_no_secret() {
    let (data, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let _node = dev(data.path()).await;
    for arguments in [&["token", "--dev", "--user", "alice"][..], &["chat", "--user", "alice"], &["dev", "--page"]] {
        let output = run(other.path(), arguments);
        let text = stderr(&output);
        assert!(!output.status.success() && output.stdout.is_empty(), "{arguments:?}: {output:?}");
        let looked_in = other.path().canonicalize().unwrap().join("switchboard-data");
        assert!(text.contains(looked_in.to_str().unwrap()) && text.contains("--data-dir"), "{arguments:?}: {text}");
        assert!(!other.path().join("switchboard-data").exists(), "{arguments:?}");
    }
    let right = ["token", "--dev", "--user", "alice", "--data-dir", data.path().to_str().unwrap()];
    assert!(run(other.path(), &right).status.success());
}

#[tokio::test]
async fn an_address_in_use_is_an_error_that_names_the_flag() {
    let data = tempfile::tempdir().unwrap();
    let node = dev(data.path()).await;
    let admin = node.admin();
    let admin = admin.strip_prefix("http://").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let address = node.address().to_string();
    let clients = run(folder.path(), &["dev", "--listen", &address, "--admin-listen", "off"]);
    let text = stderr(&clients);
    assert!(text.contains(&format!("can't listen on {address}: Address already in use")), "{text}");
    assert!(text.contains(" --listen 127.0.0.1:PORT") && text.contains("dev --page"), "{text}");
    let admins = run(folder.path(), &["dev", "--listen", "127.0.0.1:0", "--admin-listen", admin]);
    assert!(stderr(&admins).contains("--admin-listen 127.0.0.1:PORT"), "{admins:?}");
}

#[tokio::test]
async fn a_bad_tokens_flaw_is_logged_and_only_dev_reports_it_to_clients() {
    let forged = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSIsImV4cCI6OTk5OTk5OTk5OX0.AAAA";
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    for (node, explains) in
        [(Node::dev().start().await, true), (Node::serve(&redis.url(), &database).start().await, false)]
    {
        let mut client = Client::connect(&format!("{}/v1/ws?token={forged}", node.ws())).await;
        let (code, reason) = client.expect_close().await;
        let answer = node.get("/api/chat/conversations", forged).await;
        assert_eq!((code, answer.status.as_u16()), (4401, 401));
        let detail = answer.json["detail"].as_str().unwrap();
        for shown in [reason.as_str(), detail] {
            assert_eq!(shown != "Invalid token", explains, "{shown}");
            assert_eq!(shown.contains("signature"), explains, "{shown}");
        }
        node.logged("its signature does not match").await;
        node.kill().await;
        let reasons = node.log().iter().filter(|line| line.contains("its signature does not match")).count();
        assert_eq!(reasons, 3, "one line for the socket, one for the request, one sentence for both: {:?}", node.log());
        node.assert_never_logged(&[forged]);
    }
}

#[tokio::test]
async fn dev_page_prints_the_page_while_dev_runs() {
    let data = tempfile::tempdir().unwrap();
    let node = dev(data.path()).await;
    let folder = data.path().to_str().unwrap();
    let page = run(data.path(), &["dev", "--page", "--data-dir", folder]);
    assert!(page.status.success(), "{page:?}");
    assert!(stdout(&page).contains(&format!("ws://{}/v1/ws", node.address())), "{page:?}");
    assert_eq!(within("the end of dev", node.terminate()).await, 0);
    let page = run(data.path(), &["dev", "--page", "--data-dir", folder]);
    assert!(!page.status.success() && stderr(&page).contains("no switchboard dev runs"), "{page:?}");
    // A killed dev leaves its running.json behind.
    dev(data.path()).await.kill().await;
    let page = run(data.path(), &["dev", "--page", "--data-dir", folder]);
    assert!(!page.status.success() && stderr(&page).contains("no switchboard dev runs"), "{page:?}");
}

#[test]
fn the_version_names_the_commit() {
    let folder = tempfile::tempdir().unwrap();
    let version = stdout(&run(folder.path(), &["--version"]));
    let here =
        Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let expected = match here {
        Ok(output) if output.status.success() => stdout(&output).trim().to_owned(),
        _ => "unknown".to_owned(),
    };
    assert!(version.contains(&format!("({expected})")), "{version} is not of {expected}");
}
