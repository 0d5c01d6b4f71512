//! The tests' own support: servers start, die, freeze and come back on request.

use std::process::Command;

use crate::support::{
    Client, Link, Node, Postgres, Process, Proxy, RedisServer, Signal, cpu_seconds, resident_bytes, token,
};

#[tokio::test]
async fn redis_loses_its_data_and_keeps_its_port() {
    let mut redis = RedisServer::start().await;
    let url = redis.url();
    let _: () = redis.command(&["SET", "key", "value"]).await;
    redis.restart().await;
    assert_eq!(redis.url(), url);
    let value: Option<String> = redis.command(&["GET", "key"]).await;
    assert_eq!(value, None);
}

#[tokio::test]
async fn redis_answers_nothing_while_it_is_frozen() {
    let redis = RedisServer::with(&["--maxmemory", "8mb"]).await;
    let limit: Vec<String> = redis.command(&["CONFIG", "GET", "maxmemory"]).await;
    assert_eq!(limit[1], "8388608");
    let mut connection = redis.connection().await;
    redis.pause();
    let ping = redis::cmd("PING");
    let error = ping.query_async::<String>(&mut connection).await.expect_err("a frozen server answers nothing");
    assert!(error.is_timeout(), "{error}");
    redis.resume();
    let pong: String = redis.command(&["PING"]).await;
    assert_eq!(pong, "PONG");
}

#[tokio::test]
async fn each_test_gets_its_own_database() {
    let postgres = Postgres::shared().await;
    let (one, two) = (postgres.database().await, postgres.database().await);
    assert_ne!(one, two);
    let name = one.rsplit('/').next().unwrap();
    postgres.connect(name).await.batch_execute("CREATE TABLE things (id int)").await.unwrap();
}

#[tokio::test]
async fn postgres_keeps_committed_rows_when_it_is_killed() {
    let mut postgres = Postgres::start(&[]).await;
    let client = postgres.connect("postgres").await;
    let fsync: String = client.query_one("SHOW fsync", &[]).await.unwrap().get(0);
    assert_eq!(fsync, "on");
    client.batch_execute("CREATE TABLE things (id int); INSERT INTO things VALUES (7)").await.unwrap();
    postgres.restart().await;
    let client = postgres.connect("postgres").await;
    let id: i32 = client.query_one("SELECT id FROM things", &[]).await.unwrap().get(0);
    assert_eq!(id, 7);
}

#[tokio::test]
async fn postgres_answers_nothing_while_it_is_frozen() {
    let postgres = Postgres::start(&[("fsync", "off")]).await;
    let client = postgres.connect("postgres").await;
    postgres.pause();
    let asking = client.query_one("SELECT 1", &[]);
    let silence = tokio::time::timeout(std::time::Duration::from_millis(200), asking).await;
    assert!(silence.is_err());
    postgres.resume();
    client.query_one("SELECT 1", &[]).await.unwrap();
}

#[tokio::test]
async fn a_proxy_holds_answers_and_cuts_links() {
    let redis = RedisServer::start().await;
    let proxy = Proxy::to(format!("127.0.0.1:{}", redis.port())).await;
    let client = redis::Client::open(proxy.url(&redis.url())).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();

    proxy.set(Link::Mute);
    let unheard = redis::cmd("SET").arg("key").arg("value").query_async::<()>(&mut connection).await;
    assert!(unheard.unwrap_err().is_timeout());
    let value: String = redis.command(&["GET", "key"]).await;
    assert_eq!(value, "value", "the command ran, and its answer is held");

    proxy.set(Link::Open);
    redis::cmd("PING").query_async::<()>(&mut connection).await.unwrap();
    proxy.set(Link::Cut);
    redis::cmd("PING").query_async::<()>(&mut connection).await.unwrap_err();
    client.get_multiplexed_async_connection().await.unwrap_err();
    proxy.set(Link::Open);
    client.get_multiplexed_async_connection().await.unwrap();
}

#[tokio::test]
async fn a_node_in_dev_mode_greets_answers_and_ends() {
    let node = Node::dev().start().await;
    let alice = token("alice");
    let mut client = Client::connect(&format!("{}/v1/ws?token={alice}", node.ws())).await;
    client.greeting = client.expect("authenticated").await;
    assert_eq!(client.greeting["user_id"], "alice");
    client.join("general").await;
    client.send_text("general", "Hello").await;
    assert_eq!(node.metrics().await.sum("switchboard_messages_accepted_total"), 1.0);
    client.close().await;
    assert_eq!(node.terminate().await, 0);
    node.assert_never_logged(&[&alice]);
}

#[tokio::test]
async fn a_node_that_fails_to_start_returns_its_exit_status_and_log() {
    let (status, log) = Node::dev().set("LISTEN", "nonsense").try_start().await.unwrap_err();
    assert_eq!(status.code(), Some(78), "{log}");
    assert!(log.contains("LISTEN"), "{log}");
}

#[tokio::test]
async fn a_process_returns_its_log_its_figures_and_its_exit() {
    let mut command = Command::new("sh");
    command.args(["-c", "echo one; echo two >&2; exec sleep 60"]);
    let process = Process::spawn("sleeper", &mut command, Signal::Kill);
    process.line("two", |line| (line == "two").then_some(())).await.unwrap();
    assert!(resident_bytes(process.pid()) > 0);
    assert!(cpu_seconds(process.pid()) < 1.0);
    process.signal(Signal::Terminate);
    assert_eq!(process.ended().await.code(), None);
    let why = process.line("three", |line| (line == "three").then_some(())).await.unwrap_err();
    assert!(why.contains("one") && why.contains("two"), "{why}");
}

/// A helper of the test below, which runs it as a separate process.
#[tokio::test]
#[ignore = "aborts"]
async fn abort_with_a_server_running() {
    let redis = RedisServer::start().await;
    eprintln!("pid={}", redis.pid());
    std::process::abort();
}

#[tokio::test]
async fn servers_end_with_the_test_process_however_it_ends() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let name = concat!(module_path!(), "::abort_with_a_server_running");
    let (_crate, name) = name.split_once("::").unwrap();
    command.args([name, "--ignored", "--exact", "--nocapture"]);
    let child = Process::spawn("aborting test", &mut command, Signal::Kill);
    let pid: u32 = child.line("a pid", |line| line.split_once("pid=")?.1.parse().ok()).await.unwrap();
    assert_eq!(child.ended().await.code(), None, "it was ended by a signal");
    crate::support::eventually("the end of the server", async || (resident_bytes(pid) == 0).then_some(())).await;
}
