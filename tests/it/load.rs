//! `switchboard load` against real nodes: what it counts is what happened.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::{
    first_minutes::{PROGRAM, run, stderr},
    support::{Node, Postgres, RedisServer, SECRET},
};

/// The result of a run with these options, and its exit code.
fn load(options: &[&str]) -> (Value, Option<i32>) {
    let output = command(options).output().unwrap();
    let result = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", stderr(&output)));
    (result, output.status.code())
}

fn command(options: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("load").args(options).arg("--json").env_clear().env("JWT_SECRET", SECRET).stdin(Stdio::null());
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_of_a_load_is_counted_once_at_each_listener_in_every_dialect() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let node = Node::serve(&redis.url(), &database).start().await;
    // Without echoes, each of the four other users of a room receives a message.
    for (dialect, listeners) in [("native", 4), ("rooms", 5), ("personas", 5)] {
        let options = ["--users", "20", "--rooms", "4", "--rate", "20", "--seconds", "2", "--warm-up", "1"];
        let (result, code) = load(&[&options[..], &["--dialect", dialect, "--url", &node.ws()]].concat());
        assert_eq!(code, Some(0), "{dialect}: {result:#}");
        let (connects, sends, deliveries) = (&result["connects"], &result["sends"], &result["deliveries"]);
        assert_eq!((&connects["opened"], &connects["not_opened"]), (&json!(20), &json!({})));
        assert_eq!((&sends["due"], &sends["stored"], &sends["unanswered"]), (&json!(60), &json!(60), &json!(0)));
        assert_eq!(deliveries["received"], 60 * listeners, "{dialect}");
        assert_eq!((&deliveries["missing"], &deliveries["repeated"]), (&json!(0), &json!(0)));
        for times in [&connects["ms"], &sends["ack_ms"], &deliveries["ms"]] {
            let [p50, p99, max] = ["p50", "p99", "max"].map(|name| times[name].as_f64().unwrap());
            assert!(0.0 < p50 && p50 <= p99 && p99 <= max, "{times}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_and_lost_connections_are_named() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let node = Node::serve(&redis.url(), &database).set("MESSAGE_RATE_LIMIT", 3).start().await;
    let options = ["--users", "2", "--rooms", "1", "--rate", "10", "--seconds", "1", "--warm-up", "0"];
    let (result, code) = load(&[&options[..], &["--url", &node.ws()]].concat());
    assert_eq!((&result["sends"]["stored"], &result["sends"]["refused"]), (&json!(6), &json!({"rate_limited": 4})));
    assert_eq!(code, Some(0), "a refused message is not lost");

    let options = ["--users", "4", "--rooms", "2", "--rate", "1", "--seconds", "4", "--warm-up", "0"];
    let mut ends = command(&[&options[..], &["--url", &node.ws()]].concat());
    let ended = tokio::task::spawn_blocking(move || ends.output().unwrap());
    // A message is stored only after all have joined.
    node.metric(r#"switchboard_commands_total{command="send",result="ok"}"#, |sent| sent > 6.0).await;
    drop(node);
    let output = ended.await.unwrap();
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    let lost: u64 = result["connects"]["lost"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!((lost, output.status.code()), (4, Some(1)), "{result:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_without_a_reachable_target_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["load"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--url <URL>"), "{}", stderr(&output));
    for (options, why) in [
        (&["--url", "localhost:8000"][..], "lacks the scheme ws://"),
        (&["--url", "ws://127.0.0.1:1", "--users", "3"], "--rooms 10 are more than --users 3"),
        (&["--url", "ws://127.0.0.1:1"], "http://127.0.0.1:1/api/chat/conversations can't be reached"),
    ] {
        let output = command(options).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{options:?}");
        assert!(stderr(&output).contains(why), "{options:?}: {}", stderr(&output));
    }
    let output = run(folder.path(), &["load", "--url", "ws://127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(stderr(&output).contains("JWT_SECRET"), "{}", stderr(&output));
}
