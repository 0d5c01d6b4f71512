//! People who chat over two nodes, and what they see of an outage.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{Client, Node, NodeBuilder, eventually, token};

/// The conversation they all listen to.
pub(crate) const TEAM: &str = "team";
/// Between two messages of one speaker.
const PACE: Duration = Duration::from_millis(50);

/// What health says of the node.
pub(crate) async fn status(node: &Node) -> String {
    let answer = node.get("/api/health", &token("anyone")).await;
    answer.json["status"].as_str().unwrap().to_owned()
}

/// Waits until health says `wanted`; how long that took.
pub(crate) async fn until_status(node: &Node, wanted: &str) -> Duration {
    let started = Instant::now();
    eventually(&format!("health to be {wanted}"), || async { (status(node).await == wanted).then_some(()) }).await;
    started.elapsed()
}

/// A user's socket that listens to the conversation.
pub(crate) async fn listener(node: &Node, user: &str) -> Client {
    let mut client = Client::native(node, user).await;
    client.join(TEAM).await;
    client
}

/// Checks that a reader gets exactly what was acked: in order, once, and nothing else. What came beside it is returned.
pub(crate) async fn assert_read(reader: &mut Client, acked: &BTreeMap<i64, String>) -> Vec<Value> {
    let (mut seen, mut beside) = (Vec::new(), Vec::new());
    while seen.len() < acked.len() {
        match reader.recv().await {
            frame if frame["type"] == "message" => seen.push(message(&frame)),
            frame => beside.push(frame),
        }
    }
    assert!(seen.windows(2).all(|pair| pair[0].0 < pair[1].0), "in order, once: {seen:?}");
    assert_eq!(&seen.into_iter().collect::<BTreeMap<_, _>>(), acked, "what was acked is what was delivered");
    beside.extend(reader.drain().await);
    assert!(beside.iter().all(|frame| frame["type"] != "message"), "and nothing else: {beside:?}");
    beside
}

fn message(frame: &Value) -> (i64, String) {
    (frame["seq"].as_i64().unwrap(), frame["content"].as_str().unwrap().to_owned())
}

/// What somebody said, and how long each ack took.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) acked: BTreeMap<i64, String>,
    pub(crate) took: Vec<Duration>,
}

impl Said {
    /// The longest wait for an ack.
    pub(crate) fn slowest(&self) -> Duration {
        self.took.iter().max().copied().unwrap_or_default()
    }

    /// How many acks took longer than `limit`.
    pub(crate) fn slower_than(&self, limit: Duration) -> usize {
        self.took.iter().filter(|took| **took > limit).count()
    }
}

/// Says one thing after the other, each once the one before is acked, at least `least` of them and until told to stop.
pub(crate) async fn speak(speaker: &mut Client, least: usize, stop: &AtomicBool) -> Said {
    let (mut said, who) = (Said::default(), speaker.greeting["user_id"].clone());
    let mut pace = tokio::time::interval(PACE);
    while said.took.len() < least || !stop.load(Ordering::Acquire) {
        pace.tick().await;
        let content = format!("{who} {}", said.took.len());
        let asked = Instant::now();
        let ack = speaker.say(TEAM, &content).await;
        said.took.push(asked.elapsed());
        said.acked.insert(ack["seq"].as_i64().unwrap(), content);
    }
    said
}

/// What others were told about who came and went.
pub(crate) fn presence(frames: &[Value]) -> Vec<(String, bool)> {
    let told = frames.iter().filter(|frame| frame["type"] == "presence");
    told.map(|frame| (frame["user_id"].as_str().unwrap().to_owned(), frame["online"].as_bool().unwrap())).collect()
}

/// Waits until it is told that a user went offline; all that came until then.
pub(crate) async fn until_offline(watcher: &mut Client, user: &str) -> Vec<Value> {
    let mut frames = Vec::new();
    loop {
        frames.push(watcher.recv().await);
        if presence(&frames[frames.len() - 1..]) == [(user.to_owned(), false)] {
            return frames;
        }
    }
}

/// All that still comes. What was claimed a moment ago is on its way; that nothing more follows can't be awaited.
pub(crate) async fn rest(watcher: &mut Client) -> Vec<Value> {
    tokio::time::sleep(Duration::from_millis(300)).await;
    watcher.drain().await
}

/// A node with short times, which asks Redis before each send.
pub(crate) fn brisk(redis_url: &str, database: &str) -> NodeBuilder {
    Node::serve(redis_url, database)
        .set("NODE_LEASE", "3s")
        .set("PRESENCE_GRACE", "500ms")
        .set("MESSAGE_RATE_LIMIT", 100_000)
}
