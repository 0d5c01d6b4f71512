//! What is read off a running system: CPU of its parts, Redis' command counts, what is kept, latencies.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::{
    BenchResult,
    support::{connect_to_postgres, cpu_seconds},
};

/// The processes of a node's world, as the load generators are told them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct World {
    /// Where clients connect.
    pub address: std::net::SocketAddr,
    /// The node, or the bare write loop.
    pub node: u32,
    /// Redis and PostgreSQL; none beside the bare write loop.
    pub redis: Option<u32>,
    pub postgres: Option<u32>,
    pub redis_url: String,
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
    /// What was used so far.
    pub fn so_far(world: &World) -> Self {
        Self {
            node: cpu_seconds(world.node),
            redis: world.redis.map_or(0.0, cpu_seconds),
            postgres: world.postgres.map_or(0.0, cpu_seconds),
            load: cpu_seconds(std::process::id()),
        }
    }

    /// What was used since `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            node: self.node - earlier.node,
            redis: self.redis - earlier.redis,
            postgres: self.postgres - earlier.postgres,
            load: self.load - earlier.load,
        }
    }

    /// Microseconds of each part per unit of work.
    pub fn micros_per(self, units: u64) -> Self {
        let each = |seconds: f64| seconds * 1e6 / units.max(1) as f64;
        Self { node: each(self.node), redis: each(self.redis), postgres: each(self.postgres), load: each(self.load) }
    }
}

/// Bytes that Redis and PostgreSQL keep, and that PostgreSQL wrote ahead.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Kept {
    pub redis: f64,
    pub postgres: f64,
    pub wal: f64,
}

impl Kept {
    /// What is kept now.
    pub async fn now(world: &World) -> BenchResult<Self> {
        let mut connection = redis::Client::open(world.redis_url.as_str())?.get_multiplexed_async_connection().await?;
        let text: String = redis::cmd("INFO").arg("memory").query_async(&mut connection).await?;
        let redis = text.lines().find_map(|line| line.strip_prefix("used_memory:")?.trim().parse().ok());
        let database = connect_to_postgres(&world.database_url).await;
        let sql = "SELECT pg_database_size(current_database())::float8, (pg_current_wal_lsn() - '0/0')::float8";
        let row = database.query_one(sql, &[]).await?;
        Ok(Self { redis: redis.unwrap_or(0.0), postgres: row.get(0), wal: row.get(1) })
    }

    /// What came since `earlier`, per unit of work.
    pub fn per(self, earlier: Self, units: u64) -> Self {
        let each = |now: f64, before: f64| (now - before) / units.max(1) as f64;
        Self {
            redis: each(self.redis, earlier.redis),
            postgres: each(self.postgres, earlier.postgres),
            wal: each(self.wal, earlier.wal),
        }
    }
}

/// How often Redis ran each command.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Commands(pub BTreeMap<String, u64>);

impl Commands {
    /// The counts so far, without the `INFO` that asks for them.
    pub async fn so_far(world: &World) -> Result<Self, redis::RedisError> {
        if world.redis.is_none() {
            return Ok(Self::default());
        }
        let mut connection = redis::Client::open(world.redis_url.as_str())?.get_multiplexed_async_connection().await?;
        let text: String = redis::cmd("INFO").arg("commandstats").query_async(&mut connection).await?;
        let counts = text.lines().filter_map(|line| {
            let (name, figures) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            Some((name.to_owned(), figures.split(',').next()?.parse().ok()?))
        });
        // What this look itself runs.
        let own = |name: &str| name == "info" || name.starts_with("client|set");
        Ok(Self(counts.filter(|(name, _)| !own(name)).collect()))
    }

    /// What was run since `earlier`.
    pub fn since(self, earlier: &Self) -> Self {
        let counts = self.0.into_iter().map(|(name, count)| {
            let before = earlier.0.get(&name).copied().unwrap_or(0);
            (name, count.saturating_sub(before))
        });
        Self(counts.filter(|(_, count)| *count > 0).collect())
    }

    /// All of them.
    pub fn sum(&self) -> u64 {
        self.0.values().sum()
    }

    /// The most frequent ones, per unit.
    pub fn top(&self, units: f64) -> String {
        let mut counts: Vec<_> = self.0.iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let shown = counts.iter().take(8).map(|(name, count)| format!("{name} {:.2}", **count as f64 / units));
        shown.collect::<Vec<_>>().join(", ")
    }
}

/// Quantiles of a latency, milliseconds.
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
    /// None yet.
    pub fn new() -> Self {
        Self(Histogram::new_with_bounds(1_000, 60_000_000_000, 3).expect("the bounds are in order"))
    }

    /// Adds one, nanoseconds.
    pub fn add(&mut self, nanos: u64) {
        self.0.saturating_record(nanos.max(1_000));
    }

    /// The quantiles.
    pub fn summary(&self) -> Latency {
        let at = |quantile| self.0.value_at_quantile(quantile) as f64 / 1e6;
        Latency { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: self.0.max() as f64 / 1e6 }
    }
}
