//! Relay: delivery through the store while Redis is away, for all nodes or for one.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Client, Link, Node, Postgres, Proxy, RedisServer, Signal, eventually, token};

/// Maximum time until a message reaches members on other nodes.
const RELAYED_WITHIN: Duration = Duration::from_secs(1);

async fn fanout(node: &Node) -> String {
    let health = node.get("/api/health", &token("anyone")).await.json;
    health["works"]["fanout"].as_str().unwrap().to_owned()
}

async fn until_fanout(node: &Node, wanted: &str) {
    eventually(&format!("fan-out to be {wanted}"), || async { (fanout(node).await == wanted).then_some(()) }).await;
}

/// Sends a message and expects it soon, as the next one, at each of the listeners. Returns the time that took.
async fn relay_message(speaker: &mut Client, listeners: &mut [&mut Client], content: &str) -> Duration {
    speaker.send_text("team", content).await;
    let said = Instant::now();
    for listener in listeners {
        let message = listener.until("message").await;
        assert_eq!(message["content"], content, "in order, once");
    }
    said.elapsed()
}

async fn joined(node: &Node, user: &str) -> Client {
    let mut client = Client::native(node, user).await;
    client.join("team").await;
    client
}

#[tokio::test]
async fn messages_reach_members_on_other_nodes_while_redis_is_down() {
    let mut redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let one = Node::serve(&redis.url(), &database).start().await;
    let two = Node::serve(&redis.url(), &database).start().await;
    let (mut alice, mut bob) = (joined(&one, "alice").await, joined(&two, "bob").await);
    let mut carol = Client::native(&two, "carol").await;
    relay_message(&mut alice, &mut [&mut bob], "before").await;

    redis.kill().await;
    for node in [&one, &two] {
        until_fanout(node, "relayed").await;
    }
    for at in 0..10 {
        let took = relay_message(&mut alice, &mut [&mut bob], &format!("from alice {at}")).await;
        assert!(took < RELAYED_WITHIN, "{took:?}");
        relay_message(&mut bob, &mut [&mut alice], &format!("from bob {at}")).await;
    }
    // Edits are entries too, and an inbox is a log.
    let seq = alice.send_text("team", "wrong").await["seq"].clone();
    alice.send(&json!({"type": "edit", "conversation_id": "team", "seq": seq, "content": "anew"})).await;
    alice.until("ack").await;
    let edited = bob.until("message_edited").await;
    assert_eq!(edited["content"], "anew");
    one.conversation(&token("alice"), &["carol"]).await;
    carol.until("conversation_added").await;

    redis.restart().await;
    for node in [&one, &two] {
        until_fanout(node, "shared").await;
        node.metric("switchboard_relaying", |relaying| relaying == 0.0).await;
    }
    relay_message(&mut alice, &mut [&mut bob], "after").await;
    for client in [&mut alice, &mut bob] {
        let again = client.drain().await;
        assert!(again.iter().all(|frame| frame["type"] != "message"), "nothing twice: {again:?}");
    }
}

#[tokio::test]
async fn a_node_that_alone_lost_redis_sends_and_receives_messages() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let proxy = Proxy::to(redis.url().trim_start_matches("redis://").trim_end_matches('/').to_owned()).await;
    let one = Node::serve(&proxy.url(&redis.url()), &database).start().await;
    let two = Node::serve(&redis.url(), &database).start().await;
    let (mut alice, mut bob) = (joined(&one, "alice").await, joined(&two, "bob").await);
    relay_message(&mut alice, &mut [&mut bob], "before").await;

    proxy.set(Link::Cut);
    until_fanout(&one, "relayed").await;
    // A message sent before the other node knows of the outage arrives too.
    relay_message(&mut bob, &mut [&mut alice], "at once").await;
    two.metric("switchboard_relaying", |relaying| relaying == 1.0).await;
    for at in 0..10 {
        let there = relay_message(&mut alice, &mut [&mut bob], &format!("there {at}")).await;
        let back = relay_message(&mut bob, &mut [&mut alice], &format!("back {at}")).await;
        assert!(there < RELAYED_WITHIN && back < RELAYED_WITHIN, "{there:?}, {back:?}");
    }
    assert_eq!(fanout(&two).await, "shared", "its own Redis is up");

    proxy.set(Link::Open);
    until_fanout(&one, "shared").await;
    two.metric("switchboard_relaying", |relaying| relaying == 0.0).await;
    relay_message(&mut bob, &mut [&mut alice], "after").await;
    relay_message(&mut alice, &mut [&mut bob], "and back").await;
    let given = two.metrics().await.get("switchboard_notices_given_total");
    relay_message(&mut bob, &mut [&mut alice], "all well").await;
    assert_eq!(two.metrics().await.get("switchboard_notices_given_total"), given, "and no node gives notice any more");
}

/// The node dies before it gives notice of its last append; when its sign in the store lapses, the other nodes compare
/// every log.
#[tokio::test]
async fn a_message_stored_just_before_its_node_died_is_delivered() {
    let mut redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let one = Node::serve(&redis.url(), &database).start().await;
    let two = Node::serve(&redis.url(), &database).start().await;
    let (mut alice, mut bob) = (joined(&one, "alice").await, joined(&two, "bob").await);
    redis.kill().await;
    for node in [&one, &two] {
        until_fanout(node, "relayed").await;
    }
    relay_message(&mut alice, &mut [&mut bob], "first").await;
    alice.send_text("team", "last").await;
    one.kill().await;
    assert_eq!(bob.until("message").await["content"], "last");
}

/// A notice is written, PostgreSQL crashes, and only then would the other node have read it. That node is frozen meanwhile, so
/// it sees no failed read of the notices, and at most one failed ping.
#[tokio::test]
async fn a_crash_of_postgresql_between_two_reads_of_notices_loses_no_message() {
    let mut redis = RedisServer::start().await;
    let mut postgres = Postgres::start(&[("fsync", "off")]).await;
    let database = postgres.database().await;
    let name = database.rsplit('/').next().unwrap().to_owned();
    let one = Node::serve(&redis.url(), &database).start().await;
    let two = Node::serve(&redis.url(), &database).start().await;
    let (mut alice, mut bob) = (joined(&one, "alice").await, joined(&two, "bob").await);
    redis.kill().await;
    for node in [&one, &two] {
        until_fanout(node, "relayed").await;
    }
    relay_message(&mut alice, &mut [&mut bob], "before").await;
    // The comparisons that follow the start of the relay are over.
    tokio::time::sleep(Duration::from_secs(3)).await;
    two.signal(Signal::Stop);
    let seq = alice.send_text("team", "lost notice").await["seq"].as_i64().unwrap();
    let client = postgres.connect(&name).await;
    let notices = "SELECT count(*) FROM notices WHERE log = 'team' AND seq = $1";
    let noticed = || async { (client.query_one(notices, &[&seq]).await.unwrap().get::<_, i64>(0) == 1).then_some(()) };
    eventually("the notice", noticed).await;
    postgres.restart().await;
    let left: i64 = postgres.connect(&name).await.query_one(notices, &[&seq]).await.unwrap().get(0);
    assert_eq!(left, 0, "the crash emptied the table");
    two.signal(Signal::Continue);
    let thawed = Instant::now();
    assert_eq!(bob.until("message").await["content"], "lost notice");
    eprintln!("delivered {:?} after the crash", thawed.elapsed());
    // Messages both ways, from nodes that must learn of the signs anew.
    relay_message(&mut bob, &mut [&mut alice], "after").await;
}
