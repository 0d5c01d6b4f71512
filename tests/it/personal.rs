//! The data of one user: exported as it is stored, and erased for everybody.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::{
    Client, Node, NodeBuilder, Postgres, RedisServer, connect_to_postgres, eventually, token, token_with,
};

mod late;

const CONVERSATIONS: &str = "/api/chat/conversations";

/// The lines of an export.
async fn export(node: &Node, user: &str) -> Vec<Value> {
    let (mut lines, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = node.console(Method::GET, &format!("/users/{user}/export{cursor}"), None).await;
        assert_eq!(page.status, 200, "{}", page.text);
        let mut page: Vec<Value> = page.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let last = page.pop().unwrap();
        lines.append(&mut page);
        match last["type"].as_str() {
            Some("end") => return lines,
            Some("next") => {
                let next: String =
                    form_urlencoded::byte_serialize(last["cursor"].as_str().unwrap().as_bytes()).collect();
                cursor = format!("?cursor={next}");
            }
            other => panic!("{other:?}"),
        }
    }
}

fn of_type<'a>(lines: &'a [Value], kind: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["type"] == kind).collect()
}

async fn say(node: &Node, user: &str, room: &str, content: &str) -> i64 {
    let sent = node.post(&format!("{CONVERSATIONS}/{room}/messages"), &named(user), &json!({"content": content})).await;
    assert_eq!(sent.status, 201, "{}", sent.text);
    sent.json["seq"].as_i64().unwrap()
}

/// A token with a name that is personal.
fn named(user: &str) -> String {
    token_with(user, json!({"name": format!("{user} Secretname")}))
}

async fn react(node: &Node, user: &str, room: &str, seq: i64) {
    let path = format!("{CONVERSATIONS}/{room}/messages/{seq}/reactions/%F0%9F%8E%89");
    let answer = node.request(Method::PUT, &path, Some(&named(user)), None).await;
    assert!(answer.status.is_success(), "{}", answer.text);
}

async fn done(node: &Node, user: &str) {
    eventually("the erasure", async || {
        let shown = node.console(Method::GET, &format!("/users/{user}/erasure"), None).await.json;
        (shown["is_done"] == true).then_some(())
    })
    .await;
}

/// Lets alice write, edit and react in a group and in a direct conversation. Returns the ids of both.
async fn live(node: &Node) -> (String, String) {
    let team = node.conversation(&named("alice"), &["bob"]).await;
    for at in 0..5 {
        say(node, "alice", &team, &format!("private words {at}")).await;
    }
    let bobs = say(node, "bob", &team, "of bob").await;
    react(node, "alice", &team, bobs).await;
    react(node, "bob", &team, 1).await;
    let edit = json!({"content": "private edit"});
    let path = format!("{CONVERSATIONS}/{team}/messages/2");
    assert!(node.request(Method::PATCH, &path, Some(&named("alice")), Some(&edit)).await.status.is_success());
    let direct = json!({"is_group": false, "participant_ids": ["bob"]});
    let direct = node.post(CONVERSATIONS, &named("alice"), &direct).await.json["id"].as_str().unwrap().to_owned();
    say(node, "alice", &direct, "private to bob").await;
    say(node, "bob", &direct, "answer of bob").await;
    assert!(node.post("/api/blocks/carol", &named("alice"), &json!({})).await.status.is_success());
    (team, direct)
}

async fn exports_and_erases(one: &Node, two: &Node) {
    let (team, direct) = live(one).await;
    let lines = export(two, "alice").await;
    assert_eq!((&lines[0]["type"], &lines[0]["user_id"]), (&json!("export"), &json!("alice")));
    assert_eq!(of_type(&lines, "profile")[0]["name"], "alice Secretname");
    assert_eq!(of_type(&lines, "block")[0]["user_id"], "carol");
    assert_eq!(of_type(&lines, "conversation").len(), 2);
    let entries = of_type(&lines, "entry");
    let of = |kind: &str| entries.iter().filter(|entry| entry["kind"] == kind).count();
    assert_eq!((of("message"), of("edited"), of("reacted")), (6, 1, 1), "{entries:?}");
    assert!(entries.iter().all(|entry| entry["sender_id"] == "alice"));
    assert!(
        entries.iter().any(|entry| entry["content"] == "private edit" && entry["conversation_id"] == team.as_str())
    );
    let bad = one.console(Method::GET, "/users/alice/export?cursor=x", None).await;
    assert_eq!(bad.status, 400, "{}", bad.text);
    assert_eq!(one.console(Method::GET, "/users/alice/erasure", None).await.status, 404);

    let mut bob = Client::native(two, "bob").await;
    bob.join(&team).await;
    let mut alice = Client::native(two, "alice").await;
    let requested = one.console(Method::POST, "/users/alice/erasure", None).await;
    assert_eq!((requested.status.as_u16(), &requested.json["is_done"]), (200, &json!(false)), "{}", requested.text);
    assert_eq!(alice.expect_close().await.0, 4401);
    done(two, "alice").await;

    // Bob sees each message deleted, the reaction taken back, and alice leave, live and in order.
    let mut seen = Vec::new();
    let mut before = None;
    while seen.len() < 7 {
        let frame = bob.recv().await;
        if let Some(seq) = frame["seq"].as_i64().filter(|_| frame["conversation_id"] == team.as_str()) {
            assert!(before.is_none_or(|before| seq == before + 1), "{frame}");
            before = Some(seq);
            seen.push(frame["type"].as_str().unwrap().to_owned());
        }
    }
    let count = |kind: &str| seen.iter().filter(|seen| *seen == kind).count();
    assert_eq!((count("message_deleted"), count("reaction"), count("member_removed")), (5, 1, 1), "{seen:?}");
    for room in [&team, &direct] {
        let page = one.get(&format!("{CONVERSATIONS}/{room}/messages"), &token("bob")).await;
        assert!(!page.text.contains("private") && !page.text.contains("alice Secretname"), "{}", page.text);
        assert!(page.text.contains("bob"), "{}", page.text);
        let log = one.console(Method::GET, &format!("/conversations/{room}/entries?limit=100"), None).await;
        assert!(!log.text.contains("private") && !log.text.contains("alice Secretname"), "{}", log.text);
        let seqs: Vec<i64> =
            log.json["entries"].as_array().unwrap().iter().map(|entry| entry["seq"].as_i64().unwrap()).collect();
        assert_eq!(seqs, Vec::from_iter(1..=i64::try_from(seqs.len()).unwrap()), "no gap");
    }
    let found = one.get("/api/chat/search?q=private", &token("bob")).await;
    assert_eq!(found.json["messages"], json!([]), "{}", found.text);
    let lines = export(one, "alice").await;
    assert!(of_type(&lines, "block").is_empty() && of_type(&lines, "notification").is_empty());
    assert!(of_type(&lines, "profile")[0]["name"] != "alice Secretname");
    assert!(of_type(&lines, "conversation").iter().all(|one| one["is_group"] == false), "{lines:?}");

    // A repeat changes nothing; what a new token does afterwards stays.
    let head = |room: &str| {
        let path = format!("/conversations/{room}/entries");
        async move { one.console(Method::GET, &path, None).await.json["head_seq"].clone() }
    };
    let heads = (head(&team).await, head(&direct).await);
    one.console(Method::POST, "/users/alice/erasure", None).await;
    done(one, "alice").await;
    assert_eq!((head(&team).await, head(&direct).await), heads);
}

#[tokio::test]
async fn a_user_is_exported_and_erased_on_two_nodes() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let node = |node: NodeBuilder| {
        node.with_console()
            .set("OPEN_CONVERSATIONS", false)
            .set("MESSAGE_RATE_LIMIT", 0)
            .set("RETENTION_INTERVAL", "1s")
    };
    let one = node(Node::serve(&redis.url(), &database)).start().await;
    let two = node(Node::serve(&redis.url(), &database)).start().await;
    exports_and_erases(&one, &two).await;
    let sql = connect_to_postgres(&database).await;
    let left = "SELECT count(*) FROM log WHERE sender = 'alice' AND (sender_name <> 'alice' OR content <> '')";
    assert_eq!(sql.query_one(left, &[]).await.unwrap().get::<_, i64>(0), 0);
    for text in ["log", "users", "notifications", "erasures", "former_members"] {
        let rows = sql.query(&format!("SELECT t::text FROM {text} t"), &[]).await.unwrap();
        assert!(rows.iter().all(|row| !row.get::<_, &str>(0).contains("alice Secretname")), "{text}");
    }
    for node in [&one, &two] {
        node.assert_never_logged(&["alice Secretname", "private"]);
    }
}

#[tokio::test]
async fn a_user_is_exported_and_erased_on_sqlite() {
    let node = Node::dev().with_console().set("OPEN_CONVERSATIONS", false).set("MESSAGE_RATE_LIMIT", 0).start().await;
    exports_and_erases(&node, &node).await;
}

#[tokio::test]
async fn an_erasure_goes_on_after_the_node_that_did_it_died() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let node = || {
        let node = Node::serve(&redis.url(), &database).with_console().set("MESSAGE_RATE_LIMIT", 0);
        node.set("OPEN_CONVERSATIONS", false).start()
    };
    let one = node().await;
    let room = one.conversation(&named("alice"), &["bob"]).await;
    for at in 0..20 {
        say(&one, "alice", &room, &format!("private words {at}")).await;
    }
    let sql = connect_to_postgres(&database).await;
    // A node died in the middle of it: some messages are deleted, and its hold on the work ends soon.
    sql.batch_execute(
        "INSERT INTO erasures (user_id, requested_at, requested_by) VALUES ('alice', now(), 'console:eve'); \
         INSERT INTO upkeep (job, holder, held_until) VALUES ('erasures', 'dead', now() + interval '2 seconds') \
         ON CONFLICT (job) DO UPDATE SET holder = 'dead', held_until = excluded.held_until",
    )
    .await
    .unwrap();
    one.kill().await;
    let two = node().await;
    done(&two, "alice").await;
    let page = two.get(&format!("{CONVERSATIONS}/{room}/messages"), &token("bob")).await;
    assert!(!page.text.contains("private"), "{}", page.text);
    assert_eq!(page.json["total"], 20);
}

#[tokio::test]
async fn an_erasure_waits_for_a_notification_that_is_in_use() {
    let (redis, database) = (RedisServer::start().await, Postgres::shared().await.database().await);
    let node = Node::serve(&redis.url(), &database).with_console().set("MESSAGE_RATE_LIMIT", 0).start().await;
    let direct = json!({"is_group": false, "participant_ids": ["alice"]});
    let direct = node.post(CONVERSATIONS, &token("bob"), &direct).await.json["id"].as_str().unwrap().to_owned();
    say(&node, "bob", &direct, "hello").await;
    let sql = connect_to_postgres(&database).await;
    let count = async || -> i64 {
        sql.query_one("SELECT count(*) FROM notifications WHERE user_id = 'alice'", &[]).await.unwrap().get(0)
    };
    eventually("the notification", async || (count().await == 1).then_some(())).await;
    sql.batch_execute("BEGIN; SELECT FROM notifications WHERE user_id = 'alice' FOR UPDATE").await.unwrap();
    node.console(Method::POST, "/users/alice/erasure", None).await;
    assert!(timeout(Duration::from_secs(2), done(&node, "alice")).await.is_err(), "there is still a notification");
    sql.batch_execute("COMMIT").await.unwrap();
    done(&node, "alice").await;
    assert_eq!(count().await, 0);
}
