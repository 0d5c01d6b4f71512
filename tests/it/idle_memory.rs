//! Memory of an idle connection: a node that holds many has little else.

use futures_util::{StreamExt, stream};

use crate::support::{Node, Postgres, RawClient, RedisServer, resident_bytes, token};

/// Connections that are measured. Those before them let the node allocate what it has once.
const CONNECTIONS: usize = 1_500;
const WARM_UP: usize = 500;
/// Connects at a time.
const CONCURRENT: usize = 32;
/// Maximum resident bytes of a connection. A build without optimisation needs 4.9 KiB; the rest is for the allocator.
const MOST_BYTES: u64 = 6 * 1_024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_takes_little_memory() {
    let redis = RedisServer::start().await;
    let node = Node::serve(&redis.url(), &Postgres::shared().await.database().await).start().await;
    let _warm = open(&node, 0..WARM_UP).await;
    let before = resident_bytes(node.pid());
    let _open = open(&node, WARM_UP..WARM_UP + CONNECTIONS).await;
    let each = resident_bytes(node.pid()).saturating_sub(before) / CONNECTIONS as u64;
    assert!(each > 1_024, "the measurement is wrong: {each} bytes");
    assert!(each < MOST_BYTES, "an idle connection takes {each} bytes");
}

/// Opens connections of one user each, and awaits their greetings.
async fn open(node: &Node, users: std::ops::Range<usize>) -> Vec<RawClient> {
    let connect = |user| async move {
        let path = format!("/v1/ws?token={}", token(&format!("idle-{user}")));
        let mut client = RawClient::open(node.address(), &path).await;
        client.read_frame().await.expect("the node greets");
        client
    };
    stream::iter(users).map(connect).buffer_unordered(CONCURRENT).collect().await
}
