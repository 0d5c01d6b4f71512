//! The backplane against real Redis servers: each test has its own.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "backplane/bus.rs"]
mod bus;
#[path = "backplane/faults.rs"]
mod faults;
#[path = "backplane/limit.rs"]
mod limit;
#[path = "backplane/node.rs"]
mod node;
#[path = "backplane/presence.rs"]
mod presence;
#[path = "backplane/redis.rs"]
mod redis_server;
#[path = "backplane/renewal.rs"]
mod renewal;
