//! Requests to the webhook of notifications outlive the node, and a webhook that is down for a while.

use super::*;

const DROPPED: &str = "switchboard_webhook_dropped_total{hook=\"notification\"}";

/// Number of requests that wait in the store.
async fn waiting(world: &World) -> i64 {
    world.sql.query_one("SELECT count(*) FROM notification_posts", &[]).await.unwrap().get(0)
}

async fn until_nothing_waits(world: &World) {
    eventually("the requests to be done", async || (waiting(world).await == 0).then_some(())).await;
}

/// Sends a message to bob, who is away, and returns the conversation.
async fn message_to_bob(node: &Node) -> String {
    let room = node.conversation(&token("alice"), &["bob"]).await;
    let path = format!("/api/chat/conversations/{room}/messages");
    let sent = node.post(&path, &token("alice"), &json!({"content": "hello"})).await;
    assert_eq!(sent.status, 201, "{}", sent.text);
    room
}

#[tokio::test]
async fn a_request_under_way_when_its_node_is_killed_is_made_again_by_another_node() {
    let receiver = Receiver::start(async |before, _: Arc<ReceivedRequest>| {
        if before == 0 {
            std::future::pending::<()>().await;
        }
        HookResponse::status(204)
    })
    .await;
    let world = World::with(receiver).await;
    let node = || world.node().set("NOTIFICATION_TIMEOUT", "1s").start();
    let one = node().await;
    let room = message_to_bob(&one).await;
    let first = world.receiver.request(0).await;
    one.kill().await;
    let two = node().await;
    let second = world.receiver.request(1).await;
    assert_eq!((&second.json["conversation_id"], &second.json), (&json!(room), &first.json), "the same notification");
    until_nothing_waits(&world).await;
    assert_eq!(world.receiver.count(), 2);
    drop(two);
}

#[tokio::test]
async fn a_node_that_ends_finishes_its_requests() {
    let receiver = Receiver::start(async |_, _: Arc<ReceivedRequest>| {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        HookResponse::status(204)
    })
    .await;
    let world = World::with(receiver).await;
    let one = world.node().start().await;
    message_to_bob(&one).await;
    world.receiver.request(0).await;
    assert_eq!(one.terminate().await, 0);
    assert_eq!(waiting(&world).await, 0);
}

#[tokio::test]
async fn a_webhook_that_is_down_gets_the_request_when_it_is_back() {
    let receiver = Receiver::start(async |before, _: Arc<ReceivedRequest>| {
        HookResponse::status(if before < 2 { 503 } else { 204 })
    })
    .await;
    let world = World::with(receiver).await;
    let node = world.node().set("WEBHOOK_RETRIES", 0).start().await;
    message_to_bob(&node).await;
    let bodies = [world.receiver.request(0).await, world.receiver.request(1).await, world.receiver.request(2).await];
    assert!(bodies.iter().all(|request| request.json == bodies[0].json));
    until_nothing_waits(&world).await;
    assert_eq!((world.receiver.count(), node.metrics().await.get(DROPPED)), (3, Some(0.0)));
}

#[tokio::test]
async fn a_webhook_that_can_not_be_reached_gets_the_request_when_it_listens() {
    let world = World::new().await;
    let proxy = Proxy::to(world.receiver.url().split('/').nth(2).unwrap()).await;
    proxy.set(Link::Cut);
    let node = world.node().set("NOTIFICATION_WEBHOOK_URL", proxy.url(&world.receiver.url())).start().await;
    message_to_bob(&node).await;
    node.logged("a notification did not reach the webhook").await;
    proxy.set(Link::Open);
    assert_eq!(world.receiver.request(0).await.json["user_id"], "bob");
}

#[tokio::test]
async fn a_request_that_the_webhook_refuses_is_given_up_and_counted() {
    let receiver = Receiver::start(async |_, _: Arc<ReceivedRequest>| HookResponse::status(400)).await;
    let world = World::with(receiver).await;
    let node = world.node().start().await;
    message_to_bob(&node).await;
    node.metric(DROPPED, |dropped| dropped == 1.0).await;
    until_nothing_waits(&world).await;
    assert_eq!(world.receiver.count(), 1);
}

#[tokio::test]
async fn a_request_is_not_made_for_messages_that_were_read_meanwhile() {
    let receiver = Receiver::start(async |_, _: Arc<ReceivedRequest>| HookResponse::status(503)).await;
    let world = World::with(receiver).await;
    let node = world.node().set("WEBHOOK_RETRIES", 0).start().await;
    let room = message_to_bob(&node).await;
    node.logged("a notification did not reach the webhook").await;
    let mut bob = Client::native(&node, "bob").await;
    bob.send(&json!({"type": "read", "conversation_id": room, "seq": 1, "ref": "r"})).await;
    bob.until("ok").await;
    until_nothing_waits(&world).await;
    assert_eq!(node.metrics().await.get(DROPPED), Some(0.0), "nothing was lost");
}

#[tokio::test]
async fn two_nodes_make_each_request_once() {
    let world = World::new().await;
    let (one, two) = (world.node().start().await, world.node().start().await);
    for at in 0..20 {
        message_to_bob(if at % 2 == 0 { &one } else { &two }).await;
    }
    let mut ids = BTreeSet::new();
    for before in 0..20 {
        ids.insert(world.receiver.request(before).await.json["notification_id"].as_i64().unwrap());
    }
    until_nothing_waits(&world).await;
    assert_eq!((ids.len(), world.receiver.count()), (20, 20));
}
