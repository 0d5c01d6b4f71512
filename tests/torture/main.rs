//! Torture test: three nodes, Redis and PostgreSQL under clients of all dialects and of REST, who send, edit, delete,
//! resume, move, and come and go as members while faults overlap; then a checker reads what all clients saw.
//!
//! `make torture` runs it: TORTURE_SECONDS of faults (60), drawn from TORTURE_SEED (random by default), on the Redis that
//! ENGINE names. Reading order: `run` (the phases of a run), `history` (the records), `evidence` and `checker` (the rules),
//! `crowd` (who takes part), `client` with `ear` and `wire` (sockets), `hand` with `rest` (REST), `nemesis` (the plan of
//! faults), `faults` (their injection), `cluster` with `engine` (the nodes and their servers), `broken` (defects that the
//! checker must catch), `stage` and `directed` (scenarios that make one race certain). docs/development/torture.md has the
//! rules and the defects.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on must panic")]
#![allow(unreachable_pub, reason = "parts of one test crate")]

#[path = "../support/mod.rs"]
mod support;

mod broken;
mod checker;
mod checker_tests;
mod client;
mod cluster;
mod crowd;
mod directed;
mod ear;
mod engine;
mod evidence;
mod faults;
mod hand;
mod history;
mod latency;
mod nemesis;
mod operations;
mod orders;
mod report;
mod rest;
mod run;
mod socket;
mod stage;
mod views;
mod wire;

use std::{fmt, str::FromStr, time::Duration};

use engine::Engine;

/// Reads a setting of the test from the environment.
fn setting<T: FromStr<Err: fmt::Display>>(name: &str) -> Option<T> {
    #[expect(clippy::disallowed_methods, reason = "a setting of the test, not of the program")]
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|why| panic!("{name}={text}: {why}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make torture"]
async fn everything_holds_under_torture() {
    let engine: Engine = setting("TORTURE_ENGINE").unwrap_or_default();
    let seed = setting("TORTURE_SEED").unwrap_or_else(rand::random);
    let seconds = setting("TORTURE_SECONDS").unwrap_or(60);
    let run = run::Run::drawn(engine, seed, Duration::from_secs(seconds));
    eprintln!("ENGINE={engine} TORTURE_SEED={seed} TORTURE_SECONDS={seconds}\n{}", run.plan);
    let (evidence, cluster) = run::run(&run).await;
    eprintln!("{}", report::figures(&evidence));
    let violations = checker::check(&evidence);
    if !violations.is_empty() {
        eprintln!("{}", report::failure(&run, &evidence, &violations, &cluster).await);
        // A summary of a failed run shows this message alone.
        panic!("ENGINE={engine} TORTURE_SEED={seed}: {}", report::summary(&violations));
    }
}
