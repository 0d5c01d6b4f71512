//! Durable sends at an ordinary rate: members of many small rooms write at random times, and all members listen. The clients
//! are those of `switchboard load`.

use std::{process::Command, time::Duration};

use serde::Deserialize;
use tokio::time::{Instant, sleep_until};

use crate::{
    BenchResult,
    args::Args,
    bare_writes,
    measure::{Commands, Cpu, World},
    record::Record,
    support::{Process, SECRET, Signal, cpu_seconds},
};

/// Time before measuring begins.
pub const WARM_UP: Duration = Duration::from_secs(3);
/// Number of rooms, and of members of each.
pub const ROOMS: usize = 100;
const MEMBERS: usize = 10;
/// The text of a bare write; the messages are as long.
pub const CONTENT: &str = "A message of the usual length, about as long as people write them.";

/// Figures of a run.
#[derive(Debug)]
pub struct Figures {
    pub seconds: f64,
    /// Messages in the measured time.
    pub sent: u64,
    pub cpu: Cpu,
    pub commands: Commands,
    /// Acks, refusals and latencies, as the load tells them.
    pub told: Told,
}

/// The part of the result of `switchboard load` that is used here.
#[derive(Debug, Deserialize)]
pub struct Told {
    pub sends: Sends,
    pub deliveries: Deliveries,
}

/// The messages; those of the warm-up count too, except in the latencies.
#[derive(Debug, Deserialize)]
pub struct Sends {
    pub due: u64,
    pub stored: u64,
    /// Time from when a message was due until its ack.
    pub ack_ms: Quantiles,
}

/// The messages at their listeners.
#[derive(Debug, Deserialize)]
pub struct Deliveries {
    pub missing: u64,
    pub repeated: u64,
    /// Time from when a message was due until it reached a listener.
    pub ms: Quantiles,
}

/// Quantiles in ms.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Quantiles {
    pub p50: f64,
    pub p99: f64,
}

impl Figures {
    /// The figures for the run's file, beside those of bare writes.
    pub fn record(&self, floor: &bare_writes::Figures) -> Record {
        let mut record = Record::of("ordinary");
        let Told { sends, deliveries } = &self.told;
        self.cpu.add_to(&mut record, "a send", self.sent);
        record.latency("ack", sends.ack_ms.p50, sends.ack_ms.p99);
        record.latency("delivery", deliveries.ms.p50, deliveries.ms.p99);
        record.commands("Redis commands per send", self.commands.sum() as f64 / self.sent.max(1) as f64);
        record.faults("sends without an ack", sends.due.saturating_sub(sends.stored));
        record.faults("deliveries missing or repeated", deliveries.missing + deliveries.repeated);
        record.cpu("bare write: PostgreSQL", floor.cpu.postgres, floor.writes);
        record.latency("bare write", floor.latency.p50, floor.latency.p99);
        let (own, bare) = (self.cpu.micros_per(self.sent), floor.cpu.micros_per(floor.writes));
        record.cpu_ratio("PostgreSQL, send / bare write", own.postgres, bare.postgres);
        record.tail_ratio("p50, ack / bare write", sends.ack_ms.p50, floor.latency.p50);
        record.tail_ratio("p99, ack / bare write", sends.ack_ms.p99, floor.latency.p99);
        record
    }
}

/// Runs the load.
pub async fn run(args: &Args, world: &World) -> BenchResult<Figures> {
    let load = Process::spawn("switchboard load", &mut command(args, world), Signal::Kill);
    load.line("the begin of the load", |line| line.contains(" s of warm-up, ").then_some(())).await?;
    let begin = Instant::now() + WARM_UP;
    sleep_until(begin).await;
    let so_far = || Cpu { load: cpu_seconds(load.pid()), ..Cpu::so_far(world) };
    let (since, cpu, commands) = (Instant::now(), so_far(), Commands::so_far(world).await?);
    sleep_until(begin + Duration::from_secs(args.seconds)).await;
    let (seconds, cpu) = (since.elapsed().as_secs_f64(), so_far().since(cpu));
    let commands = Commands::so_far(world).await?.since(&commands);
    // It fails if something is missing; the figures say so.
    load.ended().await;
    let said = load.log();
    let result: String =
        said.iter().filter(|line| !line.starts_with("load: ")).map(|line| format!("{line}\n")).collect();
    let told = serde_json::from_str(&result).map_err(|error| format!("switchboard load: {error}: {result}"))?;
    Ok(Figures { seconds, sent: args.sends * args.seconds, cpu, commands, told })
}

fn command(args: &Args, world: &World) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    command.env_clear().env("JWT_SECRET", SECRET).arg("load");
    let url = format!("ws://{}", world.address);
    let options = [
        ("--url", url),
        ("--users", (ROOMS * MEMBERS).to_string()),
        ("--rooms", ROOMS.to_string()),
        ("--rate", args.sends.to_string()),
        ("--seconds", args.seconds.to_string()),
        ("--warm-up", WARM_UP.as_secs().to_string()),
        ("--connects", "1000".to_owned()),
        ("--bytes", CONTENT.len().to_string()),
        ("--arrivals", "random".to_owned()),
    ];
    for (name, value) in options {
        command.args([name, &value]);
    }
    command.arg("--json");
    command
}
