//! Addresses as other programs take them.

use crate::support::{Client, Node, Postgres, RedisServer};

#[tokio::test]
async fn a_unix_socket_and_several_hosts_lead_to_postgres() {
    let redis = RedisServer::start().await;
    let folder = tempfile::Builder::new().prefix("pg").tempdir().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(folder.path(), open).unwrap();
    let socket = folder.path().display().to_string();
    let server = Postgres::start(&[("fsync", "off"), ("unix_socket_directories", &socket)]).await;
    let database = server.database().await;
    let (place, name) = database.split_once('@').unwrap().1.split_once('/').unwrap();
    let port = place.rsplit(':').next().unwrap();
    for url in [
        format!("postgres:///{name}?host={socket}&port={port}&user=postgres"),
        // Nothing listens at the first one.
        format!("postgres://postgres@127.0.0.1:1,{place}/{name}?target_session_attrs=read-write"),
    ] {
        let node = Node::serve(&redis.url(), &url).start().await;
        let mut alice = Client::native(&node, "alice").await;
        alice.join("team").await;
        alice.send_text("team", "over this way").await;
        assert_eq!(node.terminate().await, 0);
    }
}

#[tokio::test]
async fn ipv4_and_ipv6_are_served_on_one_port() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let port = crate::support::free_port();
    let both = format!("0.0.0.0:{port},[::]:{port}");
    let _node = Node::serve(&redis.url(), &database).set("LISTEN", both).start().await;
    for host in ["127.0.0.1", "[::1]"] {
        let answer = reqwest::get(format!("http://{host}:{port}/livez")).await.unwrap();
        assert_eq!(answer.status(), 200, "{host}");
    }
}
