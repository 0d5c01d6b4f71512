//! One `sync` joins many conversations, and each gets an answer of its own.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use crate::support::{Client, Node, NodeBuilder, Postgres, RedisServer, token};

fn unlimited(node: NodeBuilder) -> NodeBuilder {
    node.set("WRITE_RATE_LIMIT", 0).set("READ_RATE_LIMIT", 0).set("MESSAGE_RATE_LIMIT", 0)
}

/// Sends a `sync` with a seq for each of `ids`, in this order, and returns the answers.
async fn sync(client: &mut Client, ids: &[String], since: i64) -> Vec<Value> {
    let cursors: Vec<String> = ids.iter().map(|id| format!("\"{id}\":{since}")).collect();
    let frame = format!(r#"{{"type":"sync","ref":"s","conversations":{{{}}}}}"#, cursors.join(","));
    client.send_message(frame.into()).await;
    let answer = client.until_where(|frame| frame["ref"] == "s").await;
    assert_eq!(answer["type"], "synced", "{answer}");
    answer["conversations"].as_array().unwrap().clone()
}

/// The outcome of one conversation: its head, or the code of its refusal.
fn outcome(one: &Value) -> String {
    match &one["error"] {
        Value::Null => format!("head {}", one["head"]),
        error => error["code"].as_str().unwrap().to_owned(),
    }
}

/// The first conversations of the frame get the places of the socket, whatever is refused among them.
async fn every_conversation_has_its_answer(speakers: &Node, listeners: &Node) {
    let bob = token("bob");
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(speakers.conversation(&bob, &["alice"]).await);
    }
    let secret = speakers.conversation(&token("mallory"), &["carol"]).await;
    let mut asked = ids.clone();
    asked.insert(1, secret.clone());
    asked.insert(2, "nowhere".to_owned());
    asked.reverse();
    let mut alice = Client::native(listeners, "alice").await;
    let answers = sync(&mut alice, &asked, 0).await;
    let order: Vec<&str> = answers.iter().map(|one| one["conversation_id"].as_str().unwrap()).collect();
    assert_eq!(order, asked.iter().map(String::as_str).collect::<Vec<_>>());
    let outcomes: Vec<String> = answers.iter().map(outcome).collect();
    let expected = ["head 0", "head 0", "head 0", "too_many_conversations"];
    assert_eq!(outcomes[..4], expected);
    // Nothing but the refusal of a place says whether these exist.
    assert_eq!(outcomes[4..], ["too_many_conversations"; 3]);
    assert_eq!(answers[3]["error"]["retryable"], false);

    // Conversations that the socket listens to need no further place, wherever they stand in the frame.
    let again = [asked[3].clone(), asked[0].clone(), secret, asked[2].clone()];
    let outcomes: Vec<String> = sync(&mut alice, &again, 0).await.iter().map(outcome).collect();
    assert_eq!(outcomes, ["too_many_conversations", "head 0", "too_many_conversations", "head 0"]);
    alice.send(&json!({"type": "leave", "conversation_id": asked[0], "ref": "left"})).await;
    alice.until("left").await;
    let again = ["nowhere".to_owned(), asked[3].clone(), asked[0].clone()];
    let outcomes: Vec<String> = sync(&mut alice, &again, 0).await.iter().map(outcome).collect();
    assert_eq!(outcomes, ["not_member", "head 0", "too_many_conversations"]);

    // The socket hears the conversations that it joined.
    let path = format!("/api/chat/conversations/{}/messages", asked[3]);
    assert_eq!(speakers.post(&path, &bob, &json!({"content": "hello"})).await.status, 201);
    assert_eq!(alice.until("message").await["content"], "hello");
}

#[tokio::test]
async fn one_refusal_spoils_no_other_conversation_on_two_nodes() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let node = || {
        let node = unlimited(Node::serve(&redis.url(), &database));
        node.set("MAX_CONVERSATIONS_PER_CONNECTION", 3).set("OPEN_CONVERSATIONS", false)
    };
    let (one, two) = (node().start().await, node().start().await);
    every_conversation_has_its_answer(&one, &two).await;
}

#[tokio::test]
async fn one_refusal_spoils_no_other_conversation_on_sqlite() {
    let node = unlimited(Node::dev()).set("MAX_CONVERSATIONS_PER_CONNECTION", 3).set("OPEN_CONVERSATIONS", false);
    let node = node.start().await;
    every_conversation_has_its_answer(&node, &node).await;
}

#[tokio::test]
async fn more_conversations_than_places_are_answered_and_the_frame_has_a_bound() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let node = unlimited(Node::serve(&redis.url(), &database)).set("OPEN_CONVERSATIONS", true).start().await;
    let mut alice = Client::native(&node, "alice").await;
    let ids: Vec<String> = (0..620).map(|at| format!("room-{at}")).collect();
    let answers = sync(&mut alice, &ids, 0).await;
    let joined: HashSet<&str> = answers
        .iter()
        .filter(|one| one["error"].is_null())
        .map(|one| one["conversation_id"].as_str().unwrap())
        .collect();
    assert_eq!((answers.len(), joined), (620, ids[..500].iter().map(String::as_str).collect()));
    assert!(answers[500..].iter().all(|one| outcome(one) == "too_many_conversations"));

    let mut too_long = Map::new();
    for at in 0..1_001 {
        too_long.insert(format!("room-{at}"), json!(0));
    }
    alice.send(&json!({"type": "sync", "conversations": too_long, "ref": "long"})).await;
    let refused = alice.until_where(|frame| frame["ref"] == "long").await;
    assert_eq!(
        (&refused["code"], &refused["message"]),
        (&"invalid".into(), &"conversations has at most 1000 ids".into())
    );
}
