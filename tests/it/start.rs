//! The start of `serve` while PostgreSQL is away, and the words of faults that an operator must end.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use reqwest::StatusCode;

use crate::support::{Client, Link, Node, Postgres, Process, Proxy, RedisServer, Signal, allowed, eventually};

const SOON: Duration = Duration::from_secs(5);

async fn ready(node: &Node) {
    eventually("the node to be ready", || async { (node.admin_get("/readyz").await.status == 200).then_some(()) })
        .await;
}

/// Checks that the node lives, waits for the store, and says why.
async fn expect_waiting(node: &Node, why: &str) {
    let readiness = node.admin_get("/readyz").await;
    assert_eq!(readiness.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        readiness.text.starts_with("waiting for the store: ") && readiness.text.contains(why),
        "{}",
        readiness.text
    );
    assert_eq!(node.admin_get("/livez").await.status, StatusCode::OK);
    let health = node.request(reqwest::Method::GET, "/api/health", None, None).await;
    assert_eq!((health.status.as_u16(), &health.json["status"]), (503, &"unhealthy".into()));
    assert_eq!(health.json["components"]["store"]["status"], "down");
}

/// Warnings about the store in the log.
fn warnings(node: &Node) -> Vec<String> {
    let about = |line: &String| line.contains("WARN") && line.contains("the store is away");
    node.log().into_iter().filter(about).collect()
}

#[tokio::test]
async fn a_node_waits_for_postgres_applies_migrations_and_serves() {
    let redis = RedisServer::start().await;
    let mut postgres = Postgres::start(&[("fsync", "off")]).await;
    let database = postgres.database().await;
    postgres.kill().await;
    let node = Node::serve(&redis.url(), &database).start_without_store().await;
    expect_waiting(&node, "Connection refused").await;
    // Several tries fail meanwhile.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let warnings = warnings(&node);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("error connecting to server: Connection refused"), "{warnings:?}");
    postgres.restart().await;
    let back = Instant::now();
    ready(&node).await;
    assert!(back.elapsed() < allowed(SOON), "ready after {:?}", back.elapsed());
    let mut alice = Client::native(&node, "alice").await;
    alice.join("team").await;
    alice.send_text("team", "the tables are there").await;
    let health = node.request(reqwest::Method::GET, "/api/health", None, None).await;
    assert_eq!((health.status.as_u16(), &health.json["status"]), (200, &"healthy".into()));
}

#[tokio::test]
async fn a_node_waits_for_a_silent_postgres() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let proxy = Proxy::to(database.split('@').next_back().unwrap().split('/').next().unwrap()).await;
    proxy.set(Link::Frozen);
    let node = Node::serve(&redis.url(), &proxy.url(&database)).start_without_store().await;
    expect_waiting(&node, "").await;
    proxy.set(Link::Open);
    ready(&node).await;
}

#[tokio::test]
async fn sigterm_ends_a_waiting_node_at_once() {
    let redis = RedisServer::start().await;
    let away = "postgres://postgres@127.0.0.1:1/none";
    let node = Node::serve(&redis.url(), away).set("SHUTDOWN_DELAY", "60s").set("DRAIN_WINDOW", "60s");
    let node = node.start_without_store().await;
    expect_waiting(&node, "Connection refused").await;
    let asked = Instant::now();
    node.signal(Signal::Terminate);
    assert_eq!(node.exit_code().await, 0);
    assert!(asked.elapsed() < allowed(SOON), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn a_store_that_stays_away_ends_the_start_with_the_settings_name() {
    let redis = RedisServer::start().await;
    let away = "postgres://postgres@127.0.0.1:1/none";
    let node = Node::serve(&redis.url(), away).set("DATABASE_START_TIMEOUT", "2s").start_without_store().await;
    assert_eq!(node.exit_code().await, 1);
    let log = node.log().join("\n");
    assert!(log.contains("PostgreSQL was not usable within DATABASE_START_TIMEOUT (2 s)"), "{log}");
    assert!(log.contains("Connection refused"), "{log}");
}

/// Starts `switchboard migrate`.
fn migrate(url: &str, timeout: &str) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    command.arg("migrate").env_clear().env("DATABASE_URL", url).env("DATABASE_START_TIMEOUT", timeout);
    Process::spawn("migrate", &mut command, Signal::Kill)
}

/// Runs it to its end: its exit code and what it printed.
async fn migrated(url: &str, timeout: &str) -> (i32, String) {
    let process = migrate(url, timeout);
    (process.exit_code().await, process.log().join("\n"))
}

/// Waits until it says that the store is away.
async fn says_why(process: &Process) -> String {
    let waits = |line: &str| line.contains("the migrations wait for it").then(|| line.to_owned());
    process.line("why it waits", waits).await.unwrap()
}

#[tokio::test]
async fn migrate_waits_for_postgres_and_says_why() {
    let mut postgres = Postgres::start(&[("fsync", "off")]).await;
    let database = postgres.database().await;
    postgres.kill().await;
    let process = migrate(&database, "10m");
    let line = says_why(&process).await;
    assert!(line.contains("Connection refused") && line.contains("\"timeout_seconds\":600"), "{line}");
    postgres.restart().await;
    assert_eq!(process.exit_code().await, 0, "{:?}", process.log());
    let applied = process.log().pop().unwrap();
    let count = applied.strip_suffix(" migrations applied").unwrap_or_else(|| panic!("{applied}"));
    assert!(count.parse::<u32>().unwrap() > 0, "{applied}");
}

#[tokio::test]
async fn migrate_waits_no_longer_than_it_may_and_ends_at_a_signal() {
    let away = "postgres://postgres@127.0.0.1:1/none";
    let (code, printed) = migrated(away, "1s").await;
    assert_eq!(code, 1, "{printed}");
    assert!(printed.contains("PostgreSQL was not usable within DATABASE_START_TIMEOUT (1 s)"), "{printed}");
    assert!(printed.contains("Connection refused"), "{printed}");

    let process = migrate(away, "7d");
    says_why(&process).await;
    process.signal(Signal::Terminate);
    assert_eq!(process.exit_code().await, 1, "{:?}", process.log());
    let printed = process.log().join("\n");
    assert!(printed.contains("a signal ended the program before all migrations were applied"), "{printed}");
}

/// A server that asks one role for a password, and a URL for that role that has none.
async fn guarded_by_password() -> (Postgres, String) {
    let mut server = Postgres::start(&[("fsync", "off")]).await;
    let admin = server.connect("postgres").await;
    admin.batch_execute("CREATE ROLE guarded LOGIN PASSWORD 'planted'").await.unwrap();
    let rules = server.folder().join("data/pg_hba.conf");
    let rest = std::fs::read_to_string(&rules).unwrap();
    std::fs::write(&rules, format!("host all guarded 127.0.0.1/32 scram-sha-256\n{rest}")).unwrap();
    server.restart().await;
    let url = server.url("postgres").replace("postgres@", "guarded@");
    (server, url)
}

#[tokio::test]
async fn a_fault_that_an_operator_must_end_ends_the_start_at_once() {
    let redis = RedisServer::start().await;
    let server = Postgres::shared().await;
    let refused = async |url: &str, words: &[&str]| {
        let (status, log) = Node::serve(&redis.url(), url).try_start().await.expect_err("the start fails");
        assert_eq!(status.code(), Some(1), "{log}");
        // The migration Job doesn't wait for what will not pass, either.
        let (code, printed) = migrated(url, "7d").await;
        assert_eq!(code, 1, "{printed}");
        for words in words {
            assert!(log.contains(words) && printed.contains(words), "{words}: {log}{printed}");
        }
    };
    let database = server.database().await;
    let name = database.rsplit('/').next().unwrap();
    refused(&server.url("nowhere"), &["3D000", "database \"nowhere\" does not exist"]).await;
    let (_server, no_password) = guarded_by_password().await;
    refused(&no_password, &["password missing"]).await;
    refused(&database.replace("postgres@", "nobody@"), &["28000", "role \"nobody\" does not exist"]).await;

    // A role that may not create tables: `migrate` prints every cause.
    let client = server.connect(name).await;
    let role = format!("weak_{name}");
    client
        .batch_execute(&format!("CREATE ROLE {role} LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC"))
        .await
        .unwrap();
    let weak = database.replace("postgres@", &format!("{role}@"));
    let why = "may not make tables in the schema public";
    refused(&weak, &[why]).await;
    let (_, printed) = migrated(&weak, "7d").await;
    assert!(!printed.contains("db error"), "{printed}");

    let newer = Node::serve(&redis.url(), &database).start().await;
    newer.kill().await;
    let later = "INSERT INTO refinery_schema_history VALUES (999, 'later', '2026-01-01T00:00:00Z', '1')";
    client.batch_execute(later).await.unwrap();
    refused(&database, &["V999__later", "a newer version made it"]).await;
}
