//! A node is killed and started again while many clients send.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use super::scene::{TEAM, assert_read};
use crate::support::{Client, Node, Postgres, RedisServer, eventually, free_port, token, within};

/// Sends numbered messages one after the other; repeats each on any node until it is acked.
async fn send_through(nodes: &[String], user: &str, count: usize) -> BTreeMap<i64, String> {
    let (mut acked, mut turn) = (BTreeMap::new(), user.len());
    let mut client: Option<Client> = None;
    for at in 0..count {
        let id = format!("{user}-{at}");
        let frame = json!({"type": "send", "conversation_id": TEAM, "content": id, "client_id": id, "ref": id});
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
            if let Some(ack) = send_and_await_ack(&mut open, &frame).await {
                acked.insert(ack["seq"].as_i64().unwrap(), id);
                client = Some(open);
                break;
            }
        }
    }
    acked
}

/// Connects; `None` if the node is down.
async fn connect(url: &str) -> Option<Client> {
    let address = url.strip_prefix("ws://")?.split('/').next()?;
    if tokio::net::TcpStream::connect(address).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        return None;
    }
    let url = url.to_owned();
    tokio::spawn(async move {
        let mut client = Client::connect(&url).await;
        client.expect("authenticated").await;
        client.send(&json!({"type": "join", "conversation_id": TEAM, "ref": "join"})).await;
        client.until("joined").await;
        client
    })
    .await
    .ok()
}

/// Returns the ack of a send; `None` if the connection ended or the outcome is unknown.
async fn send_and_await_ack(client: &mut Client, frame: &Value) -> Option<Value> {
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
    let port = free_port();
    let second =
        Node::serve(&redis.url(), &database).set("NODE_LEASE", "3s").set("LISTEN", format!("127.0.0.1:{port}"));
    let two = second.clone().start().await;
    let mut reader = Client::native(&one, "reader").await;
    reader.join(TEAM).await;
    let nodes = [one.ws(), two.ws()];
    let senders: Vec<_> = (0..SENDERS)
        .map(|at| {
            let nodes = nodes.clone();
            tokio::spawn(async move { send_through(&nodes, &format!("sender{}", "x".repeat(at)), EACH).await })
        })
        .collect();
    let accepted =
        || async { two.metrics().await.get("switchboard_messages_accepted_total").filter(|sent| *sent > 60.0) };
    eventually("the load to be under way", accepted).await;
    two.kill().await;
    let two = second.start().await;
    let mut acked = BTreeMap::new();
    for sender in senders {
        acked.extend(within("the senders", sender).await.unwrap());
    }
    assert_eq!(acked.len(), SENDERS * EACH, "every message has a seq of its own");
    assert_read(&mut reader, &acked).await;

    // Read them again from the store, through the node that was killed.
    let mut late = Client::native(&two, "late").await;
    late.send(&json!({"type": "join", "conversation_id": TEAM, "since_seq": 0, "ref": 1})).await;
    assert_read(&mut late, &acked).await;
}
