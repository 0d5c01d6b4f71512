//! Retention on nodes: one of them removes what is older than it is kept, and every client learns what is gone.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Client, Node, NodeBuilder, Postgres, RedisServer, connect_to_postgres, eventually, token};

mod dialects;

/// Two nodes that keep entries for a week, with their servers.
struct Stage {
    redis: RedisServer,
    sql: tokio_postgres::Client,
    one: Node,
    two: Node,
}

impl Stage {
    async fn new(set: impl Fn(NodeBuilder) -> NodeBuilder) -> Self {
        let redis = RedisServer::start().await;
        let database = Postgres::shared().await.database().await;
        let node = || {
            let node = Node::serve(&redis.url(), &database).with_console().set("RETENTION_INTERVAL", "1s");
            set(node).set("OPEN_CONVERSATIONS", false).start()
        };
        let (one, two) = (node().await, node().await);
        Self { sql: connect_to_postgres(&database).await, redis, one, two }
    }

    /// Lets the entries of a log up to this seq be `days` older.
    async fn age(&self, log: &str, upto: i64, days: i32) {
        let sql = "UPDATE log SET created_at = created_at - make_interval(days => $3) WHERE log = $1 AND seq <= $2";
        assert!(self.sql.execute(sql, &[&log, &upto, &days]).await.unwrap() > 0);
    }

    /// Waits until a log is removed up to this seq.
    async fn removed(&self, log: &str, upto: i64) {
        eventually("the removal", async || {
            let row = self.sql.query_one("SELECT removed_seq FROM heads WHERE log = $1", &[&log]).await.unwrap();
            (row.get::<_, i64>(0) == upto).then_some(())
        })
        .await;
    }

    /// Number of entries that both nodes removed.
    async fn count(&self) -> f64 {
        let mut count = 0.0;
        for node in [&self.one, &self.two] {
            count += node.metrics().await.get("switchboard_retention_removed_entries_total").unwrap();
        }
        count
    }
}

/// Sends messages over REST; returns the last seq.
async fn say(node: &Node, room: &str, texts: &[&str]) -> i64 {
    let path = format!("/api/chat/conversations/{room}/messages");
    let mut seq = 0;
    for text in texts {
        let sent = node.post(&path, &token("alice"), &json!({"content": text})).await;
        assert_eq!(sent.status, 201, "{}", sent.text);
        seq = sent.json["seq"].as_i64().unwrap();
    }
    seq
}

fn seqs(messages: &Value) -> Vec<i64> {
    messages.as_array().unwrap().iter().map(|message| message["seq"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn old_entries_go_once_and_clients_that_lack_them_resync() {
    let stage = Stage::new(|node| node.set("RETENTION_DAYS", 7).set("MESSAGE_RATE_LIMIT", 0)).await;
    let (one, two) = (&stage.one, &stage.two);
    let room = one.conversation(&token("alice"), &["bob"]).await;
    say(one, &room, &["1", "2", "3", "4", "5"]).await;
    let key = format!("room_messages:{room}");
    eventually("the cache to have them", async || {
        (stage.redis.command::<i64>(&["LLEN", &key]).await == 5).then_some(())
    })
    .await;
    let mut live = Client::native(two, "bob").await;
    live.join(&room).await;
    stage.age(&room, 3, 8).await;
    stage.removed(&room, 3).await;
    eventually("the cache has nothing that is gone", async || {
        (stage.redis.command::<i64>(&["LLEN", &key]).await == 0).then_some(())
    })
    .await;
    // The count comes after the removal.
    eventually("each entry to be counted", async || (stage.count().await >= 3.0).then_some(())).await;
    assert_eq!(stage.count().await, 3.0, "each entry is removed once");

    // A client that has everything up to what is gone resumes; one that lacks a part of it resyncs.
    let mut client = Client::native(one, "bob").await;
    client.send(&json!({"type": "join", "conversation_id": room, "since_seq": 3})).await;
    assert_eq!(client.expect("joined").await["head"], 5);
    for seq in [4, 5] {
        assert_eq!(client.expect("message").await["seq"], seq);
    }
    let mut client = Client::native(one, "bob").await;
    client.send(&json!({"type": "join", "conversation_id": room, "since_seq": 2, "ref": 1})).await;
    let resync = client.expect("resync").await;
    assert_eq!((&resync["first_seq"], &resync["head"]), (&json!(4), &json!(5)), "{resync}");

    let path = format!("/api/chat/conversations/{room}/messages");
    let page = one.get(&path, &token("bob")).await.json;
    assert_eq!((seqs(&page["messages"]), &page["total"]), (vec![5, 4], &json!(2)), "{page}");
    let older = one.get(&format!("{path}?before_seq=4"), &token("bob")).await.json;
    assert_eq!(seqs(&older["messages"]), Vec::<i64>::new(), "history ends");
    assert_eq!(one.get(&format!("{path}/2"), &token("bob")).await.status, 404);
    let shown = one.get(&format!("/api/chat/conversations/{room}"), &token("bob")).await.json;
    assert_eq!(shown["unread_count"], 2);

    // Listeners notice nothing, also when everything they had is gone.
    stage.age(&room, 5, 8).await;
    stage.removed(&room, 5).await;
    assert_eq!(say(one, &room, &["6"]).await, 6);
    assert_eq!(live.expect("message").await["seq"], 6);
    eventually("the others to be counted", async || (stage.count().await >= 5.0).then_some(())).await;
    assert_eq!(stage.count().await, 5.0);
    let metrics = one.metrics().await;
    assert!(metrics.get("switchboard_retention_done_timestamp_seconds").unwrap() > 0.0);
    assert_eq!(metrics.get("switchboard_resyncs_total"), Some(1.0));
}

#[tokio::test]
async fn a_conversation_has_a_rule_of_its_own() {
    let stage = Stage::new(|node| node.set("MESSAGE_RATE_LIMIT", 0)).await;
    let one = &stage.one;
    let short = one.conversation(&token("alice"), &["bob"]).await;
    let long = one.conversation(&token("alice"), &["carol"]).await;
    for room in [&short, &long] {
        say(one, room, &["1", "2"]).await;
        stage.age(room, 1, 9_999).await;
    }
    let path = format!("/conversations/{short}/retention");
    let shown = one.console(Method::GET, &path, None).await.json;
    assert_eq!(shown, json!({"conversation_id": short, "days": null, "default_days": 0, "first_seq": 1}));
    for bad in
        [json!({}), json!({"days": -1}), json!({"days": 40_000}), json!({"days": "7"}), json!({"days": 7, "x": 1})]
    {
        assert_eq!(one.console(Method::PUT, &path, Some(&bad)).await.status, 400, "{bad}");
    }
    let nowhere = "/conversations/nowhere/retention";
    assert_eq!(one.console(Method::PUT, nowhere, Some(&json!({"days": 7}))).await.status, 404);
    assert_eq!(one.console(Method::GET, nowhere, None).await.status, 404);
    let set = one.console(Method::PUT, &path, Some(&json!({"days": 30}))).await;
    assert_eq!((set.status.as_u16(), &set.json["days"]), (200, &json!(30)), "{}", set.text);
    stage.removed(&short, 1).await;
    let shown = stage.two.console(Method::GET, &path, None).await.json;
    assert_eq!((&shown["days"], &shown["first_seq"]), (&json!(30), &json!(2)));
    assert_eq!(one.console(Method::PUT, &path, Some(&json!({"days": null}))).await.json["days"], Value::Null);
    stage.removed(&long, 0).await;
    eventually("the entry to be counted", async || (stage.count().await >= 1.0).then_some(())).await;
    assert_eq!(stage.count().await, 1.0);
}

#[tokio::test]
async fn a_removal_waits_for_a_store_that_is_away_and_for_nobody_who_is_dead() {
    let mut server = Postgres::start(&[]).await;
    let (database, redis) = (server.database().await, RedisServer::start().await);
    let node = Node::serve(&redis.url(), &database).set("RETENTION_DAYS", 1).set("RETENTION_INTERVAL", "1s");
    let node = node.set("OPEN_CONVERSATIONS", false).start().await;
    let room = node.conversation(&token("alice"), &["bob"]).await;
    say(&node, &room, &["1", "2"]).await;
    server.kill().await;
    node.metric("switchboard_degraded{part=\"store\"}", |down| down == 1.0).await;
    server.restart().await;
    let sql = connect_to_postgres(&database).await;
    // A node that died had the job.
    let dead = "INSERT INTO upkeep (job, holder, held_until) VALUES ('retention', 'dead', now() + interval '3 seconds') \
         ON CONFLICT (job) DO UPDATE SET holder = 'dead', done_at = NULL, held_until = excluded.held_until";
    sql.batch_execute(dead).await.unwrap();
    sql.batch_execute("UPDATE log SET created_at = created_at - interval '2 days' WHERE seq = 1").await.unwrap();
    node.metric("switchboard_retention_removed_entries_total", |removed| removed >= 1.0).await;
    assert_eq!(say(&node, &room, &["3"]).await, 3);
}
