//! Users who chat over two nodes, and checks of what they receive during an outage.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{Client, Node, NodeBuilder, eventually, token};

/// The conversation of all users.
pub(crate) const TEAM: &str = "team";
/// Interval between two messages of one sender.
const PACE: Duration = Duration::from_millis(50);

/// Status in the node's health.
pub(crate) async fn status(node: &Node) -> String {
    let answer = node.get("/api/health", &token("anyone")).await;
    answer.json["status"].as_str().unwrap().to_owned()
}

/// Waits until health reports `wanted`; returns the time that took.
pub(crate) async fn until_status(node: &Node, wanted: &str) -> Duration {
    let started = Instant::now();
    eventually(&format!("health to be {wanted}"), || async { (status(node).await == wanted).then_some(()) }).await;
    started.elapsed()
}

/// Opens a user's socket and joins the conversation.
pub(crate) async fn listener(node: &Node, user: &str) -> Client {
    let mut client = Client::native(node, user).await;
    client.join_with_roster(TEAM).await;
    client
}

/// Checks that a reader gets exactly the acked messages, in order, once. Returns the other frames that came.
pub(crate) async fn assert_read(reader: &mut Client, acked: &BTreeMap<i64, String>) -> Vec<Value> {
    let (mut seen, mut beside) = (Vec::new(), Vec::new());
    while seen.len() < acked.len() {
        match reader.recv().await {
            frame if frame["type"] == "message" => seen.push(message(&frame)),
            frame => beside.push(frame),
        }
    }
    assert!(seen.windows(2).all(|pair| pair[0].0 < pair[1].0), "in order, once: {seen:?}");
    assert_eq!(&seen.into_iter().collect::<BTreeMap<_, _>>(), acked, "exactly the acked messages are delivered");
    beside.extend(reader.drain().await);
    assert!(beside.iter().all(|frame| frame["type"] != "message"), "and nothing else: {beside:?}");
    beside
}

fn message(frame: &Value) -> (i64, String) {
    (frame["seq"].as_i64().unwrap(), frame["content"].as_str().unwrap().to_owned())
}

/// Messages that a user sent, and the time of each ack.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    pub(crate) acked: BTreeMap<i64, String>,
    pub(crate) took: Vec<Duration>,
}

impl Sent {
    /// Longest wait for an ack.
    pub(crate) fn slowest(&self) -> Duration {
        self.took.iter().max().copied().unwrap_or_default()
    }

    /// Number of acks that took longer than `limit`.
    pub(crate) fn slower_than(&self, limit: Duration) -> usize {
        self.took.iter().filter(|took| **took > limit).count()
    }
}

/// Sends messages one after the other, each once the one before is acked: at least `least` messages, and until told to
/// stop.
pub(crate) async fn send_messages(speaker: &mut Client, least: usize, stop: &AtomicBool) -> Sent {
    let (mut said, who) = (Sent::default(), speaker.greeting["user_id"].clone());
    let mut pace = tokio::time::interval(PACE);
    while said.took.len() < least || !stop.load(Ordering::Acquire) {
        pace.tick().await;
        let content = format!("{who} {}", said.took.len());
        let asked = Instant::now();
        let ack = speaker.send_text(TEAM, &content).await;
        said.took.push(asked.elapsed());
        said.acked.insert(ack["seq"].as_i64().unwrap(), content);
    }
    said
}

/// Presence reports in these frames.
pub(crate) fn presence(frames: &[Value]) -> Vec<(String, bool)> {
    let reports = frames.iter().filter(|frame| frame["type"] == "presence");
    reports.map(|frame| (frame["user_id"].as_str().unwrap().to_owned(), frame["online"].as_bool().unwrap())).collect()
}

/// Returns all frames up to the one that reports the user offline.
pub(crate) async fn until_offline(watcher: &mut Client, user: &str) -> Vec<Value> {
    let mut frames = Vec::new();
    loop {
        frames.push(watcher.recv().await);
        if presence(&frames[frames.len() - 1..]) == [(user.to_owned(), false)] {
            return frames;
        }
    }
}

/// Returns all frames that are still to come. A departure claimed a moment ago is on its way, and there is no event
/// that says that no more follows, so this waits.
pub(crate) async fn remaining_frames(watcher: &mut Client) -> Vec<Value> {
    tokio::time::sleep(Duration::from_millis(300)).await;
    watcher.drain().await
}

/// A node with short times that asks Redis before each send.
pub(crate) fn node_with_short_times(redis_url: &str, database: &str) -> NodeBuilder {
    Node::serve(redis_url, database)
        .set("NODE_LEASE", "3s")
        .set("PRESENCE_GRACE", "500ms")
        .set("MESSAGE_RATE_LIMIT", 100_000)
}
