//! Entries that nodes store for a user while the user is erased, or afterwards.

use super::*;

/// Sends as fast as it can until its socket is ended. Returns the number of sends.
async fn send_until_the_end(mut client: Client, room: String) -> usize {
    for at in 0.. {
        let frame = json!({"type": "send", "conversation_id": room, "content": format!("private {at}"),
            "client_id": format!("late-{at}"), "ref": at});
        if client.try_send(&frame).await.is_err() {
            return at;
        }
        while let Ok(Ok(_)) = timeout(Duration::from_millis(1), client.recv_or_close()).await {}
    }
    unreachable!("the loop has no end")
}

/// Checks that every conversation has each seq up to its newest.
async fn assert_whole(sql: &tokio_postgres::Client) {
    let query = "SELECT h.log FROM heads h JOIN conversations c ON c.id = h.log WHERE h.seq <> (SELECT count(*) FROM log l WHERE l.log = h.log) \
         OR h.seq <> (SELECT coalesce(max(seq), 0) FROM log l WHERE l.log = h.log)";
    let gaps = sql.query(query, &[]).await.unwrap();
    assert!(gaps.is_empty(), "a log has a gap: {:?}", gaps.iter().map(|row| row.get(0)).collect::<Vec<String>>());
}

#[tokio::test]
async fn what_other_nodes_store_of_the_user_meanwhile_is_erased_too() {
    let (redis, database) = (RedisServer::start().await, Postgres::shared().await.database().await);
    let node = || Node::serve(&redis.url(), &database).with_console().set("OPEN_CONVERSATIONS", false).start();
    let (one, two, dies) = (node().await, node().await, node().await);
    let sql = connect_to_postgres(&database).await;
    let team = one.conversation(&named("alice"), &["bob"]).await;
    let direct = json!({"is_group": false, "participant_ids": ["bob"]});
    let direct = one.post(CONVERSATIONS, &named("alice"), &direct).await.json["id"].as_str().unwrap().to_owned();
    say(&one, "alice", &team, "private first").await;
    let since = say(&one, "bob", &team, "of bob").await;
    say(&one, "bob", &direct, "to alice").await;

    // A node dies while the database has its append of alice, which waits for a lock.
    let mut of_dead = Client::native(&dies, "alice").await;
    sql.batch_execute("BEGIN").await.unwrap();
    sql.query("SELECT FROM heads WHERE log = $1 FOR UPDATE", &[&direct]).await.unwrap();
    of_dead
        .send(&json!({"type": "send", "conversation_id": direct, "content": "private late", "client_id": "late", "ref": 1}))
        .await;
    let other = connect_to_postgres(&database).await;
    eventually("the append waits", async || {
        let waiting =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        (other.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) > 0).then_some(())
    })
    .await;
    dies.kill().await;
    let sending = tokio::spawn(send_until_the_end(Client::native(&two, "alice").await, team.clone()));
    let (first, second) = tokio::join!(
        one.console(Method::POST, "/users/alice/erasure", None),
        two.console(Method::POST, "/users/alice/erasure", None),
    );
    assert!(first.status.is_success() && second.status.is_success(), "{} {}", first.text, second.text);
    let early = timeout(Duration::from_secs(1), done(&one, "alice")).await;
    sql.batch_execute("COMMIT").await.unwrap();
    assert!(early.is_err(), "an append of the user was still under way");
    let sent = sending.await.unwrap();
    assert!(sent > 0);
    done(&two, "alice").await;

    let left = "SELECT log, seq, content FROM log WHERE sender = 'alice' AND (sender_name <> 'alice' OR content <> '')";
    let left = other.query(left, &[]).await.unwrap();
    assert!(
        left.is_empty(),
        "{} of {sent} are left: {:?}",
        left.len(),
        left.first().map(|row| row.get::<_, String>(2))
    );
    let late = "SELECT count(*) FROM log WHERE sender = 'alice' AND dedupe = 'late'";
    assert_eq!(other.query_one(late, &[]).await.unwrap().get::<_, i64>(0), 1, "the append of the dead node was stored");
    let of_bob = "SELECT count(*) FROM log WHERE sender = 'bob' AND kind = 0 AND content <> '' AND NOT deleted";
    assert_eq!(other.query_one(of_bob, &[]).await.unwrap().get::<_, i64>(0), 2);
    assert_whole(&other).await;

    // Bob was away. What follows has no gap and no text of alice, and all that he had is deleted.
    let mut bob = Client::native(&one, "bob").await;
    bob.send(&json!({"type": "join", "conversation_id": team, "since_seq": since, "ref": 1})).await;
    let head = bob.expect("joined").await["head"].as_i64().unwrap();
    let mut deleted = Vec::new();
    for seq in since + 1..=head {
        let frame = bob.until_where(|frame| frame["conversation_id"] == team.as_str() && frame["seq"].is_i64()).await;
        assert_eq!(frame["seq"], seq, "{frame}");
        assert!(!frame.to_string().contains("private"), "{frame}");
        if frame["type"] == "message_deleted" {
            deleted.push(frame["target_seq"].as_i64().unwrap_or_else(|| panic!("{frame}")));
        }
    }
    assert!(deleted.contains(&1), "{deleted:?}");
}

#[tokio::test]
async fn a_user_who_comes_back_is_new_and_is_erased_again() {
    let (redis, database) = (RedisServer::start().await, Postgres::shared().await.database().await);
    let node = Node::serve(&redis.url(), &database).with_console().start().await;
    let room = node.conversation(&named("alice"), &["bob"]).await;
    say(&node, "alice", &room, "private one").await;
    let mut alice = Client::native(&node, "alice").await;
    node.console(Method::POST, "/users/alice/erasure", None).await;
    assert_eq!(alice.expect_close().await.0, 4401);
    done(&node, "alice").await;
    // Redis has nothing of the user either. Compressed, the dump of a value would not show its texts.
    redis.command::<String>(&["CONFIG", "SET", "rdbcompression", "no"]).await;
    for key in redis.command::<Vec<String>>(&["KEYS", "*"]).await {
        let dumped = redis.command::<Vec<u8>>(&["DUMP", &key]).await;
        for secret in ["alice Secretname", "private one"] {
            assert!(!dumped.windows(secret.len()).any(|part| part == secret.as_bytes()), "{key} has {secret:?}");
        }
    }

    let again =
        node.post(&format!("{CONVERSATIONS}/{room}/members"), &token("bob"), &json!({"user_ids": ["alice"]})).await;
    assert!(again.status.is_success(), "{}", again.text);
    let seq = say(&node, "alice", &room, "private two").await;
    let page = node.get(&format!("{CONVERSATIONS}/{room}/messages"), &token("alice")).await;
    assert!(!page.text.contains("private one") && page.text.contains("private two"), "{}", page.text);
    node.console(Method::POST, "/users/alice/erasure", None).await;
    done(&node, "alice").await;
    let page = node.get(&format!("{CONVERSATIONS}/{room}/messages/{seq}"), &token("bob")).await;
    assert!(!page.text.contains("private two"), "{}", page.text);
    let sql = connect_to_postgres(&database).await;
    let row = sql.query_one("SELECT name, last_seen IS NULL FROM users WHERE id = 'alice'", &[]).await.unwrap();
    assert_eq!((row.get::<_, &str>(0), row.get::<_, bool>(1)), ("alice", true));
}
