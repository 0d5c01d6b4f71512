//! Many clients at the same time.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::Barrier,
    task::JoinSet,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Error, Message, protocol::WebSocketConfig},
};

use crate::{
    count,
    support::{Client, Node, Postgres, RedisServer, eventually, token},
};

/// Number of clients that connect at once. `CROWD=10000` tries more; this process and the node then each need that many
/// open files.
#[expect(clippy::disallowed_methods, reason = "a test's own setting, none of the program's")]
fn crowd() -> usize {
    std::env::var("CROWD").map_or(2_000, |crowd| crowd.parse().expect("CROWD is a number"))
}

/// Maximum time for all of them.
const PATIENCE: Duration = Duration::from_secs(60);

type Socket = WebSocketStream<TcpStream>;

/// Reason why a client was not admitted.
#[derive(Debug, PartialEq, Eq)]
enum Refused {
    /// HTTP status of the handshake's answer.
    Status(u16),
    /// Code of the close.
    Close(u16),
    /// The connection ended without an answer.
    Cut,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        match error {
            Error::Http(answer) => {
                assert!(answer.headers().contains_key("retry-after"), "a refusal has Retry-After");
                Self::Status(answer.status().as_u16())
            }
            _ => Self::Cut,
        }
    }
}

impl From<std::io::Error> for Refused {
    fn from(_: std::io::Error) -> Self {
        Self::Cut
    }
}

/// Connects from one of many addresses of this machine, because one address has ports for about 28,000 connections
/// only.
async fn connect(node: SocketAddr, number: usize, user: &str) -> Result<Socket, Refused> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::new(127, 0, 1, (number % 250 + 1) as u8), 0).into())?;
    let stream = socket.connect(node).await?;
    // The default reserves 128 KiB per socket.
    let config = WebSocketConfig::default().read_buffer_size(1_024);
    let url = format!("ws://{node}/v1/ws?token={}", token(user));
    let (mut socket, _) = client_async_with_config(url, stream, Some(config)).await?;
    match socket.next().await {
        Some(Ok(Message::Text(_))) => Ok(socket),
        Some(Ok(Message::Close(Some(close)))) => Err(Refused::Close(close.code.into())),
        _ => Err(Refused::Cut),
    }
}

/// Connects `crowd` users at the same moment and returns the result of each.
async fn connect_all(node: &Node, crowd: usize) -> Vec<Result<Socket, Refused>> {
    let (address, start) = (node.address(), Arc::new(Barrier::new(crowd)));
    let mut coming = JoinSet::new();
    for number in 0..crowd {
        let start = start.clone();
        coming.spawn(async move {
            start.wait().await;
            connect(address, number, &format!("user-{number}")).await
        });
    }
    timeout(PATIENCE, coming.join_all()).await.expect("every client gets an answer")
}

/// Sends requests until `stop`, and returns the longest time that one waited for its answer.
async fn longest_wait(mut client: Client, stop: Arc<tokio::sync::Notify>) -> (Client, Duration) {
    let mut longest = Duration::ZERO;
    loop {
        let asked = Instant::now();
        crate::assert_served(&mut client).await;
        longest = longest.max(asked.elapsed());
        if timeout(Duration::from_millis(20), stop.notified()).await.is_ok() {
            return (client, longest);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_connects_at_once_is_admitted() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let node = Node::serve(&redis.url(), &database).set("PING_INTERVAL", "60s").set("NODE_LEASE", "3s").start().await;
    let stop = Arc::new(tokio::sync::Notify::new());
    let waiting = tokio::spawn(longest_wait(Client::native(&node, "bystander").await, stop.clone()));
    let (crowd, began) = (crowd(), Instant::now());
    let came = connect_all(&node, crowd).await;
    let took = began.elapsed();
    stop.notify_one();
    let (mut bystander, longest) = waiting.await.unwrap();
    let (held, refused): (Vec<_>, Vec<_>) = came.into_iter().partition(Result::is_ok);
    println!("of {crowd}, {} connected within {took:?}; an earlier client waited at most {longest:?}", held.len());
    // If the machine is too slow, the node tells the remaining clients to retry (1013), or their handshakes time out.
    assert!(refused.iter().all(|refused| matches!(refused, Err(Refused::Close(1013) | Refused::Cut))), "{refused:?}");
    assert!(held.len() >= crowd / 2, "{} of {crowd} came in", held.len());
    let now = node.metrics().await;
    assert_eq!(now.get(r#"switchboard_connections{dialect="native"}"#), Some(held.len() as f64 + 1.0));
    assert_eq!(now.sum("switchboard_handshake_refusals_total"), refused.len() as f64);
    let online = || async { redis.command::<usize>(&["SCARD", "ws:online_users"]).await };
    eventually("all connected users to be online", || async { (online().await == held.len() + 1).then_some(()) }).await;
    drop(held);
    node.metric(r#"switchboard_connections{dialect="native"}"#, |open| open == 1.0).await;
    crate::assert_served(&mut bystander).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_nodes_limit_are_refused_and_counted() {
    const LIMIT: usize = 100;
    const CROWD: usize = 500;
    let node = Node::dev().set("MAX_CONNECTIONS", LIMIT).start().await;
    let mut bystander = Client::native(&node, "bystander").await;
    let came = connect_all(&node, CROWD).await;
    let of = |what: Refused| came.iter().filter(|came| came.as_ref().err() == Some(&what)).count();
    let (refused, dropped) = (of(Refused::Status(503)), of(Refused::Cut));
    let mut held: Vec<_> = came.into_iter().filter_map(Result::ok).collect();
    println!("of {CROWD}, {} were admitted, {refused} refused with a retry, {dropped} cut off", held.len());
    assert_eq!(held.len() + refused + dropped, CROWD);
    assert_eq!(held.len(), LIMIT - 1);
    let reason = |reason: &str| format!(r#"switchboard_handshake_refusals_total{{reason="{reason}"}}"#);
    let (full, dropped_sockets) = (count(&node, &reason("node_full")).await, count(&node, &reason("dropped")).await);
    // A client that is slow to send its request may lose its place to another one.
    let cut = dropped_sockets + count(&node, &reason("silent")).await;
    // A refused client may see a reset instead of its 503, if it was still sending when the node closed.
    assert_eq!(full + cut, (CROWD - held.len()) as f64);
    assert!(refused as f64 <= full && full > 0.0, "{refused} of {full}");
    assert_eq!(count(&node, r#"switchboard_connections{dialect="native"}"#).await, LIMIT as f64);
    crate::assert_served(&mut bystander).await;
    held.pop();
    let place = async || connect(node.address(), 0, "late").await.ok();
    eventually("a new client in the free place", place).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_beyond_the_rate_are_refused_with_a_retry() {
    const RATE: usize = 50;
    let node = Node::dev().set("HANDSHAKES_PER_SECOND", RATE).start().await;
    let began = Instant::now();
    let came = connect_all(&node, 400).await;
    let most = RATE as f64 * (2.0 + began.elapsed().as_secs_f64());
    let held = came.iter().filter(|came| came.is_ok()).count();
    let told = came.iter().filter(|came| matches!(came, Err(Refused::Status(429 | 503))));
    assert_eq!(held + told.count(), 400, "each is admitted or refused with a retry");
    assert!(held >= RATE && held as f64 <= most, "{held} were admitted; at most {most} are allowed");
    let refused = r#"switchboard_handshake_refusals_total{reason="handshake_rate"}"#;
    assert_eq!(count(&node, refused).await, (400 - held) as f64);
}
