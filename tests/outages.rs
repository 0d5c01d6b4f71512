//! Redis, PostgreSQL and nodes die under people who chat: nothing acked is lost, doubled or out of order.
//!
//! `scene` has the people and what they see, `ear` a link that loses answers; then one module for each thing that dies.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on must panic")]

#[path = "outages/ear.rs"]
mod ear;
#[path = "outages/embedded.rs"]
mod embedded;
#[path = "outages/load.rs"]
mod load;
#[path = "outages/nodes.rs"]
mod nodes;
#[path = "outages/postgres.rs"]
mod postgres_faults;
#[path = "outages/redis.rs"]
mod redis_faults;
#[path = "outages/scene.rs"]
mod scene;
mod support;
