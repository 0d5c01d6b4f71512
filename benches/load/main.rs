//! `make bench`: the cost of a delivery, a durable send, a connect, an idle connection, and of single requests.
//!
//! Starts Redis, PostgreSQL (with fsync) and one node. Each part (`parts.rs` lists them) puts load on them from its own
//! process, so that the CPU time of load and node can be told apart. Prints figures and fails on none of them, because
//! they depend on the machine; a file keeps them (`run_file.rs`), so that a later run can be compared.
//!
//! Read `deliveries` first, then `floor`, the baseline for it.
#![allow(clippy::print_stdout, clippy::expect_used, reason = "a benchmark prints, and may panic")]
#![allow(unreachable_pub, reason = "as in the library")]

mod args;
mod bare_writes;
mod compare;
mod connects;
mod deliveries;
mod engines;
mod floor;
mod growth;
mod idle;
mod macs;
mod measure;
mod ordinary;
mod parts;
mod record;
mod redis_servers;
mod report;
mod requests;
mod run_file;
mod sends;
mod soak;
mod stack;
#[path = "../../tests/support/mod.rs"]
mod support;
mod tasks;
mod wire;

use std::{error::Error, process::ExitCode};

/// Result of a part; any error ends the benchmark and is printed.
pub type BenchResult<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let done = match (words.next().as_deref(), words.next()) {
        (Some(tasks::TASK), Some(task)) => serde_json::from_str(&task).map_err(Into::into).and_then(tasks::perform),
        _ => parts::run(&args::Args::read(&parts::ALL.each_ref().map(parts::Part::choice))),
    };
    if let Err(error) = &done {
        eprintln!("{error}");
    }
    ExitCode::from(u8::from(done.is_err()))
}
