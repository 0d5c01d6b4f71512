//! Nobody can deafen another: automatic joins leave the room of the client's own joins alone, and a conversation that a
//! socket gave up for room comes back when something is said there.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::support::{Client, Node, NodeBuilder, Postgres, RedisServer, eventually, token};

const CONVERSATIONS: &str = "/api/chat/conversations";
/// Conversations that a socket joins by itself in these tests.
const LIMIT: usize = 3;

/// Two nodes on the same servers.
struct Pair {
    one: Node,
    two: Node,
    _redis: RedisServer,
}

impl Pair {
    async fn new() -> Self {
        let redis = RedisServer::start().await;
        let database = Postgres::shared().await.database().await;
        let node = || small(Node::serve(&redis.url(), &database)).set("OPEN_CONVERSATIONS", false);
        Self { one: node().start().await, two: node().start().await, _redis: redis }
    }
}

fn small(node: NodeBuilder) -> NodeBuilder {
    let node = node.set("MAX_CONVERSATIONS_PER_CONNECTION", LIMIT).set("MESSAGE_RATE_LIMIT", 0);
    node.set("WRITE_RATE_LIMIT", 0).set("READ_RATE_LIMIT", 0)
}

async fn direct(node: &Node, user: &str) -> Client {
    let mut client = Client::connect(&format!("{}/ws?token={}", node.ws(), token(user))).await;
    client.expect("authenticated").await;
    client
}

/// The partner's direct conversation with the agent.
async fn conversation(node: &Node, partner: &str) -> String {
    let made = node.post(CONVERSATIONS, &token(partner), &json!({"participant_ids": ["agent"]})).await;
    made.json["id"].as_str().unwrap().to_owned()
}

async fn say(node: &Node, user: &str, conversation: &str, content: &str) {
    let path = format!("{CONVERSATIONS}/{conversation}/messages");
    let sent = node.post(&path, &token(user), &json!({"content": content})).await;
    assert_eq!(sent.status, 201, "{}", sent.text);
}

/// The content and the seq of a message in the native or the direct dialect.
fn message(frame: &Value) -> Option<(String, i64)> {
    let data = match frame["type"].as_str()? {
        "message" => frame,
        "new_message" => &frame["data"],
        _ => return None,
    };
    Some((data["content"].as_str()?.to_owned(), data["seq"].as_i64()?))
}

/// Checks that the next message is this one.
async fn hears(client: &mut Client, content: &str) -> i64 {
    let frame = client.until_where(|frame| message(frame).is_some()).await;
    let (heard, seq) = message(&frame).unwrap();
    assert_eq!(heard, content);
    seq
}

/// Lets more partners than the limit write in turn, each several times, and checks that the agent hears each message
/// once and in order.
async fn every_partner_is_heard(speakers: &Node, agent: &mut Client, partners: &[String]) {
    let mut last = HashMap::new();
    for round in 0..3 {
        for partner in partners {
            let room = conversation(speakers, partner).await;
            for part in ["first", "second"] {
                let content = format!("{partner} {round} {part}");
                say(speakers, partner, &room, &content).await;
                let seq = hears(agent, &content).await;
                let before = last.insert(partner.clone(), seq).unwrap_or(seq - 1);
                assert_eq!(seq, before + 1, "{content}");
            }
        }
    }
}

fn partners() -> Vec<String> {
    (0..LIMIT + 2).map(|at| format!("partner{at}")).collect()
}

#[tokio::test]
async fn an_agent_hears_its_least_recent_partner_in_the_native_dialect() {
    let pair = Pair::new().await;
    let mut agent = Client::native(&pair.two, "agent").await;
    every_partner_is_heard(&pair.one, &mut agent, &partners()).await;
    let metrics = pair.two.metrics().await;
    assert!(metrics.get("switchboard_joins_dropped_total").unwrap() >= 2.0);
    assert_eq!(metrics.get("switchboard_hinted_sockets"), Some(1.0));
    agent.close().await;
    pair.two.metric("switchboard_hinted_sockets", |sockets| sockets == 0.0).await;
}

#[tokio::test]
async fn an_agent_hears_its_least_recent_partner_in_the_direct_dialect() {
    let pair = Pair::new().await;
    let mut agent = direct(&pair.two, "agent").await;
    every_partner_is_heard(&pair.one, &mut agent, &partners()).await;
    agent.close().await;

    // A new socket joins the most recent ones only; all but the first of these wait for a hint.
    for partner in partners() {
        let room = conversation(&pair.one, &partner).await;
        let marks = json!({"conversation_id": room, "up_to_seq": 6});
        assert_eq!(pair.one.post("/api/messages/read", &token("agent"), &marks).await.status, 200);
    }
    let mut agent = direct(&pair.two, "agent").await;
    for partner in partners() {
        let room = conversation(&pair.one, &partner).await;
        for part in ["third", "fourth"] {
            say(&pair.one, &partner, &room, &format!("{partner} {part}")).await;
            hears(&mut agent, &format!("{partner} {part}")).await;
        }
    }
}

#[tokio::test]
async fn an_agent_hears_its_least_recent_partner_on_a_node_without_redis() {
    let node = small(Node::dev()).start().await;
    let (mut native, mut direct) = (Client::native(&node, "agent").await, direct(&node, "agent").await);
    for round in 0..2 {
        for partner in partners() {
            let room = conversation(&node, &partner).await;
            let content = format!("{partner} {round}");
            say(&node, &partner, &room, &content).await;
            hears(&mut native, &content).await;
            hears(&mut direct, &content).await;
        }
    }
}

#[tokio::test]
async fn groups_that_name_a_user_take_none_of_their_places() {
    let pair = Pair::new().await;
    let mut bob = Client::native(&pair.two, "bob").await;
    let mut rooms = Vec::new();
    for at in 0..LIMIT {
        rooms.push(pair.one.conversation(&token("bob"), &["carol"]).await);
        bob.join(&rooms[at]).await;
    }
    let mut groups = Vec::new();
    for _ in 0..4 * LIMIT {
        let group = pair.one.conversation(&token("mallory"), &["bob"]).await;
        bob.until_where(|frame| frame["type"] == "joined" && frame["conversation_id"] == *group).await;
        groups.push(group);
    }
    // Bob leaves one of his rooms and joins another: his own joins have their places.
    bob.send(&json!({"type": "leave", "conversation_id": rooms[0], "ref": "leave"})).await;
    bob.until_where(|frame| frame["ref"] == "leave").await;
    let other = pair.one.conversation(&token("carol"), &["bob"]).await;
    bob.join(&other).await;
    say(&pair.one, "carol", &other, "in the room he joined").await;
    hears(&mut bob, "in the room he joined").await;

    let own = pair.one.conversation(&token("bob"), &["carol"]).await;
    say(&pair.one, "carol", &own, "in his new group").await;
    hears(&mut bob, "in his new group").await;
    bob.send(&json!({"type": "send", "recipient_id": "carol", "content": "hi carol", "ref": "hi"})).await;
    let ack = bob.until_where(|frame| frame["ref"] == "hi").await;
    assert_eq!(ack["type"], "ack", "{ack}");
    say(&pair.one, "carol", ack["conversation_id"].as_str().unwrap(), "hi bob").await;
    hears(&mut bob, "hi bob").await;
    let made = pair.one.post(CONVERSATIONS, &token("dave"), &json!({"participant_ids": ["bob"]})).await;
    say(&pair.one, "dave", made.json["id"].as_str().unwrap(), "a first message").await;
    hears(&mut bob, "a first message").await;

    // What was said in the groups is heard too, also where the socket gave up more joins than it remembers.
    say(&pair.one, "mallory", groups.last().unwrap(), "the newest group").await;
    hears(&mut bob, "the newest group").await;
    say(&pair.one, "mallory", &groups[0], "the oldest group").await;
    let resync = bob.until("resync").await;
    assert_eq!((&resync["conversation_id"], &resync["head"]), (&json!(groups[0]), &json!(1)), "{resync}");
    say(&pair.one, "mallory", &groups[0], "once more").await;
    hears(&mut bob, "once more").await;
}

#[tokio::test]
async fn groups_that_are_made_at_once_are_heard() {
    let pair = Pair::new().await;
    let mut bob = Client::native(&pair.two, "bob").await;
    let mallory = token("mallory");
    let made = (0..8 * LIMIT).map(|_| pair.one.conversation(&mallory, &["bob"]));
    let groups = futures_util::future::join_all(made).await;
    for (at, group) in groups.iter().enumerate() {
        let content = format!("in group {at}");
        say(&pair.one, "mallory", group, &content).await;
        // Where the socket gave up more joins than it remembers, it is told to read the group anew.
        let tells = |frame: &Value| match message(frame) {
            Some((heard, _)) => heard == content,
            None => frame["type"] == "resync" && frame["conversation_id"] == **group && frame["head"] == 1,
        };
        bob.until_where(tells).await;
    }
}

#[tokio::test]
async fn a_conversation_without_a_listener_is_heard_while_redis_is_down() {
    let mut redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let node = || small(Node::serve(&redis.url(), &database));
    let (one, two) = (node().start().await, node().start().await);
    let (mut native, mut direct) = (Client::native(&two, "agent").await, direct(&two, "agent").await);
    let mut rooms = Vec::new();
    for partner in partners() {
        let room = conversation(&one, &partner).await;
        say(&one, &partner, &room, &partner).await;
        hears(&mut native, &partner).await;
        hears(&mut direct, &partner).await;
        rooms.push((partner, room));
    }
    redis.kill().await;
    for node in [&one, &two] {
        let relays = async || {
            let health = node.get("/api/health", &token("anyone")).await.json;
            (health["works"]["fanout"] == "relayed").then_some(())
        };
        eventually("nodes to relay", relays).await;
    }
    for (partner, room) in &rooms {
        let content = format!("{partner} without Redis");
        say(&one, partner, room, &content).await;
        hears(&mut native, &content).await;
        hears(&mut direct, &content).await;
    }
}
