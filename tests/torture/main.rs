//! Torture: three nodes, Redis and PostgreSQL under clients that send, resume and move, while faults overlap; then a
//! checker reads what everybody saw.
//!
//! `make torture` runs it: TORTURE_SECONDS of faults (90), drawn from TORTURE_SEED (a random one). Reading order:
//! `run` (the phases of a run), `history` (what is written down), `evidence` and `checker` (what must hold), `client`,
//! `nemesis` (which faults, when), `faults` (how each is done), `broken` (what is broken on purpose and must be caught).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on must panic")]
#![allow(unreachable_pub, reason = "parts of one test crate")]

#[path = "../support/mod.rs"]
mod support;

mod broken;
mod checker;
mod checker_tests;
mod client;
mod cluster;
mod desk;
mod evidence;
mod faults;
mod history;
mod nemesis;
mod report;
mod run;
mod socket;

use std::time::Duration;

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    #[expect(clippy::disallowed_methods, reason = "a setting of the test, not of the program")]
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make torture"]
async fn everything_holds_under_torture() {
    let seed = setting("TORTURE_SEED").unwrap_or_else(rand::random);
    let seconds = setting("TORTURE_SECONDS").unwrap_or(90);
    let run = run::Run::drawn(seed, Duration::from_secs(seconds));
    eprintln!("TORTURE_SEED={seed} TORTURE_SECONDS={seconds}\n{}", run.plan);
    let (evidence, cluster) = run::run(&run).await;
    eprintln!("{}", report::figures(&evidence));
    let violations = checker::check(&evidence);
    if !violations.is_empty() {
        eprintln!("{}", report::failure(&run, &evidence, &violations, &cluster).await);
        panic!("TORTURE_SEED={seed}: {} violations", violations.len());
    }
}
