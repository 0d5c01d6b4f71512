//! PgBouncer in transaction mode between nodes and PostgreSQL.

use std::time::Instant;

use super::*;
use crate::support::{PgBouncer, Proxy, token};

/// Builds a node behind a pooler. Migrations go to the server itself.
fn behind(pooler: &str, database: &str, redis: &RedisServer) -> NodeBuilder {
    serve(&redis.url(), pooler)
        .set("DATABASE_POOLER", "transaction")
        .set("DATABASE_MIGRATE_URL", database)
        .set("NODE_LEASE", "3s")
}

#[tokio::test]
async fn nodes_chat_through_a_pooler_that_lends_connections_by_the_transaction() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    // Connections to the server are replaced all the time, and there are fewer than a node's.
    let recycled = "server_lifetime = 1\nserver_idle_timeout = 1\nserver_round_robin = 1\n";
    let mut pooler = PgBouncer::with(&database, "transaction", recycled).await;
    let url = pooler.url(&database);
    let (one, two) = (behind(&url, &database, &redis).start().await, behind(&url, &database, &redis).start().await);
    let mut talk = Talk::between(&one, &two).await;
    talk.say(20).await;
    talk.all_is_heard().await;

    // Users read and search too.
    let (alice, bob) = (token("alice"), token("bob"));
    let history = two.get("/api/chat/conversations/team/messages?limit=100", &bob).await;
    assert_eq!(history.json["messages"].as_array().unwrap().len(), 20, "{}", history.text);
    let found = async || {
        let answer = one.get("/api/chat/search?q=message", &alice).await;
        (answer.status == 200 && answer.text.contains("message-7")).then_some(())
    };
    eventually("the search to find it", found).await;
    let group = one.conversation(&alice, &["bob", "carol"]).await;
    assert_eq!(
        two.post("/api/messages/read", &bob, &json!({"conversation_id": "team", "up_to_seq": 7})).await.status,
        200
    );
    let patched = two.get(&format!("/api/chat/conversations/{group}"), &bob).await;
    assert_eq!(patched.status, 200, "{}", patched.text);

    // The pooler is killed and starts again.
    for _ in 0..2 {
        tokio::join!(talk.say(5), pooler.restart_as("transaction"));
    }
    for node in [&one, &two] {
        is_healthy(node).await;
    }
    talk.say(5).await;
    talk.all_is_heard().await;

    // Without Redis, nodes reach each other through the store, also through the pooler.
    redis.pause();
    talk.say(5).await;
    talk.all_is_heard().await;
    redis.resume();
    for node in [&one, &two] {
        is_healthy(node).await;
        assert!(!node.log().iter().any(|line| line.contains("store-calls-fail")), "{:?}", node.log());
    }

    // Nothing stays on the server's connections.
    let other = crate::support::connect_to_postgres(&url).await;
    for _ in 0..30 {
        let asked = "SELECT (SELECT count(*) FROM pg_prepared_statements), current_setting('statement_timeout'), \
                     current_setting('plan_cache_mode'), current_setting('enable_seqscan')";
        let answers = other.simple_query(asked).await.unwrap();
        let row = answers.iter().find_map(|answer| match answer {
            tokio_postgres::SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let columns: Vec<_> = (0..4).map(|column| row.unwrap().get(column).unwrap().to_owned()).collect();
        assert_eq!(columns, ["0", "0", "auto", "on"]);
    }
    let settings = [("DATABASE_POOLER", "transaction"), ("REDIS_URL", &*redis.url()), ("DATABASE_URL", &*url)];
    let (code, printed) = run("check", &settings).await;
    assert!(code == Some(0) && printed.contains("ok    PostgreSQL"), "{printed}");
}

#[tokio::test]
async fn what_a_pooler_needs_is_named() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let pooler = PgBouncer::with(&database, "transaction", "").await;
    let url = pooler.url(&database);
    let given = [("DATABASE_POOLER", "transaction"), ("REDIS_URL", &*redis.url()), ("DATABASE_URL", &*url)];
    // Migrations need a direct way.
    for command in ["migrate", "serve"] {
        let more = [("LISTEN", "127.0.0.1:0"), ("ADMIN_LISTEN", "127.0.0.1:0")];
        let (code, printed) = run(command, &[&given[..], &more].concat()).await;
        assert!(code == Some(1) && printed.contains("set DATABASE_MIGRATE_URL"), "{command}: {printed}");
    }
    let (_, printed) = run("check", &given).await;
    assert!(printed.contains("store-not-migrated") && printed.contains("set DATABASE_MIGRATE_URL"), "{printed}");
    let direct = [&given[..], &[("DATABASE_MIGRATE_URL", &*database)]].concat();
    let (code, printed) = run("migrate", &direct).await;
    assert_eq!(code, Some(0), "{printed}");
    let (code, printed) = run("migrate", &given).await;
    assert_eq!(code, Some(0), "nothing is pending: {printed}");
    let wrong = [&given[..], &[("DATABASE_MIGRATE_URL", "postgres://postgres@127.0.0.1:1/none")]].concat();
    let (code, printed) = run("check", &wrong).await;
    assert!(code == Some(1) && printed.contains("DATABASE_MIGRATE_URL: "), "{printed}");
    let through = [&given[..], &[("DATABASE_MIGRATE_URL", &*url)]].concat();
    let (code, printed) = run("check", &through).await;
    assert!(code == Some(1) && printed.contains("DATABASE_MIGRATE_URL: "), "{printed}");

    // A pool that is smaller than what a node needs is a warning, and the node works.
    let small = PgBouncer::with(&database, "transaction", "max_db_connections = 4\n").await;
    let url = small.url(&database);
    let given = [("DATABASE_POOLER", "transaction"), ("REDIS_URL", &*redis.url()), ("DATABASE_URL", &*url)];
    let (code, printed) = run("check", &given).await;
    assert!(code == Some(0) && printed.contains("store-pool-small"), "{printed}");
    let (one, two) = (behind(&url, &database, &redis).start().await, behind(&url, &database, &redis).start().await);
    let mut talk = Talk::between(&one, &two).await;
    talk.say(10).await;
    talk.all_is_heard().await;

    // By the statement there are no transactions.
    let by_statement = PgBouncer::before(&database, "statement").await;
    let url = by_statement.url(&database);
    let given = [("DATABASE_POOLER", "transaction"), ("REDIS_URL", &*redis.url()), ("DATABASE_URL", &*url)];
    let (code, printed) = run("check", &given).await;
    assert!(code == Some(1) && printed.contains("store-pooled"), "{printed}");
}

#[tokio::test]
async fn connections_to_a_pooler_that_fall_silent_are_found() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let pooler = PgBouncer::with(&database, "transaction", "").await;
    let proxy = Proxy::to(pooler.address()).await;
    let url = proxy.url(&pooler.url(&database));
    let one = behind(&url, &database, &redis).start().await;
    let two = behind(&pooler.url(&database), &database, &redis).start().await;
    let mut talk = Talk::between(&one, &two).await;
    for _ in 0..3 {
        talk.say(5).await;
        proxy.strand();
        talk.say(1).await;
    }
    one.logged("the connection is dead").await;
    talk.all_is_heard().await;
    is_healthy(&one).await;
}

#[tokio::test]
async fn a_call_that_waits_for_a_lock_behind_a_pooler_is_not_given_up() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let pooler = PgBouncer::with(&database, "transaction", "").await;
    let one = behind(&pooler.url(&database), &database, &redis).start().await;
    let mut talk = Talk::between(&one, &one).await;
    talk.say(1).await;
    let mut client = Postgres::shared().await.connect(database.rsplit('/').next().unwrap()).await;
    let lock = client.transaction().await.unwrap();
    lock.execute("SELECT FROM heads WHERE log = 'team' FOR UPDATE", &[]).await.unwrap();
    tokio::join!(talk.say(1), async {
        tokio::time::sleep(Duration::from_millis(1_600)).await;
        lock.rollback().await.unwrap();
    });
    assert!(!one.log().iter().any(|line| line.contains("got no answer")), "the session is not given up");
    talk.all_is_heard().await;
}

/// Nodes say that nothing answers, and nothing else, for as long as that lasts.
#[tokio::test]
async fn a_pooler_that_is_paused_is_silent_and_nothing_else() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let pooler = PgBouncer::with(&database, "transaction", "admin_users = postgres\n").await;
    let url = pooler.url(&database);
    let one = behind(&url, &database, &redis).start().await;
    let mut talk = Talk::between(&one, &one).await;
    talk.say(3).await;
    is_healthy(&one).await;
    let console = crate::support::connect_to_postgres(&pooler.url("pgbouncer")).await;
    console.simple_query("PAUSE").await.unwrap();
    faulty(&one, "store-silent").await;
    let settings = [("DATABASE_POOLER", "transaction"), ("REDIS_URL", &*redis.url()), ("DATABASE_URL", &*url)];
    let (code, printed) = run("check", &settings).await;
    assert!(code == Some(1) && printed.contains("store-silent") && !printed.contains("store-unreachable"), "{printed}");
    stays_silent(&one).await;
    console.simple_query("RESUME").await.unwrap();
    is_healthy(&one).await;
    talk.say(3).await;
    talk.all_is_heard().await;
    one.assert_never_logged(&["store-unreachable", "too many calls wait"]);
}

#[tokio::test]
async fn a_frozen_postgresql_is_silent_and_nothing_else() {
    let redis = RedisServer::start().await;
    let postgres = Postgres::start(&[]).await;
    let one = serve(&redis.url(), &postgres.database().await).start().await;
    let mut talk = Talk::between(&one, &one).await;
    talk.say(3).await;
    is_healthy(&one).await;
    postgres.pause();
    faulty(&one, "store-silent").await;
    stays_silent(&one).await;
    postgres.resume();
    is_healthy(&one).await;
    talk.say(3).await;
    talk.all_is_heard().await;
    one.assert_never_logged(&["store-unreachable", "too many calls wait"]);
}

/// Looks at the fault of the store for 12 s. A connection that does not open is given up after 5 s.
async fn stays_silent(node: &Node) {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(12) {
        let health = node.admin_get("/api/health").await.json;
        let silent = health["faults"].as_array().unwrap().iter().any(|fault| fault["name"] == "store-silent");
        assert!(silent && !health.to_string().contains("store-unreachable"), "{health}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
