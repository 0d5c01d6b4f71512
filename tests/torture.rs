//! Torture: three nodes, Redis and PostgreSQL under clients that send, resume and move, while faults overlap; then a
//! checker reads what everybody saw.
//!
//! `make torture` runs it: TORTURE_SECONDS of faults (90), drawn from TORTURE_SEED (a random one). Reading order:
//! `run` (the phases of a run), `history` (what is written down), `checker` (what must hold), `client`, `nemesis`
//! (which faults, when), `faults` (how each is done), `broken` (nodes broken on purpose, which must be caught).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on must panic")]
#![allow(unreachable_pub, reason = "parts of one test crate")]

mod support;

#[path = "torture/checker.rs"]
mod checker;
#[path = "torture/checker_tests.rs"]
mod checker_tests;
#[path = "torture/history.rs"]
mod history;
