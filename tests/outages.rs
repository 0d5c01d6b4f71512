//! Redis, PostgreSQL and nodes die under people who chat: nothing acked is lost, doubled or out of order.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on must panic")]

mod support;

use std::collections::{BTreeMap, HashSet};

use serde_json::{Value, json};
use support::{Client, Node, Postgres, RedisServer, eventually, token};

async fn status(node: &Node) -> String {
    let answer = node.get("/api/health", &token("anyone")).await;
    answer.json["status"].as_str().unwrap().to_owned()
}

async fn until_status(node: &Node, wanted: &str) {
    eventually(&format!("health to be {wanted}"), || async { (status(node).await == wanted).then_some(()) }).await;
}

/// The contents of messages, in the order in which they came, until all of `wanted` are there.
async fn contents(client: &mut Client, wanted: usize) -> Vec<(i64, String)> {
    let mut seen = Vec::new();
    while seen.len() < wanted {
        let frame = client.recv().await;
        if frame["type"] == "message" {
            seen.push((frame["seq"].as_i64().unwrap(), frame["content"].as_str().unwrap().to_owned()));
        }
    }
    seen
}

#[tokio::test]
async fn redis_dies_and_comes_back() {
    let mut redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let one = Node::serve(&redis.url(), &database).start().await;
    let two = Node::serve(&redis.url(), &database).start().await;
    let mut alice = Client::native(&one, "alice").await;
    let mut bob = Client::native(&one, "bob").await;
    let mut carol = Client::native(&two, "carol").await;
    for client in [&mut alice, &mut bob, &mut carol] {
        client.join("team").await;
    }
    alice.say("team", "before").await;
    redis.kill().await;
    until_status(&one, "degraded").await;
    let works = one.get("/api/health", &token("anyone")).await.json["works"].clone();
    assert_eq!((&works["append"], &works["limits"]), (&json!("shared"), &json!("local")));
    for at in 0..20 {
        alice.say("team", &format!("during {at}")).await;
    }
    assert_eq!(contents(&mut bob, 21).await.len(), 21, "local delivery goes on");
    let mut dave = Client::native(&one, "dave").await;
    dave.join("team").await;

    redis.restart().await;
    let back = std::time::Instant::now();
    for node in [&one, &two] {
        until_status(node, "healthy").await;
    }
    assert!(back.elapsed() < std::time::Duration::from_secs(5), "healthy after {:?}", back.elapsed());
    alice.say("team", "after").await;
    let seen = contents(&mut carol, 22).await;
    let seqs: Vec<i64> = seen.iter().map(|(seq, _)| *seq).collect();
    let ordered: HashSet<_> = seqs.iter().collect();
    assert!(seqs.is_sorted() && ordered.len() == 22, "in order, once: {seqs:?}");
    assert_eq!(seen.last().unwrap().1, "after");
    let mut online: Vec<String> = redis.command(&["SMEMBERS", "ws:online_users"]).await;
    online.sort();
    assert_eq!(online, ["alice", "bob", "carol", "dave"], "the registry is true again");
}

#[tokio::test]
async fn a_node_starts_without_redis_and_heals() {
    let mut redis = RedisServer::start().await;
    redis.kill().await;
    let database = Postgres::shared().await.database().await;
    let node = Node::serve(&redis.url(), &database).start().await;
    assert_eq!(status(&node).await, "degraded");
    let mut alice = Client::rooms(&node, "room", "alice").await;
    alice.send(&json!({"type": "send_message", "data": {"content": "alone"}})).await;
    alice.until("message_sent").await;
    redis.restart().await;
    until_status(&node, "healthy").await;
    let online: Vec<String> = redis.command(&["SMEMBERS", "ws:online_users"]).await;
    assert_eq!(online, ["alice"]);
}

#[tokio::test]
async fn postgres_dies_and_comes_back() {
    let redis = RedisServer::start().await;
    let mut postgres = Postgres::start(&[]).await;
    let database = postgres.database().await;
    let node = Node::serve(&redis.url(), &database).start().await;
    let mut alice = Client::rooms(&node, "room", "alice").await;
    let mut bob = Client::native(&node, "bob").await;
    bob.join("room").await;
    let send = |id: &str| json!({"type": "send_message", "data": {"content": id, "client_id": id}});
    alice.send(&send("before")).await;
    alice.until("message_sent").await;
    postgres.kill().await;
    alice.send(&send("during")).await;
    let error = alice.until("message_error").await;
    assert_eq!((&error["data"]["client_id"], &error["data"]["retryable"]), (&json!("during"), &json!(true)));
    bob.send(&json!({"type": "ping", "ref": 1})).await;
    let frames = bob.drain().await;
    assert!(frames.iter().all(|frame| frame["content"] != "during"), "{frames:?}");
    until_status(&node, "degraded").await;
    postgres.restart().await;
    until_status(&node, "healthy").await;
    alice.send(&send("during")).await;
    let sent = alice.until("message_sent").await;
    alice.send(&send("during")).await;
    assert_eq!(alice.until("message_sent").await["data"]["seq"], sent["data"]["seq"]);
    assert_eq!(bob.until_where(|frame| frame["content"] == "during").await["seq"], sent["data"]["seq"]);
}

/// Sends numbered messages one after the other, and again on any node until each is acked.
async fn send_through(nodes: &[String], user: &str, count: usize) -> BTreeMap<i64, String> {
    let (mut acked, mut turn) = (BTreeMap::new(), user.len());
    let mut client: Option<Client> = None;
    for at in 0..count {
        let id = format!("{user}-{at}");
        let frame = json!({"type": "send", "conversation_id": "team", "content": id, "client_id": id, "ref": id});
        loop {
            let open = match client.take() {
                Some(open) => Some(open),
                None => {
                    turn += 1;
                    let url = format!("{}/v1/ws?token={}", nodes[turn % nodes.len()], token(user));
                    connect(&url).await
                }
            };
            let Some(mut open) = open else { continue };
            if let Some(ack) = ask(&mut open, &frame).await {
                acked.insert(ack["seq"].as_i64().unwrap(), id);
                client = Some(open);
                break;
            }
        }
    }
    acked
}

/// A connection, if the node is there.
async fn connect(url: &str) -> Option<Client> {
    let address = url.strip_prefix("ws://")?.split('/').next()?;
    if tokio::net::TcpStream::connect(address).await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        return None;
    }
    let url = url.to_owned();
    tokio::spawn(async move {
        let mut client = Client::connect(&url).await;
        client.expect("authenticated").await;
        client.send(&json!({"type": "join", "conversation_id": "team", "ref": "join"})).await;
        client.until("joined").await;
        client
    })
    .await
    .ok()
}

/// The ack of a send, or nothing where the connection ended or the node could not tell.
async fn ask(client: &mut Client, frame: &Value) -> Option<Value> {
    client.try_send(frame).await.ok()?;
    loop {
        let answer = client.recv_or_close().await.ok()?;
        match answer["type"].as_str() {
            Some("ack") if answer["ref"] == frame["ref"] => return Some(answer),
            Some("error") if answer["ref"] == frame["ref"] => return None,
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_node_is_killed_and_started_again_under_load() {
    const SENDERS: usize = 4;
    const EACH: usize = 150;
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let one = Node::serve(&redis.url(), &database).set("NODE_LEASE", "3s").start().await;
    let port = support::free_port();
    let second =
        Node::serve(&redis.url(), &database).set("NODE_LEASE", "3s").set("LISTEN", format!("127.0.0.1:{port}"));
    let two = second.clone().start().await;
    let mut reader = Client::native(&one, "reader").await;
    reader.join("team").await;
    let nodes = [one.ws(), two.ws()];
    let senders: Vec<_> = (0..SENDERS)
        .map(|at| {
            let nodes = nodes.clone();
            tokio::spawn(async move { send_through(&nodes, &format!("sender{}", "x".repeat(at)), EACH).await })
        })
        .collect();
    let watching = tokio::spawn(async move {
        let seen = contents(&mut reader, SENDERS * EACH).await;
        (reader, seen)
    });
    let accepted =
        || async { two.metrics().await.get("switchboard_messages_accepted_total").filter(|sent| *sent > 60.0) };
    eventually("the load to be under way", accepted).await;
    two.kill().await;
    let two = second.start().await;
    let mut acked = BTreeMap::new();
    for sender in senders {
        acked.extend(support::within("the senders", sender).await.unwrap());
    }
    assert_eq!(acked.len(), SENDERS * EACH, "every message has a seq of its own");
    let (mut reader, seen) = watching.await.unwrap();
    assert!(seen.windows(2).all(|pair| pair[0].0 < pair[1].0), "in order, once");
    assert_eq!(seen.into_iter().collect::<BTreeMap<_, _>>(), acked, "what was acked is what was delivered");
    assert!(reader.drain().await.iter().all(|frame| frame["type"] != "message"), "and nothing else");

    // And again from the store, through the node that was killed.
    let mut late = Client::native(&two, "late").await;
    late.send(&json!({"type": "join", "conversation_id": "team", "since_seq": 0, "ref": 1})).await;
    assert_eq!(contents(&mut late, SENDERS * EACH).await.into_iter().collect::<BTreeMap<_, _>>(), acked);
}

#[tokio::test]
async fn who_leaves_while_waiting_to_listen_takes_nobody_else_with_them() {
    let redis = RedisServer::start().await;
    let postgres = Postgres::start(&[("fsync", "off")]).await;
    let node = Node::serve(&redis.url(), &postgres.database().await).set("PING_INTERVAL", "1s").start().await;
    let mut alice = Client::native(&node, "alice").await;
    let mut bob = Client::native(&node, "bob").await;
    let alices = token("alice");
    alice.join("team").await;
    bob.join("team").await;
    // Enough that some share a delivery shard with Bob.
    let mut leaving = Vec::new();
    for number in 0..8 {
        let mut client = Client::native(&node, &format!("leaving-{number}")).await;
        // With nothing left to read, what it sends last is read before its end is.
        client.drain().await;
        leaving.push(client);
    }
    // Enough connections to PostgreSQL that each of them waits for an answer, not for a connection.
    let everything = (0..100).map(|_| node.get("/api/chat/conversations", &alices));
    futures_util::future::join_all(everything).await;
    postgres.pause();
    for client in &mut leaving {
        client.send(&json!({"type": "join", "conversation_id": "team"})).await;
    }
    drop(leaving);
    node.metric("switchboard_connections{dialect=\"native\"}", |open| open == 2.0).await;
    postgres.resume();
    until_status(&node, "healthy").await;
    alice.say("team", "still there?").await;
    assert_eq!(contents(&mut bob, 1).await[0].1, "still there?");
}
