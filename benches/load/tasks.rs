//! The tasks of separate processes: the CPU time of load and node can be told apart.

use std::process::Command;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::task::LocalSet;

use crate::{
    BenchResult, args::Args, bare_writes, connects, connects::Target, deliveries, floor, growth, idle, measure::World,
    requests, sends,
};

/// Task of a separate process; passed as JSON in its second argument.
#[derive(Debug, Serialize, Deserialize)]
pub enum Task {
    Idle(Args, World),
    Connects(Args, World, Target),
    Handshakes,
    Deliveries(Args, World, u64),
    Floor(Args, u64, String),
    BareWrites(Args, World),
    Sends(Args, World),
    Requests(Args, World),
    Hold(growth::Share),
}

/// First argument of such a process.
pub const TASK: &str = "--task";

/// Runs a task and prints its figures as one line of JSON.
pub fn perform(task: Task) -> BenchResult<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let run = async {
        Ok(match &task {
            Task::Idle(args, world) => serde_json::to_string(&idle::run(args, world).await?)?,
            Task::Connects(args, world, target) => serde_json::to_string(&connects::run(args, world, *target).await?)?,
            Task::Handshakes => {
                connects::serve_bare()?;
                String::new()
            }
            Task::Deliveries(args, world, rate) => serde_json::to_string(&deliveries::run(args, world, *rate).await?)?,
            Task::Sends(args, world) => serde_json::to_string(&sends::run(args, world).await?)?,
            Task::BareWrites(args, world) => serde_json::to_string(&bare_writes::run(args, world).await?)?,
            Task::Requests(args, world) => serde_json::to_string(&requests::run(args, world).await?)?,
            Task::Hold(share) => {
                growth::hold(share).await?;
                String::new()
            }
            Task::Floor(args, rate, sample) => {
                floor::serve(args, *rate, sample)?;
                String::new()
            }
        })
    };
    let figures: BenchResult<String> = LocalSet::new().block_on(&runtime, run);
    println!("{}", figures?);
    Ok(())
}

/// Command that runs `task` in a separate process.
pub fn command(task: &Task) -> BenchResult<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(TASK).arg(serde_json::to_string(task)?);
    Ok(command)
}

/// Runs `task` in a separate process and returns its figures.
pub fn figures<T: DeserializeOwned>(task: &Task) -> BenchResult<T> {
    let output = command(task)?.stderr(std::process::Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("the load generator ended with {}", output.status).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}
