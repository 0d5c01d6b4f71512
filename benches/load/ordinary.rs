//! Durable sends at an ordinary rate: members of many small rooms write at random times, and all members listen.

use std::{cell::RefCell, collections::HashMap, rc::Rc, time::Duration};

use rand::RngExt;
use serde::{Deserialize, Serialize};
use tokio::{task::spawn_local, time::Instant};

use crate::{
    BenchResult,
    args::Args,
    bare_writes,
    measure::{Commands, Cpu, Latencies, Latency, World},
    record::Record,
    support::token,
    wire::{self, Socket},
};

/// Time before measuring begins.
pub const WARM_UP: Duration = Duration::from_secs(3);
/// Number of rooms, and of members of each.
pub const ROOMS: usize = 100;
const MEMBERS: usize = 10;
/// The text of every message.
pub const CONTENT: &str = "A message of the usual length, about as long as people write them.";

/// Figures of a run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Figures {
    pub seconds: f64,
    pub sent: u64,
    pub acked: u64,
    pub errors: u64,
    pub cpu: Cpu,
    pub commands: Commands,
    /// Time from a send to its ack.
    pub latency: Latency,
}

impl Figures {
    /// What is kept of them, beside those of bare writes.
    pub fn record(&self, floor: &bare_writes::Figures) -> Record {
        let mut record = Record::of("ordinary");
        self.cpu.add_to(&mut record, "a send", self.sent);
        record.latency("ack", self.latency.p50, self.latency.p99);
        record.commands("Redis commands per send", self.commands.sum() as f64 / self.sent.max(1) as f64);
        record.faults("sends without an ack", self.sent.saturating_sub(self.acked));
        record.cpu("bare write: PostgreSQL", floor.cpu.postgres, floor.writes);
        record.latency("bare write", floor.latency.p50, floor.latency.p99);
        let (own, bare) = (self.cpu.micros_per(self.sent), floor.cpu.micros_per(floor.writes));
        record.cpu_ratio("PostgreSQL, send / bare write", own.postgres, bare.postgres);
        record.tail_ratio("p50, ack / bare write", self.latency.p50, floor.latency.p50);
        record.tail_ratio("p99, ack / bare write", self.latency.p99, floor.latency.p99);
        record
    }
}

#[derive(Default)]
struct Progress {
    /// Send times of the messages under way, by their `ref`.
    under_way: HashMap<u64, u64>,
    /// The first message that counts.
    first: u64,
    latency: Option<Latencies>,
    acked: u64,
    errors: u64,
}

impl Progress {
    fn receive(&mut self, payload: &[u8]) {
        let is = |kind: &[u8]| payload.windows(kind.len()).any(|bytes| bytes == kind);
        if is(br#""type":"message""#) {
            return;
        }
        let text = String::from_utf8_lossy(payload);
        let Some(number) = wire::number(&text, r#""ref":"#) else { return };
        let (Some(sent), Some(latency)) = (self.under_way.remove(&number), &mut self.latency) else { return };
        if number < self.first {
            return;
        }
        if text.contains(r#""type":"ack""#) {
            self.acked += 1;
            latency.add(wire::now().saturating_sub(sent));
        } else {
            self.errors += 1;
        }
    }
}

/// A random pause before the next send, so that sends come independently of each other.
pub fn gap(rate: u64) -> Duration {
    let chance: f64 = rand::rng().random_range(f64::EPSILON..1.0);
    Duration::from_secs_f64(-chance.ln() / rate as f64)
}

/// Runs the load.
pub async fn run(args: &Args, world: &World) -> BenchResult<Figures> {
    let progress = Rc::new(RefCell::new(Progress::default()));
    let mut sockets = Vec::with_capacity(ROOMS * MEMBERS);
    for index in 0..ROOMS * MEMBERS {
        let socket =
            Socket::open(world.address, &format!("/v1/ws?token={}", token(&format!("member-{index}")))).await?;
        socket.expect(r#""authenticated""#).await?;
        let join = format!(r#"{{"type":"join","conversation_id":"ordinary-{}","ref":0}}"#, index % ROOMS);
        socket.write(&wire::text(&join)).await?;
        socket.expect(r#""joined""#).await?;
        let (socket, progress) = (Rc::new(socket), Rc::clone(&progress));
        sockets.push(Rc::clone(&socket));
        spawn_local(
            async move { while socket.read(|payload| progress.borrow_mut().receive(payload)).await.is_ok() {} },
        );
    }
    let (begin, window) = (Instant::now(), Duration::from_secs(args.seconds));
    let (mut due, mut number, mut start) = (Duration::ZERO, 1_u64, None);
    while due < WARM_UP + window {
        tokio::time::sleep_until(begin + due).await;
        if start.is_none() && due >= WARM_UP {
            let commands = Commands::so_far(world).await?;
            let mut progress = progress.borrow_mut();
            (progress.first, progress.latency) = (number, Some(Latencies::new()));
            start = Some((Instant::now(), number, Cpu::so_far(world), commands));
        }
        let index = rand::rng().random_range(0..sockets.len());
        let frame = format!(
            r#"{{"type":"send","conversation_id":"ordinary-{}","content":"{CONTENT}","client_id":"c-{number}","ref":{number}}}"#,
            index % ROOMS
        );
        progress.borrow_mut().under_way.insert(number, wire::now());
        sockets[index].write(&wire::text(&frame)).await?;
        number += 1;
        due += gap(args.sends);
    }
    let (since, first, cpu, commands) = start.ok_or("the run was shorter than its warm-up")?;
    let (seconds, cpu) = (since.elapsed().as_secs_f64(), Cpu::so_far(world).since(cpu));
    let commands = Commands::so_far(world).await?.since(&commands);
    // Wait for late acks.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let progress = progress.borrow();
    let latency = progress.latency.as_ref().map(Latencies::summary).unwrap_or_default();
    Ok(Figures {
        seconds,
        sent: number - first,
        acked: progress.acked,
        errors: progress.errors,
        cpu,
        commands,
        latency,
    })
}
