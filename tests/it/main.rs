//! Tests against real servers, in one crate, so that `support` is compiled and linked once. Three crates are separate:
//! `outages` measures short times, no other test may run beside a flood (`floods`), and `torture` has its own feature and
//! commands.
//!
//! The tests of one process share PostgreSQL ([`support::Postgres::shared`]), the limit of open files, and as many
//! threads as there are cores. No test changes what the process shares: environment, working folder, signal handlers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test may panic, and print its figures"
)]
#![allow(unreachable_pub, reason = "parts of one test crate")]

#[path = "../support/mod.rs"]
mod support;

mod acl;
mod admin;
mod answers;
mod backplane;
mod budgets;
mod chat;
mod check;
mod cli;
mod clients;
mod cluster_check;
mod console;
mod cursors;
mod dashboards;
mod data;
mod deployments;
mod dev;
mod events;
mod examples;
mod first_minutes;
mod generated_clients;
mod hearing;
mod hints;
mod http;
mod http_connections;
mod idle_memory;
mod limits;
mod list;
mod load;
mod nginx;
mod notifications;
mod page;
mod panics;
mod personal;
mod personas;
mod presence_cost;
mod presence_once;
mod promises;
mod readme;
mod redis_trust;
mod refusals;
mod refused_values;
mod relay;
mod rest;
mod restore;
mod restrictions;
mod retention;
mod reused_ids;
mod rights;
mod rooms;
mod series;
mod serve;
mod servers;
mod set_back;
mod silent_sockets;
mod split;
mod start;
mod store;
mod subjects;
mod support_smoke;
mod sync;
mod transcripts;
mod typing;
mod unfit;
mod unread;
