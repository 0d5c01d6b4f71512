//! Nodes reach PostgreSQL and Redis: logins and certificates that change while nodes run, the forms of their URLs, and a
//! pooler that lends connections by the transaction. In each test users of two nodes talk, and nothing acked is lost.

use std::{os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{Client, Node, NodeBuilder, Postgres, RedisServer, SECRET, eventually, within};

mod certificates;
mod forms;
mod passwords;
mod pooler;

/// Alice of one node talks, and Bob of another one listens.
struct Talk {
    alice: Client,
    bob: Client,
    said: Vec<String>,
    heard: Vec<(i64, String)>,
}

impl Talk {
    async fn between(one: &Node, other: &Node) -> Self {
        let (mut alice, mut bob) = (Client::native(one, "alice").await, Client::native(other, "bob").await);
        alice.join("team").await;
        bob.join("team").await;
        Self { alice, bob, said: Vec::new(), heard: Vec::new() }
    }

    /// Says something this many times. What is refused is said again, until it is acked.
    async fn say(&mut self, times: usize) {
        for _ in 0..times {
            let text = format!("message-{}", self.said.len());
            let frame =
                json!({"type": "send", "conversation_id": "team", "content": text, "client_id": text, "ref": text});
            let acked = async {
                loop {
                    self.alice.send(&frame).await;
                    let answer = self.alice.until_where(|answer| answer["ref"] == *text).await;
                    match answer["type"].as_str() {
                        Some("ack") => break,
                        _ => assert_ne!(answer["retryable"], false, "{answer}"),
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            };
            within("an ack", acked).await;
            self.said.push(text);
        }
    }

    /// Waits until Bob has heard all, and checks that he heard each once and in order.
    async fn all_is_heard(&mut self) {
        while self.heard.len() < self.said.len() {
            let message = self.bob.until("message").await;
            self.heard.push((message["seq"].as_i64().unwrap(), message["content"].as_str().unwrap().to_owned()));
        }
        let more = self.bob.drain().await.into_iter().filter(|frame| frame["type"] == "message");
        assert_eq!(more.collect::<Vec<_>>(), Vec::<Value>::new());
        assert!(self.heard.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0), "{:?}", self.heard);
        assert_eq!(self.heard.iter().map(|(_, text)| text.clone()).collect::<Vec<_>>(), self.said);
    }
}

/// Builds a node that closes no socket because its user waits.
fn serve(redis: &str, database: &str) -> NodeBuilder {
    Node::serve(redis, database).set("PING_INTERVAL", "1h")
}

/// Waits until a cluster serves all slots.
async fn is_whole(cluster: &RedisServer) {
    let whole = async || {
        let info: String = cluster.command(&["CLUSTER", "INFO"]).await;
        info.contains("cluster_state:ok").then_some(())
    };
    eventually("the cluster to be whole", whole).await;
}

/// A PostgreSQL with these rules for who gets in. Its superuser needs no password on 127.0.0.1.
async fn postgres_with(rules: &str, settings: &[(&str, &str)]) -> (Postgres, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let file = folder.path().join("pg_hba.conf");
    std::fs::write(&file, format!("host all postgres 127.0.0.1/32 trust\n{rules}\n")).unwrap();
    let file = file.display().to_string();
    let settings = [&[("fsync", "off"), ("hba_file", &*file)], settings].concat();
    (Postgres::start(&settings).await, folder)
}

/// Makes the role `node` with a password, and a database that it owns. Returns the name of the database.
async fn database_of_a_role(postgres: &Postgres, password: &str) -> String {
    let name = postgres.database().await.rsplit('/').next().unwrap().to_owned();
    let admin = postgres.connect("postgres").await;
    let make = format!("CREATE ROLE node LOGIN PASSWORD {}; ALTER DATABASE {name} OWNER TO node", literal(password));
    admin.batch_execute(&make).await.unwrap();
    name
}

/// A text in SQL.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A text in a URL.
fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// A file with a secret, in a folder of its own.
fn secret_file(content: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, content).unwrap();
    (folder, file)
}

/// Ends all connections of the role.
async fn end_sessions(postgres: &Postgres) {
    let admin = postgres.connect("postgres").await;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'node'";
    admin.batch_execute(end).await.unwrap();
}

async fn is_healthy(node: &Node) {
    let health = async || (node.admin_get("/api/health").await.json["status"] == "healthy").then_some(());
    eventually("a healthy node", health).await;
}

/// Waits until a node names a fault with a reason that has these words.
async fn faulty_with(node: &Node, fault: &str, words: &[&str]) {
    let named = async || {
        let reason = faulty(node, fault).await;
        words.iter().all(|word| reason.contains(word)).then_some(())
    };
    eventually(&format!("{fault} with {words:?}"), named).await;
}

/// Waits until a node names a fault, and returns the reason.
async fn faulty(node: &Node, fault: &str) -> String {
    let named = async || {
        let health = node.admin_get("/api/health").await.json;
        let faults = health["faults"].as_array().unwrap().clone();
        let found = faults.into_iter().find(|found| found["name"] == fault);
        found.map(|found| found["reason"].as_str().unwrap().to_owned())
    };
    eventually(fault, named).await
}

/// Runs a command of the program with more settings, and returns its exit code and what it printed.
async fn run(command: &str, settings: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut run = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    run.arg(command).env_clear().env("JWT_SECRET", SECRET).envs(settings.iter().copied());
    let done = within("the command", run.output()).await.unwrap();
    (done.status.code(), String::from_utf8([done.stdout, done.stderr].concat()).unwrap())
}
