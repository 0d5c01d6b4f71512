//! The tests against real servers, as one crate, so that `support` is compiled and linked once. Crates of their own are
//! `outages`, which measures short times, `floods`, beside which nothing else may run, and `torture`, which has a
//! feature and commands of its own.
//!
//! The tests of one process share PostgreSQL ([`support::Postgres::shared`]), its open files and as many threads as
//! there are cores. None changes what the process shares: environment, working folder, signals.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test may panic, and say its figures"
)]
#![allow(unreachable_pub, reason = "parts of one test crate")]

#[path = "../support/mod.rs"]
mod support;

mod acl;
mod backplane;
mod chat;
mod check;
mod cli;
mod dashboards;
mod dev;
mod http;
mod limits;
mod nginx;
mod notifications;
mod personas;
mod presence_cost;
mod relay;
mod rest;
mod rights;
mod rooms;
mod seed_clients;
mod serve;
mod store;
mod support_smoke;
mod transcripts;
