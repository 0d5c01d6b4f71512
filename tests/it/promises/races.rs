//! Joins whose node is behind: the answer of the store is late, or the events of other nodes are.

use reqwest::{Method, StatusCode};
use serde_json::json;

use super::CLOSED;
use crate::support::{Client, Link, Node, Postgres, Proxy, RedisServer, token};

/// Two nodes; the second one reaches PostgreSQL and Redis through links.
struct Nodes {
    _redis: RedisServer,
    store_link: Proxy,
    redis_link: Proxy,
    one: Node,
    two: Node,
}

impl Nodes {
    async fn start() -> Self {
        let redis = RedisServer::start().await;
        let database = Postgres::shared().await.database().await;
        let store_link = Proxy::to(database.split('@').next_back().unwrap().split('/').next().unwrap()).await;
        let redis_link = Proxy::to(redis.url().split("://").nth(1).unwrap().trim_end_matches('/')).await;
        let one = Node::serve(&redis.url(), &database).set(CLOSED.0, CLOSED.1).start().await;
        let two = Node::serve(&redis_link.url(&redis.url()), &store_link.url(&database));
        let two = two.set(CLOSED.0, CLOSED.1).start().await;
        Self { _redis: redis, store_link, redis_link, one, two }
    }

    async fn remove(&self, conversation: &str, user: &str) {
        let path = format!("/api/chat/conversations/{conversation}/members/{user}");
        let answer = self.one.request(Method::DELETE, &path, Some(&token("alice")), None).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{answer:?}");
    }
}

/// Asserts that nothing more of a conversation reaches a native client: its next frame is the answer to a ping that
/// it sends after another member received a message.
async fn assert_deaf(bob: &mut Client, other: &mut Client, writer: &mut Client, conversation: &str) {
    let ack = writer.send_text(conversation, "after the removal").await;
    other.until_where(|frame| frame["type"] == "message" && frame["id"] == ack["id"]).await;
    bob.send(&json!({"type": "ping", "ref": "deaf"})).await;
    bob.until_where(|frame| {
        assert_ne!(frame["type"], "message", "{frame}");
        frame["ref"] == "deaf"
    })
    .await;
}

#[tokio::test]
async fn a_removal_that_passes_during_a_join_ends_the_join() {
    let nodes = Nodes::start().await;
    let alice = token("alice");
    let mut writer = Client::native(&nodes.one, "alice").await;
    // With a listener on the node before, the log is open there; without one, the join opens it.
    for open_before in [false, true] {
        let team = nodes.one.conversation(&alice, &["bob", "carol"]).await;
        writer.send_text(&team, "before").await;
        let mut bob = Client::native(&nodes.two, "bob").await;
        let mut carol = Client::native(&nodes.two, "carol").await;
        if open_before {
            carol.join(&team).await;
        }
        nodes.store_link.set_at(&team, 1, Link::Mute);
        bob.send(&json!({"type": "join", "conversation_id": team, "ref": "join"})).await;
        nodes.store_link.reached(Link::Mute).await;
        nodes.remove(&team, "bob").await;
        // The store's answer, which says that bob is a member, comes after the removal did.
        bob.until("conversation_removed").await;
        nodes.store_link.set(Link::Open);
        let answer = bob.until_where(|frame| frame["ref"] == "join").await;
        if !open_before {
            carol.join(&team).await;
        }
        if answer["type"] == "joined" {
            // The join went live before the removal, and hears it; or its inbox told the socket first, which leaves.
            bob.until_where(|frame| {
                frame["type"] == "left" || frame["type"] == "member_removed" && frame["user_id"] == "bob"
            })
            .await;
        } else {
            assert_eq!(answer["code"], "not_member", "{answer}");
        }
        assert_deaf(&mut bob, &mut carol, &mut writer, &team).await;
    }
}

#[tokio::test]
async fn the_answer_to_a_join_never_lies_below_what_the_client_has() {
    let nodes = Nodes::start().await;
    let team = nodes.one.conversation(&token("alice"), &["bob", "carol"]).await;
    let mut writer = Client::native(&nodes.one, "alice").await;
    let mut carol = Client::native(&nodes.two, "carol").await;
    carol.join(&team).await;
    writer.send_text(&team, "1").await;
    carol.until("message").await;
    // The second node hears nothing of what follows.
    nodes.redis_link.set(Link::Frozen);
    let mut last = writer.send_text(&team, "2").await["seq"].clone();
    for text in ["3", "4"] {
        last = writer.send_text(&team, text).await["seq"].clone();
    }
    let mut bob = Client::connect(&format!("{}/v1/ws?token={}", nodes.two.ws(), token("bob"))).await;
    bob.until("authenticated").await;
    bob.send(&json!({"type": "join", "conversation_id": team, "since_seq": last, "ref": 1})).await;
    let joined = bob.until_where(|frame| frame["ref"] == 1).await;
    assert_eq!((&joined["type"], &joined["head"]), (&json!("joined"), &last), "{joined}");
    // What comes next follows, once, in order.
    let next = writer.send_text(&team, "5").await;
    nodes.redis_link.set(Link::Open);
    let message = bob.until("message").await;
    assert_eq!((&message["seq"], &message["content"]), (&next["seq"], &json!("5")), "{message}");
}

#[tokio::test]
async fn who_creates_a_direct_conversation_joins_it_once_whatever_becomes_of_the_message() {
    let nodes = Nodes::start().await;
    let mut alice = Client::native(&nodes.one, "alice").await;
    // The message is refused when its conversation is there already.
    let mut first = json!({"type": "send", "recipient_id": "bob", "content": "1", "reply_to": 40, "ref": 1});
    alice.send(&first).await;
    let joined = alice.until("joined").await;
    let refused = alice.until_where(|frame| frame["ref"] == 1).await;
    assert_eq!((&joined["head"], &refused["code"]), (&json!(0), &json!("not_found")), "{joined} {refused}");
    let direct = joined["conversation_id"].clone();
    let mut bob = Client::native(&nodes.two, "bob").await;
    let ack = bob.send_text(direct.as_str().unwrap(), "2").await;
    alice.until_where(|frame| frame["type"] == "message" && frame["id"] == ack["id"]).await;
    // The conversation is no longer new, and the socket has its first message.
    first.as_object_mut().unwrap().remove("reply_to");
    first["ref"] = json!(2);
    alice.send(&first).await;
    let unexpected = ["message", "joined", "resync"];
    let ack = alice.until_where(|frame| {
        assert!(!unexpected.iter().any(|kind| frame["type"] == *kind), "{frame}");
        frame["ref"] == 2
    });
    assert_eq!(ack.await["seq"], 2);
}

/// Writes to `other`, and asserts that the socket joins the conversation once, first, and receives its entries and its ack in
/// their order.
async fn make_contact(mut client: Client, other: String) {
    let message = json!({"type": "send", "recipient_id": other, "content": "hi", "ref": "own"});
    client.send(&message).await;
    let (mut frames, mut seq) = (Vec::new(), 0);
    while seq < 2 {
        let frame = client.until_where(|frame| {
            frame["ref"] == "own" || ["joined", "message", "resync"].iter().any(|kind| frame["type"] == *kind)
        });
        let frame = frame.await;
        frames.push(frame.clone());
        match frame["type"].as_str() {
            Some("joined") => assert_eq!((&frame["head"], frames.len()), (&json!(0), 1), "{frames:#?}"),
            Some("message" | "ack") => {
                seq += 1;
                let first = &frames[0]["type"];
                assert_eq!((first, &frame["seq"]), (&json!("joined"), &json!(seq)), "{frames:#?}");
            }
            _ => panic!("{frames:#?}"),
        }
    }
    client.send(&json!({"type": "ping", "ref": "end"})).await;
    client
        .until_where(|frame| {
            assert!(frame["type"] != "joined" && frame["type"] != "message", "{frame}");
            frame["ref"] == "end"
        })
        .await;
}

#[tokio::test]
async fn two_users_who_write_to_each_other_first_at_once_join_once_and_miss_nothing() {
    let nodes = Nodes::start().await;
    for round in 0..60 {
        let (one, other) = (format!("one-{round}"), format!("other-{round}"));
        let second = if round % 2 == 0 { &nodes.one } else { &nodes.two };
        let (left, right) = tokio::join!(Client::native(&nodes.one, &one), Client::native(second, &other));
        tokio::join!(make_contact(left, other), make_contact(right, one));
    }
}

#[tokio::test]
async fn a_client_that_left_a_direct_conversation_does_not_join_it_by_writing_there() {
    let nodes = Nodes::start().await;
    let mut alice = Client::native(&nodes.one, "alice").await;
    let hi = json!({"type": "send", "recipient_id": "bob", "content": "hi", "ref": "hi"});
    alice.send(&hi).await;
    let direct = alice.until("joined").await["conversation_id"].clone();
    alice.until_where(|frame| frame["ref"] == "hi").await;
    alice.send(&json!({"type": "leave", "conversation_id": direct})).await;
    alice.until("left").await;
    let mut bob = Client::native(&nodes.one, "bob").await;
    bob.send_text(direct.as_str().unwrap(), "unheard").await;
    alice.send(&hi).await;
    let ack = alice.until_where(|frame| {
        assert!(frame["type"] != "joined" && frame["type"] != "message", "{frame}");
        frame["ref"] == "hi"
    });
    assert_eq!(ack.await["seq"], 3);
}

/// As [`make_contact`] in the direct dialect, whose clients are not told of joins.
async fn make_direct_contact(node: &Node, user: String, other: String) {
    let mut client = Client::connect(&format!("{}/ws?token={}", node.ws(), token(&user))).await;
    client.until("authenticated").await;
    client.send(&json!({"type": "send_message", "recipient_id": other, "content": "hi"})).await;
    let mut seqs = Vec::new();
    while seqs.len() < 2 {
        let frame = client.until_where(|frame| frame["type"] == "message_sent" || frame["type"] == "new_message").await;
        assert_eq!(frame["type"] == "message_sent", frame["data"]["sender_id"] != json!(other), "{frame}");
        seqs.push(frame["data"]["seq"].clone());
    }
    assert_eq!(seqs, [1, 2]);
}

#[tokio::test]
async fn two_users_of_the_direct_dialect_who_write_to_each_other_first_at_once_miss_nothing() {
    let nodes = Nodes::start().await;
    for round in 0..60 {
        let (one, other) = (format!("one-{round}"), format!("other-{round}"));
        let second = if round % 2 == 0 { &nodes.one } else { &nodes.two };
        tokio::join!(
            make_direct_contact(&nodes.one, one.clone(), other.clone()),
            make_direct_contact(second, other, one)
        );
    }
}
