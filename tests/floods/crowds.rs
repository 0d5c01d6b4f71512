//! Everybody at once.

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

/// How many come at once. `CROWD=10000` tries more: this process and the node each need so many files.
#[expect(clippy::disallowed_methods, reason = "a test's own setting, none of the program's")]
fn crowd() -> usize {
    std::env::var("CROWD").map_or(2_000, |crowd| crowd.parse().expect("CROWD is a number"))
}

/// How long all of them may take.
const PATIENCE: Duration = Duration::from_secs(60);

type Socket = WebSocketStream<TcpStream>;

/// Why one did not come in.
#[derive(Debug, PartialEq, Eq)]
enum Refused {
    /// The handshake was answered with this status.
    Status(u16),
    /// The socket was closed with this code.
    Close(u16),
    /// Nothing was said.
    Cut,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        match error {
            Error::Http(answer) => {
                assert!(answer.headers().contains_key("retry-after"), "it is told when to come back");
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

/// Connects from one of many addresses of this machine: one has ports for some 28,000 alone.
async fn come(node: SocketAddr, number: usize, user: &str) -> Result<Socket, Refused> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::new(127, 0, 1, (number % 250 + 1) as u8), 0).into())?;
    let stream = socket.connect(node).await?;
    // The default keeps 128 KiB for each.
    let config = WebSocketConfig::default().read_buffer_size(1_024);
    let url = format!("ws://{node}/v1/ws?token={}", token(user));
    let (mut socket, _) = client_async_with_config(url, stream, Some(config)).await?;
    match socket.next().await {
        Some(Ok(Message::Text(_))) => Ok(socket),
        Some(Ok(Message::Close(Some(close)))) => Err(Refused::Close(close.code.into())),
        _ => Err(Refused::Cut),
    }
}

/// So many different users come in the same moment. How each of them fared.
async fn all_at_once(node: &Node, crowd: usize) -> Vec<Result<Socket, Refused>> {
    let (address, start) = (node.address(), Arc::new(Barrier::new(crowd)));
    let mut coming = JoinSet::new();
    for number in 0..crowd {
        let start = start.clone();
        coming.spawn(async move {
            start.wait().await;
            come(address, number, &format!("user-{number}")).await
        });
    }
    timeout(PATIENCE, coming.join_all()).await.expect("all of them are told something")
}

/// The longest that a client who is in already waits for an answer, until `stop`.
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
async fn a_crowd_that_comes_at_once_comes_in() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let node = Node::serve(&redis.url(), &database).set("PING_INTERVAL", "60s").set("NODE_LEASE", "3s").start().await;
    let stop = Arc::new(tokio::sync::Notify::new());
    let waiting = tokio::spawn(longest_wait(Client::native(&node, "bystander").await, stop.clone()));
    let (crowd, began) = (crowd(), Instant::now());
    let came = all_at_once(&node, crowd).await;
    let took = began.elapsed();
    stop.notify_one();
    let (mut bystander, longest) = waiting.await.unwrap();
    let (held, refused): (Vec<_>, Vec<_>) = came.into_iter().partition(Result::is_ok);
    println!("of {crowd}, {} came in within {took:?}; who was in already waited {longest:?} at most", held.len());
    // A machine too slow for all of them tells the rest to try again, and loses nobody's answer.
    assert!(refused.iter().all(|refused| matches!(refused, Err(Refused::Close(1013)))), "{refused:?}");
    assert!(held.len() >= crowd / 2, "{} of {crowd} came in", held.len());
    let now = node.metrics().await;
    assert_eq!(now.get(r#"switchboard_connections{dialect="native"}"#), Some(held.len() as f64 + 1.0));
    assert_eq!(now.sum("switchboard_handshake_refusals_total"), refused.len() as f64);
    let online = || async { redis.command::<usize>(&["SCARD", "ws:online_users"]).await };
    eventually("those who are in to be online", || async { (online().await == held.len() + 1).then_some(()) }).await;
    drop(held);
    node.metric(r#"switchboard_connections{dialect="native"}"#, |open| open == 1.0).await;
    crate::assert_served(&mut bystander).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_a_node_takes_are_turned_away_and_counted() {
    const LIMIT: usize = 100;
    const CROWD: usize = 500;
    let node = Node::dev().set("MAX_CONNECTIONS", LIMIT).start().await;
    let mut bystander = Client::native(&node, "bystander").await;
    let came = all_at_once(&node, CROWD).await;
    let of = |what: Refused| came.iter().filter(|came| came.as_ref().err() == Some(&what)).count();
    let (refused, dropped) = (of(Refused::Status(503)), of(Refused::Cut));
    let mut held: Vec<_> = came.into_iter().filter_map(Result::ok).collect();
    println!("of {CROWD}, {} were let in, {refused} told to come later, {dropped} cut off", held.len());
    assert_eq!(held.len() + refused + dropped, CROWD);
    assert_eq!(held.len(), LIMIT - 1);
    let reason = |reason: &str| format!(r#"switchboard_handshake_refusals_total{{reason="{reason}"}}"#);
    let (full, cut) = (count(&node, &reason("node_full")).await, count(&node, &reason("dropped")).await);
    // One that was to be told may have been cut off by what it had still to say.
    assert_eq!(full + cut, (CROWD - held.len()) as f64);
    assert!(refused as f64 <= full && full > 0.0, "{refused} of {full}");
    assert_eq!(count(&node, r#"switchboard_connections{dialect="native"}"#).await, LIMIT as f64);
    crate::assert_served(&mut bystander).await;
    held.pop();
    let place = async || come(node.address(), 0, "late").await.ok();
    eventually("a place that became free to be taken", place).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_beyond_their_rate_are_told_to_come_later() {
    const RATE: usize = 50;
    let node = Node::dev().set("HANDSHAKES_PER_SECOND", RATE).start().await;
    let began = Instant::now();
    let came = all_at_once(&node, 400).await;
    let most = RATE as f64 * (2.0 + began.elapsed().as_secs_f64());
    let held = came.iter().filter(|came| came.is_ok()).count();
    let told = came.iter().filter(|came| matches!(came, Err(Refused::Status(429 | 503))));
    assert_eq!(held + told.count(), 400, "each is let in or told");
    assert!(held >= RATE && held as f64 <= most, "{held} were let in, where {most} may be");
    let refused = r#"switchboard_handshake_refusals_total{reason="handshake_rate"}"#;
    assert_eq!(count(&node, refused).await, (400 - held) as f64);
}
