//! Lists of present users while the registry lacks some: Redis was wiped, and a node that can't reach it has not registered
//! its users again.

use std::time::Duration;

use serde_json::{Value, json};

use super::live_presence::{Nodes, is_presence, member};
use crate::support::{Client, Link, Node, NodeBuilder, Postgres, Proxy, RedisServer, allowed, eventually, token};

/// Opens a socket of the conversation dialect, and returns the users whom its greeting names.
async fn bound(node: &Node, user: &str) -> (Client, Vec<String>) {
    let mut client = Client::connect(&format!("{}/api/chat/ws/team?token={}", node.ws(), token(user))).await;
    let greeting = client.recv().await;
    (client, users(&greeting["active_users"]))
}

/// Opens a socket of the personas dialect, and returns the users whom its greeting names.
async fn personas(node: &Node, user: &str) -> (Client, Vec<String>) {
    let mut client = Client::connect(&format!("{}/ws/auth?token={}", node.ws(), token(user))).await;
    let online = client.until("online_users").await;
    (client, users(&online["users"]))
}

fn users(list: &Value) -> Vec<String> {
    let mut users: Vec<_> = list.as_array().unwrap().iter().map(|user| user.as_str().unwrap().to_owned()).collect();
    users.sort();
    users
}

/// Receives rosters until one says that a user `joined` or `left`, and returns the users whom it names.
async fn roster(client: &mut Client, user: &str, what: &str) -> Vec<String> {
    let says = |frame: &Value| frame["content"].as_str().is_some_and(|text| text.contains(what));
    let told = client.until_where(|frame| frame["sender_id"] == user && says(frame)).await;
    users(&told["active_users"])
}

/// Lets Redis lose everything while the second node can't reach it, and waits until the first one has noticed.
async fn wipe_without_two(nodes: &Nodes) {
    nodes.cut().await;
    let losses = "switchboard_lease_losses_total";
    let before = nodes.one.metrics().await.get(losses).unwrap();
    nodes.redis.command::<()>(&["FLUSHALL"]).await;
    nodes.one.metric(losses, |value| value > before).await;
    let none = || async {
        let keys: Vec<String> = nodes.redis.command(&["KEYS", "ws:conns:dave"]).await;
        keys.is_empty().then_some(())
    };
    eventually("dave is not registered", none).await;
}

#[tokio::test]
async fn rosters_and_greetings_name_users_whose_node_has_not_registered_them_again() {
    let nodes = Nodes::start().await;
    let (mut alice, _) = bound(&nodes.one, "alice").await;
    let dave = member(&nodes.two, "dave").await;
    assert_eq!(roster(&mut alice, "dave", "joined").await, ["alice", "dave"]);

    wipe_without_two(&nodes).await;
    let (bob, greeted) = bound(&nodes.one, "bob").await;
    assert_eq!(greeted, ["alice", "bob", "dave"]);
    assert_eq!(roster(&mut alice, "bob", "joined").await, ["alice", "bob", "dave"]);
    bob.close().await;
    assert_eq!(roster(&mut alice, "bob", "left").await, ["alice", "dave"]);

    // Dave leaves while his node can't tell it. The comparison, once every node had its time to register, does.
    dave.close().await;
    nodes.link.set(Link::Open);
    assert_eq!(roster(&mut alice, "dave", "left").await, ["alice"]);
}

#[tokio::test]
async fn answers_and_lists_count_users_whose_node_has_not_registered_them_again() {
    let nodes = Nodes::start().await;
    let mut alice = member(&nodes.one, "alice").await;
    let _dave = member(&nodes.two, "dave").await;
    let mut pat = member(&nodes.one, "pat").await;
    // Nobody on the first node listens where Erin is.
    let _erin = {
        let mut erin = Client::native(&nodes.two, "erin").await;
        erin.join("den").await;
        pat.join("den").await;
        pat.send(&json!({"type": "leave", "conversation_id": "den", "ref": 2})).await;
        pat.until("left").await;
        erin
    };
    alice.until_where(|frame| is_presence(frame, "dave", true)).await;

    wipe_without_two(&nodes).await;
    alice.send(&json!({"type": "presence", "user_ids": ["dave", "nobody"], "ref": 1})).await;
    let answer = alice.until_where(|frame| frame["ref"] == 1).await;
    let online: Vec<_> = answer["users"].as_array().unwrap().iter().map(|user| user["online"] == true).collect();
    assert_eq!(online, [true, false], "{answer}");
    let (mut pat, greeted) = personas(&nodes.one, "pat").await;
    assert_eq!(greeted, ["alice", "dave", "pat"], "of Erin the node knows nothing now");

    nodes.link.set(Link::Open);
    let list = pat.until("online_users").await;
    assert_eq!(users(&list["users"]), ["alice", "dave", "erin", "pat"]);
}

#[tokio::test]
async fn a_comparison_that_lacks_the_store_is_repeated() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let redis_link = Proxy::to(redis.url().split("://").nth(1).unwrap().trim_end_matches('/')).await;
    let store_link = Proxy::to(database.split('@').next_back().unwrap().split('/').next().unwrap()).await;
    let short = |node: NodeBuilder| node.set("NODE_LEASE", "3s");
    let one = short(Node::serve(&redis.url(), &database)).start().await;
    let two = short(Node::serve(&redis_link.url(&redis.url()), &store_link.url(&database))).start().await;
    let mut bob = member(&two, "bob").await;
    redis_link.set(Link::Cut);
    two.metric("switchboard_degraded{part=\"redis\"}", |value| value == 1.0).await;
    let _carol = member(&one, "carol").await;
    store_link.set(Link::Cut);
    two.metric("switchboard_degraded{part=\"store\"}", |value| value == 1.0).await;
    redis_link.set(Link::Open);
    two.metric("switchboard_degraded{part=\"redis\"}", |value| value == 0.0).await;
    // By then every node has had its time to register, and the comparison was made in vain.
    tokio::time::sleep(Duration::from_secs(5)).await;
    store_link.set(Link::Open);
    let told = bob.until_where(|frame| is_presence(frame, "carol", true));
    // The comparison that is made once a minute would come later.
    tokio::time::timeout(allowed(Duration::from_secs(20)), told).await.expect("bob is told of carol");
}
