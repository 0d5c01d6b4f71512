//! Restrictions hold while the store or Redis is away, and when the store's past changes.

use super::*;
use crate::support::{Link, Proxy, eventually};

#[tokio::test]
async fn a_node_that_has_not_read_the_restrictions_accepts_no_token() {
    let redis = RedisServer::start().await;
    let mut postgres = Postgres::start(&[("fsync", "off")]).await;
    let database = postgres.database().await;
    let first = node(&redis, &database).await;
    block(&first).await;
    first.kill().await;
    postgres.kill().await;
    let node = Node::serve(&redis.url(), &database).start_without_store().await;
    for user in [BOB, "alice"] {
        let answer = node.get("/api/connections/info", &token(user)).await;
        assert_eq!((answer.status.as_u16(), &answer.json["code"]), (503, &json!("unavailable")), "{}", answer.text);
        let mut socket = open(&node, "/v1/ws", &token(user)).await;
        assert_eq!(socket.expect_close().await.0, 1013, "try again later");
        let mut socket = open(&node, "/ws/lobby", &token(user)).await;
        assert_eq!(socket.expect_close().await.0, 1013);
    }
    let bad = node.get("/api/connections/info", "nonsense").await;
    assert_eq!(bad.status, 401, "a bad token is bad at any time");
    postgres.restart().await;
    until_code(&node, &token("alice"), None).await;
    until_code(&node, &token(BOB), Some("blocked")).await;
}

/// The last version of the schema without restrictions.
const BEFORE_RESTRICTIONS: i32 = 13;

#[tokio::test]
async fn an_unmigrated_database_keeps_the_node_waiting_with_the_remedy() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let mut client = Postgres::shared().await.connect(database.rsplit('/').next().unwrap()).await;
    crate::store::up_to(BEFORE_RESTRICTIONS, "migrations/postgres").run_async(&mut client).await.unwrap();
    let node = Node::serve(&redis.url(), &database).set("MIGRATE", false).start_without_store().await;
    let readiness = node.admin_get("/readyz").await;
    assert_eq!(readiness.status, 503);
    assert!(readiness.text.contains("switchboard migrate"), "{}", readiness.text);
    assert_eq!(node.get("/api/connections/info", &token("alice")).await.status, 503);
    let mut migrate = tokio::process::Command::new(env!("CARGO_BIN_EXE_switchboard"));
    let migrated = migrate.arg("migrate").env_clear().env("DATABASE_URL", &database).output().await.unwrap();
    assert!(migrated.status.success());
    until_code(&node, &token("alice"), None).await;
}

#[tokio::test]
async fn the_last_known_state_holds_while_the_store_is_away_and_changes_are_read_when_it_is_back() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let proxy = Proxy::to(database.split('@').next_back().unwrap().split('/').next().unwrap()).await;
    let (near, far) = (node(&redis, &database).await, node(&redis, &proxy.url(&database)).await);
    block(&near).await;
    let (bob, carol) = (issued(0), token("carol"));
    until_code(&far, &bob, Some("blocked")).await;
    let mut carols = Client::native(&far, "carol").await;
    proxy.set(Link::Cut);
    let down = async || {
        let health = far.request(Method::GET, "/api/health", None, None).await;
        (health.json["components"]["store"]["status"] == "down").then_some(())
    };
    eventually("the store to be down", down).await;
    expect_refused(&far, &bob, BLOCKED).await;
    let refused = far.request(Method::PUT, "/api/admin/users/carol/block", Some(&admin()), None).await;
    assert_eq!((refused.status.as_u16(), &refused.json["code"]), (503, &json!("unavailable")), "{}", refused.text);
    // Redis is up, but it carries no restrictions.
    let blocked = near.request(Method::PUT, "/api/admin/users/carol/block", Some(&admin()), None).await;
    assert_eq!(blocked.status, 200);
    unblock(&near).await;
    until_code(&near, &carol, Some("blocked")).await;
    until_code(&far, &carol, None).await;
    proxy.set(Link::Open);
    assert_eq!(carols.expect_close().await, (4403, "Blocked by an administrator".to_owned()));
    until_code(&far, &bob, None).await;
}

#[tokio::test]
async fn changes_take_effect_without_redis() {
    let mut cluster = Cluster::new().await;
    cluster.redis.kill().await;
    let token = issued(0);
    let mut socket = open(&cluster.two, "/v1/ws", &token).await;
    socket.expect("authenticated").await;
    block(&cluster.one).await;
    assert_eq!(socket.expect_close().await, (4403, "Blocked by an administrator".to_owned()));
    unblock(&cluster.two).await;
    for node in cluster.nodes() {
        until_code(node, &token, None).await;
    }
}

/// A restored database has lost changes, and gives their numbers to others.
#[tokio::test]
async fn a_database_that_was_restored_is_read_anew() {
    let cluster = Cluster::new().await;
    let (bob, carol) = (issued(0), token("carol"));
    block(&cluster.one).await;
    disconnect(&cluster.one).await;
    for node in cluster.nodes() {
        until_code(node, &bob, Some("blocked")).await;
    }
    cluster.two.logged("\"disconnect\"").await;
    let name = cluster.database.rsplit('/').next().unwrap();
    let client = Postgres::shared().await.connect(name).await;
    client
        .batch_execute(
            "BEGIN; DELETE FROM restriction_changes; ALTER TABLE restriction_changes ALTER COLUMN id RESTART WITH 1; \
             INSERT INTO restriction_changes (kind, user_id, standing, made_at, made_by) \
             VALUES (3, 'carol', true, clock_timestamp(), 'x'), (0, 'carol', false, clock_timestamp(), 'x'); COMMIT",
        )
        .await
        .unwrap();
    for node in cluster.nodes() {
        until_code(node, &carol, Some("blocked")).await;
        until_code(node, &bob, None).await;
    }
}

/// A row of a newer version, or one that somebody wrote by hand, must not keep a node from the others.
#[tokio::test]
async fn a_row_that_can_not_be_read_is_skipped() {
    let cluster = Cluster::new().await;
    let name = cluster.database.rsplit('/').next().unwrap();
    let client = Postgres::shared().await.connect(name).await;
    let insert = "INSERT INTO restriction_changes (kind, user_id, standing, made_at, made_by) VALUES \
         (99, 'bob', true, now(), 'x'), (3, 'no user', true, now(), 'x'), (2, 'bob', true, now(), 'x')";
    client.batch_execute(insert).await.unwrap();
    block(&cluster.one).await;
    for node in cluster.nodes() {
        until_code(node, &issued(0), Some("blocked")).await;
        node.logged("unreadable restriction").await;
    }
    let restarted = node(&cluster.redis, &cluster.database).await;
    until_code(&restarted, &issued(0), Some("blocked")).await;
    until_code(&restarted, &token("bob"), None).await;
}
