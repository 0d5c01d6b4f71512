//! Passwords are changed at the servers, and then in the files of nodes that run.

use std::time::Instant;

use super::*;
use crate::support::{RedisCluster, Replicated, allowed, token};

/// Characters that mean something in a URL, in SQL or in a configuration.
const FIRST: &str = "first: p@ss/w?rd #1&%41 é'\"+";
const SECOND: &str = "planted~second:@/?#[]é\\%";

#[tokio::test]
async fn a_new_password_of_postgresql_is_used_without_a_restart() {
    let rules = "host all all 127.0.0.1/32 scram-sha-256";
    let (postgres, _rules) = postgres_with(rules, &[("password_encryption", "scram-sha-256")]).await;
    let redis = RedisServer::start().await;
    let database = database_of_a_role(&postgres, FIRST).await;
    let url = |login: &str| format!("postgresql://node{login}@127.0.0.1:{}/{database}", postgres.port());
    let (_url, url_file) = secret_file(&url(&format!(":{}", encoded(FIRST))));
    let (_password, password_file) = secret_file(&format!("{FIRST}\n"));
    let one = serve(&redis.url(), "").set("DATABASE_URL_FILE", url_file.display()).start().await;
    let two = serve(&redis.url(), &url("")).set("DATABASE_PASSWORD_FILE", password_file.display()).start().await;
    let mut talk = Talk::between(&one, &two).await;
    talk.say(3).await;

    let admin = postgres.connect("postgres").await;
    admin.batch_execute(&format!("ALTER ROLE node PASSWORD {}", literal(SECOND))).await.unwrap();
    // Connections that work stay.
    talk.say(3).await;
    end_sessions(&postgres).await;
    tokio::join!(talk.say(5), async {
        for (node, variable, file) in
            [(&one, "DATABASE_URL_FILE", &url_file), (&two, "DATABASE_PASSWORD_FILE", &password_file)]
        {
            let says = format!("{variable} ({}) was read again and holds the same login", file.display());
            faulty_with(node, "store-denies-access", &["28P01", &says]).await;
            node.logged("a server refused the login").await;
        }
        std::fs::write(&url_file, url(&format!(":{}", encoded(SECOND)))).unwrap();
        std::fs::write(&password_file, SECOND).unwrap();
    });
    for node in [&one, &two] {
        is_healthy(node).await;
        node.logged("holds a new login").await;
    }
    talk.say(3).await;
    // The password before is tried too, and its refusal does not hide the reason.
    admin.batch_execute("ALTER ROLE node NOLOGIN").await.unwrap();
    end_sessions(&postgres).await;
    for node in [&one, &two] {
        faulty_with(node, "store-denies-access", &["28000", "not permitted to log in"]).await;
    }
    admin.batch_execute("ALTER ROLE node LOGIN").await.unwrap();
    talk.say(3).await;
    talk.all_is_heard().await;
    for node in [&one, &two] {
        assert_eq!(node.terminate().await, 0);
        node.assert_never_logged(&["planted"]);
    }
}

/// Open connections prove nothing of the login, and nobody needs another one any more.
#[tokio::test]
async fn a_login_that_works_again_ends_the_fault_of_a_call_that_nobody_repeats() {
    let (postgres, _rules) = postgres_with("host all all 127.0.0.1/32 trust", &[]).await;
    let redis = RedisServer::start().await;
    let database = database_of_a_role(&postgres, FIRST).await;
    let url = format!("postgresql://node@127.0.0.1:{}/{database}", postgres.port());
    let one = serve(&redis.url(), &url).start().await;
    let mut talk = Talk::between(&one, &one).await;
    talk.say(1).await;
    is_healthy(&one).await;
    let admin = postgres.connect("postgres").await;
    admin.batch_execute("ALTER ROLE node NOLOGIN").await.unwrap();
    // Searches have connections of their own, and none is open yet.
    assert_eq!(one.get("/api/chat/search?q=message", &token("alice")).await.status, 503);
    faulty_with(&one, "store-denies-access", &["28000", "not permitted to log in"]).await;
    assert_eq!(one.admin_get("/api/health").await.json["reasons"], json!(["reads_fail"]));
    talk.say(1).await;
    admin.batch_execute("ALTER ROLE node LOGIN").await.unwrap();
    let mended = Instant::now();
    is_healthy(&one).await;
    assert!(mended.elapsed() < allowed(Duration::from_secs(10)), "{:?}", mended.elapsed());
}

/// Lets a Redis user in with this password, and no other one.
async fn set_password(server: &RedisServer, password: &str) {
    let password = format!(">{password}");
    let () = server.command(&["ACL", "SETUSER", "node", "reset", "on", &password, "~*", "&*", "+@all"]).await;
}

async fn end_connections(server: &RedisServer) {
    let _: redis::Value = server.command(&["CLIENT", "KILL", "USER", "node"]).await;
}

#[tokio::test]
async fn a_new_password_of_redis_is_used_without_a_restart() {
    let redis = RedisServer::start().await;
    set_password(&redis, FIRST).await;
    let database = Postgres::shared().await.database().await;
    let url = |login: &str| format!("redis://node{login}@127.0.0.1:{}", redis.port());
    let (_url, url_file) = secret_file(&url(&format!(":{}", encoded(FIRST))));
    let (_password, password_file) = secret_file(FIRST);
    let node = || serve("", &database).set("NODE_LEASE", "3s");
    let one = node().set("REDIS_URL_FILE", url_file.display()).start().await;
    let two = node().set("REDIS_URL", url("")).set("REDIS_PASSWORD_FILE", password_file.display()).start().await;
    for node in [&one, &two] {
        is_healthy(node).await;
    }
    let mut talk = Talk::between(&one, &two).await;
    talk.say(3).await;

    set_password(&redis, SECOND).await;
    talk.say(3).await;
    end_connections(&redis).await;
    tokio::join!(talk.say(5), async {
        for (node, variable, file) in
            [(&one, "REDIS_URL_FILE", &url_file), (&two, "REDIS_PASSWORD_FILE", &password_file)]
        {
            let says = format!("{variable} ({}) was read again and holds the same login", file.display());
            faulty_with(node, "redis-denies-access", &["WRONGPASS", &says]).await;
            node.logged("a server refused the login").await;
        }
        std::fs::write(&url_file, url(&format!(":{}", encoded(SECOND)))).unwrap();
        std::fs::write(&password_file, SECOND).unwrap();
    });
    for node in [&one, &two] {
        is_healthy(node).await;
    }
    talk.say(3).await;
    talk.all_is_heard().await;
    for node in [&one, &two] {
        assert_eq!(node.terminate().await, 0);
        node.assert_never_logged(&["planted"]);
    }
}

#[tokio::test]
async fn a_new_password_of_sentinels_is_used_without_a_restart() {
    let redis = RedisServer::start().await;
    let sentinel = Replicated::lone_sentinel(&redis).await;
    set_password(&sentinel, FIRST).await;
    let database = Postgres::shared().await.database().await;
    let (_folder, file) = secret_file(FIRST);
    let port = sentinel.port();
    let url = format!("redis+sentinel://127.0.0.1:{port}?sentinel_master_name=chat&sentinel_user=node");
    let node = || serve(&url, &database).set("REDIS_SENTINEL_PASSWORD_FILE", file.display());
    let (one, two) = (node().start().await, node().start().await);
    let mut talk = Talk::between(&one, &two).await;
    talk.say(3).await;
    set_password(&sentinel, SECOND).await;
    end_connections(&sentinel).await;
    for node in [&one, &two] {
        node.metric("switchboard_redis_sentinels_answering", |answering| answering == 0.0).await;
        faulty_with(node, "redis-sentinels-away", &["REDIS_SENTINEL_PASSWORD_FILE", "the same login"]).await;
    }
    talk.say(3).await;
    std::fs::write(&file, SECOND).unwrap();
    for node in [&one, &two] {
        node.metric("switchboard_redis_sentinels_answering", |answering| answering == 1.0).await;
    }
    talk.say(3).await;
    talk.all_is_heard().await;
}

/// The masters are told of the new password one after another. Until all know it, each is given the one that it takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_of_a_cluster_is_used_at_each_master() {
    let cluster = RedisCluster::start(Duration::from_secs(5)).await;
    for server in &cluster.servers {
        set_password(server, FIRST).await;
    }
    let database = Postgres::shared().await.database().await;
    let (_folder, file) = secret_file(FIRST);
    let node = || {
        let node = serve(&cluster.url_with("node@"), &database).set("NODE_LEASE", "3s");
        node.set("REDIS_PASSWORD_FILE", file.display())
    };
    let (one, two) = (node().start().await, node().start().await);
    for node in [&one, &two] {
        is_healthy(node).await;
    }
    let mut talk = Talk::between(&one, &two).await;
    talk.say(3).await;
    set_password(&cluster.servers[0], SECOND).await;
    end_connections(&cluster.servers[0]).await;
    for node in [&one, &two] {
        faulty_with(node, "redis-denies-access", &["REDIS_PASSWORD_FILE"]).await;
    }
    std::fs::write(&file, SECOND).unwrap();
    for node in [&one, &two] {
        is_healthy(node).await;
    }
    talk.say(3).await;
    for server in &cluster.servers[1..] {
        set_password(server, SECOND).await;
        end_connections(server).await;
        talk.say(2).await;
    }
    for node in [&one, &two] {
        is_healthy(node).await;
    }
    talk.say(3).await;
    talk.all_is_heard().await;
}
