//! A message that was given to a socket that was dead already is notified once the socket is found dead.

use super::*;
use crate::support::{RawClient, opcode};

/// A node that finds dead sockets soon.
fn node(world: &World) -> NodeBuilder {
    world.node().set("PING_INTERVAL", "2s").set("PONG_TIMEOUT", "2s").set("PRESENCE_GRACE", "0s")
}

async fn send(node: &Node, room: &str, content: &str) -> i64 {
    let path = format!("/api/chat/conversations/{room}/messages");
    seq(&node.post(&path, &token("alice"), &json!({"content": content})).await.json)
}

#[tokio::test]
async fn a_message_to_a_dead_socket_is_notified_in_every_dialect() {
    let world = World::new().await;
    let (one, two) = (node(&world).start().await, node(&world).start().await);
    let users = ["native", "direct", "rooms", "conversation", "personas"];
    let room = one.conversation(&token("alice"), &users).await;
    let proxy = Proxy::to(one.address().to_string()).await;
    let mut held = Vec::new();
    for user in users {
        let path = match user {
            "native" => "/v1/ws".into(),
            "direct" => "/ws".into(),
            "rooms" => format!("/ws/{room}"),
            "conversation" => format!("/api/chat/ws/{room}"),
            _ => "/ws/auth".to_owned(),
        };
        let mut client = Client::connect(&format!("ws://{}{path}?token={}", proxy.address(), token(user))).await;
        client.drain().await;
        held.push(client);
    }
    proxy.set(Link::Frozen);
    let first = send(&two, &room, "are you there?").await;
    let mut told = BTreeSet::new();
    for before in 0..users.len() {
        let posted = world.receiver.request(before).await;
        assert_eq!(posted.json["from_seq"], first);
        told.insert(posted.json["user_id"].as_str().unwrap().to_owned());
    }
    assert_eq!(told, users.map(str::to_owned).into());
}

#[tokio::test]
async fn a_user_with_another_socket_is_not_notified_of_a_dead_one() {
    let world = World::new().await;
    let (one, two) = (node(&world).start().await, node(&world).start().await);
    let room = one.conversation(&token("alice"), &["bob"]).await;
    let proxy = Proxy::to(one.address().to_string()).await;
    let mut dead = Client::connect(&format!("ws://{}/v1/ws?token={}", proxy.address(), token("bob"))).await;
    dead.until("authenticated").await;
    let mut alive = Client::native(&two, "bob").await;
    alive.join(&room).await;
    let reading = tokio::spawn(async move {
        loop {
            let _ = tokio::time::timeout(std::time::Duration::from_secs(1), alive.recv_or_close()).await;
        }
    });
    proxy.set(Link::Frozen);
    send(&two, &room, "hello").await;
    one.metric("switchboard_closes_total{reason=\"silent\"}", |closes| closes == 1.0).await;
    // A later notification of another user comes after the look at bob.
    let other = two.conversation(&token("alice"), &["carol"]).await;
    send(&one, &other, "hello").await;
    assert_eq!(world.receiver.request(0).await.json["user_id"], "carol");
    assert!(world.runs("bob").await.is_empty());
    reading.abort();
}

/// The client answers a ping that was sent after the message, and then leaves: it has the message.
#[tokio::test]
async fn a_message_that_was_confirmed_is_not_notified() {
    let world = World::new().await;
    let node = node(&world).start().await;
    let room = node.conversation(&token("alice"), &["bob"]).await;
    let mut bob = RawClient::open(node.address(), &format!("/v1/ws?token={}", token("bob"))).await;
    bob.read_frame().await.unwrap();
    let join = json!({"type": "join", "conversation_id": room, "ref": 1}).to_string();
    bob.frame(opcode::TEXT, join.as_bytes()).await;
    bob.read_frame().await.unwrap();
    send(&node, &room, "first").await;
    let (mut has, mut pongs) = (false, 0);
    // The second ping is sent more than the delivery's margin after the message.
    while pongs < 3 {
        let frame = bob.read_frame().await.unwrap();
        has |= String::from_utf8_lossy(&frame.payload).contains("first");
        if frame.opcode == opcode::PING {
            bob.frame(opcode::PONG, &frame.payload).await;
            pongs += u32::from(has);
        }
    }
    bob.frame(opcode::CLOSE, &1000_u16.to_be_bytes()).await;
    bob.expect_close().await;
    world.until_gone("bob").await;
    let second = send(&node, &room, "second").await;
    world.until_runs("bob", &[(second, second, 1, false)]).await;
    assert_eq!(world.receiver.request(0).await.json["from_seq"], second);
}
