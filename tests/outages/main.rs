//! Redis, PostgreSQL and nodes die under people who chat: nothing acked is lost, doubled or out of order.
//!
//! `scene` has the people and what they see, `ear` a link that loses answers; then one module for each thing that dies.
//!
//! A crate of its own: these tests hold answers to fractions of a second, which takes a machine that does little else.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test may panic, and say its figures"
)]
#![allow(unreachable_pub, reason = "parts of one test crate")]

#[path = "../support/mod.rs"]
mod support;

mod deploys;
mod ear;
mod embedded;
mod load;
mod nodes;
mod postgres_faults;
mod redis_faults;
mod scene;
