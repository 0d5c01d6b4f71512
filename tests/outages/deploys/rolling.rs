//! Three nodes are restarted one after the other, while everybody talks.

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
/// Between two messages of one sender.
const PACE: Duration = Duration::from_millis(40);

/// The last message of every room.
const THE_END: &str = "the end";

/// The nodes that a load balancer would send clients to.
#[derive(Clone, Default)]
struct Balancer(Arc<Mutex<Vec<String>>>);

impl Balancer {
    fn put_in(&self, node: &Node) {
        self.0.lock().unwrap().push(node.ws());
    }

    fn take_out(&self, node: &Node) {
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

/// How long a client that was sent away waits, as it was told; everything else it is sent before goes to `take`.
async fn until_sent_away(client: &mut Client, mut take: impl FnMut(&Value) -> bool) -> Option<Duration> {
    let mut advice = None;
    loop {
        match client.recv_or_close().await {
            Ok(frame) if frame["type"] == "restart" => advice = frame["retry_after_ms"].as_u64(),
            Ok(frame) if take(&frame) => return None,
            Ok(_) => {}
            Err((code, reason)) => {
                assert_eq!(code, 1012, "{reason}");
                return Some(Duration::from_millis(advice.expect("the close was announced")));
            }
        }
    }
}

/// Reads a room to the end; returns what it read, and its gaps: from the last message before to the first one after.
async fn read(balancer: Balancer, user: String, room: String) -> (Vec<(i64, String)>, Vec<Duration>) {
    let (mut has, mut got, mut gaps, mut last_frame) = (0, Vec::new(), Vec::new(), None::<Instant>);
    loop {
        let mut client = balancer.connect(&user).await;
        client.send(&json!({"type": "join", "conversation_id": room, "since_seq": has, "ref": 1})).await;
        let mut waits_for_first = last_frame.is_some();
        let sent_away = until_sent_away(&mut client, |frame| {
            assert!(frame["type"] != "error" && frame["type"] != "resync", "{frame}");
            if let Some(seq) = frame["seq"].as_i64() {
                assert_eq!(seq, has + 1, "nothing is lost, doubled or out of order: {frame}");
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

/// Sends to a room until told to stop, each message until it is acked; returns what was acked.
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
            let sent_away = until_sent_away(&mut client, |frame| {
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
async fn a_rolling_restart_loses_and_doubles_nothing() {
    let stage = Stage::set().await;
    let start = || stage.node().set("SHUTDOWN_DELAY", "1s").set("DRAIN_WINDOW", "1s").start();
    let balancer = Balancer::default();
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(start().await);
    }
    nodes.iter().for_each(|node| balancer.put_in(node));
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
        balancer.put_in(&fresh);
        let old = std::mem::replace(node, fresh);
        balancer.take_out(&old);
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
        acked.push((last.say(room, THE_END).await["seq"].as_i64().unwrap(), THE_END.into()));
        acked.sort();
    }
    let mut gaps = Vec::new();
    for (at, reader) in readers.into_iter().enumerate() {
        let (got, its_gaps) = within("a reader to have it all", reader).await.unwrap();
        assert_eq!(got, acked[&room(at)], "reader {at} has all that was acked, once, in order");
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
    // Nodes that begin while others leave get no less than their share: all three were restarted.
    assert!(gaps.len() >= READERS / 2, "{} were sent away", gaps.len());
}
