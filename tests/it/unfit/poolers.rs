//! PgBouncer before PostgreSQL.

use serde_json::json;

use super::*;
use crate::support::{Client, PgBouncer, Postgres, RedisServer, eventually, token};

#[tokio::test]
async fn a_pooler_that_lends_connections_is_named_and_refused() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    for mode in ["transaction", "statement"] {
        let pooler = PgBouncer::before(&database, mode).await;
        let url = pooler.url(&database);
        let printed = check(Some(&redis.url()), &url).await;
        assert!(printed.contains("store-pooled") && printed.contains("pool_mode = session"), "{mode}: {printed}");
        let log = refused_at_start(Node::serve(&redis.url(), &url)).await;
        assert!(log.contains("pool_mode = session"), "{mode}: {log}");
        let mut migrate = Command::new(env!("CARGO_BIN_EXE_switchboard"));
        let migrated = migrate.arg("migrate").env_clear().env("DATABASE_URL", &url).output();
        assert_eq!(within("the migration", migrated).await.unwrap().status.code(), Some(1), "{mode}");
    }
    // Nothing is left behind that would block the next one.
    Node::serve(&redis.url(), &database).start().await.terminate().await;
}

#[tokio::test]
async fn a_pooler_in_session_mode_serves_a_node() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let pooler = PgBouncer::before(&database, "session").await;
    let url = pooler.url(&database);
    let node = Node::serve(&redis.url(), &url).start().await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join("team").await;
    for text in ["one", "two"] {
        alice.send_text("team", text).await;
    }
    let printed = check(Some(&redis.url()), &url).await;
    assert!(printed.contains("ok    PostgreSQL"), "{printed}");
}

#[tokio::test]
async fn a_pooler_that_begins_to_lend_connections_under_a_node_is_named_until_it_ends() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let mut pooler = PgBouncer::before(&database, "session").await;
    let node = Node::serve(&redis.url(), &pooler.url(&database)).start().await;
    let alice = token("alice");
    let room = node.conversation(&alice, &[]).await;
    let path = format!("/api/chat/conversations/{room}/messages");
    let message = json!({"content": "hello"});
    let send = || node.post(&path, &alice, &message);
    assert_eq!(send().await.status, 201);
    pooler.restart_as("transaction").await;
    // Calls at the same time reach several connections of the server.
    let named = async || {
        futures_util::future::join_all((0..8).map(|_| send())).await;
        faults(&node).await.into_iter().find(|(name, _)| name == "store-pooled")
    };
    let (_, reason) = eventually("the fault to be named", named).await;
    assert!(reason.contains("pool_mode = session"), "{reason}");
    let down = async || {
        let health = node.admin_get("/api/health").await.json;
        (health["components"]["store"]["status"] == "down").then_some(())
    };
    eventually("the store to be down", down).await;
    assert_eq!(send().await.status, 503);
    pooler.restart_as("session").await;
    let up = async || (node.admin_get("/api/health").await.json["status"] == "healthy").then_some(());
    eventually("the node to recover", up).await;
    assert_eq!(send().await.status, 201);
    assert_eq!(faults(&node).await, []);
}
