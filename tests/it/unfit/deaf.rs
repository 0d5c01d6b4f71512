//! Redis answers commands, and the fan-out through it is dead: nodes reach each other through the store, and say so.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::support::{Client, Postgres, RedisServer, eventually};

/// The `ACL SETUSER` words of a user who may do everything but what `without` takes away.
async fn limit(redis: &RedisServer, without: &[&str]) {
    let words = ["ACL", "SETUSER", "limited", "reset", "on", ">word", "~*", "&*", "+@all"];
    let _: String = redis.command(&[&words[..], without].concat()).await;
    let user = |kind: &'static str| async move {
        let _: i64 = redis.command(&["CLIENT", "KILL", "TYPE", kind]).await;
    };
    user("pubsub").await;
}

/// A message reaches a member on the other node though this node's fan-out is dead; then the fault passes.
async fn check_deaf(without: &[&str], fault: &str, words: &str) {
    let redis = RedisServer::start().await;
    limit(&redis, &[]).await;
    let url = redis.url().replace("redis://", "redis://limited:word@");
    let database = Postgres::shared().await.database().await;
    let (one, two) = (Node::serve(&url, &database).start().await, Node::serve(&url, &database).start().await);
    let (mut alice, mut bob) = (Client::native(&one, "alice").await, Client::native(&two, "bob").await);
    alice.join("team").await;
    bob.join("team").await;
    alice.send_text("team", "before").await;
    bob.until_where(|frame| frame["content"] == "before").await;

    limit(&redis, without).await;
    let cut = std::time::Instant::now();
    alice.send_text("team", "during").await;
    bob.until_where(|frame| frame["content"] == "during").await;
    assert!(cut.elapsed() < crate::support::allowed(Duration::from_secs(5)), "{:?}", cut.elapsed());
    for node in [&one, &two] {
        let named = async || faults(node).await.into_iter().find(|(name, _)| name == fault);
        let (_, reason) = eventually(fault, named).await;
        assert!(reason.contains(words), "{reason}");
        let health = node.admin_get("/api/health").await.json;
        assert_eq!((&health["status"], &health["reasons"]), (&json!("degraded"), &json!(["redis_deaf"])), "{health}");
        assert_eq!((&health["works"]["fanout"], &health["works"]["presence"]), (&json!("relayed"), &json!("shared")));
    }
    alice.send_text("team", "relayed").await;
    bob.until_where(|frame| frame["content"] == "relayed").await;

    limit(&redis, &[]).await;
    for node in [&one, &two] {
        let up = async || (node.admin_get("/api/health").await.json["status"] == "healthy").then_some(());
        eventually("the fan-out to work again", up).await;
        told_once(node, fault, 0).await;
    }
    for text in ["after", "after that"] {
        alice.send_text("team", text).await;
        bob.until_where(|frame| frame["content"] == text).await;
    }
}

#[tokio::test]
async fn nodes_without_the_channels_relay_through_the_store() {
    check_deaf(&["resetchannels"], "redis-denies-access", "NOPERM").await;
}

#[tokio::test]
async fn nodes_that_may_not_publish_relay_through_the_store() {
    check_deaf(&["-publish"], "redis-denies-access", "NOPERM").await;
}

#[tokio::test]
async fn a_node_without_a_connection_for_its_subscription_relays_through_the_store() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let (one, two) =
        (Node::serve(&redis.url(), &database).start().await, Node::serve(&redis.url(), &database).start().await);
    let (mut alice, mut bob) = (Client::native(&one, "alice").await, Client::native(&two, "bob").await);
    alice.join("team").await;
    bob.join("team").await;
    let mut connection = redis.connection().await;
    let _: String =
        redis::cmd("CONFIG").arg("SET").arg("maxclients").arg(1).query_async(&mut connection).await.unwrap();
    let _: i64 = redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub").query_async(&mut connection).await.unwrap();
    for text in ["one", "two"] {
        alice.send_text("team", text).await;
        bob.until_where(|frame| frame["content"] == text).await;
    }
    let named = async || faults(&two).await.into_iter().find(|(name, _)| name == "redis-too-many-clients");
    eventually("the fault to be named", named).await;
    let _: String =
        redis::cmd("CONFIG").arg("SET").arg("maxclients").arg(1_000).query_async(&mut connection).await.unwrap();
    let up = async || (two.admin_get("/api/health").await.json["status"] == "healthy").then_some(());
    eventually("the subscription to be back", up).await;
}
