//! A page is true up to its `as_of`: with the later entries applied it is the same as a page that is read later.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{CONVERSATIONS, ask, unlimited};
use crate::support::{Client, Node, Postgres, RedisServer, token};

const MESSAGES: i64 = 6;

/// The state of one message, as a client keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    content: String,
    deleted: bool,
    replies: i64,
    /// Of each emoji, the number of users and whether the reader is one of them.
    reactions: BTreeMap<String, (i64, bool)>,
}

/// The messages of a page that a client keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
struct View(BTreeMap<i64, Kept>);

impl View {
    /// Reads a page of either face.
    fn of(page: &Value) -> Self {
        let reaction = |one: &Value| {
            let emoji = one["emoji"].as_str().unwrap().to_owned();
            (emoji, (one["count"].as_i64().unwrap(), one["own"].as_bool().unwrap()))
        };
        let kept = |message: &Value| {
            let flag = |name: &str| message[name].as_bool().unwrap_or(false);
            let number = |name: &str| message[name].as_i64().unwrap_or(0);
            let kept = Kept {
                content: message["content"].as_str().unwrap().to_owned(),
                deleted: flag("deleted") || flag("is_deleted"),
                replies: number("replies") + number("reply_count"),
                reactions: message["reactions"].as_array().into_iter().flatten().map(reaction).collect(),
            };
            (message["seq"].as_i64().unwrap(), kept)
        };
        Self(page["messages"].as_array().unwrap().iter().map(kept).collect())
    }

    /// Applies a later entry as docs/protocol/native.md says.
    fn apply(&mut self, entry: &Value, reader: &str) {
        let target = entry["target_seq"].as_i64().or(entry["reply_to"].as_i64());
        let Some(kept) = target.and_then(|seq| self.0.get_mut(&seq)) else { return };
        match entry["type"].as_str().unwrap() {
            "message" => kept.replies += 1,
            "message_edited" => kept.content = entry["content"].as_str().unwrap().to_owned(),
            "message_deleted" => {
                (kept.content, kept.deleted) = (String::new(), true);
                kept.reactions.clear();
            }
            "reaction" => {
                let emoji = entry["emoji"].as_str().unwrap();
                let (active, own) = (entry["active"] == true, entry["sender_id"] == *reader);
                let one = kept.reactions.entry(emoji.to_owned()).or_default();
                one.0 += if active { 1 } else { -1 };
                if own {
                    one.1 = active;
                }
                if one.0 == 0 {
                    kept.reactions.remove(emoji);
                }
            }
            other => panic!("{other}"),
        }
    }
}

/// Changes messages at random until it is told to stop.
async fn change(node: Arc<Node>, user: &'static str, room: String, stop: Arc<AtomicBool>) {
    let mut client = Client::native(&node, user).await;
    let mut at = 0;
    while !stop.load(Ordering::SeqCst) {
        at += 1;
        let seq = rand::random_range(1..=MESSAGES);
        let mut frame = match rand::random_range(0..10) {
            0 => json!({"type": "edit", "seq": seq, "content": format!("edited by {user}, {at}")}),
            1 => json!({"type": "send", "content": "a reply", "reply_to": seq}),
            2 if rand::random_range(0..20) == 0 => json!({"type": "delete", "seq": seq}),
            _ => {
                let emoji = ["a", "b", "c"][rand::random_range(0..3)];
                json!({"type": "react", "seq": seq, "emoji": emoji, "active": rand::random_range(0..5) > 1})
            }
        };
        (frame["conversation_id"], frame["ref"]) = (json!(room), json!(at));
        client.send(&frame).await;
        client.until_where(|answer| answer["ref"] == at).await;
    }
}

/// Pages that are read while users change their messages; the reader listens to all changes.
async fn pages_are_true_up_to_their_seq(nodes: [Arc<Node>; 2]) {
    let room = nodes[0].conversation(&token("alice"), &["bob", "carol"]).await;
    let mut alice = Client::native(&nodes[0], "alice").await;
    for at in 0..MESSAGES {
        alice.send_text(&room, &format!("message {at}")).await;
    }
    alice.join(&room).await;
    let (stop, mut changes) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
    for (at, user) in ["alice", "bob", "carol"].into_iter().enumerate() {
        changes.spawn(change(nodes[at % 2].clone(), user, room.clone(), stop.clone()));
    }
    let path = format!("{CONVERSATIONS}/{room}/messages?before_seq={}", MESSAGES + 1);
    let mut asking = Client::native(&nodes[1], "alice").await;
    let (mut pages, mut distinct) = (Vec::new(), Vec::new());
    // Until there are pages of many moments.
    for at in 0.. {
        if at >= 30 && distinct.len() > 10 {
            break;
        }
        let frame = json!({"type": "history", "conversation_id": room, "before_seq": MESSAGES + 1});
        pages.push(if at % 2 == 0 {
            ask(&mut asking, frame).await
        } else {
            nodes[1].get(&path, &token("alice")).await.json
        });
        distinct.extend(pages.last().and_then(|page: &Value| page["as_of"].as_i64()));
        distinct.dedup();
    }
    stop.store(true, Ordering::SeqCst);
    while let Some(ended) = changes.join_next().await {
        ended.unwrap();
    }
    let last = nodes[0].get(&path, &token("alice")).await.json;
    let head = last["as_of"].as_i64().unwrap();
    let mut entries = Vec::new();
    while entries.last().is_none_or(|entry: &Value| entry["seq"].as_i64().unwrap() < head) {
        entries.push(alice.until_where(|frame| frame["seq"].is_i64()).await);
    }
    assert!(distinct.is_sorted(), "each page is newer than the one before: {distinct:?}");
    for page in &pages {
        let (mut view, as_of) = (View::of(page), page["as_of"].as_i64().unwrap());
        for entry in entries.iter().filter(|entry| entry["seq"].as_i64().unwrap() > as_of) {
            view.apply(entry, "alice");
        }
        assert_eq!(view, View::of(&last), "the page of {as_of}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_true_up_to_their_seq_on_postgres() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let start = async || Arc::new(unlimited(Node::serve(&redis.url(), &database)).start().await);
    pages_are_true_up_to_their_seq([start().await, start().await]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_true_up_to_their_seq_on_sqlite() {
    let node = Arc::new(unlimited(Node::dev()).start().await);
    pages_are_true_up_to_their_seq([node.clone(), node]).await;
}
