//! Growth: what operations cost over the size of what they work on. Each curve states the exponent by which a cost grows
//! beside that of the work itself, so that a cost that grows faster than its work is seen.
//!
//! Each curve has servers and nodes of its own. One operation runs at a time, so that CPU and latency are those of the
//! operation and not of a queue.

mod clients;
mod connections;
mod curve;
mod deployment;
mod followed;
mod logs;
mod members;
mod nodes;
mod requests;
mod users;

use std::{fs, path::Path, time::Duration};

use serde::{Deserialize, Serialize};

pub use self::connections::{Share, hold};
use self::curve::Curve;
use crate::{
    BenchResult,
    args::{Args, CURVES},
    record::Record,
};

/// Part of a cost by which two runs may differ: each measurement is short.
const NOISE: f64 = 0.3;
/// Status of users who are not shown as online, as the store keeps it.
const INVISIBLE: i16 = 3;

/// The file of the curves. A run replaces those that it measures.
#[derive(Default, Serialize, Deserialize)]
struct File {
    curves: Vec<Curve>,
}

impl File {
    /// Adds a curve, or replaces that of an earlier run, and writes the file.
    fn keep(path: &Path, curve: Curve) -> BenchResult<()> {
        let mut file: Self =
            fs::read(path).ok().and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default();
        file.curves.retain(|earlier| earlier.name != curve.name);
        file.curves.push(curve);
        file.curves.sort_by_key(|curve| CURVES.iter().position(|name| *name == curve.name));
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        Ok(fs::write(path, serde_json::to_string_pretty(&file)? + "\n")?)
    }
}

/// Sizes and times of a run.
struct Plan {
    members: &'static [u64],
    followed: &'static [u64],
    connections: &'static [u64],
    nodes: &'static [u64],
    users: &'static [u64],
    log: Vec<u64>,
    /// Length of a measurement, and of one kind of request.
    window: Duration,
    request: Duration,
    /// Lengths of idle measurements: of a node, which compares what it follows once a minute, and of connections.
    minute: Duration,
    pings: Duration,
}

impl Plan {
    fn of(args: &Args) -> Self {
        if args.quick {
            return Self {
                members: &[10, 100, 1_000],
                followed: &[1_000, 5_000],
                connections: &[500, 2_000],
                nodes: &[1, 2],
                users: &[10, 100, 500],
                log: vec![10_000, 100_000.min(args.log_entries)],
                window: Duration::from_secs(2),
                request: Duration::from_millis(500),
                minute: Duration::from_secs(60),
                pings: Duration::from_secs(5),
            };
        }
        let sizes = [1_000_000, 3_000_000, 10_000_000];
        let mut log: Vec<u64> = sizes.into_iter().filter(|&size| size < args.log_entries).collect();
        log.push(args.log_entries);
        Self {
            members: &[10, 100, 1_000, 10_000],
            followed: &[1_000, 10_000, 30_000, 100_000],
            connections: &[1_000, 5_000, 15_000, 50_000],
            nodes: &[1, 2, 3, 4],
            users: &[10, 100, 1_000, 5_000],
            log,
            window: Duration::from_secs(10),
            request: Duration::from_secs(3),
            minute: Duration::from_secs(60),
            // Two intervals.
            pings: Duration::from_secs(50),
        }
    }
}

/// Measures the curves, prints each once it is complete, and writes the file.
pub async fn run(args: &Args) -> BenchResult<Record> {
    let (plan, mut record) = (Plan::of(args), Record::of("growth"));
    println!(
        "\nGrowth: the exponent of each cost over all sizes, that between the last two, and that of the work itself"
    );
    for name in CURVES {
        if !args.curves.is_empty() && !args.curves.iter().any(|wanted| wanted == name) {
            continue;
        }
        let curve = match name {
            "members" => members::run(args, plan.members, plan.window).await?,
            "followed" => followed::run(args, plan.followed, plan.minute).await?,
            "connections" => connections::run(args, plan.connections, plan.pings).await?,
            "nodes" => nodes::run(args, plan.nodes, plan.window).await?,
            "log" => logs::run(args, &plan.log, plan.request).await?,
            _ => users::run(args, plan.users, plan.request).await?,
        };
        print!("{}", curve.table());
        for line in &curve.lines {
            for (size, cost) in &line.points {
                let name = format!("{name} {size}: {}", line.what);
                record.add(name, *cost, &line.unit, cost.abs() * NOISE);
            }
        }
        File::keep(&args.curves_file, curve)?;
    }
    println!("\n  {} has the curves; scripts/curves.py draws them", args.curves_file.display());
    Ok(record)
}
