//! Shared test support: real servers, a real node, real sockets.
//!
//! Every server is a separate process on a free port, and ends with the test process, however that ends (see `guard`).
//! Tests don't sleep for a fixed time: a log line shows readiness, a frame shows an answer, and a state that can only
//! be polled is polled with [`eventually`], up to [`DEADLINE`].
//!
//! | need | use |
//! | --- | --- |
//! | Redis | [`RedisServer::start`] |
//! | a primary with a replica and sentinels | [`Replicated::start`] |
//! | a Redis Cluster | [`RedisCluster::start`] |
//! | a fresh PostgreSQL database | `Postgres::shared().await.database().await` |
//! | a PostgreSQL to kill or freeze | [`Postgres::start`] |
//! | a primary with a synchronous standby | [`PostgresPair::start`] |
//! | PgBouncer before a database | [`PgBouncer::before`], [`PgBouncer::with`] |
//! | certificates | [`Authority::new`] |
//! | a link that breaks | [`Proxy::to`] in front of either |
//! | a node | [`Node::serve`], [`Node::dev`] |
//! | nginx in front of nodes | [`Nginx::tls`], [`Nginx::plain`] |
//! | a WebSocket | [`Client::native`], [`Client::rooms`], [`Client::connect`]; [`RawClient`] for malformed frames |
//! | the other end of a webhook | [`Receiver::start`] |
//! | Prometheus, with the alerts | [`Prometheus::start`] |
//! | a token | [`token`], [`token_with`] |
#![allow(dead_code, unused_imports, unreachable_pub, reason = "every test crate uses its own part of this")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on must panic")]

mod certificates;
mod client;
mod guard;
mod nginx;
mod node;
mod pgbouncer;
mod postgres;
mod postgres_pair;
mod process;
mod prometheus;
mod proxy;
mod raw;
mod receiver;
mod redis;
mod redis_cluster;
mod replicated;
mod token;

use std::{future::Future, net::TcpListener, time::Duration};

pub use self::{
    certificates::{Authority, replace},
    client::Client,
    nginx::{NAME, Nginx, NginxBuilder, SourceProxy},
    node::{Answer, Metrics, Node, NodeBuilder},
    pgbouncer::PgBouncer,
    postgres::{Postgres, connect as connect_to_postgres},
    postgres_pair::PostgresPair,
    process::{Log, Process, Signal, cpu_seconds, resident_bytes},
    prometheus::Prometheus,
    proxy::{Link, Proxy},
    raw::{Frame, RawClient, opcode},
    receiver::{HookResponse, ReceivedRequest, Receiver, sign},
    redis::{RedisServer, ask_redis},
    redis_cluster::RedisCluster,
    replicated::{NAME as SENTINEL_NAME, Replicated},
    token::{ADMIN_TOKEN, SECRET, token, token_with},
};

/// Maximum time for anything that a test awaits; generous because the machine may be busy.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The time that a promise of at most `limit` allows on this machine now: longer if more processes want to run than it has
/// cores, because the node and its servers wait for a core too.
pub fn allowed(limit: Duration) -> Duration {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    // "2.03 1.80 1.70 5/150 8800": the average over a minute first; the number that runs now fourth.
    let mut fields = load.split_whitespace();
    let minute: f64 = fields.next().and_then(|field| field.parse().ok()).unwrap_or_default();
    let now = fields.nth(2).and_then(|field| field.split('/').next()?.parse().ok()).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
    limit.mul_f64((minute.max(now) / cores).max(1.0))
}

/// Awaits a future; panics with `what` after [`DEADLINE`].
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what}: nothing within {DEADLINE:?}"),
    }
}

/// Polls every few milliseconds until the answer is `Some`; panics with `what` after [`DEADLINE`]. Use it only for
/// states without an event to await, like a metric.
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

/// Returns a port without a listener. It lies below the ephemeral range, so that no outgoing connection takes it while
/// its server is down between a kill and a restart.
pub fn free_port() -> u16 {
    for _ in 0..1_000 {
        let port = rand::random_range(12_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between 12000 and 32000");
}
