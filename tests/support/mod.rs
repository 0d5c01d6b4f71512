//! What the tests stand on: real servers, a real node, real sockets.
//!
//! Every server is a process of its own on a free port, and ends with the test process, however that ends
//! (see `guard`). Nothing sleeps for luck: readiness is a line in a log, an answer is a frame, and what can only be
//! asked for again and again is asked with [`eventually`], under [`DEADLINE`].
//!
//! | need | take |
//! | --- | --- |
//! | Redis | [`RedisServer::start`] |
//! | a fresh PostgreSQL database | `Postgres::shared().await.database().await` |
//! | a PostgreSQL to kill or freeze | [`Postgres::start`] |
//! | a link that breaks | [`Proxy::to`] in front of either |
//! | a node | [`Node::serve`], [`Node::dev`] |
//! | nginx in front of nodes | [`Nginx::tls`], [`Nginx::plain`] |
//! | a WebSocket | [`Client::native`], [`Client::rooms`], [`Client::connect`]; [`RawClient`] for malformed frames |
//! | the other end of a webhook | [`Receiver::start`] |
//! | Prometheus, with the alerts | [`Prometheus::start`] |
//! | a token | [`token`], [`token_with`] |
#![allow(dead_code, unused_imports, unreachable_pub, reason = "every test crate uses its own part of this")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on must panic")]

mod client;
mod guard;
mod nginx;
mod node;
mod postgres;
mod process;
mod prometheus;
mod proxy;
mod raw;
mod receiver;
mod redis;
mod token;

use std::{future::Future, net::TcpListener, time::Duration};

pub use self::{
    client::Client,
    nginx::{NAME, Nginx, NginxBuilder, Way},
    node::{Answer, Metrics, Node, NodeBuilder},
    postgres::{Postgres, connect as connect_to_postgres},
    process::{Log, Process, Signal, cpu_seconds, resident_bytes},
    prometheus::Prometheus,
    proxy::{Link, Proxy},
    raw::{Frame, RawClient, opcode},
    receiver::{Posted, Reaction, Receiver, sign},
    redis::RedisServer,
    token::{SECRET, token, token_with},
};

/// How long anything may take that a test awaits; generous, since the machine may be busy.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Awaits a future, and panics with `what` when it takes longer than [`DEADLINE`].
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what}: nothing within {DEADLINE:?}"),
    }
}

/// Asks until the answer is `Some`, every few milliseconds, and panics with `what` after [`DEADLINE`].
/// For states that nobody announces, like a metric; everything else has an event to await.
pub async fn eventually<T, F, Fut>(what: &str, mut ask: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let mut pace = tokio::time::interval(Duration::from_millis(10));
    let asking = async {
        loop {
            pace.tick().await;
            if let Some(answer) = ask().await {
                return answer;
            }
        }
    };
    within(what, asking).await
}

/// A port nobody listens on. It lies below the ephemeral range, so that no outgoing connection takes it while its
/// server is down between a kill and a restart.
pub fn free_port() -> u16 {
    for _ in 0..1_000 {
        let port = rand::random_range(12_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between 12000 and 32000");
}
