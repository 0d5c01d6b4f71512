//! A rolling restart of three nodes while clients send and read.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::Stage;
use crate::support::{Client, Node, Signal, token, within};

const ROOMS: usize = 4;
const READERS: usize = 40;
const SENDERS: usize = 8;
/// Interval between two messages of one sender.
const PACE: Duration = Duration::from_millis(40);

/// Last message of every room.
const THE_END: &str = "the end";

/// Nodes to which the load balancer sends clients.
#[derive(Clone, Default)]
struct Balancer(Arc<Mutex<Vec<String>>>);

impl Balancer {
    fn add(&self, node: &Node) {
        self.0.lock().unwrap().push(node.ws());
    }

    fn remove(&self, node: &Node) {
        self.0.lock().unwrap().retain(|url| *url != node.ws());
    }

    async fn connect(&self, user: &str) -> Client {
        let url = {
            let nodes = self.0.lock().unwrap();
            nodes[rand::random_range(0..nodes.len())].clone()
        };
        let mut client = Client::connect(&format!("{url}/v1/ws?token={}", token(user))).await;
        client.greeting = client.expect("authenticated").await;
        client
    }
}

/// Reads until the node closes the connection with 1012, and returns the advised wait. All frames before the advice go
/// to `take`.
async fn read_until_restart(client: &mut Client, mut take: impl FnMut(&Value) -> bool) -> Option<Duration> {
    let mut advice = None;
    loop {
        match client.recv_or_close().await {
            Ok(frame) if frame["type"] == "restart" => advice = frame["retry_after_ms"].as_u64(),
            Ok(frame) if take(&frame) => return None,
            Ok(_) => {}
            Err((code, reason)) => {
                assert_eq!(code, 1012, "{reason}");
                return Some(Duration::from_millis(advice.expect("the close was announced by a frame")));
            }
        }
    }
}

/// Reads a room to the end. Returns the messages, and the gaps: from the last message before a reconnect to the first
/// after it.
async fn read(balancer: Balancer, user: String, room: String) -> (Vec<(i64, String)>, Vec<Duration>) {
    let (mut has, mut got, mut gaps, mut last_frame) = (0, Vec::new(), Vec::new(), None::<Instant>);
    loop {
        let mut client = balancer.connect(&user).await;
        client.send(&json!({"type": "join", "conversation_id": room, "since_seq": has, "ref": 1})).await;
        let mut waits_for_first = last_frame.is_some();
        let sent_away = read_until_restart(&mut client, |frame| {
            assert!(frame["type"] != "error" && frame["type"] != "resync", "{frame}");
            if let Some(seq) = frame["seq"].as_i64() {
                assert_eq!(seq, has + 1, "no message is lost, doubled or out of order: {frame}");
                has = seq;
                if frame["type"] == "message" {
                    if std::mem::take(&mut waits_for_first) {
                        gaps.push(last_frame.unwrap().elapsed());
                    }
                    last_frame = Some(Instant::now());
                    got.push((seq, frame["content"].as_str().unwrap().to_owned()));
                }
            }
            frame["content"] == THE_END
        })
        .await;
        match sent_away {
            Some(wait) => tokio::time::sleep(wait).await,
            None => return (got, gaps),
        }
    }
}

/// Sends to a room until `stop`, and repeats each message until it is acked. Returns the acked messages.
async fn send(balancer: Balancer, number: usize, room: String, stop: watch::Receiver<bool>) -> Vec<(i64, String)> {
    let (user, mut acked) = (format!("sender-{number}"), Vec::new());
    while !*stop.borrow() {
        let mut client = balancer.connect(&user).await;
        client.join(&room).await;
        let sent_away = loop {
            if *stop.borrow() {
                break None;
            }
            let content = format!("{number}/{}", acked.len());
            let say = json!({"type": "send", "conversation_id": room, "content": content,
                "client_id": content.replace('/', "-"), "ref": content});
            if client.try_send(&say).await.is_err() {
                break Some(Duration::from_secs(1));
            }
            let mut ack = None;
            let sent_away = read_until_restart(&mut client, |frame| {
                assert_ne!(frame["type"], "error", "{frame}");
                if frame["type"] == "ack" {
                    ack = frame["seq"].as_i64();
                }
                ack.is_some()
            })
            .await;
            acked.extend(ack.map(|seq| (seq, content)));
            if sent_away.is_some() {
                break sent_away;
            }
            tokio::time::sleep(PACE).await;
        };
        if let Some(wait) = sent_away {
            tokio::time::sleep(wait).await;
        }
    }
    acked
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_loses_and_doubles_no_message() {
    let stage = Stage::set().await;
    let start = || stage.node().set("SHUTDOWN_DELAY", "1s").set("DRAIN_WINDOW", "1s").start();
    let balancer = Balancer::default();
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(start().await);
    }
    nodes.iter().for_each(|node| balancer.add(node));
    let room = |number: usize| format!("room-{}", number % ROOMS);
    for number in 0..ROOMS {
        Client::rooms(&nodes[0], &room(number), "host").await.close().await;
    }
    let (stop, stopped) = watch::channel(false);
    let readers: Vec<_> =
        (0..READERS).map(|at| tokio::spawn(read(balancer.clone(), format!("reader-{at}"), room(at)))).collect();
    let senders: Vec<_> =
        (0..SENDERS).map(|at| tokio::spawn(send(balancer.clone(), at, room(at), stopped.clone()))).collect();
    let began = Instant::now();
    for node in &mut nodes {
        let fresh = start().await;
        balancer.add(&fresh);
        let old = std::mem::replace(node, fresh);
        balancer.remove(&old);
        old.signal(Signal::Terminate);
        assert_eq!(old.exit_code().await, 0);
    }
    let took = began.elapsed();
    stop.send_replace(true);
    let mut acked: HashMap<String, Vec<(i64, String)>> = HashMap::new();
    for (at, sender) in senders.into_iter().enumerate() {
        acked.entry(room(at)).or_default().extend(within("a sender to end", sender).await.unwrap());
    }
    let mut last = balancer.connect("last").await;
    for (room, acked) in &mut acked {
        last.join(room).await;
        acked.push((last.send_text(room, THE_END).await["seq"].as_i64().unwrap(), THE_END.into()));
        acked.sort();
    }
    let mut gaps = Vec::new();
    for (at, reader) in readers.into_iter().enumerate() {
        let (got, its_gaps) = within("a reader to have every message", reader).await.unwrap();
        assert_eq!(got, acked[&room(at)], "reader {at} has every acked message, once, in order");
        gaps.extend(its_gaps);
    }
    gaps.sort();
    let messages: usize = acked.values().map(Vec::len).sum();
    let p = |percent: usize| gaps[(gaps.len() - 1) * percent / 100];
    println!(
        "three nodes restarted in {took:?}, {messages} messages, {} reconnects: gap p50 {:?}, p99 {:?}",
        gaps.len(),
        p(50),
        p(99)
    );
    // Restarted nodes get their share of clients while others drain; every node was restarted.
    assert!(gaps.len() >= READERS / 2, "{} clients got 1012", gaps.len());
}
