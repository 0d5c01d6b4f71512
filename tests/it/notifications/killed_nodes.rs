//! What a killed node left undone is found by another one, or by its next process: at least once, and soon after its lease.

use super::*;

const TAKEN: &str = "switchboard_watches_taken_total";

fn node(world: &World) -> NodeBuilder {
    world.node().set("NODE_LEASE", "3s").set("PRESENCE_GRACE", "1s")
}

async fn send(node: &Node, room: &str, content: &str) -> i64 {
    let path = format!("/api/chat/conversations/{room}/messages");
    let answer = node.post(&path, &token("alice"), &json!({"content": content})).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    seq(&answer.json)
}

#[tokio::test]
async fn a_node_killed_between_the_commit_and_the_notification_loses_nothing() {
    let world = World::new().await;
    let (one, two) = (node(&world).start().await, node(&world).start().await);
    let room = one.conversation(&token("alice"), &["bob"]).await;
    // The notification waits for this lock, the append does not.
    let lock = Postgres::shared().await.connect(world.database.rsplit('/').next().unwrap()).await;
    lock.batch_execute("BEGIN; LOCK TABLE notification_posts IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let first = send(&one, &room, "hello").await;
    let stuck = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%notify_users%' \
         AND datname = current_database()";
    let pid = eventually("the notification to wait", async || {
        let waiting = world.sql.query(stuck, &[]).await.unwrap();
        waiting.first().map(|row| row.get::<_, i32>(0))
    })
    .await;
    one.kill().await;
    world.sql.execute("SELECT pg_terminate_backend($1)", &[&pid]).await.unwrap();
    let gone = "SELECT FROM pg_stat_activity WHERE pid = $1";
    eventually("its statement to end", async || world.sql.query(gone, &[&pid]).await.unwrap().is_empty().then_some(()))
        .await;
    lock.batch_execute("ROLLBACK").await.unwrap();
    assert!(world.runs("bob").await.is_empty(), "the killed node told nobody");

    let posted = world.receiver.request(0).await;
    assert_eq!((&posted.json["user_id"], &posted.json["from_seq"]), (&json!("bob"), &json!(first)));
    two.metric(TAKEN, |taken| taken == 1.0).await;
    world.until_runs("bob", &[(first, first, 1, false)]).await;
    let rows: i64 = world.sql.query_one("SELECT count(*) FROM watches", &[]).await.unwrap().get(0);
    assert_eq!(rows, 1, "the row of the living node");
}

#[tokio::test]
async fn users_of_a_killed_node_are_notified_of_what_came_before_its_lease_ended() {
    let world = World::new().await;
    let (one, two) = (node(&world).start().await, node(&world).start().await);
    let room = one.conversation(&token("alice"), &["bob", "carol"]).await;
    let mut held = [Client::native(&one, "bob").await, Client::native(&one, "carol").await];
    for client in &mut held {
        client.join(&room).await;
    }
    one.kill().await;
    let first = send(&two, &room, "the registry still shows bob and carol").await;
    let mut carol = Client::native(&two, "carol").await;
    carol.join(&room).await;
    let reading = tokio::spawn(async move { while carol.recv_or_close().await.is_ok() {} });
    let posted = world.receiver.request(0).await;
    assert_eq!((&posted.json["user_id"], &posted.json["from_seq"]), (&json!("bob"), &json!(first)));
    two.metric(TAKEN, |taken| taken == 1.0).await;
    assert!(world.runs("carol").await.is_empty(), "carol came back");
    assert_eq!(world.receiver.count(), 1);
    reading.abort();
}

#[tokio::test]
async fn the_next_process_takes_over_on_the_embedded_store() {
    let receiver = Receiver::start(async |_, _| HookResponse::status(204)).await;
    let data = tempfile::tempdir().unwrap();
    let node = || {
        let node = Node::dev().set("DATA_DIR", data.path().display()).set("NODE_ID", "node-1").set("NODE_LEASE", "3s");
        node.set("PRESENCE_GRACE", "1s").set("NOTIFICATION_WEBHOOK_URL", receiver.url()).start()
    };
    let one = node().await;
    let room = one.conversation(&token("alice"), &["bob"]).await;
    let mut bob = Client::native(&one, "bob").await;
    bob.join(&room).await;
    let first = send(&one, &room, "bob is connected").await;
    one.kill().await;
    drop(bob);
    let one = node().await;
    let posted = receiver.request(0).await;
    assert_eq!((&posted.json["user_id"], &posted.json["from_seq"]), (&json!("bob"), &json!(first)));
    one.metric(TAKEN, |taken| taken == 1.0).await;
    // A node that ends by itself with nothing undone leaves nothing to take over.
    assert_eq!(one.terminate().await, 0);
    let rows: i64 = rusqlite::Connection::open(data.path().join("switchboard.db"))
        .unwrap()
        .query_row("SELECT count(*) FROM watches", [], |row| row.get(0))
        .unwrap();
    assert_eq!((rows, receiver.count()), (0, 1));
}

#[tokio::test]
async fn a_question_to_a_persona_is_asked_again() {
    let world = World::new().await;
    let persona = Receiver::start(async |before, _: Arc<ReceivedRequest>| {
        if before == 0 {
            std::future::pending::<()>().await;
        }
        HookResponse::content("the answer")
    })
    .await;
    let node = || node(&world).set("PERSONA_WEBHOOK_URL", persona.url()).set("PERSONA_IDS", "ada").start();
    let (one, two) = (node().await, node().await);
    let room = one.conversation(&token("alice"), &["bob"]).await;
    let mut alice = Client::native(&one, "alice").await;
    alice.join(&room).await;
    alice
        .send(
            &json!({"type": "send", "conversation_id": room, "content": "why?", "persona_id": "ada", "client_id": "q"}),
        )
        .await;
    let asked = alice.until("ack").await;
    let first = persona.request(0).await;
    let mut alice = Client::native(&two, "alice").await;
    alice.join(&room).await;
    one.kill().await;
    let again = persona.request(1).await;
    assert_eq!((&again.json["message_id"], &again.json["message"]), (&first.json["message_id"], &json!("why?")));
    assert_eq!(again.json["sender_id"], "alice");
    let answer = alice.until_where(|frame| frame["type"] == "message" && frame["sender_id"] == "ada").await;
    assert_eq!((&answer["content"], &answer["reply_to"]), (&json!("the answer"), &asked["seq"]));
    two.metric(TAKEN, |taken| taken == 1.0).await;
    assert_eq!(persona.count(), 2, "asked once more");
}
