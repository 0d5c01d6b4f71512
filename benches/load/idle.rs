//! Idle connections: the cost of opening one and of holding it.

use std::{cell::Cell, rc::Rc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{sync::mpsc, task::spawn_local, time::Instant};

use crate::{
    BenchResult,
    args::Args,
    measure::{Commands, Cpu, Kept, World},
    record::Record,
    support::{resident_bytes, token},
    wire::Socket,
};

/// Connects at a time.
const CONCURRENT_CONNECTS: usize = 64;
/// Open files that each side needs beside the connections.
const SPARE_FILES: usize = 500;

/// Figures of a run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Figures {
    pub connections: u64,
    pub connect_seconds: f64,
    pub connect_cpu: Cpu,
    pub connect_commands: Commands,
    /// Resident bytes that the node gained per connection.
    pub bytes_each: f64,
    /// Bytes that Redis and PostgreSQL gained per connection.
    pub kept_each: Kept,
    pub idle_seconds: f64,
    pub idle_cpu: Cpu,
    pub idle_commands: Commands,
    /// Connections lost while idle.
    pub lost: u64,
}

impl Figures {
    /// The figures for the run's file.
    pub fn record(&self) -> Record {
        let mut record = Record::of("idle");
        let (each, seconds) = (self.connections, self.idle_seconds);
        record.bytes("memory of the node per connection", self.bytes_each);
        record.bytes("Redis per connection", self.kept_each.redis);
        self.connect_cpu.add_to(&mut record, "a connect", each);
        record.rate("connects", each as f64 / self.connect_seconds);
        record.commands("Redis commands per connect", self.connect_commands.sum() as f64 / each.max(1) as f64);
        let commands = self.idle_commands.sum() as f64 / seconds;
        record.add("Redis commands while idle", commands, "per second", commands * 0.2);
        for (name, used) in [("node", self.idle_cpu.node), ("Redis", self.idle_cpu.redis)] {
            let percent = 100.0 * used / seconds;
            record.add(format!("idle: {name}"), percent, "% of a core", percent * 0.5);
        }
        record.faults("connections lost", self.lost);
        record
    }
}

/// Runs the load.
pub async fn run(args: &Args, world: &World) -> BenchResult<Figures> {
    let connections = args.connections.min(file_limit().saturating_sub(SPARE_FILES));
    // Mint the tokens first, because they are not part of a connect.
    let paths: Vec<String> =
        (0..connections).map(|index| format!("/v1/ws?token={}", token(&format!("idle-{index}")))).collect();
    let memory = resident_bytes(world.node);
    let kept = Kept::now(world).await?;
    let commands = Commands::so_far(world).await?;
    let (start, cpu) = (Instant::now(), Cpu::so_far(world));
    let lost = open(paths, world).await?;
    let connect_seconds = start.elapsed().as_secs_f64();
    // Work that follows the greeting is part of a connect.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let connect_cpu = Cpu::so_far(world).since(cpu);
    let connect_commands = Commands::so_far(world).await?.since(&commands);
    let bytes_each = resident_bytes(world.node).saturating_sub(memory) as f64 / connections as f64;

    let kept_each = Kept::now(world).await?.per(kept, connections as u64);
    let commands = Commands::so_far(world).await?;
    let (start, cpu) = (Instant::now(), Cpu::so_far(world));
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    Ok(Figures {
        connections: connections as u64,
        connect_seconds,
        connect_cpu,
        connect_commands,
        bytes_each,
        kept_each,
        idle_seconds: start.elapsed().as_secs_f64(),
        idle_cpu: Cpu::so_far(world).since(cpu),
        idle_commands: Commands::so_far(world).await?.since(&commands),
        lost: lost.get(),
    })
}

/// Opens all connections and leaves each to a task that answers its pings. Returns the counter of lost ones.
async fn open(paths: Vec<String>, world: &World) -> BenchResult<Rc<Cell<u64>>> {
    let lost = Rc::new(Cell::new(0));
    let (done, mut opened) = mpsc::unbounded_channel();
    let expected = paths.len();
    let paths = Rc::new(std::cell::RefCell::new(paths));
    for _ in 0..CONCURRENT_CONNECTS {
        let (paths, lost, done, address) = (Rc::clone(&paths), Rc::clone(&lost), done.clone(), world.address);
        spawn_local(async move {
            while let Some(path) = { paths.borrow_mut().pop() } {
                let opening = async {
                    let socket = Socket::open(address, &path).await?;
                    socket.expect(r#""authenticated""#).await?;
                    Ok::<_, std::io::Error>(socket)
                };
                let opened = opening.await.map(|socket| {
                    let lost = Rc::clone(&lost);
                    spawn_local(async move {
                        while socket.read(|_| {}).await.is_ok() {}
                        lost.set(lost.get() + 1);
                    });
                });
                let _ = done.send(opened);
            }
        });
    }
    for _ in 0..expected {
        opened.recv().await.ok_or("the connecting tasks ended")??;
    }
    Ok(lost)
}

/// Limit of open files of this process; a node started by it has the same limit.
pub fn file_limit() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(1024)
}
