//! The least privileges in the documentation: a Redis user and a PostgreSQL role that may do what nodes need, and no
//! more.

use std::{collections::HashMap, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{
    Client, Node, Postgres, RedisCluster, RedisServer, SECRET, eventually, token, token_with, within,
};

/// The `ACL SETUSER` command of `docs/operations/redis.md`, as words.
fn documented_user() -> Vec<&'static str> {
    documented_user_with("+subscribe")
}

/// The one that has this right.
fn documented_user_with(right: &str) -> Vec<&'static str> {
    let lines = include_str!("../../docs/operations/redis.md").lines();
    let line = lines.filter(|line| line.starts_with("ACL SETUSER ")).find(|line| line.contains(right));
    line.expect("docs/operations/redis.md has an ACL SETUSER line").split(' ').collect()
}

/// Replaces user and password in a URL.
fn with_user(url: &str, user: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap();
    let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
    format!("{scheme}://{user}:secret@{place}")
}

/// Uses all that nodes share: sockets on both, sends, edits, listings, resumes, departures.
async fn use_every_feature(one: &Node, two: &Node) {
    let admin = token_with("admin", json!({"role": "admin"}));
    let mut alice = Client::native(one, "alice").await;
    let mut bob = Client::native(two, "bob").await;
    alice.join("team").await;
    bob.join("team").await;
    for (speaker, listener, text) in [(0, 1, "from one"), (1, 0, "from two")] {
        let both = [&mut alice, &mut bob];
        let seq = both[speaker].send_text("team", text).await["seq"].clone();
        assert_eq!(both[listener].until_where(|frame| frame["content"] == text).await["seq"], seq);
        let message = format!("/api/chat/conversations/team/messages/{seq}");
        let author = token(["alice", "bob"][speaker]);
        for (method, path, body) in [
            (Method::PATCH, message.clone(), Some(json!({"content": "edited"}))),
            (Method::PUT, format!("{message}/reactions/%2B1"), None),
            (Method::DELETE, format!("{message}/reactions/%2B1"), None),
            (Method::POST, "/api/messages/read".to_owned(), Some(json!({"conversation_id": "team", "up_to_seq": seq}))),
            (Method::DELETE, message.clone(), None),
        ] {
            let answer = one.request(method, &path, Some(&author), body.as_ref()).await;
            assert!(answer.status.is_success(), "{path}: {}", answer.text);
        }
    }
    for path in [
        "/api/websocket/users/online",
        "/api/websocket/users/bob/online",
        "/api/connections/info",
        "/api/connections/stats",
        "/api/websocket/status",
        "/api/notifications",
        "/api/chat/search?q=from",
        "/api/chat/conversations",
        "/api/chat/conversations/team/messages",
    ] {
        let answer = one.get(path, &admin).await;
        assert!(answer.status.is_success(), "{path}: {}", answer.text);
    }
    let closed = one.conversation(&token("alice"), &["bob", "carol"]).await;
    let carol = format!("/api/chat/conversations/{closed}/members/carol");
    assert!(one.request(Method::DELETE, &carol, Some(&token("alice")), None).await.status.is_success());
    bob.close().await;
    alice
        .until_where(|frame| frame["type"] == "presence" && frame["user_id"] == "bob" && frame["online"] == false)
        .await;
    alice.send_text(&closed, "for one who is away").await;
    let told = || async {
        (two.get("/api/notifications", &token("bob")).await.json["notifications"][0].is_object()).then_some(())
    };
    eventually("bob's notification", told).await;
    let mut again = Client::native(two, "bob").await;
    again.send(&json!({"type": "join", "conversation_id": "team", "since_seq": 0})).await;
    again.until_where(|frame| frame["seq"] == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_user_of_a_cluster_can_do_what_nodes_do() {
    let cluster = RedisCluster::start(Duration::from_secs(5)).await;
    for server in &cluster.servers {
        let () = server.command(&documented_user_with("+ssubscribe")).await;
    }
    let (url, database) = (cluster.url_with("switchboard:secret@"), Postgres::shared().await.database().await);
    let node = || {
        let node = Node::serve(&url, &database).set("MESSAGE_RATE_LIMIT", 1_000).set("PRESENCE_GRACE", "1s");
        node.set("NODE_LEASE", "3s")
    };
    let (one, two) = (node().start().await, node().start().await);
    use_every_feature(&one, &two).await;
    let _cut_off = Client::native(&two, "dave").await;
    two.kill().await;
    one.metric("switchboard_reaped_connections_total", |reaped| reaped >= 1.0).await;
    let health = one.request(Method::GET, "/api/health", None, None).await;
    assert_eq!(health.json["status"], "healthy", "{}", health.text);
    let printed = check(&url, &database).await;
    assert!(printed.contains("cluster with 3 masters: ") && !printed.contains("FAIL"), "{printed}");
    for server in &cluster.servers {
        // The check asks for a setting, and says nothing of it without the right.
        let refused: Vec<_> = refused(server).await.into_iter().filter(|what| !what.contains("config|get")).collect();
        assert_eq!(refused, Vec::<String>::new());
    }
    let printed = check(&cluster.url(), &database).await;
    assert!(printed.contains("note  Redis: redis-full-coverage: cluster-require-full-coverage is yes"), "{printed}");
    assert!(!printed.contains("redis-untracked"), "{printed}");
    one.metric("switchboard_presence_tracked_servers", |servers| servers == 3.0).await;
    let () = cluster.servers[1].command(&["ACL", "SETUSER", "switchboard", "-client|tracking"]).await;
    let printed_without = check(&url, &database).await;
    assert!(printed_without.contains("note  Redis: redis-untracked: "), "{printed_without}");
    for missing in ["-spublish", "-ssubscribe", "-asking", "-cluster|slots", "-evalsha"] {
        // A right of one master is missed too.
        let server = &cluster.servers[if missing.starts_with("-cluster") { 0 } else { 2 }];
        let everywhere =
            if missing.starts_with("-cluster") { &cluster.servers[..] } else { std::slice::from_ref(server) };
        for server in everywhere {
            let () = server.command(&["ACL", "SETUSER", "switchboard", missing]).await;
        }
        let printed = check(&url, &database).await;
        assert!(printed.contains("FAIL  Redis: redis-denies-access: "), "{missing}: {printed}");
        let named = missing.starts_with("-cluster") || printed.contains(&server.address());
        assert!(named, "{missing}: {} in {printed}", server.address());
        assert!(printed.contains(missing.trim_start_matches('-').split('|').next().unwrap()), "{missing}: {printed}");
        for server in everywhere {
            let given = missing.replace('-', "+");
            let () = server.command(&["ACL", "SETUSER", "switchboard", &given]).await;
        }
    }
}

/// The output of `switchboard check`.
async fn check(url: &str, database: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    command.arg("check").env_clear().env("JWT_SECRET", SECRET).env("DATABASE_URL", database).env("REDIS_URL", url);
    let done = within("the check", command.output()).await.unwrap();
    String::from_utf8([done.stdout, done.stderr].concat()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_redis_user_can_do_what_nodes_do_and_no_more() {
    let redis = RedisServer::start().await;
    let () = redis.command(&documented_user()).await;
    let url = with_user(&redis.url(), "switchboard");
    let database = Postgres::shared().await.database().await;
    let node = || {
        let node = Node::serve(&url, &database).set("MESSAGE_RATE_LIMIT", 1_000).set("PRESENCE_GRACE", "1s");
        node.set("NODE_LEASE", "3s")
    };
    let (one, two) = (node().start().await, node().start().await);
    use_every_feature(&one, &two).await;
    // Cleaning up after a dead node needs further rights.
    let _cut_off = Client::native(&two, "dave").await;
    two.kill().await;
    one.metric("switchboard_reaped_connections_total", |reaped| reaped >= 1.0).await;
    let health = one.request(Method::GET, "/api/health", None, None).await;
    assert_eq!(health.json["status"], "healthy", "{}", health.text);
    one.metric("switchboard_presence_tracked_servers", |servers| servers == 1.0).await;
    assert_eq!(refused(&redis).await, Vec::<String>::new());
    assert!(!check(&url, &database).await.contains("redis-untracked"));

    let client = redis::Client::open(url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    for command in [
        "KEYS *",
        "FLUSHALL",
        "CONFIG GET *",
        "ACL LIST",
        "EVAL return 0",
        "GET other",
        "SET other 1",
        "DEL other",
        "PUBLISH other x",
        "SUBSCRIBE other",
        "SHUTDOWN",
        "SCRIPT FLUSH",
        "CLIENT LIST",
        "MONITOR",
    ] {
        let mut asked = redis::Cmd::new();
        for word in command.split(' ') {
            asked.arg(word);
        }
        let answer: redis::RedisResult<redis::Value> = asked.query_async(&mut connection).await;
        assert_eq!(answer.unwrap_err().code(), Some("NOPERM"), "{command}");
    }
    let () = redis.command(&["ACL", "SETUSER", "switchboard", "-client|tracking"]).await;
    let printed = check(&url, &database).await;
    assert!(printed.contains("note  Redis: redis-untracked: ") && !printed.contains("FAIL"), "{printed}");
}

/// Commands that Redis refused to the user. `CLIENT SETINFO` is left out: the Redis library sends it without need.
async fn refused(redis: &RedisServer) -> Vec<String> {
    let log: Vec<HashMap<String, redis::Value>> = redis.command(&["ACL", "LOG"]).await;
    let objects = log.iter().map(|entry| redis::from_redis_value_ref::<String>(&entry["object"]).unwrap());
    objects.filter(|object| object != "client|setinfo").collect()
}

/// The documented statements, each with its database.
fn documented_statements() -> Vec<&'static str> {
    let text = include_str!("../../docs/operations/security.md");
    let (_, rest) = text.split_once("```sql\n").expect("docs/operations/security.md has an SQL block");
    rest.split_once("```").unwrap().0.lines().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_role_can_do_what_nodes_do_and_no_more() {
    let postgres = Postgres::start(&[("fsync", "off")]).await;
    let admin = postgres.connect("postgres").await;
    let (last, statements) = documented_statements().split_last().map(|(last, rest)| (*last, rest.to_vec())).unwrap();
    for statement in statements {
        admin.batch_execute(statement).await.unwrap();
    }
    postgres.connect("switchboard").await.batch_execute(last).await.unwrap();
    let redis = RedisServer::start().await;
    let [migrator, runtime] =
        ["switchboard_migrator", "switchboard"].map(|role| with_user(&postgres.url("switchboard"), role));
    let migrated = std::process::Command::new(env!("CARGO_BIN_EXE_switchboard"))
        .arg("migrate")
        .env_clear()
        .envs([("DATABASE_URL", &*migrator), ("REDIS_URL", &*redis.url()), ("JWT_SECRET", crate::support::SECRET)])
        .output()
        .unwrap();
    assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
    let node = || Node::serve(&redis.url(), &runtime).set("MIGRATE", false).set("PRESENCE_GRACE", "1s");
    let (one, two) = (node().start().await, node().start().await);
    use_every_feature(&one, &two).await;
    let health: Value = one.request(Method::GET, "/api/health", None, None).await.json;
    assert_eq!(health["status"], "healthy", "{health}");

    let (client, connection) = tokio_postgres::connect(&runtime, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    for statement in [
        "CREATE TABLE mine (id int)",
        "DROP TABLE log",
        "TRUNCATE log",
        "ALTER TABLE log ADD COLUMN mine int",
        "CREATE OR REPLACE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "COPY log TO '/tmp/log'",
    ] {
        let refused = client.batch_execute(statement).await.unwrap_err();
        assert_eq!(refused.code(), Some(&tokio_postgres::error::SqlState::INSUFFICIENT_PRIVILEGE), "{statement}");
    }
}
