//! Redis servers that answer and can't serve a node: each has its name in `check`, in the log and in health.

use super::*;
use crate::support::{Postgres, RedisServer, eventually};

/// Expects that a node on this Redis starts degraded, and gives the fault this name everywhere, with the server's words.
async fn expect_named(url: &str, fault: &str, words: &str) {
    let database = Postgres::shared().await.database().await;
    let node = Node::serve(url, &database).set("LOG", "trace").start().await;
    let printed = check(Some(url), &database).await;
    assert!(!printed.contains("planted"), "{printed}");
    assert!(printed.contains(&format!("FAIL  Redis: {fault}: ")) && printed.contains(words), "{fault}: {printed}");
    let named = async || faults(&node).await.into_iter().find(|(name, _)| name == fault);
    let (_, reason) = eventually(fault, named).await;
    assert!(reason.contains(words) && !reason.contains("planted"), "{fault}: {reason}");
    node.assert_never_logged(&["planted"]);
    let warned = told_once(&node, fault, 0).await;
    assert!(warned["reason"].as_str().unwrap().contains(words), "{warned:?}");
    node.metric(&format!(r#"switchboard_fault{{fault="{fault}"}}"#), |value| value == 1.0).await;
    assert_eq!(node.admin_get("/api/health").await.json["status"], "degraded");
}

#[tokio::test]
async fn a_database_number_that_does_not_exist_is_named() {
    let redis = RedisServer::with(&["--databases", "2"]).await;
    expect_named(&format!("{}7", redis.url()), "redis-wrong-database", "out of range").await;
}

#[tokio::test]
async fn a_wrong_password_and_a_missing_one_are_named() {
    let redis = RedisServer::with(&["--requirepass", "right"]).await;
    expect_named(&redis.url().replace("redis://", "redis://:planted@"), "redis-denies-access", "WRONGPASS").await;
    expect_named(&redis.url(), "redis-denies-access", "NOAUTH").await;
}

#[tokio::test]
async fn commands_that_are_missing_are_named() {
    let renamed = RedisServer::with(&["--rename-command", "EVALSHA", ""]).await;
    expect_named(&renamed.url(), "redis-lacks-command", "EVALSHA").await;
    let old = RedisServer::with(&["--rename-command", "HELLO", ""]).await;
    // The server repeats the arguments of a command that it does not know, the password among them.
    for url in [old.url(), old.url().replace("redis://", "redis://user:planted@")] {
        expect_named(&url, "redis-too-old", "HELLO").await;
    }
}

#[tokio::test]
async fn a_redis_without_room_for_clients_is_named() {
    let redis = RedisServer::start().await;
    let mut held = redis.connection().await;
    let _: String = redis::cmd("CONFIG").arg("SET").arg("maxclients").arg(1).query_async(&mut held).await.unwrap();
    expect_named(&redis.url(), "redis-too-many-clients", "max number of clients").await;
    // Room for the check, and not for a node.
    let database = Postgres::shared().await.database().await;
    for (room, fits) in [(9, false), (14, true)] {
        let mut set = redis::cmd("CONFIG");
        let _: String = set.arg("SET").arg("maxclients").arg(room).query_async(&mut held).await.unwrap();
        let printed = check(Some(&redis.url()), &database).await;
        assert_eq!(printed.contains("ok    Redis"), fits, "{room}: {printed}");
        assert_eq!(printed.contains("a node needs up to 10 connections"), !fits, "{room}: {printed}");
    }
}

#[tokio::test]
async fn each_command_and_key_that_the_user_lacks_is_named_by_the_check() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    Node::serve(&redis.url(), &database).start().await.terminate().await;
    let line = include_str!("../../../docs/operations/redis.md").lines().find(|line| line.starts_with("ACL SETUSER "));
    let words: Vec<&str> = line.unwrap().split(' ').collect();
    let url = redis.url().replace("redis://", "redis://switchboard:secret@");
    let _: String = redis.command(&words).await;
    let printed = check(Some(&url), &database).await;
    assert!(printed.contains("ok    Redis"), "{printed}");
    // A node and the check can't connect without these, or use them only for a number that the URL does not have. The last
    // three only tell who else is there, and who changed.
    let spared =
        ["+hello", "+auth", "+select", "+ping", "+unsubscribe", "+info", "+pubsub|channels", "+client|tracking"];
    let rights = words.iter().filter(|word| word.starts_with(['+', '~']) && !spared.contains(word));
    for right in rights {
        let fewer: Vec<&str> = words.iter().filter(|word| *word != right).copied().collect();
        let _: String = redis.command(&[&["ACL", "SETUSER", "switchboard", "reset"], &fewer[3..]].concat()).await;
        let printed = check(Some(&url), &database).await;
        assert!(printed.contains("FAIL  Redis: redis-denies-access"), "without {right}: {printed}");
    }
}
