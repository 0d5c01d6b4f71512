//! Nodes reach each other through the store while Redis is away: for all of them, or for one.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Client, Link, Node, Postgres, Proxy, RedisServer, eventually, token};

/// How soon a message must be with members on other nodes.
const SOON: Duration = Duration::from_secs(1);

async fn fanout(node: &Node) -> String {
    let health = node.get("/api/health", &token("anyone")).await.json;
    health["works"]["fanout"].as_str().unwrap().to_owned()
}

async fn until_fanout(node: &Node, wanted: &str) {
    eventually(&format!("fan-out to be {wanted}"), || async { (fanout(node).await == wanted).then_some(()) }).await;
}

/// Says something, and expects it at each of the others next, and soon. How long it took.
async fn told(speaker: &mut Client, listeners: &mut [&mut Client], content: &str) -> Duration {
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
async fn members_on_other_nodes_are_told_while_redis_is_down() {
    let mut redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let one = Node::serve(&redis.url(), &database).start().await;
    let two = Node::serve(&redis.url(), &database).start().await;
    let (mut alice, mut bob) = (joined(&one, "alice").await, joined(&two, "bob").await);
    let mut carol = Client::native(&two, "carol").await;
    told(&mut alice, &mut [&mut bob], "before").await;

    redis.kill().await;
    for node in [&one, &two] {
        until_fanout(node, "relayed").await;
    }
    for at in 0..10 {
        let took = told(&mut alice, &mut [&mut bob], &format!("from alice {at}")).await;
        assert!(took < SOON, "{took:?}");
        told(&mut bob, &mut [&mut alice], &format!("from bob {at}")).await;
    }
    // Edits are entries as well, and an inbox is a log like any other.
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
    told(&mut alice, &mut [&mut bob], "after").await;
    for client in [&mut alice, &mut bob] {
        let again = client.drain().await;
        assert!(again.iter().all(|frame| frame["type"] != "message"), "nothing twice: {again:?}");
    }
}

#[tokio::test]
async fn a_node_that_lost_redis_alone_is_told_and_heard() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let proxy = Proxy::to(redis.url().trim_start_matches("redis://").trim_end_matches('/').to_owned()).await;
    let one = Node::serve(&proxy.url(&redis.url()), &database).start().await;
    let two = Node::serve(&redis.url(), &database).start().await;
    let (mut alice, mut bob) = (joined(&one, "alice").await, joined(&two, "bob").await);
    told(&mut alice, &mut [&mut bob], "before").await;

    proxy.set(Link::Cut);
    until_fanout(&one, "relayed").await;
    // What is said before the other node knows is told as well.
    told(&mut bob, &mut [&mut alice], "at once").await;
    two.metric("switchboard_relaying", |relaying| relaying == 1.0).await;
    for at in 0..10 {
        let there = told(&mut alice, &mut [&mut bob], &format!("there {at}")).await;
        let back = told(&mut bob, &mut [&mut alice], &format!("back {at}")).await;
        assert!(there < SOON && back < SOON, "{there:?}, {back:?}");
    }
    assert_eq!(fanout(&two).await, "shared", "it is well itself");

    proxy.set(Link::Open);
    until_fanout(&one, "shared").await;
    two.metric("switchboard_relaying", |relaying| relaying == 0.0).await;
    told(&mut bob, &mut [&mut alice], "after").await;
    told(&mut alice, &mut [&mut bob], "and back").await;
    let given = two.metrics().await.get("switchboard_notices_given_total");
    told(&mut bob, &mut [&mut alice], "all well").await;
    assert_eq!(two.metrics().await.get("switchboard_notices_given_total"), given, "and nobody gives notice any more");
}

/// What it stored last it had no time to give notice of; its sign lapses, and the others look.
#[tokio::test]
async fn what_a_node_stored_before_it_died_is_found() {
    let mut redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let one = Node::serve(&redis.url(), &database).start().await;
    let two = Node::serve(&redis.url(), &database).start().await;
    let (mut alice, mut bob) = (joined(&one, "alice").await, joined(&two, "bob").await);
    redis.kill().await;
    for node in [&one, &two] {
        until_fanout(node, "relayed").await;
    }
    told(&mut alice, &mut [&mut bob], "first").await;
    alice.send_text("team", "last").await;
    one.kill().await;
    assert_eq!(bob.until("message").await["content"], "last");
}
