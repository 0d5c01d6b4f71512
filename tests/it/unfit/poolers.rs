//! PgBouncer before PostgreSQL.

use super::*;
use crate::support::{Client, PgBouncer, Postgres, RedisServer};

#[tokio::test]
async fn a_pooler_that_lends_connections_by_the_transaction_is_named_and_refused() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let pooler = PgBouncer::before(&database, "transaction").await;
    let url = pooler.url(&database);
    let printed = check(Some(&redis.url()), &url).await;
    assert!(printed.contains("store-pooled") && printed.contains("pool_mode = session"), "{printed}");
    let log = refused_at_start(Node::serve(&redis.url(), &url)).await;
    assert!(log.contains("pool_mode = session"), "{log}");
    let migrated =
        Command::new(env!("CARGO_BIN_EXE_switchboard")).arg("migrate").env_clear().env("DATABASE_URL", &url).output();
    assert_eq!(within("the migration", migrated).await.unwrap().status.code(), Some(1));
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
