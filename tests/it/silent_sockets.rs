//! A user whose sockets are dead is not locked out by them: the silent ones give way to a new one, and only those.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::support::{
    Client, DEADLINE, Link, Node, NodeBuilder, Postgres, Proxy, RedisServer, eventually, token, within,
};

const GAVE_WAY: &str = "switchboard_connections_gave_way_total";

/// Redis and a database for several nodes.
struct World {
    redis: RedisServer,
    database: String,
}

impl World {
    async fn new() -> Self {
        Self { redis: RedisServer::start().await, database: Postgres::shared().await.database().await }
    }

    fn node(&self) -> NodeBuilder {
        patient(Node::serve(&self.redis.url(), &self.database))
    }
}

/// Sockets count as silent after about five seconds, and are closed much later.
fn patient(node: NodeBuilder) -> NodeBuilder {
    node.set("PING_INTERVAL", "2s").set("PONG_TIMEOUT", "40s")
}

fn native(at: SocketAddr) -> String {
    format!("ws://{at}/v1/ws?token={}", token("alice"))
}

/// Opens a socket, or returns the code and the reason of the refusal.
async fn open(url: &str, greeting: &str) -> Result<Client, (u16, String)> {
    let mut client = Client::connect(url).await;
    let first = client.recv_or_close().await?;
    assert_eq!(first["type"], greeting, "{first}");
    Ok(client)
}

/// Opens a socket, once another one of the user has been silent for long enough.
async fn open_at_last(url: &str, greeting: &str) -> Client {
    eventually("a place for a socket", async || match open(url, greeting).await {
        Ok(client) => Some(client),
        Err((code, reason)) => {
            assert_eq!((code, reason.as_str()), (1008, "Too many connections"));
            None
        }
    })
    .await
}

/// Reads a socket until it is closed, so that it answers pings.
fn read(mut client: Client) -> tokio::task::JoinHandle<(u16, String)> {
    tokio::spawn(async move {
        loop {
            if let Ok(Err(close)) = tokio::time::timeout(Duration::from_secs(1), client.recv_or_close()).await {
                return close;
            }
        }
    })
}

async fn gave_way(nodes: &[&Node]) -> f64 {
    let mut sum = 0.0;
    for node in nodes {
        sum += node.metrics().await.get(GAVE_WAY).unwrap();
    }
    sum
}

#[tokio::test]
async fn five_dead_sockets_on_one_node_let_a_sixth_in_on_another() {
    let world = World::new().await;
    let (one, two) = (world.node().start().await, world.node().start().await);
    let proxy = Proxy::to(one.address().to_string()).await;
    let mut dead = Vec::new();
    for _ in 0..5 {
        dead.push(open(&native(proxy.address()), "authenticated").await.unwrap());
    }
    proxy.set(Link::Frozen);
    let sixth = read(open_at_last(&native(two.address()), "authenticated").await);
    assert_eq!(gave_way(&[&one, &two]).await, 1.0, "one is enough");
    for node in [&one, &two] {
        let _next = read(open_at_last(&native(node.address()), "authenticated").await);
    }
    assert!(!sixth.is_finished());
}

#[tokio::test]
async fn a_socket_that_answers_never_gives_way() {
    let world = World::new().await;
    let (one, two) = (world.node().start().await, world.node().start().await);
    let proxy = Proxy::to(one.address().to_string()).await;
    let dead = open(&native(proxy.address()), "authenticated").await.unwrap();
    let mut alive = Vec::new();
    for at in 0..4 {
        let node = if at % 2 == 0 { &one } else { &two };
        alive.push(read(open(&native(node.address()), "authenticated").await.unwrap()));
    }
    proxy.set(Link::Frozen);
    alive.push(read(open_at_last(&native(two.address()), "authenticated").await));
    for node in [&one, &two] {
        let refused = open(&native(node.address()), "authenticated").await.map(drop);
        assert_eq!(refused, Err((1008, "Too many connections".into())));
    }
    assert_eq!(gave_way(&[&one, &two]).await, 1.0);
    assert!(alive.iter().all(|client| !client.is_finished()));
    // It comes back, and finds its place taken.
    proxy.set(Link::Open);
    let (code, reason) = within("the close of the socket", read(dead)).await.unwrap();
    assert_eq!((code, reason.as_str()), (1008, "No answer to ping"));
    assert!(alive.iter().all(|client| !client.is_finished()));
}

#[tokio::test]
async fn dead_sockets_of_one_room_give_way_there() {
    let world = World::new().await;
    let (one, two) = (world.node().start().await, world.node().start().await);
    let proxy = Proxy::to(one.address().to_string()).await;
    let room = |at: SocketAddr, id: &str| format!("ws://{at}/ws/{id}?token={}", token("alice"));
    let (mut dead, mut alive) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        dead.push(open(&room(proxy.address(), "lobby"), "connected").await.unwrap());
        alive.push(read(open(&room(one.address(), "garden"), "connected").await.unwrap()));
    }
    proxy.set(Link::Frozen);
    alive.push(read(open_at_last(&room(two.address(), "lobby"), "connected").await));
    let refused = open(&room(two.address(), "garden"), "connected").await.map(drop);
    assert_eq!(refused, Err((1008, "Too many connections".into())));
    assert!(alive.iter().all(|client| !client.is_finished()));
}

#[tokio::test]
async fn dead_sockets_give_way_on_a_node_without_redis() {
    let node = patient(Node::dev()).start().await;
    let proxy = Proxy::to(node.address().to_string()).await;
    let mut dead = Vec::new();
    for _ in 0..5 {
        dead.push(open(&native(proxy.address()), "authenticated").await.unwrap());
    }
    proxy.set(Link::Frozen);
    open_at_last(&native(node.address()), "authenticated").await;
    assert_eq!(gave_way(&[&node]).await, 1.0);
}

#[tokio::test]
async fn sockets_of_a_node_that_died_take_no_place_once_its_lease_is_out() {
    let world = World::new().await;
    let node = || world.node().set("NODE_LEASE", "3s").start();
    let (one, two) = (node().await, node().await);
    let mut dead = Vec::new();
    for _ in 0..5 {
        dead.push(open(&native(one.address()), "authenticated").await.unwrap());
    }
    one.kill().await;
    let (mut refusals, died) = (Vec::new(), Instant::now());
    loop {
        match open(&native(two.address()), "authenticated").await {
            Ok(_) => break,
            Err((code, _)) => refusals.push(code),
        }
        assert!(died.elapsed() < DEADLINE, "refused with {refusals:?}");
    }
    assert_eq!(gave_way(&[&two]).await, 0.0, "nobody had to give way");
}

#[tokio::test]
async fn a_refusal_finds_dead_sockets_before_their_next_ping() {
    let world = World::new().await;
    let node = || world.node().set("PING_INTERVAL", "1h").set("PONG_TIMEOUT", "3s").start();
    let (one, two) = (node().await, node().await);
    let proxy = Proxy::to(one.address().to_string()).await;
    let dead = open(&native(proxy.address()), "authenticated").await.unwrap();
    let mut alive = Vec::new();
    for _ in 0..4 {
        alive.push(read(open(&native(one.address()), "authenticated").await.unwrap()));
    }
    proxy.set(Link::Frozen);
    alive.push(read(open_at_last(&native(two.address()), "authenticated").await));
    assert_eq!(gave_way(&[&one, &two]).await, 0.0, "the dead socket was closed");
    let silent = r#"switchboard_closes_total{reason="silent"}"#;
    assert_eq!(one.metrics().await.get(silent), Some(1.0));
    assert!(alive.iter().all(|client| !client.is_finished()));
    drop(dead);
}
