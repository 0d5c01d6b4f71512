//! The tests against real servers, as one crate, so that `support` is compiled and linked once. `floods` and `torture`
//! are crates of their own: nothing else may run beside a flood, and torture has a feature and a command of its own.
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
mod clients;
mod dashboards;
mod deploys;
mod dev;
mod examples;
mod http;
mod limits;
mod nginx;
mod notifications;
mod outages;
mod personas;
mod presence_cost;
mod readme;
mod relay;
mod rest;
mod rights;
mod rooms;
mod serve;
mod store;
mod support_smoke;
mod transcripts;
