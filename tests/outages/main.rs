//! Redis, PostgreSQL and nodes fail while users chat: no acked message is lost, doubled or out of order.
//!
//! `scene` and `crowd` have the users and checks of what they receive, `answer_blocker` a proxy that loses answers; then one
//! module for each part that fails. This crate is separate because its tests bound answers to fractions of a second, which needs
//! a machine that does little else.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test may panic, and say its figures"
)]
#![allow(unreachable_pub, reason = "parts of one test crate")]

#[path = "../support/mod.rs"]
mod support;

mod answer_blocker;
mod clusters;
mod crowd;
mod deploys;
mod embedded;
mod load;
mod nodes;
mod postgres_faults;
mod redis_faults;
mod scene;
mod sentinels;
mod shards;
