//! Notifications of unread messages to members who are away: a row per run, an entry in the inbox, and a signed
//! request.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Value, json};
use tokio_postgres::Client as Sql;

use crate::support::{
    Client, HookResponse, Link, Node, NodeBuilder, Postgres, Proxy, ReceivedRequest, Receiver, RedisServer, eventually,
    token,
};

mod dying_sockets;
mod killed_nodes;
mod posts;

const WEBHOOK_SECRET: &str = "planted-webhook-secret";
const WAITING: &str = "switchboard_webhook_queue{hook=\"notification\"}";

/// Redis, a database that the test can read, and a webhook that accepts every request.
struct World {
    redis: RedisServer,
    database: String,
    sql: Sql,
    receiver: Receiver,
}

impl World {
    async fn new() -> Self {
        Self::with(Receiver::start(async |_, _| HookResponse::status(204)).await).await
    }

    async fn with(receiver: Receiver) -> Self {
        let postgres = Postgres::shared().await;
        let database = postgres.database().await;
        let sql = postgres.connect(database.rsplit('/').next().unwrap()).await;
        Self { redis: RedisServer::start().await, database, sql, receiver }
    }

    fn node(&self) -> NodeBuilder {
        Node::serve(&self.redis.url(), &self.database)
            .set("NOTIFICATION_WEBHOOK_URL", self.receiver.url())
            .set("NOTIFICATION_WEBHOOK_SECRET", WEBHOOK_SECRET)
    }

    /// Runs of a user, oldest first: first and last seq, count, and true if read.
    async fn runs(&self, user: &str) -> Vec<(i64, i64, i64, bool)> {
        let sql =
            "SELECT from_seq, last_seq, count, read_at IS NOT NULL FROM notifications WHERE user_id = $1 ORDER BY id";
        let rows = self.sql.query(sql, &[&user]).await.unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect()
    }

    /// Waits until a user has exactly these runs.
    async fn until_runs(&self, user: &str, wanted: &[(i64, i64, i64, bool)]) {
        eventually(&format!("{user}'s runs to be {wanted:?}"), async || {
            (self.runs(user).await == wanted).then_some(())
        })
        .await;
    }

    /// Waits until a user has no connection on any node.
    async fn until_gone(&self, user: &str) {
        let entry = format!("ws:conns:{user}");
        eventually(&format!("{user} to be gone"), async || {
            let connected: bool = self.redis.command(&["HEXISTS", &entry, "c"]).await;
            (!connected).then_some(())
        })
        .await;
    }
}

fn seq(ack: &Value) -> i64 {
    ack["seq"].as_i64().unwrap()
}

#[tokio::test]
async fn a_member_who_comes_and_goes_on_another_node_is_hinted_when_there_and_notified_when_away() {
    let world = World::new().await;
    let node = || world.node().set("MESSAGE_RATE_LIMIT", 0).start();
    let (one, two) = (node().await, node().await);
    let room = one.conversation(&token("alice"), &["bob"]).await;
    let path = format!("/api/chat/conversations/{room}/messages");
    let say = async || seq(&one.post(&path, &token("alice"), &json!({"content": "are you there?"})).await.json);
    let mut runs = Vec::new();
    for _ in 0..4 {
        let mut bob = Client::native(&two, "bob").await;
        let head = say().await;
        bob.until_where(|frame| frame["type"] == "hint" && frame["head"] == head).await;
        let read = json!({"conversation_id": room, "up_to_seq": head});
        assert!(two.post("/api/messages/read", &token("bob"), &read).await.status.is_success());
        bob.close().await;
        world.until_gone("bob").await;
        let missed = say().await;
        for (_, _, _, is_read) in &mut runs {
            *is_read = true;
        }
        runs.push((missed, missed, 1, false));
        world.until_runs("bob", &runs).await;
    }
    one.metric("switchboard_presence_tracked_servers", |servers| servers == 1.0).await;
}

#[tokio::test]
async fn only_members_who_are_away_get_a_notification_and_one_per_run() {
    let world = World::new().await;
    let (one, two) = (world.node().start().await, world.node().start().await);
    let room = one.conversation(&token("alice"), &["bob", "carol"]).await;
    let mut alice = Client::native(&one, "alice").await;
    alice.join(&room).await;
    let mut carol = Client::native(&two, "carol").await;
    carol.join(&room).await;
    let ack = alice.send_text(&room, &"long ".repeat(100)).await;
    let first = seq(&ack);
    world.until_runs("bob", &[(first, first, 1, false)]).await;
    // The run is open: it counts more messages, and no further request is sent.
    let second = seq(&alice.send_text(&room, "and more").await);
    world.until_runs("bob", &[(first, second, 2, false)]).await;

    let posted = world.receiver.request(0).await;
    posted.assert_signed_with(WEBHOOK_SECRET);
    assert_eq!(posted.header("content-length"), posted.body.len().to_string());
    let told = &posted.json;
    assert_eq!((&told["type"], &told["user_id"]), (&json!("notification"), &json!("bob")));
    assert_eq!((&told["conversation_id"], &told["from_seq"]), (&json!(room), &json!(first)));
    let listed = one.get("/api/notifications", &token("bob")).await.json;
    assert_eq!(told["notification_id"], listed["notifications"][0]["id"]);
    let message = &told["message"];
    assert_eq!((&message["id"], &message["seq"]), (&ack["id"], &json!(first)));
    assert_eq!((&message["sender_id"], &message["sender_name"]), (&json!("alice"), &json!("Alice")));
    assert_eq!((&message["content"], &message["created_at"]), (&json!("long ".repeat(40)), &ack["created_at"]));
    assert!(told["created_at"].as_str().unwrap() >= ack["created_at"].as_str().unwrap());

    // Reading closes the run; the next message while bob is away opens another one.
    let mut bob = Client::native(&two, "bob").await;
    bob.send(&json!({"type": "read", "conversation_id": room, "seq": second, "ref": "r"})).await;
    bob.until("ok").await;
    world.until_runs("bob", &[(first, second, 2, true)]).await;
    bob.close().await;
    world.until_gone("bob").await;
    let third = seq(&alice.send_text(&room, "again").await);
    world.until_runs("bob", &[(first, second, 2, true), (third, third, 1, false)]).await;
    assert_eq!(world.receiver.request(1).await.json["from_seq"], third);

    carol.until_where(|frame| frame["content"] == "again").await;
    assert!(world.runs("carol").await.is_empty() && world.runs("alice").await.is_empty());
    assert_eq!(world.receiver.count(), 2, "one request per run");
    assert_eq!(one.metrics().await.get("switchboard_notifications_total"), Some(2.0));
}

#[tokio::test]
async fn no_user_is_notified_of_their_own_messages() {
    let world = World::new().await;
    let node = world.node().start().await;
    let room = node.conversation(&token("alice"), &["bob"]).await;
    // Over REST: the sender has no socket either.
    let send = async |user: &str| {
        let path = format!("/api/chat/conversations/{room}/messages");
        seq(&node.post(&path, &token(user), &json!({"content": "hello"})).await.json)
    };
    let first = send("alice").await;
    world.until_runs("bob", &[(first, first, 1, false)]).await;
    assert!(world.runs("alice").await.is_empty());
    let second = send("bob").await;
    world.until_runs("alice", &[(second, second, 1, false)]).await;
    assert_eq!(world.runs("bob").await, [(first, first, 1, true)], "the answer has read what it answers");
}

#[tokio::test]
async fn every_member_of_a_large_conversation_is_notified() {
    let world = World::new().await;
    let node = world.node().start().await;
    let members: Vec<String> = (0..900).map(|at| format!("user-{at}")).collect();
    let members: Vec<&str> = members.iter().map(String::as_str).collect();
    let room = node.conversation(&token("alice"), &members).await;
    let _there = Client::native(&node, "user-450").await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join(&room).await;
    alice.send_text(&room, "to all").await;
    node.metric("switchboard_notifications_total", |count| count == 899.0).await;
    let sql = "SELECT count(*), count(DISTINCT user_id) FROM notifications";
    let row = world.sql.query_one(sql, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (899, 899));
    assert!(world.runs("user-450").await.is_empty());
    let mut told = BTreeSet::new();
    for before in 0..899 {
        told.insert(world.receiver.request(before).await.json["user_id"].to_string());
    }
    assert_eq!(told.len(), 899, "each once");
}

#[tokio::test]
async fn a_webhook_that_fails_once_gets_the_request_again() {
    let receiver = Receiver::start(async |before, _| HookResponse::status(if before == 0 { 503 } else { 200 })).await;
    let world = World::with(receiver).await;
    let node = world.node().start().await;
    let room = node.conversation(&token("alice"), &["bob"]).await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join(&room).await;
    alice.send_text(&room, "hello").await;
    let (first, second) = (world.receiver.request(0).await, world.receiver.request(1).await);
    assert_eq!(first.body, second.body);
    first.assert_signed_with(WEBHOOK_SECRET);
    second.assert_signed_with(WEBHOOK_SECRET);
    let series = |result| format!("switchboard_webhook_requests_total{{hook=\"notification\",result=\"{result}\"}}");
    node.metric(&series("ok"), |count| count == 1.0).await;
    assert_eq!(node.metrics().await.get(&series("unavailable")), Some(1.0));
}

#[tokio::test]
async fn notifications_beyond_the_webhooks_queue_are_dropped_and_counted() {
    let receiver = Receiver::start(async |_, _: Arc<ReceivedRequest>| std::future::pending().await).await;
    let world = World::with(receiver).await;
    let node = world.node().set("NOTIFICATION_QUEUE", 1).start().await;
    let members = ["bob", "carol", "dave", "erin", "frank"];
    let room = node.conversation(&token("alice"), &members).await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join(&room).await;
    let first = seq(&alice.send_text(&room, "hello").await);
    for member in members {
        world.until_runs(member, &[(first, first, 1, false)]).await;
    }
    node.metric("switchboard_webhook_dropped_total{hook=\"notification\"}", |dropped| dropped == 4.0).await;
    assert_eq!(world.receiver.request(0).await.json["from_seq"], first);
    assert_eq!(node.metrics().await.get("switchboard_notifications_total"), Some(5.0), "the rows are kept");
    node.metric(WAITING, |waiting| waiting == 1.0).await;
}

#[tokio::test]
async fn notifications_that_the_store_refused_are_written_when_it_is_back() {
    let mut world = World::new().await;
    let proxy = Proxy::to(world.database.split(['@', '/']).nth(3).unwrap()).await;
    let direct = world.database.clone();
    world.database = proxy.url(&direct);
    let node = world.node().start().await;
    let room = node.conversation(&token("alice"), &["bob"]).await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join(&room).await;
    let first = seq(&alice.send_text(&room, "one").await);
    world.until_runs("bob", &[(first, first, 1, false)]).await;
    // The next round begins after this ack and finds no store.
    let second = seq(&alice.send_text(&room, "two").await);
    proxy.set(Link::Cut);
    node.metric("switchboard_degraded{part=\"store\"}", |down| down == 1.0).await;
    proxy.set(Link::Open);
    world.until_runs("bob", &[(first, second, 2, false)]).await;
    node.metric("switchboard_notification_queue", |waiting| waiting == 0.0).await;
}

#[tokio::test]
async fn while_redis_is_down_users_of_the_other_node_are_notified() {
    let mut world = World::new().await;
    let (one, two) = (world.node().start().await, world.node().start().await);
    let room = one.conversation(&token("alice"), &["bob", "carol"]).await;
    let mut alice = Client::native(&one, "alice").await;
    alice.join(&room).await;
    let _carol = Client::native(&one, "carol").await;
    let mut bob = Client::native(&two, "bob").await;
    world.redis.kill().await;
    one.metric("switchboard_degraded{part=\"redis\"}", |down| down == 1.0).await;
    let first = seq(&alice.send_text(&room, "are you there?").await);
    // The sender's node can't know that bob is connected to the other one.
    world.until_runs("bob", &[(first, first, 1, false)]).await;
    assert!(world.runs("carol").await.is_empty());
    world.redis.restart().await;
    let told = bob.until("notification").await;
    assert_eq!((&told["conversation_id"], &told["from_seq"]), (&json!(room), &json!(first)));
}

#[tokio::test]
async fn a_node_without_redis_notifies_too() {
    let receiver = Receiver::start(async |_, _| HookResponse::status(200)).await;
    let node = Node::dev().set("NOTIFICATION_WEBHOOK_URL", receiver.url()).start().await;
    node.logged("NOTIFICATION_WEBHOOK_URL is set without NOTIFICATION_WEBHOOK_SECRET").await;
    let room = node.conversation(&token("alice"), &["bob", "carol"]).await;
    let mut alice = Client::native(&node, "alice").await;
    let _carol = Client::native(&node, "carol").await;
    alice.join(&room).await;
    alice.send_text(&room, "hello").await;
    let posted = receiver.request(0).await;
    assert_eq!((&posted.json["user_id"], posted.header("x-switchboard-signature")), (&json!("bob"), ""));
    node.metric("switchboard_notification_queue", |waiting| waiting == 0.0).await;
    assert_eq!(node.metrics().await.get("switchboard_notifications_total"), Some(1.0));
}
