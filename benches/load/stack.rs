//! The servers that a part measures: a node with Redis and PostgreSQL, or the bare loops beside which it is shown.

use crate::{
    BenchResult,
    args::Args,
    connects,
    connects::Target,
    deliveries,
    measure::World,
    redis_servers::RedisServers,
    support::{Node, NodeBuilder, Postgres, Process, Signal},
    tasks::{Task, command, figures},
};

/// A node and its servers; new for every measurement, so that none is affected by the one before.
pub struct Stack {
    pub redis: RedisServers,
    pub postgres: Postgres,
    pub database: String,
    pub node: Node,
}

impl Stack {
    /// Starts everything. PostgreSQL has full durability.
    pub async fn start(args: &Args) -> Self {
        let redis = RedisServers::start(args.engine).await;
        let postgres = Postgres::start(&[("fsync", "on"), ("synchronous_commit", "on")]).await;
        let database = postgres.database().await;
        let node = node_builder(args, &redis.url(), &database).start().await;
        Self { redis, postgres, database, node }
    }

    /// The addresses and process ids that the load generators need.
    pub fn world(&self) -> World {
        World {
            address: self.node.address(),
            node: self.node.pid(),
            redis: self.redis.pids(),
            postgres: Some(self.postgres.pid()),
            redis_urls: self.redis.master_urls(),
            database_url: self.database.clone(),
        }
    }
}

/// Builds a node with the settings of the benchmark and of its arguments.
pub fn node_builder(args: &Args, redis_url: &str, database_url: &str) -> NodeBuilder {
    // The rate limit is on, but never reached.
    let node = Node::serve(redis_url, database_url).set("MESSAGE_RATE_LIMIT", 1_000_000);
    args.settings.iter().fold(node, |node, (name, value)| node.set(name, value))
}

/// Runs the same connects against the bare handshake loop.
pub async fn bare_handshake_loop(args: &Args) -> BenchResult<connects::Figures> {
    let server = Process::spawn("bare handshake loop", &mut command(&Task::Handshakes)?, Signal::Kill);
    figures(&Task::Connects(args.clone(), bare_world(&server).await?, Target::Bare))
}

/// Runs the same load against the bare write loop.
pub async fn bare_write_loop(args: &Args, rate: u64, sample: &str) -> BenchResult<deliveries::Figures> {
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
        redis: Vec::new(),
        postgres: None,
        redis_urls: Vec::new(),
        database_url: String::new(),
    })
}
