//! Runs README.md's steps from `dev` to `serve`. The test replaces only the ports, and `sudo`, which needs a password.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use crate::support::{Client, Postgres, Process, RedisServer, Signal, free_port};
use serde_json::{Value, json};
use tempfile::TempDir;

const README: &str = include_str!("../../README.md");
const PROGRAM: &str = env!("CARGO_BIN_EXE_switchboard");
/// PostgreSQL's access rules, as on Debian: the user postgres connects without a password, all others with theirs.
const ACCESS: &str = "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n";

/// The shell blocks after the README's remark that this test runs them.
fn blocks() -> (&'static str, &'static str) {
    let (_, rest) =
        README.split_once("<!-- tests/it/readme.rs runs the next two blocks").expect("README.md has the remark");
    let mut blocks = rest.split("```sh\n").skip(1).map(|block| block.split_once("```").expect("a block ends").0);
    (blocks.next().expect("a first block"), blocks.next().expect("a second block"))
}

/// A stand-in for a reader's machine: an empty folder, Redis and PostgreSQL. Their ports replace the usual ones.
struct Machine {
    folder: TempDir,
    programs: TempDir,
    port: u16,
    redis: RedisServer,
    postgres: Postgres,
}

impl Machine {
    async fn new() -> Self {
        let programs = tempfile::tempdir().unwrap();
        // PostgreSQL may run as another user and must read its access file there.
        fs::set_permissions(programs.path(), fs::Permissions::from_mode(0o755)).unwrap();
        // The kernel kills the node when the shell that started it ends.
        let node = format!("#!/bin/sh\nexec setpriv --pdeathsig KILL {PROGRAM} \"$@\"\n");
        executable(&programs.path().join("switchboard"), &node);
        let sudo = "#!/bin/sh\n[ \"$1 $2\" = '-u postgres' ] || exit 1\nshift 2\nPGUSER=postgres exec \"$@\"\n";
        executable(&programs.path().join("sudo"), sudo);
        let access = programs.path().join("access.conf");
        fs::write(&access, ACCESS).unwrap();
        let postgres = Postgres::start(&[("hba_file", access.to_str().unwrap()), ("fsync", "off")]).await;
        Self {
            folder: tempfile::tempdir().unwrap(),
            programs,
            port: free_port(),
            redis: RedisServer::start().await,
            postgres,
        }
    }

    fn postgres_port(&self) -> String {
        self.postgres.url("").rsplit(':').next().unwrap().trim_end_matches('/').to_owned()
    }

    /// Starts lines of the README in a shell that stops at the first failure.
    fn run(&self, lines: &str) -> Process {
        let lines = [
            ("127.0.0.1:6379", format!("127.0.0.1:{}", self.redis.port())),
            ("127.0.0.1:5432", format!("127.0.0.1:{}", self.postgres_port())),
            ("127.0.0.1:8000", format!("127.0.0.1:{}", self.port)),
        ]
        .iter()
        .fold(lines.to_owned(), |lines, (usual, here)| lines.replace(usual, here));
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", &lines]).current_dir(self.folder.path()).env_clear();
        command.env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", self.programs.path().display()));
        command.env("PGHOST", "127.0.0.1").env("PGPORT", self.postgres_port());
        command.env("LISTEN", format!("127.0.0.1:{}", self.port)).env("ADMIN_LISTEN", "127.0.0.1:0");
        Process::spawn("README.md", &mut command, Signal::Kill)
    }

    /// Runs lines to their end and returns their output.
    async fn output(&self, lines: &str) -> String {
        let process = self.run(lines);
        assert_eq!(process.exit_code().await, 0, "{:?}", process.log());
        process.log().join("\n")
    }

    async fn socket(&self, user: &str) -> Client {
        let token = self.output(&format!("switchboard token --user {user}")).await;
        Client::connect(&format!("ws://127.0.0.1:{}/ws/lobby?token={token}", self.port)).await
    }
}

fn executable(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn six_lines_start_a_node_and_the_next_block_lets_two_users_chat() {
    let (start, conversation) = blocks();
    assert_eq!(start.lines().count(), 6, "{start}");
    let machine = Machine::new().await;
    let node = machine.run(start);
    let listening = |line: &str| line.contains(r#""message":"listening""#).then_some(());
    node.line("that it listens", listening).await.unwrap_or_else(|why| panic!("{why}"));
    // On a busy machine the migrations take longer than the node waits before it listens.
    let started = |line: &str| line.contains("the store has started").then_some(());
    node.line("that its store has started", started).await.unwrap_or_else(|why| panic!("{why}"));
    let mode = fs::metadata(machine.folder.path().join(".env")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "only the owner can read the secret");

    let refused = machine.socket("alice").await.expect_close().await;
    assert_eq!(refused, (1008, "Not a member of this conversation".to_owned()), "as README.md says");
    let made: Value = serde_json::from_str(&machine.output(conversation).await).unwrap();
    assert_eq!(made["id"], "lobby");
    let mut alice = machine.socket("alice").await;
    let mut bob = machine.socket("bob").await;
    for client in [&mut alice, &mut bob] {
        client.until("connected").await;
    }
    alice.send(&json!({"type": "send_message", "data": {"content": "it works"}})).await;
    assert_eq!(bob.until("new_message").await["data"]["content"], "it works");
    let refused = machine.socket("carol").await.expect_close().await;
    assert_eq!(refused.0, 1008);
}
