//! The servers and nodes of a curve, and the rows with which it begins.

use std::{net::SocketAddr, time::Duration};

use tokio_postgres::Client;

use crate::{
    BenchResult,
    args::Args,
    measure::{Cpu, World},
    redis_servers::RedisServers,
    stack::node_builder,
    support::{Node, Postgres, connect_to_postgres, cpu_seconds, resident_bytes},
};

/// Time for work that follows what was awaited.
const SETTLE: Duration = Duration::from_secs(1);

/// Redis, PostgreSQL and one or more nodes.
pub struct Deployment {
    args: Args,
    settings: Vec<(&'static str, String)>,
    pub nodes: Vec<Node>,
    redis: RedisServers,
    postgres: Postgres,
    database: String,
}

impl Deployment {
    /// Starts everything, with full durability, one node, and `settings` of the nodes.
    pub async fn start(args: &Args, settings: &[(&'static str, String)]) -> Self {
        // Statistics change only where a curve says so.
        let postgres = [("fsync", "on"), ("synchronous_commit", "on"), ("autovacuum", "off"), ("max_wal_size", "8GB")];
        let (redis, postgres) = (RedisServers::start(args.engine).await, Postgres::start(&postgres).await);
        let database = postgres.database().await;
        let settings = settings.to_vec();
        let mut made = Self { args: args.clone(), settings, nodes: Vec::new(), redis, postgres, database };
        made.add_node().await;
        made
    }

    /// Starts one more node.
    pub async fn add_node(&mut self) {
        let node = node_builder(&self.args, &self.redis.url(), &self.database);
        let node = self.settings.iter().fold(node, |node, (name, value)| node.set(name, value));
        self.nodes.push(node.start().await);
    }

    /// Stops all nodes.
    pub async fn stop_nodes(&mut self) {
        for node in self.nodes.drain(..) {
            node.terminate().await;
        }
    }

    /// Replaces all nodes by a new one, whose sessions plan their statements anew.
    pub async fn renew_node(&mut self) {
        self.stop_nodes().await;
        self.add_node().await;
    }

    /// The clients' address of each node.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(Node::address).collect()
    }

    /// CPU seconds used so far; all nodes count as one.
    pub fn cpu(&self) -> Cpu {
        Cpu { node: self.nodes.iter().map(|node| cpu_seconds(node.pid())).sum(), ..Cpu::so_far(&self.world()) }
    }

    /// CPU per second of the idle deployment.
    pub async fn idle(&self, length: Duration) -> Cpu {
        tokio::time::sleep(SETTLE).await;
        let before = self.cpu();
        tokio::time::sleep(length).await;
        self.cpu().since(before).times(1.0 / length.as_secs_f64())
    }

    /// The servers with the first node.
    pub fn world(&self) -> World {
        let node = &self.nodes[0];
        World {
            address: node.address(),
            node: node.pid(),
            redis: self.redis.pids(),
            postgres: Some(self.postgres.pid()),
            redis_urls: self.redis.master_urls(),
            database_url: self.database.clone(),
        }
    }

    /// Resident bytes of all nodes.
    pub fn resident_bytes(&self) -> u64 {
        self.nodes.iter().map(|node| resident_bytes(node.pid())).sum()
    }

    /// A connection to the database.
    pub async fn connect(&self) -> Client {
        connect_to_postgres(&self.database).await
    }

    /// Runs statements.
    pub async fn execute(&self, sql: &str) -> BenchResult<()> {
        Ok(self.connect().await.batch_execute(sql).await?)
    }

    /// Stores users with ids from `{prefix}0` to `{prefix}{count - 1}`. `status` is a code of the store.
    pub async fn add_users(&self, prefix: &str, count: u64, status: i16) -> BenchResult<()> {
        self.execute(&format!(
            "INSERT INTO users (id, name, status) SELECT '{prefix}' || i, 'User ' || i, {status} \
             FROM generate_series(0, {count} - 1) i"
        ))
        .await
    }

    /// Stores closed group conversations with ids from `{prefix}0` to `{prefix}{count - 1}`, without members.
    pub async fn add_groups(&self, prefix: &str, count: u64) -> BenchResult<()> {
        self.execute(&format!(
            "INSERT INTO conversations (id, kind, name, open, created_by, created_at) \
                 SELECT '{prefix}' || i, 0, 'Group ' || i, false, 'filler', now() FROM generate_series(0, {count} - 1) i; \
             INSERT INTO heads (log) SELECT '{prefix}' || i FROM generate_series(0, {count} - 1) i"
        ))
        .await
    }

    /// Stores memberships: `conversation` and `user` are expressions of `i`, which runs from 0 to `count` - 1.
    pub async fn add_members(&self, conversation: &str, user: &str, count: u64) -> BenchResult<()> {
        self.execute(&format!(
            "INSERT INTO members (conversation, user_id) SELECT {conversation}, {user} \
             FROM generate_series(0, {count} - 1) i"
        ))
        .await
    }
}
