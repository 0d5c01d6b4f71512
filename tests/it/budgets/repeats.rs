//! Repeats of stored commands with the same `client_id`: never refused, never counted.

use reqwest::Method;
use serde_json::{Value, json};

use super::{MESSAGES, ask, assert_limited, refusals, two_nodes};
use crate::support::{Client, Node, token};

const LIMIT: usize = 10;

async fn send(client: &mut Client, client_id: &str) -> Value {
    let send = json!({"type": "send", "conversation_id": "team", "content": "text", "client_id": client_id});
    ask(client, send).await
}

fn seqs(answers: &[Value]) -> Vec<i64> {
    answers.iter().map(|answer| answer["seq"].as_i64().unwrap_or_else(|| panic!("{answer}"))).collect()
}

#[tokio::test]
async fn a_client_that_reconnects_repeats_everything_it_sent() {
    let (_redis, one, two) = two_nodes(|node| node.set("MESSAGE_RATE_LIMIT", LIMIT)).await;
    let mut alice = Client::native(&one, "alice").await;
    alice.join("team").await;
    let mut first = Vec::new();
    for at in 0..LIMIT {
        first.push(send(&mut alice, &format!("c-{at}")).await);
    }
    assert_limited(&send(&mut alice, "new").await);
    alice.close().await;
    for node in [&one, &two] {
        let mut alice = Client::native(node, "alice").await;
        let mut again = Vec::new();
        for at in 0..LIMIT {
            again.push(send(&mut alice, &format!("c-{at}")).await);
        }
        assert_eq!(seqs(&again), seqs(&first));
        for (again, first) in again.iter().zip(&first) {
            assert_eq!((&again["type"], &again["duplicate"]), (&json!("ack"), &json!(true)));
            assert_eq!((&again["id"], &again["created_at"]), (&first["id"], &first["created_at"]));
        }
        // A message of another conversation with a known id is new.
        let elsewhere = json!({"type": "send", "conversation_id": "other", "content": "x", "client_id": "c-1"});
        assert_limited(&ask(&mut alice, elsewhere).await);
        // REST answers likewise.
        let repeat = json!({"content": "text", "client_id": "c-3"});
        let answer = node.post(MESSAGES, &token("alice"), &repeat).await;
        assert_eq!((answer.status.as_u16(), &answer.json["seq"]), (200, &first[3]["seq"]), "{}", answer.text);
        assert_eq!(node.post(MESSAGES, &token("alice"), &json!({"content": "x", "client_id": "n"})).await.status, 429);
    }
    let refused = two.metrics().await.get(&refusals("send"));
    assert_eq!(refused, Some(2.0), "a repeat is no refusal");
    let recalled = two.metrics().await.sum("switchboard_repeats_recalled_total");
    assert_eq!(recalled, LIMIT as f64 + 1.0);
}

#[tokio::test]
async fn repeats_below_the_limit_do_not_count() {
    let (_redis, one, two) = two_nodes(|node| node.set("MESSAGE_RATE_LIMIT", LIMIT).set("WRITE_RATE_LIMIT", 5)).await;
    let mut alice = [Client::native(&one, "alice").await, Client::native(&two, "alice").await];
    alice[0].join("team").await;
    for at in 0..LIMIT / 2 {
        assert_eq!(send(&mut alice[0], &format!("c-{at}")).await["duplicate"], Value::Null);
    }
    for _ in 0..3 {
        for at in 0..LIMIT / 2 {
            assert_eq!(send(&mut alice[1], &format!("c-{at}")).await["duplicate"], true);
        }
    }
    for at in LIMIT / 2..LIMIT {
        assert_eq!(send(&mut alice[at % 2], &format!("c-{at}")).await["duplicate"], Value::Null);
    }
    assert_limited(&send(&mut alice[0], "new").await);

    // Other commands with a client_id behave likewise, below their limit and beyond it.
    let edit = |id: &str| json!({"type": "edit", "conversation_id": "team", "seq": 1, "content": "new", "client_id": format!("e-{id}")});
    let react = |emoji: &str, id: &str| json!({"type": "react", "conversation_id": "team", "seq": 1, "emoji": emoji, "client_id": format!("r-{id}")});
    let commands = [edit("1"), react("x", "1"), edit("2"), react("y", "2")];
    let mut stored = Vec::new();
    for command in &commands {
        let answer = ask(&mut alice[0], command.clone()).await;
        assert_eq!((&answer["type"], &answer["duplicate"]), (&json!("ack"), &Value::Null), "{answer}");
        stored.push(answer["seq"].clone());
        let repeat = ask(&mut alice[1], command.clone()).await;
        assert_eq!((&repeat["seq"], &repeat["duplicate"]), (&answer["seq"], &json!(true)));
    }
    for alice in &mut alice {
        assert_limited(&ask(alice, edit("3")).await);
        for (command, seq) in commands.iter().zip(&stored) {
            let repeat = ask(alice, command.clone()).await;
            assert_eq!((&repeat["seq"], &repeat["duplicate"]), (seq, &json!(true)), "{repeat}");
        }
    }
    let repeat = json!({"content": "new", "client_id": "e-1"});
    let path = format!("{MESSAGES}/1");
    let answer = one.request(Method::PATCH, &path, Some(&token("alice")), Some(&repeat)).await;
    assert_eq!((answer.status.as_u16(), &answer.json["seq"]), (200, &stored[0]));
}

/// Opens a socket of another dialect.
async fn open(node: &Node, path: &str) -> Client {
    let mut client = Client::connect(&format!("{}{path}token={}", node.ws(), token("alice"))).await;
    client.recv().await;
    client
}

#[tokio::test]
async fn every_dialect_accepts_repeats_beyond_the_limit() {
    for (path, frame, ack) in [
        ("/ws/room-1?", json!({"type": "send_message", "data": {"content": "x", "client_id": "C"}}), "message_sent"),
        (
            "/ws?",
            json!({"type": "send_message", "recipient_id": "bob", "content": "x", "client_id": "C"}),
            "message_sent",
        ),
    ] {
        let node = Node::dev().set("MESSAGE_RATE_LIMIT", LIMIT).start().await;
        let frame = |at: usize| frame.to_string().replace("\"C\"", &format!("\"c-{at}\""));
        let mut acks: Vec<Value> = Vec::new();
        for turn in 0..2 {
            let mut alice = open(&node, path).await;
            for at in 0..LIMIT {
                alice.send(&serde_json::from_str(&frame(at)).unwrap()).await;
                let answer = alice.until_where(|answer| answer["type"] == ack || is_refusal(answer)).await;
                assert_eq!(answer["type"], ack, "{path}: {answer}");
                match turn {
                    0 => acks.push(answer),
                    _ => assert_eq!(answer["data"], acks[at]["data"]),
                }
            }
            alice.send(&serde_json::from_str(&frame(LIMIT)).unwrap()).await;
            alice.until_where(is_refusal).await;
        }
    }
    // In these dialects the message itself is the ack: a socket that has it gets no second one.
    for (path, frame) in [
        ("/api/chat/ws/room-2?", json!({"type": "message", "content": "x", "client_id": "C"})),
        ("/ws/auth?", json!({"type": "send_message", "conversation_id": "room-3", "content": "x", "client_id": "C"})),
    ] {
        let node = Node::dev().set("MESSAGE_RATE_LIMIT", LIMIT).start().await;
        let mut alice = open(&node, path).await;
        if path == "/ws/auth?" {
            alice.send(&json!({"type": "join_conversation", "conversation_id": "room-3"})).await;
            alice.until("conversation_joined").await;
        }
        let frame = |at: usize| -> Value {
            serde_json::from_str(&frame.to_string().replace("\"C\"", &format!("\"c-{at}\""))).unwrap()
        };
        for _ in 0..2 {
            for at in 0..LIMIT {
                alice.send(&frame(at)).await;
            }
        }
        alice.send(&frame(LIMIT)).await;
        let mut seen = Vec::new();
        let refused = alice
            .until_where(|frame| {
                seen.push(frame.clone());
                is_refusal(frame)
            })
            .await;
        let is_message = |frame: &&Value| frame["type"] == "message" || frame["type"] == "new_message";
        assert_eq!(seen.iter().filter(is_message).count(), LIMIT, "{path}: {seen:?}");
        assert_eq!(refused["client_id"], format!("c-{LIMIT}"), "only the new message is refused: {refused}");

        // A new socket, which listens only to later messages, gets each of them as its ack.
        let mut again = open(&node, path).await;
        if path == "/ws/auth?" {
            again.send(&json!({"type": "join_conversation", "conversation_id": "room-3"})).await;
            again.until("conversation_joined").await;
        }
        for at in 0..LIMIT {
            again.send(&frame(at)).await;
            let ack = again.until_where(|frame| is_message(&frame) || is_refusal(frame)).await;
            let id = ack.get("client_id").or(ack["message"].get("client_id"));
            assert_eq!(id, Some(&json!(format!("c-{at}"))), "{path}: {ack}");
        }
    }
}

fn is_refusal(frame: &Value) -> bool {
    frame["type"] == "error" || frame["type"] == "rate_limit_exceeded"
}

#[tokio::test]
async fn the_read_budget_bounds_repeats() {
    let node = Node::dev().set("MESSAGE_RATE_LIMIT", 2).set("READ_RATE_LIMIT", 4).start().await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join("team").await;
    for id in ["a", "b"] {
        assert_eq!(send(&mut alice, id).await["type"], "ack");
    }
    for _ in 0..3 {
        assert_eq!(send(&mut alice, "a").await["duplicate"], true);
    }
    assert_limited(&send(&mut alice, "a").await);
}

#[tokio::test]
async fn reactions_to_one_message_are_bounded() {
    let node = Node::dev().start().await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join("team").await;
    alice.send_text("team", "text").await;
    let react = |emoji: &str| json!({"type": "react", "conversation_id": "team", "seq": 1, "emoji": emoji});
    for at in 0..20 {
        assert_eq!(ask(&mut alice, react(&format!("e{at}"))).await["type"], "ack");
    }
    let refused = ask(&mut alice, react("one-too-many")).await;
    assert_eq!((&refused["code"], &refused["retryable"]), (&json!("too_many_reactions"), &json!(false)), "{refused}");
    let path = format!("{MESSAGES}/1/reactions");
    let put = async |emoji: &str| {
        let answer = node.request(Method::PUT, &format!("{path}/{emoji}"), Some(&token("alice")), None).await;
        (answer.status.as_u16(), answer.json["code"].clone())
    };
    assert_eq!(put("another").await, (409, json!("too_many_reactions")));
    assert_eq!(put("e3").await.0, 204, "one that is there already");
}

#[tokio::test]
async fn a_removed_member_gets_no_ack_of_a_repeat() {
    let (_redis, one, _two) = two_nodes(|node| node.set("MESSAGE_RATE_LIMIT", 1)).await;
    let owner = token("owner");
    let room = one.conversation(&owner, &["mallory"]).await;
    let mut mallory = Client::native(&one, "mallory").await;
    let sent = json!({"type": "send", "conversation_id": room, "content": "text", "client_id": "c-1"});
    assert_eq!(ask(&mut mallory, sent.clone()).await["type"], "ack");
    assert_eq!(ask(&mut mallory, sent.clone()).await["duplicate"], true);
    let member = format!("/api/chat/conversations/{room}/members/mallory");
    assert_eq!(one.request(Method::DELETE, &member, Some(&owner), None).await.status, 204);
    let repeated = ask(&mut mallory, sent).await;
    assert!(repeated["code"] == "not_member" || repeated["code"] == "rate_limited", "{repeated}");
}
