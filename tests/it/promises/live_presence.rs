//! Presence on a node that lost Redis for a while: its listeners are told what they missed.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::support::{Client, Link, Node, NodeBuilder, Postgres, Proxy, RedisServer, eventually, token};

/// Two nodes; the second one reaches Redis through the link.
pub(super) struct Nodes {
    pub(super) redis: RedisServer,
    pub(super) link: Proxy,
    pub(super) one: Node,
    pub(super) two: Node,
}

impl Nodes {
    pub(super) async fn start() -> Self {
        Self::with_grace("1s").await
    }

    pub(super) async fn with_grace(grace: &str) -> Self {
        let redis = RedisServer::start().await;
        let database = Postgres::shared().await.database().await;
        let link = Proxy::to(redis.url().split("://").nth(1).unwrap().trim_end_matches('/')).await;
        let short = |node: NodeBuilder| node.set("PRESENCE_GRACE", grace).set("NODE_LEASE", "6s");
        let one = short(Node::serve(&redis.url(), &database)).start().await;
        let two = short(Node::serve(&link.url(&redis.url()), &database)).start().await;
        Self { redis, link, one, two }
    }

    /// Takes Redis from the second node.
    pub(super) async fn cut(&self) {
        self.link.set(Link::Cut);
        self.two.metric("switchboard_degraded{part=\"redis\"}", |value| value == 1.0).await;
    }
}

/// Opens a native socket that gets rosters.
pub(super) async fn member(node: &Node, user: &str) -> Client {
    let mut client = Client::native(node, user).await;
    client.join_with_roster("team").await;
    client
}

pub(super) fn is_presence(frame: &Value, user: &str, online: bool) -> bool {
    frame["type"] == "presence" && frame["user_id"] == user && frame["online"] == online
}

/// True if the frame has all fields of `wanted`. A field's name may be a path (`data.user_id`).
fn has(frame: &Value, wanted: &Value) -> bool {
    let field = |name: &str| name.split('.').fold(frame, |value, part| &value[part]);
    wanted.as_object().is_some_and(|fields| fields.iter().all(|(name, value)| field(name) == value))
}

/// Receives frames until each of `wanted` has come, in any order.
async fn until_all(client: &mut Client, wanted: Value) {
    let mut wanted: Vec<Value> = wanted.as_array().cloned().unwrap();
    while !wanted.is_empty() {
        let what = format!("{wanted:?}");
        let frame = tokio::time::timeout(std::time::Duration::from_secs(15), client.recv())
            .await
            .unwrap_or_else(|_| panic!("not told: {what}"));
        wanted.retain(|wanted| !has(&frame, wanted));
    }
}

#[tokio::test]
async fn listeners_are_told_who_came_who_left_and_who_moved_meanwhile() {
    let nodes = Nodes::start().await;
    let dave = member(&nodes.one, "dave").await;
    let mut frank = member(&nodes.one, "frank").await;
    let mut hidden = member(&nodes.one, "hidden").await;
    let mut watcher = member(&nodes.one, "watcher").await;
    let mut bob = member(&nodes.two, "bob").await;
    let mut rita = Client::rooms(&nodes.two, "team", "rita").await;
    let erin = member(&nodes.two, "erin").await;
    bob.until_where(|frame| is_presence(frame, "erin", true)).await;

    nodes.cut().await;
    let _carol = member(&nodes.one, "carol").await;
    dave.close().await;
    frank.send(&json!({"type": "status", "status": "away", "ref": 1})).await;
    hidden.send(&json!({"type": "status", "status": "invisible", "ref": 1})).await;
    watcher.until_where(|frame| is_presence(frame, "dave", false)).await;
    erin.close().await;
    bob.until_where(|frame| is_presence(frame, "erin", false)).await;
    let _erin = member(&nodes.one, "erin").await;

    nodes.link.set(Link::Open);
    let carol_came = json!({"type": "user_joined", "user_id": "carol"});
    let dave_left = json!({"type": "user_left", "user_id": "dave"});
    let erin_came = json!({"type": "user_joined", "user_id": "erin"});
    let presence = json!([
        carol_came, dave_left, erin_came,
        {"type": "presence", "user_id": "carol", "online": true},
        {"type": "presence", "user_id": "dave", "online": false},
        {"type": "presence", "user_id": "erin", "online": true},
        {"type": "presence", "user_id": "frank", "online": true, "status": "away"},
        {"type": "user_left", "user_id": "hidden"},
        {"type": "presence", "user_id": "hidden", "online": false},
    ]);
    until_all(&mut bob, presence).await;
    // In the rooms dialect, the fields of a frame are in `data`.
    let told = |kind: &str, user: &str| json!({"type": kind, "data.user_id": user});
    let presence = json!([told("user_joined", "carol"), told("user_left", "dave"), told("user_joined", "erin")]);
    until_all(&mut rita, presence).await;
}

#[tokio::test]
async fn a_user_who_left_first_is_shown_as_offline_too() {
    let nodes = Nodes::start().await;
    let (mut bob, mut carol) = (member(&nodes.one, "bob").await, member(&nodes.two, "carol").await);
    let mut dave = member(&nodes.two, "dave").await;
    for listener in [&mut bob, &mut carol] {
        listener.until_where(|frame| is_presence(frame, "dave", true)).await;
    }
    dave.send(&json!({"type": "leave", "conversation_id": "team", "ref": 9})).await;
    for listener in [&mut bob, &mut carol] {
        listener.until("user_left").await;
    }
    dave.close().await;
    for listener in [&mut bob, &mut carol] {
        let told = listener.recv().await;
        assert!(is_presence(&told, "dave", false), "{told}");
    }
}

#[tokio::test]
async fn only_differences_are_told() {
    let nodes = Nodes::start().await;
    let _dave = member(&nodes.one, "dave").await;
    let mut bob = member(&nodes.two, "bob").await;
    nodes.cut().await;
    let _carol = member(&nodes.one, "carol").await;
    nodes.link.set(Link::Open);
    bob.until_where(|frame| is_presence(frame, "carol", true)).await;
    let told = nodes.two.metrics().await.get("switchboard_presence_corrected_total");
    assert_eq!(told, Some(2.0), "carol's arrival and presence, and nothing about dave");
}

#[tokio::test]
async fn differences_in_more_conversations_than_are_read_at_once_are_told_once_each() {
    const ROOMS: usize = 40;
    let nodes = Nodes::start().await;
    let rooms: Vec<String> = (0..ROOMS).map(|number| format!("room-{number}")).collect();
    let (mut bob, mut dave) = (Client::native(&nodes.two, "bob").await, Client::native(&nodes.one, "dave").await);
    for room in &rooms {
        bob.join_with_roster(room).await;
        dave.join_with_roster(room).await;
        bob.until_where(|frame| frame["type"] == "user_joined" && frame["conversation_id"] == **room).await;
    }
    nodes.cut().await;
    // In every other conversation somebody comes.
    let mut carol = Client::native(&nodes.one, "carol").await;
    let mut expected: HashSet<&str> = rooms.iter().step_by(2).map(String::as_str).collect();
    for room in &expected {
        carol.join_with_roster(room).await;
    }
    nodes.link.set(Link::Open);
    while !expected.is_empty() {
        let told = bob.until("user_joined").await;
        let room = told["conversation_id"].as_str().unwrap();
        assert!(told["user_id"] == "carol" && expected.remove(room), "{told}");
    }
    let told = nodes.two.metrics().await.get("switchboard_presence_corrected_total");
    assert_eq!(told, Some(ROOMS as f64), "an arrival and a presence in every other conversation");
}

#[tokio::test]
async fn a_redis_that_lost_everything_makes_nobody_look_offline() {
    let mut nodes = Nodes::start().await;
    let dave = member(&nodes.one, "dave").await;
    let mut bob = member(&nodes.two, "bob").await;
    nodes.redis.command::<()>(&["FLUSHALL"]).await;
    let online = || async {
        let answer = nodes.two.get("/api/websocket/users/online", &token("bob")).await;
        answer.text.contains("dave").then_some(())
    };
    eventually("dave in the registry again", online).await;
    // That dave is there may be told again, that he left may not.
    for frame in bob.drain().await {
        assert!(frame["type"] != "user_left" && !is_presence(&frame, "dave", false), "{frame}");
    }
    dave.close().await;
    bob.until_where(|frame| frame["type"] == "user_left" && frame["user_id"] == "dave").await;
    nodes.redis.kill().await;
}
