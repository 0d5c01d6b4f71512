//! `switchboard check` names faults as docs/operations/failure-modes.md does, against servers that have them.

use std::collections::BTreeSet;

use switchboard::degrade::Fault;
use tokio::process::Command;

use crate::support::{Link, Node, Postgres, Proxy, RedisServer, SECRET, Signal, token};

/// Runs `check`; returns its output and exit code.
async fn check(redis: &str, database: &str) -> (String, i32) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    command.arg("check").env_clear().env("JWT_SECRET", SECRET).env("REDIS_URL", redis).env("DATABASE_URL", database);
    let done = crate::support::within("the check", command.output()).await.unwrap();
    (String::from_utf8(done.stdout).unwrap(), done.status.code().unwrap())
}

/// Expects exactly these faults.
async fn expect_faults(redis: &str, database: &str, faults: &[Fault]) {
    let (output, code) = check(redis, database).await;
    let found: BTreeSet<_> = Fault::ALL.iter().map(|fault| fault.name()).filter(|name| output.contains(name)).collect();
    assert_eq!(found, faults.iter().map(|fault| fault.name()).collect(), "{output}");
    let critical = faults.iter().any(|fault| fault.is_critical());
    assert_eq!(code, i32::from(critical), "{output}");
}

fn address(url: &str) -> String {
    let rest = url.split("://").nth(1).unwrap();
    let rest = rest.rsplit('@').next().unwrap();
    rest.split('/').next().unwrap().to_owned()
}

#[tokio::test]
async fn faults_of_redis_are_named() {
    let mut redis = RedisServer::start().await;
    let url = redis.url();
    let database = Postgres::shared().await.database().await;
    let node = Node::serve(&url, &database).set("NODE_LEASE", "3s").start().await;
    expect_faults(&url, &database, &[]).await;

    node.signal(Signal::Stop);
    let dead = || async {
        let nodes: Vec<String> = redis.command(&["ZRANGEBYSCORE", "ws:nodes", "-inf", &in_a_moment()]).await;
        (!nodes.is_empty()).then_some(())
    };
    crate::support::eventually("the lease to be out", dead).await;
    expect_faults(&url, &database, &[Fault::NodeDead]).await;
    node.kill().await;
    let _: i64 = redis.command(&["DEL", "ws:nodes"]).await;

    let set = async |name: &str, value: &str| redis.command::<String>(&["CONFIG", "SET", name, value]).await;
    set("maxmemory", "100mb").await;
    set("maxmemory-policy", "allkeys-lru").await;
    expect_faults(&url, &database, &[Fault::RedisEvicts]).await;
    set("maxmemory-policy", "noeviction").await;
    set("maxmemory", "1").await;
    expect_faults(&url, &database, &[Fault::RedisFull]).await;
    set("maxmemory", "0").await;
    let _: String = redis.command(&["REPLICAOF", "127.0.0.1", "1"]).await;
    expect_faults(&url, &database, &[Fault::RedisRefusesWrites]).await;
    let _: String = redis.command(&["REPLICAOF", "NO", "ONE"]).await;

    // A user who may do everything except publish, as with an outdated ACL.
    let _: String = redis.command(&["ACL", "SETUSER", "mute", "on", ">word", "~*", "&*", "+@all", "-publish"]).await;
    expect_faults(&url.replace("redis://", "redis://mute:word@"), &database, &[Fault::RedisDeniesAccess]).await;
    expect_faults(&url.replace("redis://", "redis://mute:planted@"), &database, &[Fault::RedisDeniesAccess]).await;
    let (output, _) = check(&url.replace("redis://", "redis://mute:planted@"), &database).await;
    assert!(!output.contains("planted"), "{output}");

    let proxy = Proxy::to(address(&url)).await;
    proxy.set(Link::Frozen);
    expect_faults(&proxy.url(&url), &database, &[Fault::RedisSilent]).await;
    redis.kill().await;
    expect_faults(&url, &database, &[Fault::RedisUnreachable]).await;
}

/// Values of another type are named once, with their keys, and are no reason to fail.
#[tokio::test]
async fn values_of_another_type_are_named() {
    let redis = RedisServer::start().await;
    let (url, database) = (redis.url(), Postgres::shared().await.database().await);
    Node::serve(&url, &database).start().await.terminate().await;
    for key in [
        "ws:nodes",
        "ws:node_connections",
        "ws:leaving",
        "ws:online_users",
        "ws:conns:alice",
        "ws:room_users:team",
        "rate_limit:message:alice",
        "room_messages:team",
    ] {
        let _: i64 = redis.command(&["DEL", key]).await;
        let _: String = redis.command(&["SET", key, "foreign"]).await;
        expect_faults(&url, &database, &[Fault::RedisForeignValues]).await;
        let (output, _) = check(&url, &database).await;
        assert_eq!(output.matches(key).count(), 1, "{output}");
        let _: i64 = redis.command(&["DEL", key]).await;
    }
    let _: i64 = redis.command(&["RPUSH", "ws:user:alice", "foreign"]).await;
    expect_faults(&url, &database, &[Fault::RedisForeignValues]).await;
}

/// Each kind of channel that a node uses is tried.
#[tokio::test]
async fn a_user_without_some_channels_is_named() {
    let redis = RedisServer::start().await;
    let (url, database) = (redis.url(), Postgres::shared().await.database().await);
    Node::serve(&url, &database).start().await.terminate().await;
    let kinds = ["n", "h", "c"];
    for lacking in kinds {
        let mut words = vec!["ACL".to_owned(), "SETUSER".to_owned(), lacking.to_owned()];
        words.extend(["on", ">word", "~*", "+@all", "resetchannels"].map(str::to_owned));
        words.extend(kinds.iter().filter(|kind| **kind != lacking).map(|kind| format!("&{{s*}}:*:{kind}:*")));
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let _: String = redis.command(&words).await;
        let limited = url.replace("redis://", &format!("redis://{lacking}:word@"));
        expect_faults(&limited, &database, &[Fault::RedisDeniesAccess]).await;
    }
}

#[tokio::test]
async fn a_redis_without_tls_is_unreachable_with_tls() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    Node::serve(&redis.url(), &database).start().await.terminate().await;
    let url = redis.url().replace("redis://", "rediss://");
    expect_faults(&url, &database, &[Fault::RedisUnreachable]).await;
    let (output, _) = check(&url, &database).await;
    assert!(output.contains("without TLS"), "{output}");
    let proxy = Proxy::to(address(&redis.url())).await;
    proxy.set(Link::Frozen);
    expect_faults(&proxy.url(&url), &database, &[Fault::RedisSilent]).await;
    let node = Node::serve(&url, &database).start().await;
    let named = async || {
        let series = node.metrics().await.get(r#"switchboard_fault{fault="redis-unreachable"}"#);
        (series == Some(1.0)).then_some(())
    };
    crate::support::eventually("the fault's name", named).await;
}

fn in_a_moment() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    now.as_millis().to_string()
}

#[tokio::test]
async fn faults_of_postgres_are_named() {
    let redis = RedisServer::start().await;
    let url = redis.url();
    let mut server = Postgres::start(&[]).await;
    let database = server.database().await;
    expect_faults(&url, &database, &[Fault::StoreNotMigrated]).await;
    let node = Node::serve(&url, &database).start().await;
    expect_faults(&url, &database, &[]).await;

    let name = database.rsplit('/').next().unwrap();
    let admin = server.connect(name).await;
    admin.execute("INSERT INTO alone VALUES ('one', clock_timestamp() + '1 minute')", &[]).await.unwrap();
    expect_faults(&url, &database, &[Fault::NodesRelay]).await;
    admin.execute("DELETE FROM alone", &[]).await.unwrap();

    admin
        .batch_execute(
            "CREATE ROLE onlooker LOGIN PASSWORD 'word'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO onlooker",
        )
        .await
        .unwrap();
    let onlooker = format!("postgres://onlooker:word@{}/{name}", address(&database));
    expect_faults(&url, &onlooker, &[Fault::StoreDeniesAccess]).await;
    admin.batch_execute(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).await.unwrap();
    expect_faults(&url, &database, &[Fault::StoreRefusesWrites]).await;

    assert_eq!(node.get("/api/health", &token("anyone")).await.status, 200, "the node recovers without a restart");
    let proxy = Proxy::to(address(&database)).await;
    proxy.set(Link::Frozen);
    expect_faults(&url, &proxy.url(&database), &[Fault::StoreSilent]).await;
    server.kill().await;
    expect_faults(&url, &database, &[Fault::StoreUnreachable]).await;
}

#[test]
fn every_fault_has_its_section_in_the_documentation() {
    let document = std::fs::read_to_string("docs/operations/failure-modes.md").unwrap();
    let sections: BTreeSet<_> = document.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    assert_eq!(sections, Fault::ALL.iter().map(|fault| fault.name()).collect());
}
