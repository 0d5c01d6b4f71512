//! Addresses as other programs take them.

use std::time::Duration;

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    time::sleep,
};

use crate::support::{Client, Node, Postgres, RedisServer};

/// Time that a busy server takes to answer a new connection: more than each of five hosts has for itself, and less than a call
/// waits for a connection.
const BUSY_FOR: Duration = Duration::from_millis(600);

/// Forwards to `server`, each connection after [`BUSY_FOR`]. Returns the address.
async fn busy(server: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let server = server.clone();
            tokio::spawn(async move {
                sleep(BUSY_FOR).await;
                let mut server = TcpStream::connect(server).await.unwrap();
                // It ends with either side.
                let _ended = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    address
}

/// After a failover the new primary is busy with the logins of all nodes, and the former one is gone.
#[tokio::test]
async fn a_host_that_is_slow_to_let_a_node_in_is_used_if_the_others_are_away() {
    let redis = RedisServer::start().await;
    let server = Postgres::shared().await;
    let database = server.database().await;
    let name = database.rsplit('/').next().unwrap();
    let slow = busy(server.address()).await;
    let away = "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3,127.0.0.1:4";
    for hosts in [format!("{away},{slow}"), format!("{slow},{away}")] {
        let url = format!("postgres://postgres@{hosts}/{name}");
        let node = Node::serve(&redis.url(), &url).start().await;
        let mut alice = Client::native(&node, "alice").await;
        alice.join("team").await;
        alice.send_text("team", "over this way").await;
        assert_eq!(node.terminate().await, 0);
    }
}

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
