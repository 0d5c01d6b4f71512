//! The program at a terminal, with an output that can't be written, and with a URL that can't be used.

use std::{
    io::Write,
    net::TcpListener,
    path::Path,
    process::{Command, Output, Stdio},
    thread,
};

use crate::{
    first_minutes::{PROGRAM, run, stderr},
    support::{Node, Process, Signal, token},
};

async fn dev(data: &Path) -> Node {
    Node::dev().unset("JWT_SECRET").set("DATA_DIR", data.display()).start().await
}

/// Runs a script in bash, where `$SWITCHBOARD` is the program and `DATA_DIR` the folder.
fn bash(data: &Path, script: &str) -> Output {
    let mut bash = Command::new("bash");
    bash.args(["-c", script]).env("SWITCHBOARD", PROGRAM).env("DATA_DIR", data).current_dir(data);
    bash.stdin(Stdio::null()).output().unwrap()
}

/// A line of a terminal as a person sees it: without what was cleared, and without the prompts of other lines.
fn visible(line: &str) -> &str {
    line.rsplit("\r\x1b[K").next().unwrap_or_default().trim_end()
}

#[tokio::test]
async fn a_terminal_shows_one_prompt_after_a_refused_line() {
    let data = tempfile::tempdir().unwrap();
    let _node = dev(data.path()).await;
    if Command::new("script").arg("--version").output().is_err() {
        eprintln!("skipped: there is no script (Debian: bsdutils)");
        return;
    }
    let chat = format!("{PROGRAM} chat --user alice --data-dir {}", data.path().display());
    let mut command = Command::new("script");
    command.args(["-qfec", &chat, "/dev/null"]).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
    let (process, mut input) = Process::spawn_reader("a chat at a terminal", &mut command, Signal::Kill);
    let shows = async |part: &str| {
        let pick = |found: &str| found.contains(part).then_some(());
        process.line(part, pick).await.unwrap_or_else(|why| panic!("{why}"));
    };
    shows("you are alice in lobby").await;
    for (line, note) in [
        ("/dance", "-- there is no /dance"),
        ("/who me", "-- nothing follows /who: write /who alone"),
        ("/ who", "-- a command has no blank after its /: write /who"),
        ("one\u{c}two", "-- not sent: the line has a Ctrl-L"),
    ] {
        writeln!(input, "{line}").unwrap();
        shows(note).await;
    }
    writeln!(input, "/help").unwrap();
    shows("Any other line is sent").await;
    writeln!(input, "the last line").unwrap();
    shows("> the last line").await;
    let log = process.log();
    let doubled: Vec<_> = log.iter().map(|line| visible(line)).filter(|line| line.starts_with("> >")).collect();
    assert!(doubled.is_empty(), "{doubled:?} in {log:?}");
}

#[tokio::test]
async fn a_full_standard_output_is_an_error() {
    let data = tempfile::tempdir().unwrap();
    let _node = dev(data.path()).await;
    for command in [
        "printf 'one\\n' | $SWITCHBOARD chat --user alice",
        "$SWITCHBOARD token --dev --user alice",
        "$SWITCHBOARD dev --page",
        "$SWITCHBOARD --help",
    ] {
        let output = bash(data.path(), &format!("{command} >/dev/full"));
        let why = "switchboard: standard output can't be written: No space left on device";
        assert!(output.status.code() == Some(1) && stderr(&output).contains(why), "{command}: {output:?}");
    }
}

#[tokio::test]
async fn a_closed_pipe_ends_the_program_without_a_message() {
    let data = tempfile::tempdir().unwrap();
    let _node = dev(data.path()).await;
    for command in [
        "printf 'one\\n' | $SWITCHBOARD chat --user alice",
        "$SWITCHBOARD dev --page",
        "$SWITCHBOARD serve --help",
        "$SWITCHBOARD config-docs",
    ] {
        // The reader has ended when the program starts.
        let script = format!("exec {{pipe}}> >(exec true); wait $!; {command} >&$pipe");
        let output = bash(data.path(), &script);
        let text = stderr(&output);
        assert!(!text.contains("standard output") && !text.contains("panicked"), "{command}: {output:?}");
    }
}

#[tokio::test]
async fn a_line_longer_than_any_message_is_refused_with_its_length() {
    let data = tempfile::tempdir().unwrap();
    let _node = dev(data.path()).await;
    let output = bash(data.path(), "printf '%0200000d\\nnext\\n' 7 | $SWITCHBOARD chat --user alice");
    let text = stderr(&output);
    assert!(text.contains("not sent: 200000 characters, and a message has at most 5000"), "{text}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "alice: next\n");
}

#[tokio::test]
async fn a_url_that_cannot_work_is_answered_with_the_right_one() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::dev().start().await;
    let address = node.address();
    let chat = |url: &str| {
        let output = run(folder.path(), &["chat", "--url", url, "--token", &token("alice")]);
        assert_eq!(output.status.code(), Some(1), "{url}: {output:?}");
        stderr(&output)
    };
    let text = chat(&address.to_string());
    assert!(
        text.contains(&format!("lacks the scheme ws:// (or wss:// if the server speaks TLS): --url ws://{address}")),
        "{text}"
    );
    let text = chat(&format!("tcp://{address}"));
    assert!(text.contains(&format!("has the scheme tcp://: use --url ws://{address}")), "{text}");
    let text = chat(&format!("wss://{address}"));
    assert!(text.contains("does not speak TLS") && text.contains(&format!("use --url ws://{address}/v1/ws")), "{text}");
    let accepted = run(folder.path(), &["chat", "--url", &node.http(), "--token", &token("alice")]);
    assert!(accepted.status.success(), "{accepted:?}");

    // A server that resets each connection, because it is closed with unread data.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let _ = stream.peek(&mut [0]);
        }
    });
    let text = chat(&format!("ws://{address}"));
    assert!(text.contains("closed the connection before it answered: is the port right?"), "{text}");
    assert!(text.contains(&format!("use --url wss://{address}/v1/ws")), "{text}");
}
