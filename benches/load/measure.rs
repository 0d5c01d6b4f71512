//! Measurements on a running system: CPU of its parts, Redis' command counts, stored bytes, latencies.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::{
    BenchResult,
    record::Record,
    support::{connect_to_postgres, cpu_seconds},
};

/// Processes and addresses of a node and its servers, as the load generators get them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct World {
    /// The clients' address.
    pub address: std::net::SocketAddr,
    /// Process id of the node or of the bare write loop.
    pub node: u32,
    /// Process ids of the servers of Redis, the masters first; none beside the bare write loop.
    pub redis: Vec<u32>,
    /// Process id of PostgreSQL.
    pub postgres: Option<u32>,
    /// URLs of the masters of Redis.
    pub redis_urls: Vec<String>,
    pub database_url: String,
}

/// CPU seconds used, by part.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Cpu {
    pub node: f64,
    pub redis: f64,
    pub postgres: f64,
    pub load: f64,
}

impl Cpu {
    /// CPU seconds used so far.
    pub fn so_far(world: &World) -> Self {
        Self {
            node: cpu_seconds(world.node),
            redis: world.redis.iter().copied().map(cpu_seconds).sum(),
            postgres: world.postgres.map_or(0.0, cpu_seconds),
            load: cpu_seconds(std::process::id()),
        }
    }

    /// CPU seconds used since `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            node: self.node - earlier.node,
            redis: self.redis - earlier.redis,
            postgres: self.postgres - earlier.postgres,
            load: self.load - earlier.load,
        }
    }

    /// The same, `factor` times.
    pub fn times(self, factor: f64) -> Self {
        let Self { node, redis, postgres, load } = self;
        Self { node: node * factor, redis: redis * factor, postgres: postgres * factor, load: load * factor }
    }

    /// Adds the cost of `units` of work to what is kept: that of the node, and of the servers where it has some.
    pub fn add_to(self, record: &mut Record, what: &str, units: u64) {
        record.cpu(format!("{what}: node"), self.node, units);
        for (name, seconds) in [("Redis", self.redis), ("PostgreSQL", self.postgres)] {
            if seconds != 0.0 {
                record.cpu(format!("{what}: {name}"), seconds, units);
            }
        }
    }

    /// Microseconds of each part per unit of work.
    pub fn micros_per(self, units: u64) -> Self {
        let each = |seconds: f64| seconds * 1e6 / units.max(1) as f64;
        Self { node: each(self.node), redis: each(self.redis), postgres: each(self.postgres), load: each(self.load) }
    }
}

/// Bytes that Redis and PostgreSQL store, and bytes of WAL that PostgreSQL wrote.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Kept {
    pub redis: f64,
    pub postgres: f64,
    pub wal: f64,
}

impl Kept {
    /// Current values.
    pub async fn now(world: &World) -> BenchResult<Self> {
        let mut redis = 0.0;
        for text in infos(world, "memory").await? {
            let used = text.lines().find_map(|line| line.strip_prefix("used_memory:")?.trim().parse::<f64>().ok());
            redis += used.unwrap_or(0.0);
        }
        let database = connect_to_postgres(&world.database_url).await;
        let sql = "SELECT pg_database_size(current_database())::float8, (pg_current_wal_lsn() - '0/0')::float8";
        let row = database.query_one(sql, &[]).await?;
        Ok(Self { redis, postgres: row.get(0), wal: row.get(1) })
    }

    /// Growth since `earlier`, per unit of work.
    pub fn per(self, earlier: Self, units: u64) -> Self {
        let each = |now: f64, before: f64| (now - before) / units.max(1) as f64;
        Self {
            redis: each(self.redis, earlier.redis),
            postgres: each(self.postgres, earlier.postgres),
            wal: each(self.wal, earlier.wal),
        }
    }
}

/// A section of INFO of each master of Redis.
async fn infos(world: &World, section: &str) -> Result<Vec<String>, redis::RedisError> {
    let mut texts = Vec::new();
    for url in &world.redis_urls {
        let mut connection = redis::Client::open(url.as_str())?.get_multiplexed_async_connection().await?;
        texts.push(redis::cmd("INFO").arg(section).query_async(&mut connection).await?);
    }
    Ok(texts)
}

/// Number of calls of each Redis command.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Commands(pub BTreeMap<String, u64>);

impl Commands {
    /// Counts so far, without this measurement's own commands.
    pub async fn so_far(world: &World) -> Result<Self, redis::RedisError> {
        // The commands of this measurement.
        let own = |name: &str| name == "info" || name.starts_with("client|set");
        let mut counts = BTreeMap::<_, u64>::new();
        for text in infos(world, "commandstats").await? {
            for line in text.lines() {
                let Some((name, figures)) = line.strip_prefix("cmdstat_").and_then(|rest| rest.split_once(":calls="))
                else {
                    continue;
                };
                let count = figures.split(',').next().and_then(|count| count.parse::<u64>().ok());
                if !own(name) {
                    *counts.entry(name.to_owned()).or_default() += count.unwrap_or(0);
                }
            }
        }
        Ok(Self(counts))
    }

    /// Calls since `earlier`.
    pub fn since(self, earlier: &Self) -> Self {
        let counts = self.0.into_iter().map(|(name, count)| {
            let before = earlier.0.get(&name).copied().unwrap_or(0);
            (name, count.saturating_sub(before))
        });
        Self(counts.filter(|(_, count)| *count > 0).collect())
    }

    /// Number of all calls.
    pub fn sum(&self) -> u64 {
        self.0.values().sum()
    }

    /// The most frequent commands, per unit.
    pub fn top(&self, units: f64) -> String {
        let mut counts: Vec<_> = self.0.iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let shown = counts.iter().take(8).map(|(name, count)| format!("{name} {:.2}", **count as f64 / units));
        shown.collect::<Vec<_>>().join(", ")
    }
}

/// Quantiles of a latency, in ms.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Latency {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

/// Collects durations of up to a minute.
pub struct Latencies(Histogram<u64>);

impl Latencies {
    /// Makes an empty collection.
    pub fn new() -> Self {
        Self(Histogram::new_with_bounds(1_000, 60_000_000_000, 3).expect("the bounds are in order"))
    }

    /// Adds a duration, in ns.
    pub fn add(&mut self, nanos: u64) {
        self.0.saturating_record(nanos.max(1_000));
    }

    /// Number of durations.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Returns the quantiles.
    pub fn summary(&self) -> Latency {
        let at = |quantile| self.0.value_at_quantile(quantile) as f64 / 1e6;
        Latency { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: self.0.max() as f64 / 1e6 }
    }
}
