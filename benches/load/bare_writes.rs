//! Bare log writes: the cost of PostgreSQL alone. One prepared INSERT per commit into a table with the columns of a message,
//! at the rate of the sends beside which it is shown.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use rand::RngExt;
use serde::{Deserialize, Serialize};
use tokio::{task::spawn_local, time::Instant};

use crate::{
    BenchResult,
    args::Args,
    measure::{Cpu, Latencies, Latency, World},
    ordinary::{CONTENT, ROOMS, WARM_UP},
    support::{Postgres, connect_to_postgres},
    wire::now,
};

/// Connections that write in turn, so that a slow commit does not hold up the next one.
const CONNECTIONS: usize = 20;

const TABLE: &str = "CREATE TABLE bare_log (log text NOT NULL, seq bigserial, message_no bigint NOT NULL, sender text NOT NULL, \
     sender_name text NOT NULL, dedupe text NOT NULL, content text NOT NULL, created_at timestamptz NOT NULL DEFAULT now(), \
     PRIMARY KEY (log, seq))";

/// Figures of a run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Figures {
    /// The program that wrote.
    pub by: String,
    pub writes: u64,
    pub cpu: Cpu,
    /// Time of a write until its commit is answered.
    pub latency: Latency,
}

/// Writes with `pgbench`; `None` if that program is missing.
pub async fn with_pgbench(args: &Args, world: &World, server: &Postgres) -> BenchResult<Option<Figures>> {
    if !pgbench(server).arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success()) {
        return Ok(None);
    }
    connect_to_postgres(&world.database_url).await.batch_execute(TABLE).await?;
    let script = server.folder().join("bare.sql");
    let insert = format!(
        "\\set room random(1, {ROOMS})\n\\set id random(1, 1000000000)\nINSERT INTO bare_log (log, message_no, sender, \
         sender_name, dedupe, content) VALUES ('ordinary-' || :room, :id, 'bare', 'bare', 'c-' || :id, '{CONTENT}');\n"
    );
    std::fs::write(&script, insert)?;
    let database = world.database_url.rsplit('/').next().unwrap_or_default();
    let seconds = args.seconds + 2 * WARM_UP.as_secs();
    let mut running = pgbench(server)
        .args(["-h", "127.0.0.1", "-U", "postgres", "-n", "-M", "prepared", "--log", "--log-prefix=bare", "-j", "1"])
        .args(["-p", &server.port().to_string(), "-c", &CONNECTIONS.to_string()])
        .args(["-R", &args.sends.to_string(), "-T", &seconds.to_string()])
        .arg("-f")
        .arg(&script)
        .arg(database)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    tokio::time::sleep(WARM_UP).await;
    let (begin, cpu) = (now(), Cpu::so_far(world));
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    let (end, cpu) = (now(), Cpu::so_far(world).since(cpu));
    if !running.wait()?.success() {
        return Err("pgbench failed".into());
    }
    let mut latencies = Latencies::new();
    for latency in logged(server.folder(), begin..end)? {
        latencies.add(latency);
    }
    Ok(Some(Figures { by: "pgbench".into(), writes: latencies.count(), cpu, latency: latencies.summary() }))
}

fn pgbench(server: &Postgres) -> Command {
    server.client_program("pgbench")
}

/// The durations of the transactions that ended in `span`, in ns, without the time that they began too late.
fn logged(folder: &Path, span: std::ops::Range<u64>) -> BenchResult<Vec<u64>> {
    let mut found = Vec::new();
    for file in std::fs::read_dir(folder)?.filter_map(Result::ok) {
        if !file.file_name().to_string_lossy().starts_with("bare.") || file.path().ends_with("bare.sql") {
            continue;
        }
        for line in std::fs::read_to_string(file.path())?.lines() {
            // client, transaction, duration (µs, the lag included), script, end (s), end (µs), lag (µs)
            let fields: Vec<u64> = line.split(' ').filter_map(|field| field.parse().ok()).collect();
            if let [_, _, micros, _, seconds, rest, lag] = fields[..]
                && span.contains(&(seconds * 1_000_000_000 + rest * 1_000))
            {
                found.push(micros.saturating_sub(lag) * 1_000);
            }
        }
    }
    Ok(found)
}

/// Writes from this process, where `pgbench` is missing.
pub async fn run(args: &Args, world: &World) -> BenchResult<Figures> {
    let setup = connect_to_postgres(&world.database_url).await;
    setup.batch_execute(TABLE).await?;
    let latencies = std::rc::Rc::new(std::cell::RefCell::new((false, Latencies::new())));
    let (queue, waiting) = async_queue();
    for _ in 0..CONNECTIONS {
        let client = connect_to_postgres(&world.database_url).await;
        let insert = "INSERT INTO bare_log (log, message_no, sender, sender_name, dedupe, content) \
             VALUES ($1, $2, 'bare', 'bare', $3, $4)";
        let statement = client.prepare(insert).await?;
        let (latencies, waiting) = (latencies.clone(), waiting.clone());
        spawn_local(async move {
            loop {
                let next = waiting.lock().await.recv().await;
                let Some(id) = next else { return };
                let (room, dedupe, began) = (format!("ordinary-{}", id % ROOMS as i64), format!("c-{id}"), now());
                if client.execute(&statement, &[&room, &id, &dedupe, &CONTENT]).await.is_err() {
                    return;
                }
                let mut latencies = latencies.borrow_mut();
                if latencies.0 {
                    latencies.1.add(now() - began);
                }
            }
        });
    }
    let (begin, window) = (Instant::now(), Duration::from_secs(args.seconds));
    let (mut due, mut cpu) = (Duration::ZERO, None);
    while due < WARM_UP + window {
        tokio::time::sleep_until(begin + due).await;
        if cpu.is_none() && due >= WARM_UP {
            latencies.borrow_mut().0 = true;
            cpu = Some(Cpu::so_far(world));
        }
        queue.send(rand::rng().random_range(1..1_000_000_000))?;
        due += gap(args.sends);
    }
    let cpu = Cpu::so_far(world).since(cpu.ok_or("the run was shorter than its warm-up")?);
    let latencies = latencies.borrow();
    Ok(Figures {
        by: "own loop (pgbench is missing)".into(),
        writes: latencies.1.count(),
        cpu,
        latency: latencies.1.summary(),
    })
}

/// A random pause before the next write, so that writes come independently of each other.
fn gap(rate: u64) -> Duration {
    let chance: f64 = rand::rng().random_range(f64::EPSILON..1.0);
    Duration::from_secs_f64(-chance.ln() / rate as f64)
}

type Waiting = std::rc::Rc<tokio::sync::Mutex<tokio::sync::mpsc::UnboundedReceiver<i64>>>;

fn async_queue() -> (tokio::sync::mpsc::UnboundedSender<i64>, Waiting) {
    let (queue, waiting) = tokio::sync::mpsc::unbounded_channel();
    (queue, std::rc::Rc::new(tokio::sync::Mutex::new(waiting)))
}
