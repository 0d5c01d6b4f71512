//! No answer makes its client a slow reader: answers are bounded in bytes, say how to go on, and wait for room.

mod as_of;
mod kinds;
mod unread;

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::support::{
    Client, Link, Node, NodeBuilder, Postgres, Proxy, RawClient, RedisServer, connect_to_postgres, opcode, token,
};

const CONVERSATIONS: &str = "/api/chat/conversations";
const TOO_SLOW: &str = r#"switchboard_closes_total{reason="too_slow"}"#;
const WAITING: &str = "switchboard_answers_waiting";

fn unlimited(node: NodeBuilder) -> NodeBuilder {
    node.set("WRITE_RATE_LIMIT", 0).set("READ_RATE_LIMIT", 0).set("MESSAGE_RATE_LIMIT", 0)
}

/// Sends a frame and returns the answer to it.
async fn ask(client: &mut Client, frame: Value) -> Value {
    let mut frame = frame;
    frame["ref"] = json!("asked");
    client.send(&frame).await;
    let answer = client.until_where(|answer| answer["ref"] == "asked").await;
    assert_ne!(answer["type"], "error", "{answer}");
    answer
}

fn length(frame: &Value) -> usize {
    frame.to_string().len()
}

fn seqs(page: &Value) -> Vec<i64> {
    page["messages"].as_array().unwrap().iter().map(|message| message["seq"].as_i64().unwrap()).collect()
}

/// Alice sends this many messages of 4,900 Chinese characters.
async fn fill(node: &Node, messages: usize) -> Client {
    let mut alice = Client::native(node, "alice").await;
    alice.join("team").await;
    for _ in 0..messages {
        alice.send_text("team", &"好".repeat(4_900)).await;
    }
    alice
}

#[tokio::test]
async fn a_history_of_long_messages_comes_in_pages() {
    let node = unlimited(Node::dev()).start().await;
    let mut alice = fill(&node, 100).await;
    let (mut found, mut before) = (Vec::new(), Value::Null);
    loop {
        let page =
            ask(&mut alice, json!({"type": "history", "conversation_id": "team", "limit": 100, "before_seq": before}));
        let page = page.await;
        assert!(length(&page) <= 256 * 1_024, "{}", length(&page));
        found.extend(seqs(&page));
        assert_eq!(page["total"], 100);
        before = page["next_before_seq"].clone();
        if before.is_null() {
            break;
        }
        assert_eq!(before, *found.last().unwrap());
        assert!(seqs(&page).len() > 10, "a page is not cut too early");
    }
    assert_eq!(found.len(), 100);
    assert!(found.windows(2).all(|two| two[0] > two[1]));
    assert_eq!(node.metrics().await.get(TOO_SLOW).unwrap_or(0.0), 0.0);
}

/// Histories are asked for all at once, and read at a rate that takes many seconds: all answers come.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_but_steady_reader_gets_every_answer_that_it_asks_for() {
    let node = unlimited(Node::dev())
        .set("PING_INTERVAL", "2s")
        .set("PONG_TIMEOUT", "2s")
        .set("SLOW_READER_TIMEOUT", "3s")
        .start()
        .await;
    fill(&node, 20).await.close().await;
    let proxy = Proxy::to(node.address().to_string()).await;
    proxy.set(Link::Throttled(400_000));
    let mut bob = Client::connect(&format!("ws://{}/v1/ws?token={}", proxy.address(), token("bob"))).await;
    bob.until("authenticated").await;
    bob.join("team").await;
    for at in 0..10 {
        bob.send(&json!({"type": "history", "conversation_id": "team", "ref": at})).await;
    }
    for at in 0..10 {
        let answer = bob.until("history").await;
        assert_eq!((&answer["ref"], seqs(&answer).len() > 10), (&json!(at), true), "in order");
    }
    let metrics = node.metrics().await;
    for reason in ["too_slow", "silent"] {
        let closed = metrics.get(&format!(r#"switchboard_closes_total{{reason="{reason}"}}"#));
        assert_eq!(closed.unwrap_or(0.0), 0.0, "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_nothing_ends_as_a_slow_reader_and_events_still_fit_meanwhile() {
    let node = unlimited(Node::dev()).set("OUTBOX_BYTES", "256KiB").set("SLOW_READER_TIMEOUT", "5s").start().await;
    let mut alice = fill(&node, 20).await;
    let path = format!("/v1/ws?token={}", token("carol"));
    let mut carol = RawClient::open_narrow(node.address(), &path).await;
    carol.read_frame().await.unwrap();
    carol.frame(opcode::TEXT, br#"{"type":"join","conversation_id":"team","ref":1}"#).await;
    carol.read_frame().await.unwrap();
    for at in 0..200 {
        let frame = json!({"type": "history", "conversation_id": "team", "ref": at}).to_string();
        carol.frame(opcode::TEXT, frame.as_bytes()).await;
    }
    node.metric(WAITING, |sockets| sockets == 1.0).await;
    // An answer leaves room for events.
    alice.send_text("team", &"x".repeat(4_900)).await;
    alice.send_text("team", "the last").await;
    assert_eq!(node.metrics().await.get(TOO_SLOW).unwrap_or(0.0), 0.0);
    node.metric(TOO_SLOW, |closed| closed == 1.0).await;
    node.metric(WAITING, |sockets| sockets == 0.0).await;
    drop(carol);
}

/// Walks the whole history by pages that are short in number and in bytes; returns the messages in the order of the walk.
async fn walk(client: &mut Client, node: &Node, path: &str, first: (&str, i64), next: &str, rest: bool) -> Vec<i64> {
    let (mut found, mut at) = (Vec::new(), Some(first.1));
    while let Some(seq) = at {
        let page = match rest {
            true => node.get(&format!("{path}?limit=7&{}={seq}", first.0), &token("alice")).await.json,
            false => {
                let mut frame = json!({"type": "history", "conversation_id": "team", "limit": 7});
                frame[first.0] = json!(seq);
                ask(client, frame).await
            }
        };
        assert!(length(&page) <= 64 * 1_024);
        let mut seqs = seqs(&page);
        assert!(!seqs.is_empty() && seqs.len() <= 7);
        if first.0 == "after_seq" {
            seqs.reverse();
        }
        found.extend(seqs);
        at = page[next].as_i64();
    }
    found
}

async fn a_walk_meets_each_message_once(node: &Node) {
    let mut alice = Client::native(node, "alice").await;
    alice.join("team").await;
    let mut sent = Vec::new();
    for at in 0..60 {
        // Some pages are cut by bytes, some by number.
        let length = if at % 20 < 10 { 4_900 } else { 10 };
        sent.push(alice.send_text("team", &"好".repeat(length)).await["seq"].as_i64().unwrap());
        let react = json!({"type": "react", "conversation_id": "team", "seq": sent[0], "emoji": format!("e{}", at % 19), "ref": at});
        alice.send(&react).await;
        alice.until_where(|frame| frame["ref"] == at).await;
    }
    let path = format!("{CONVERSATIONS}/team/messages");
    for rest in [false, true] {
        let forth = walk(&mut alice, node, &path, ("after_seq", 0), "next_after_seq", rest).await;
        assert_eq!(forth, sent, "forth, over REST: {rest}");
        let mut back = walk(&mut alice, node, &path, ("before_seq", i64::MAX), "next_before_seq", rest).await;
        back.reverse();
        assert_eq!(back, sent, "back, over REST: {rest}");
    }
}

#[tokio::test]
async fn a_walk_through_a_long_history_meets_each_message_once_on_postgres() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let node = Node::serve(&redis.url(), &database).set("OUTBOX_BYTES", "128KiB").set("MAX_PAGE_BYTES", "64KiB");
    a_walk_meets_each_message_once(&unlimited(node).start().await).await;
}

#[tokio::test]
async fn a_walk_through_a_long_history_meets_each_message_once_on_sqlite() {
    let node = Node::dev().set("OUTBOX_BYTES", "128KiB").set("MAX_PAGE_BYTES", "64KiB");
    a_walk_meets_each_message_once(&unlimited(node).start().await).await;
}

/// Rows from before reactions had a bound.
#[tokio::test]
async fn a_message_with_too_many_reactions_can_be_read() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let node = unlimited(Node::serve(&redis.url(), &database)).start().await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join("team").await;
    let seq = alice.send_text("team", "popular").await["seq"].as_i64().unwrap();
    alice.send_text("team", "another").await;
    let sql = format!(
        "INSERT INTO reactions (log, seq, user_id, emoji) \
         SELECT 'team', {seq}, 'user' || i, 'emoji-with-a-long-name-' || i FROM generate_series(1, 11500) i"
    );
    connect_to_postgres(&database).await.batch_execute(&sql).await.unwrap();
    alice.send(&json!({"type": "react", "conversation_id": "team", "seq": seq, "emoji": "emoji-with-a-long-name-7", "active": true, "ref": 1})).await;
    alice.until_where(|frame| frame["ref"] == 1).await;
    let page = ask(&mut alice, json!({"type": "history", "conversation_id": "team"})).await;
    let path = format!("{CONVERSATIONS}/team/messages");
    let rest = node.get(&path, &token("alice")).await.json;
    let one = node.get(&format!("{path}/{seq}"), &token("alice")).await.json;
    for message in [&page["messages"][1], &rest["messages"][1], &one] {
        assert_eq!((message["reactions"].as_array().unwrap().len(), &message["more_reactions"]), (50, &json!(true)));
    }
    assert_eq!(page["messages"][0]["more_reactions"], Value::Null);
}

/// The listing of 100 groups of 100 members does not fit into an outbox.
#[tokio::test]
async fn a_list_of_large_groups_comes_in_pages() {
    let node = unlimited(Node::dev()).set("OPEN_CONVERSATIONS", false).start().await;
    let members: Vec<String> = (0..99).map(|at| format!("{at:03}-{}", "m".repeat(100))).collect();
    let members: Vec<&str> = members.iter().map(String::as_str).collect();
    let mut made = HashSet::new();
    for _ in 0..100 {
        made.insert(node.conversation(&token("alice"), &members).await);
    }
    let mut alice = Client::native(&node, "alice").await;
    let (mut listed, mut offset) = (Vec::new(), json!(0));
    while !offset.is_null() {
        let page = ask(&mut alice, json!({"type": "conversations", "limit": 100, "offset": offset})).await;
        assert!(length(&page) <= 256 * 1_024, "{}", length(&page));
        let ids = page["conversations"].as_array().unwrap().iter();
        listed.extend(ids.map(|one| one["conversation_id"].as_str().unwrap().to_owned()));
        assert_eq!(page["total"], 100);
        offset = page["next_offset"].clone();
    }
    assert_eq!((listed.len(), listed.into_iter().collect::<HashSet<_>>()), (100, made));
    let whole = node.get(&format!("{CONVERSATIONS}?limit=100"), &token("alice")).await.json;
    assert_eq!((whole["conversations"].as_array().unwrap().len(), &whole["next_offset"]), (100, &Value::Null));
    assert_eq!(node.metrics().await.get(TOO_SLOW).unwrap_or(0.0), 0.0);
}
