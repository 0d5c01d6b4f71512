//! Sentinels and servers with TLS and logins of their own; sentinels that are away, as `check` names them.

use std::path::{Path, PathBuf};

use super::*;
use crate::support::{Client, Postgres, RedisServer, Replicated, eventually, free_port};

/// Makes a CA and a certificate for `localhost` in a folder. Returns the CA's file.
fn certificates(folder: &Path) -> PathBuf {
    let openssl = |words: &str| {
        let run = std::process::Command::new("openssl").args(words.split_whitespace()).current_dir(folder).output();
        let run = run.unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    };
    openssl("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.pem");
    openssl(
        "req -newkey rsa:2048 -nodes -subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout key.pem -out csr.pem",
    );
    openssl("x509 -req -in csr.pem -CA ca.pem -CAkey ca.key -days 2 -copy_extensions copy -out cert.pem");
    folder.join("ca.pem")
}

/// Options for TLS on a port, with these certificates.
fn tls(folder: &Path, port: u16, trusted: &Path) -> Vec<String> {
    let file = |name: &str| folder.join(name).display().to_string();
    let pairs = [
        ("tls-port", port.to_string()),
        ("tls-cert-file", file("cert.pem")),
        ("tls-key-file", file("key.pem")),
        ("tls-ca-cert-file", trusted.display().to_string()),
        ("tls-auth-clients", "no".to_owned()),
        ("tls-replication", "yes".to_owned()),
    ];
    pairs.iter().map(|(name, value)| format!("{name} {value}")).collect()
}

#[tokio::test]
async fn sentinels_and_servers_have_tls_and_logins_of_their_own() {
    let (of_servers, of_sentinels) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (server_ca, sentinel_ca) = (certificates(of_servers.path()), certificates(of_sentinels.path()));
    let (server_port, sentinel_port) = (free_port(), free_port());
    let options: Vec<String> = tls(of_servers.path(), server_port, &server_ca)
        .iter()
        .flat_map(|line| line.split_once(' ').map(|(name, value)| [format!("--{name}"), value.to_owned()]).unwrap())
        .collect();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let redis = RedisServer::with(&options).await;
    let user = "on >planted&@1 +@all ~* &*";
    let words = |name| [vec!["ACL", "SETUSER", name], user.split(' ').collect()].concat();
    let _: String = redis.command(&words("server")).await;
    let _: String = redis.command(&["ACL", "SETUSER", "default", "-@all", "+acl", "+ping"]).await;

    let mut lines = tls(of_sentinels.path(), sentinel_port, &server_ca);
    lines.extend(["sentinel resolve-hostnames yes", "sentinel announce-hostnames yes"].map(str::to_owned));
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let sentinel = RedisServer::sentinel_with(&lines).await;
    let port = server_port.to_string();
    let _: String = sentinel.command(&["SENTINEL", "MONITOR", "chat", "localhost", &port, "1"]).await;
    for (name, value) in [("auth-user", "server"), ("auth-pass", "planted&@1")] {
        let _: String = sentinel.command(&["SENTINEL", "SET", "chat", name, value]).await;
    }
    let watcher = ["ACL", "SETUSER", "watcher", "on", ">planted?2", "+hello", "+subscribe", "&+switch-master"];
    let sentinel_right = ["+sentinel|get-master-addr-by-name", "+sentinel|master", "+sentinel|masters"];
    let _: String = sentinel.command(&[&watcher[..], &sentinel_right].concat()).await;
    let _: String = sentinel.command(&["ACL", "SETUSER", "default", "-@all", "+acl", "+ping"]).await;

    let database = Postgres::shared().await.database().await;
    let url = format!(
        "rediss+sentinel://server:planted%26%401@localhost:{sentinel_port}?sentinel_master_name=chat&sentinel_user=watcher"
    );
    let file = of_servers.path().join("password");
    std::fs::write(&file, "planted?2\n").unwrap();
    let builder = |url: &str| {
        Node::serve(url, &database)
            .set("LOG", "trace")
            .set("REDIS_CA_FILE", server_ca.display())
            .set("REDIS_SENTINEL_CA_FILE", sentinel_ca.display())
    };
    let with_password = format!("{url}&sentinel_password=planted%3F2");
    for node in [builder(&url).set("REDIS_SENTINEL_PASSWORD_FILE", file.display()), builder(&with_password)] {
        let node = node.start().await;
        eventually("the node to be healthy", async || {
            let health = node.admin_get("/api/health").await.json;
            (health["status"] == "healthy").then_some(())
        })
        .await;
        let health = node.admin_get("/api/health").await.json;
        assert_eq!(health["redis"]["primary"], format!("localhost:{server_port}"), "{health}");
        let mut alice = Client::native(&node, "alice").await;
        alice.join("team").await;
        alice.send_text("team", "over TLS").await;
        assert_eq!(node.terminate().await, 0);
        node.assert_never_logged(&["planted"]);
    }
    // Each kind with what belongs to the other one, or without.
    for (url, fault) in [
        (with_password.replace("planted%3F2", "planted"), "redis-denies-access"),
        (with_password.replace("planted%26%401", "planted"), "redis-denies-access"),
        (format!("{with_password}&sentinel_tls=false"), "redis-unreachable"),
    ] {
        let node = builder(&url).start().await;
        let named = async || faults(&node).await.into_iter().find(|(name, _)| name == fault).map(drop);
        eventually(fault, named).await;
        node.kill().await;
        node.assert_never_logged(&["planted"]);
    }
    let swapped = builder(&with_password).set("REDIS_SENTINEL_CA_FILE", server_ca.display()).start().await;
    let named = async || faults(&swapped).await.into_iter().find(|(name, _)| name == "redis-unreachable").map(drop);
    eventually("a certificate that is not trusted", named).await;
}

#[tokio::test]
async fn sentinels_that_are_away_are_named_by_the_check() {
    let redis = RedisServer::start().await;
    let sentinel = Replicated::lone_sentinel(&redis).await;
    let url = |port: u16, more: &str| format!("redis+sentinel://127.0.0.1:{port}?{more}sentinel_master_name=chat");
    let database = Postgres::shared().await.database().await;
    let node = Node::serve(&url(sentinel.port(), ""), &database).start().await;
    let printed = check(Some(&url(sentinel.port(), "")), &database).await;
    assert!(printed.contains("1 of 1 sentinels answer") && !printed.contains("redis-"), "{printed}");
    let printed = check(Some(&url(1, &format!("addr=127.0.0.1:{}&", sentinel.port()))), &database).await;
    let primary = format!("127.0.0.1:{} is the primary of chat", redis.port());
    assert!(printed.contains("ok    Redis: ") && printed.contains(&primary), "{printed}");
    assert!(printed.contains("note  Redis: redis-sentinels-away: 1 of 2 sentinels"), "{printed}");
    let printed = check(Some(&url(1, "addr=127.0.0.1:2&")), &database).await;
    assert!(
        printed.contains("FAIL  Redis: redis-unreachable: ") && printed.contains("redis-sentinels-away"),
        "{printed}"
    );
    drop(node);
}

#[tokio::test]
async fn a_replica_that_sentinels_name_is_not_used() {
    let (primary, replica) = (RedisServer::start().await, RedisServer::start().await);
    let _: String = replica.command(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]).await;
    let sentinel = Replicated::lone_sentinel(&replica).await;
    let url = format!("redis+sentinel://127.0.0.1:{}?sentinel_master_name=chat", sentinel.port());
    let database = Postgres::shared().await.database().await;
    let node = Node::serve(&url, &database).start().await;
    let named = async || faults(&node).await.into_iter().find(|(name, _)| name == "redis-refuses-writes");
    let (_, reason) = eventually("the fault", named).await;
    assert!(reason.contains(&format!("127.0.0.1:{}, which is a slave", replica.port())), "{reason}");
    let printed = check(Some(&url), &database).await;
    assert!(printed.contains("FAIL  Redis: redis-refuses-writes: ") && printed.contains("slave"), "{printed}");
    let _: String = replica.command(&["REPLICAOF", "NO", "ONE"]).await;
    eventually("the node to be healthy", async || {
        (node.admin_get("/api/health").await.json["status"] == "healthy").then_some(())
    })
    .await;
}
