//! Forms of REDIS_URL that don't fit what answers: refused at start and by `check`, with the form that would fit.

use std::time::Duration;

use super::*;
use crate::support::{Client, Postgres, RedisCluster, RedisServer, Replicated, eventually};

/// Expects that a node with this URL ends with code 78 and `check` fails, both with these words.
async fn expect_refused(url: &str, words: &[&str]) {
    let database = Postgres::shared().await.database().await;
    let started = Node::serve(url, &database).set("LOG", "trace").try_start().await;
    let (status, log) = started.err().unwrap_or_else(|| panic!("a node started with {url}"));
    assert_eq!(status.code(), Some(78), "{log}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    command.arg("check").env_clear().env("JWT_SECRET", SECRET).env("DATABASE_URL", database).env("REDIS_URL", url);
    let done = within("the check", command.output()).await.unwrap();
    assert!(!done.status.success());
    let printed = String::from_utf8([done.stdout, done.stderr].concat()).unwrap();
    for text in [&log, &printed] {
        assert!(words.iter().all(|word| text.contains(word)), "{words:?}: {text}");
        assert!(!text.contains("planted"), "{text}");
    }
}

#[tokio::test]
async fn the_form_of_one_server_fits_no_cluster_and_no_sentinel() {
    let cluster = RedisServer::with(&["--cluster-enabled", "yes"]).await;
    expect_refused(&cluster.url(), &["cluster mode", "redis+cluster://"]).await;
    // The slots of all keys, as on the only shard of a cluster: nothing that a node writes is refused.
    let _: String = cluster.command(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).await;
    expect_refused(&cluster.url(), &["cluster mode", "redis+cluster://"]).await;
    let sentinel = RedisServer::sentinel().await;
    expect_refused(&sentinel.url(), &["Sentinel", "redis+sentinel://"]).await;
    let database = Postgres::shared().await.database().await;
    for (url, fault) in [(cluster.url(), "redis-is-cluster"), (sentinel.url(), "redis-is-sentinel")] {
        let printed = check(Some(&url), &database).await;
        assert!(printed.contains(&format!("FAIL  Redis: {fault}: ")), "{printed}");
    }
}

#[tokio::test]
async fn the_form_of_a_cluster_fits_no_other_server() {
    let redis = RedisServer::start().await;
    let url = |server: &RedisServer| format!("redis+cluster://127.0.0.1:{}", server.port());
    let words = ["belongs to no cluster", "redis://host:port"];
    expect_refused(&url(&redis), &words).await;
    let sentinel = RedisServer::sentinel().await;
    expect_refused(&url(&sentinel), &words).await;
    let database = Postgres::shared().await.database().await;
    let printed = check(Some(&url(&redis)), &database).await;
    assert!(printed.contains("FAIL  Redis: redis-is-no-cluster: "), "{printed}");
}

#[tokio::test]
async fn the_form_of_sentinels_fits_no_other_server_and_no_other_name() {
    let redis = RedisServer::start().await;
    let url = |ports: &[u16], name: &str| {
        let others: String = ports[1..].iter().map(|port| format!("addr=127.0.0.1:{port}&")).collect();
        format!("redis+sentinel://:planted@127.0.0.1:{}?{others}sentinel_master_name={name}", ports[0])
    };
    expect_refused(&url(&[redis.port()], "chat"), &["is no sentinel", "redis://host:port"]).await;
    let sentinel = Replicated::lone_sentinel(&redis).await;
    expect_refused(&url(&[sentinel.port()], "other"), &["don't know the name other", "they know chat"]).await;
    let empty = RedisServer::sentinel().await;
    expect_refused(&url(&[sentinel.port(), empty.port(), 1], "other"), &["don't know the name other"]).await;
    let database = Postgres::shared().await.database().await;
    for (port, fault) in [(redis.port(), "redis-is-no-sentinel"), (sentinel.port(), "redis-unknown-primary")] {
        let printed = check(Some(&url(&[port], "other")), &database).await;
        assert!(printed.contains(&format!("FAIL  Redis: {fault}: ")), "{printed}");
    }
}

#[tokio::test]
async fn check_names_the_server_that_refuses_the_login() {
    let database = Postgres::shared().await.database().await;
    let mut refused = Vec::new();
    let set = Replicated::start(Duration::from_secs(5)).await;
    refused.push((set.url(), format!("the primary {}", set.servers[0].address())));
    let cluster = RedisCluster::start(Duration::from_secs(5)).await;
    refused.push((cluster.url(), cluster.servers[1].address()));
    for server in [&set.servers[0], &cluster.servers[1]] {
        let _: String = server.command(&["ACL", "SETUSER", "default", "resetpass", ">secret"]).await;
    }
    for (url, place) in refused {
        let printed = check(Some(&url), &database).await;
        assert!(printed.contains(&format!("FAIL  Redis: redis-denies-access: {place}: NOAUTH")), "{printed}");
    }
}

#[tokio::test]
async fn servers_that_are_away_keep_no_node_from_starting() {
    let redis = RedisServer::start().await;
    let sentinel = Replicated::lone_sentinel(&redis).await;
    let (frozen, database) = (RedisServer::sentinel().await, Postgres::shared().await.database().await);
    frozen.pause();
    let [known, silent] = [&sentinel, &frozen].map(RedisServer::port);
    for (url, fault) in [
        ("redis+sentinel://127.0.0.1:1?addr=127.0.0.1:2&sentinel_master_name=chat".to_owned(), "redis-unreachable"),
        (format!("redis+sentinel://127.0.0.1:{silent}?sentinel_master_name=chat"), "redis-unreachable"),
        // One of three says so, and the others may know better.
        (
            format!("redis+sentinel://127.0.0.1:{known}?addr=127.0.0.1:1&addr=127.0.0.1:2&sentinel_master_name=x"),
            "redis-unknown-primary",
        ),
    ] {
        let node = Node::serve(&url, &database).start().await;
        let named = async || faults(&node).await.into_iter().find(|(name, _)| name == fault).map(drop);
        eventually(fault, named).await;
        assert_eq!(node.admin_get("/api/health").await.json["status"], "degraded");
        assert!(check(Some(&url), &database).await.contains(&format!("FAIL  Redis: {fault}: ")));
    }
}

#[tokio::test]
async fn a_socket_and_a_password_in_a_file_lead_to_redis() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, password) = (folder.path().join("redis.sock"), folder.path().join("password"));
    std::fs::write(&password, "pl%61nted/@?\n").unwrap();
    let options = ["--unixsocket", socket.to_str().unwrap(), "--requirepass", "pl%61nted/@?"];
    let redis = RedisServer::with(&options).await;
    let database = Postgres::shared().await.database().await;
    for url in [format!("unix://{}?db=1", socket.display()), redis.url()] {
        let node = Node::serve(&url, &database).set("REDIS_PASSWORD_FILE", password.display()).start().await;
        eventually("the node to be healthy", async || {
            let health = node.admin_get("/api/health").await.json;
            (health["status"] == "healthy").then_some(())
        })
        .await;
        let mut alice = Client::native(&node, "alice").await;
        alice.join("team").await;
        alice.send_text("team", "over this way").await;
        assert_eq!(node.terminate().await, 0);
        node.assert_never_logged(&["pl%61nted", "planted"]);
    }
}
