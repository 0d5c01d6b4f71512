//! Silence, a node that ends, and a reload, behind nginx.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::Pair;
use crate::support::{Client, Nginx, RawClient, Signal, allowed, opcode, token, within};

/// Holds a socket whose client only answers pings. Returns the time until it was closed, or `long_enough` at most.
async fn time_open(nginx: &Nginx, long_enough: Duration) -> Duration {
    let path = format!("/v1/ws?token={}", token("alice"));
    let mut silent = RawClient::open(nginx.address(), &path).await;
    let since = Instant::now();
    while since.elapsed() < long_enough {
        let Some(frame) = silent.read_frame().await else { break };
        if frame.opcode == opcode::PING {
            silent.frame(opcode::PONG, &frame.payload).await;
        }
    }
    since.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_keep_a_silent_socket_open() {
    // A third of nginx's read timeout, the same ratio as 25 s to 75 s.
    let pinged = Pair::with(|node| node.set("PING_INTERVAL", "1s")).await;
    let unpinged = Pair::start().await;
    let impatient = async |pair: &Pair| {
        Nginx::plain(&pair.nodes()).change("sockets.conf", "read_timeout 75s", "read_timeout 3s").start().await
    };
    let (pinged, unpinged) = (impatient(&pinged).await, impatient(&unpinged).await);
    let long_enough = Duration::from_secs(7);
    let (kept, cut) = tokio::join!(time_open(&pinged, long_enough), time_open(&unpinged, long_enough));
    assert!(kept >= long_enough, "closed after {kept:?}");
    assert!(cut < allowed(Duration::from_secs(5)), "nginx closes a socket without pings: {cut:?}");
}

/// Reads the messages of a log up to `last`; reconnects and resumes after each 1012. Returns the seqs and the number of
/// reconnects.
async fn read_until_seq(nginx: &str, user: &str, conversation: &str, last: i64) -> (Vec<i64>, u32) {
    let (mut seqs, mut times_away) = (Vec::new(), 0);
    loop {
        let mut client = Client::connect(&format!("ws://{nginx}/v1/ws?token={}", token(user))).await;
        let since = seqs.last().copied().unwrap_or(0);
        client.send(&json!({"type": "join", "conversation_id": conversation, "since_seq": since})).await;
        loop {
            match client.recv_or_close().await {
                Ok(frame) if frame["type"] == "message" => seqs.push(frame["seq"].as_i64().unwrap()),
                Ok(_) => {}
                Err((code, _)) => {
                    assert_eq!(code, 1012, "closed with 1012, not cut off");
                    times_away += 1;
                    break;
                }
            }
            if seqs.last() == Some(&last) {
                return (seqs, times_away);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_node_behind_nginx_loses_no_message() {
    const READERS: usize = 8;
    const MESSAGES: i64 = 400;
    let pair = Pair::with(|node| node.set("SHUTDOWN_DELAY", "1s").set("DRAIN_WINDOW", "2s")).await;
    let nginx = Nginx::plain(&pair.nodes()).start().await;
    let mut author = Client::native(&pair.two, "author").await;
    let owner = token("author");
    let users: Vec<String> = (0..READERS).map(|reader| format!("reader-{reader}")).collect();
    let members: Vec<&str> = users.iter().map(String::as_str).collect();
    let conversation = pair.two.conversation(&owner, &members).await;
    let first = author.send_text(&conversation, "first").await["seq"].as_i64().unwrap();
    let last = first + MESSAGES;
    let readers: Vec<_> = users
        .iter()
        .map(|user| {
            let (nginx, user, conversation) = (nginx.address().to_string(), user.clone(), conversation.clone());
            tokio::spawn(async move { read_until_seq(&nginx, &user, &conversation, last).await })
        })
        .collect();
    pair.one.metric("switchboard_connections{dialect=\"native\"}", |sockets| sockets >= 1.0).await;
    pair.one.signal(Signal::Terminate);
    // Meanwhile: messages, handshakes, health. Messages sent after the node has gone are read from the other one.
    let mut said = 0;
    let mut gone = false;
    while said < MESSAGES {
        if said < MESSAGES / 2 || gone {
            author.send_text(&conversation, "more").await;
            said += 1;
        }
        if said % 20 == 0 || !gone {
            Client::connect(&nginx.url("/v1/ws", "guest")).await.expect("authenticated").await;
            let health = reqwest::get(format!("{}/api/health", nginx.http())).await.unwrap();
            assert_eq!(health.status(), StatusCode::OK, "one node is healthy");
        }
        gone = gone || pair.one.log().iter().any(|line| line.contains("\"stopped\""));
    }
    assert_eq!(pair.one.exit_code().await, 0);
    let mut away = 0;
    for reader in readers {
        let (seqs, times) = within("a reader's last message", reader).await.unwrap();
        let expected: Vec<i64> = (first..=last).collect();
        assert_eq!(seqs, expected, "each message once, in order");
        away += times;
    }
    assert!(away >= 1, "at least one reader was on the drained node");
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_skips_a_dead_node_and_answers_502_without_any_node() {
    let pair = Pair::start().await;
    let nginx = Nginx::plain(&pair.nodes()).start().await;
    pair.one.kill().await;
    for _ in 0..5 {
        Client::connect(&nginx.url("/ws/lobby", "alice")).await.until("connected").await;
        let health: Value = reqwest::get(format!("{}/api/health", nginx.http())).await.unwrap().json().await.unwrap();
        assert_eq!(health["node"], "two");
    }
    pair.two.kill().await;
    let answer = reqwest::get(format!("{}/api/health", nginx.http())).await.unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(
        (&answer.headers()["retry-after"], &answer.headers()["content-type"]),
        (&"5".parse().unwrap(), &"application/problem+json".parse().unwrap())
    );
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(
        (&problem["status"], &problem["code"], &problem["retry_after_ms"]),
        (&json!(502), &json!("unknown"), &json!(5_000))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_keeps_sockets() {
    let pair = Pair::start().await;
    let nginx = Nginx::plain(&pair.nodes()).start().await;
    let mut old = Client::connect(&nginx.url("/v1/ws", "alice")).await;
    old.join("team").await;
    nginx.reload().await;
    let mut new = Client::connect(&nginx.url("/v1/ws", "bob")).await;
    new.join("team").await;
    old.send_text("team", "still here").await;
    assert_eq!(new.until("message").await["content"], "still here");
}
