//! Samples of what must stay flat.

use tokio::time::Instant;

use crate::{
    BenchResult,
    support::{Node, RedisServer, connect_to_postgres, resident_bytes},
};

/// A quantity over time.
#[derive(Debug, Clone)]
pub struct Series {
    pub name: String,
    pub unit: &'static str,
    /// Seconds since the begin, and value.
    pub points: Vec<(f64, f64)>,
}

/// All series of a run.
pub struct Samples {
    began: Instant,
    pub series: Vec<Series>,
}

impl Samples {
    /// No samples yet; the time of samples counts from now.
    pub fn begin() -> Self {
        Self { began: Instant::now(), series: Vec::new() }
    }

    /// Takes one sample of everything. Redis and PostgreSQL must answer.
    pub async fn take(&mut self, nodes: &[Node], redis: &RedisServer, database: &str) -> BenchResult<()> {
        let at = self.began.elapsed().as_secs_f64();
        for (number, node) in nodes.iter().enumerate() {
            let memory = resident_bytes(node.pid()) as f64 / 1_048_576.0;
            self.add(at, format!("node {number}: memory"), "MiB", memory);
            self.add(at, format!("node {number}: open files"), "files", open_files(node.pid()));
            let tasks = node.metrics().await.get("switchboard_tasks").ok_or("the node counts no tasks")?;
            self.add(at, format!("node {number}: tasks"), "tasks", tasks);
        }
        let keys: u64 = redis.command(&["DBSIZE"]).await;
        self.add(at, "Redis: keys".to_owned(), "keys", keys as f64);
        let channels: Vec<String> = redis.command(&["PUBSUB", "CHANNELS"]).await;
        self.add(at, "Redis: channels".to_owned(), "channels", channels.len() as f64);
        let others = "SELECT count(*)::float8 FROM pg_stat_activity \
             WHERE datname = current_database() AND pid <> pg_backend_pid()";
        let row = connect_to_postgres(database).await.query_one(others, &[]).await?;
        self.add(at, "PostgreSQL: connections".to_owned(), "connections", row.get(0));
        Ok(())
    }

    fn add(&mut self, at: f64, name: String, unit: &'static str, value: f64) {
        match self.series.iter_mut().find(|series| series.name == name) {
            Some(series) => series.points.push((at, value)),
            None => self.series.push(Series { name, unit, points: vec![(at, value)] }),
        }
    }
}

fn open_files(pid: u32) -> f64 {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0.0, |files| files.count() as f64)
}
