//! `make bench`: the cost of a delivery, a durable send, a connect, an idle connection, and of single requests.
//!
//! Starts Redis, PostgreSQL (with fsync) and one node. Each part puts load on them from its own process, so that the
//! CPU time of load and node can be told apart. Prints figures and fails on none of them, because they depend on the
//! machine.
//!
//! Read `deliveries` first, then `floor`, the baseline for it.
#![allow(clippy::print_stdout, clippy::expect_used, reason = "a benchmark prints, and may panic")]
#![allow(unreachable_pub, reason = "as in the library")]

mod args;
mod bare_writes;
mod connects;
mod deliveries;
mod floor;
mod idle;
mod macs;
mod measure;
mod ordinary;
mod report;
mod requests;
mod sends;
#[path = "../../tests/support/mod.rs"]
mod support;
mod wire;

use std::{error::Error, process::Command};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::task::LocalSet;

use self::{
    args::Args,
    connects::Target,
    measure::World,
    support::{Node, Postgres, Process, RedisServer, Signal},
};

/// Result of a part; any error ends the benchmark and is printed.
pub type BenchResult<T> = Result<T, Box<dyn Error>>;

/// Task of a separate process; passed as JSON in its second argument.
#[derive(Debug, Serialize, Deserialize)]
enum Task {
    Idle(Args, World),
    Connects(Args, World, Target),
    Handshakes,
    Deliveries(Args, World, u64),
    Floor(Args, u64, String),
    Ordinary(Args, World),
    BareWrites(Args, World),
    Sends(Args, World),
    Requests(Args, World),
}

/// First argument of such a process.
const TASK: &str = "--task";

fn main() -> BenchResult<()> {
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() == Some(TASK) {
        return perform(serde_json::from_str(&words.next().ok_or("no task")?)?);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run_parts(&Args::read()))
}

/// Runs a task and prints its figures as one line of JSON.
fn perform(task: Task) -> BenchResult<()> {
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
            Task::Ordinary(args, world) => serde_json::to_string(&ordinary::run(args, world).await?)?,
            Task::BareWrites(args, world) => serde_json::to_string(&bare_writes::run(args, world).await?)?,
            Task::Requests(args, world) => serde_json::to_string(&requests::run(args, world).await?)?,
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
fn command(task: &Task) -> BenchResult<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(TASK).arg(serde_json::to_string(task)?);
    Ok(command)
}

/// Runs `task` in a separate process and returns its figures.
fn figures<T: DeserializeOwned>(task: &Task) -> BenchResult<T> {
    let output = command(task)?.stderr(std::process::Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("the load generator ended with {}", output.status).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Runs the parts one after another and prints their figures.
async fn run_parts(args: &Args) -> BenchResult<()> {
    let cores = std::thread::available_parallelism()?;
    println!("{cores} cores, shared by the node, Redis, PostgreSQL and the load; {} s each", args.seconds);
    if args.wants("macs") {
        report::macs(&macs::measure());
    }
    if args.wants("floor") {
        for &rate in &args.rates {
            report::floor(rate, &bare_write_loop(args, rate, &deliveries::sample_frame()).await?);
        }
    }
    if args.wants("idle") {
        let stack = Stack::start(args).await;
        report::idle(&figures(&Task::Idle(args.clone(), stack.world()))?);
    }
    if args.wants("connects") {
        let bare: connects::Figures = bare_handshake_loop(args).await?;
        let stack = Stack::start(args).await;
        let dialects = Target::DIALECTS.map(|target| figures(&Task::Connects(args.clone(), stack.world(), target)));
        report::connects(&bare, &dialects.into_iter().collect::<BenchResult<Vec<_>>>()?);
    }
    if args.wants("deliveries") {
        for &rate in &args.rates {
            let stack = Stack::start(args).await;
            let own: deliveries::Figures = figures(&Task::Deliveries(args.clone(), stack.world(), rate))?;
            drop(stack);
            report::deliveries(rate, &own, &bare_write_loop(args, rate, &own.sample).await?);
        }
    }
    if args.wants("ordinary") {
        let stack = Stack::start(args).await;
        let own: ordinary::Figures = figures(&Task::Ordinary(args.clone(), stack.world()))?;
        let world = stack.world();
        let Stack { node, postgres, .. } = stack;
        drop(node);
        let floor = match bare_writes::with_pgbench(args, &world, &postgres).await? {
            Some(figures) => figures,
            None => figures(&Task::BareWrites(args.clone(), world))?,
        };
        report::ordinary(args.sends, &own, &floor);
    }
    if args.wants("sends") {
        let stack = Stack::start(args).await;
        report::sends(&figures(&Task::Sends(args.clone(), stack.world()))?);
    }
    if args.wants("requests") {
        let stack = Stack::start(args).await;
        report::requests(&figures::<Vec<requests::Figures>>(&Task::Requests(args.clone(), stack.world()))?);
    }
    Ok(())
}

/// A node and its servers; new for every measurement, so that none is affected by the one before.
struct Stack {
    redis: RedisServer,
    postgres: Postgres,
    database: String,
    node: Node,
}

impl Stack {
    /// Starts everything. PostgreSQL has full durability.
    async fn start(args: &Args) -> Self {
        let redis = RedisServer::start().await;
        let postgres = Postgres::start(&[("fsync", "on"), ("synchronous_commit", "on")]).await;
        let database = postgres.database().await;
        let node = Node::serve(&redis.url(), &database);
        // The rate limit is on, but never reached.
        let node = args
            .settings
            .iter()
            .fold(node.set("MESSAGE_RATE_LIMIT", 1_000_000), |node, (name, value)| node.set(name, value));
        let node = node.start().await;
        Self { redis, postgres, database, node }
    }

    fn world(&self) -> World {
        World {
            address: self.node.address(),
            node: self.node.pid(),
            redis: Some(self.redis.pid()),
            postgres: Some(self.postgres.pid()),
            redis_url: self.redis.url(),
            database_url: self.database.clone(),
        }
    }
}

/// Runs the same connects against the bare handshake loop.
async fn bare_handshake_loop(args: &Args) -> BenchResult<connects::Figures> {
    let server = Process::spawn("bare handshake loop", &mut command(&Task::Handshakes)?, Signal::Kill);
    figures(&Task::Connects(args.clone(), bare_world(&server).await?, Target::Bare))
}

/// Runs the same load against the bare write loop.
async fn bare_write_loop(args: &Args, rate: u64, sample: &str) -> BenchResult<deliveries::Figures> {
    let mut command = command(&Task::Floor(args.clone(), rate, sample.into()))?;
    let server = Process::spawn("bare write loop", &mut command, Signal::Kill);
    figures(&Task::Deliveries(args.clone(), bare_world(&server).await?, rate))
}

/// A world without Redis and PostgreSQL, once the server listens.
async fn bare_world(server: &Process) -> BenchResult<World> {
    let listening = |line: &str| line.strip_prefix("listening on ")?.parse().ok();
    Ok(World {
        address: server.line("its address", listening).await?,
        node: server.pid(),
        redis: None,
        postgres: None,
        redis_url: String::new(),
        database_url: String::new(),
    })
}
