//! Durable sends at full speed: every sender keeps a window of messages under way, each with a `client_id`.

use std::{cell::RefCell, collections::HashMap, rc::Rc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{task::spawn_local, time::Instant};

use crate::{
    BenchResult,
    args::Args,
    engines::{each_server, each_since},
    measure::{Commands, Cpu, Kept, Latencies, Latency, World},
    record::Record,
    support::token,
    wire::{self, Socket},
};

/// Time before measuring begins.
const WARM_UP: Duration = Duration::from_secs(2);

/// Figures of a run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Figures {
    pub seconds: f64,
    pub acked: u64,
    pub cpu: Cpu,
    /// CPU seconds of each server of Redis.
    pub redis_each: Vec<f64>,
    pub commands: Commands,
    /// Bytes that Redis and PostgreSQL gained per message.
    pub kept_each: Kept,
    /// Time from a send to its ack.
    pub latency: Latency,
    /// Errors by code, warm-up included.
    pub errors: HashMap<String, u64>,
}

impl Figures {
    /// The figures for the run's file.
    pub fn record(&self) -> Record {
        let mut record = Record::of("sends");
        record.rate("acked", self.acked as f64 / self.seconds);
        self.cpu.add_to(&mut record, "a send", self.acked);
        record.latency("ack", self.latency.p50, self.latency.p99);
        record.commands("Redis commands per send", self.commands.sum() as f64 / self.acked.max(1) as f64);
        record.bytes("PostgreSQL per send", self.kept_each.postgres);
        record.bytes("WAL per send", self.kept_each.wal);
        record.faults("errors", self.errors.values().sum());
        record
    }
}

struct Progress {
    counting: bool,
    acked: u64,
    latency: Latencies,
    errors: HashMap<String, u64>,
}

/// Runs the load.
pub async fn run(args: &Args, world: &World) -> BenchResult<Figures> {
    let progress = Rc::new(RefCell::new(Progress {
        counting: false,
        acked: 0,
        latency: Latencies::new(),
        errors: HashMap::new(),
    }));
    let mut sockets = Vec::new();
    for index in 0..args.senders {
        let user = format!("sender-{index}");
        let socket = Socket::open(world.address, &format!("/v1/ws?token={}", token(&user))).await?;
        socket.expect(r#""authenticated""#).await?;
        let conversation = format!("sends-{}", index % args.conversations);
        let join = format!(r#"{{"type":"join","conversation_id":"{conversation}","ref":0}}"#);
        socket.write(&wire::text(&join)).await?;
        socket.expect(r#""joined""#).await?;
        sockets.push((socket, user, conversation));
    }
    for (socket, user, conversation) in sockets {
        let (progress, depth) = (Rc::clone(&progress), args.depth);
        spawn_local(async move {
            if let Err(error) = send(&socket, &user, &conversation, depth, &progress).await {
                *progress.borrow_mut().errors.entry(error.to_string()).or_default() += 1;
            }
        });
    }
    tokio::time::sleep(WARM_UP).await;
    let (commands, kept) = (Commands::so_far(world).await?, Kept::now(world).await?);
    let (start, cpu, each) = (Instant::now(), Cpu::so_far(world), each_server(world));
    progress.borrow_mut().counting = true;
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    progress.borrow_mut().counting = false;
    let (seconds, cpu) = (start.elapsed().as_secs_f64(), Cpu::so_far(world).since(cpu));
    let redis_each = each_since(world, &each);
    let commands = Commands::so_far(world).await?.since(&commands);
    let kept_each = Kept::now(world).await?.per(kept, progress.borrow().acked);
    let progress = progress.borrow();
    Ok(Figures {
        seconds,
        acked: progress.acked,
        cpu,
        redis_each,
        commands,
        kept_each,
        latency: progress.latency.summary(),
        errors: progress.errors.clone(),
    })
}

/// Sends for ever, with at most `depth` messages under way.
async fn send(
    socket: &Socket,
    user: &str,
    conversation: &str,
    depth: usize,
    progress: &RefCell<Progress>,
) -> std::io::Result<()> {
    // Send time of each message under way, by its `ref`.
    let mut under_way: HashMap<u64, u64> = HashMap::new();
    let mut next = 1u64;
    let mut batch = Vec::new();
    loop {
        while under_way.len() < depth {
            let frame = format!(
                r#"{{"type":"send","conversation_id":"{conversation}","content":"A message of the usual length, about as long as people write them.","client_id":"{user}-{next}","ref":{next}}}"#
            );
            batch.extend(wire::text(&frame));
            under_way.insert(next, wire::now());
            next += 1;
        }
        if !batch.is_empty() {
            socket.write(&batch).await?;
            batch.clear();
        }
        let now = wire::now;
        socket
            .read(|payload| {
                let text = String::from_utf8_lossy(payload);
                let (ack, error) = (text.contains(r#""type":"ack""#), text.contains(r#""type":"error""#));
                if !ack && !error {
                    return;
                }
                let Some(sent) = wire::number(&text, r#""ref":"#).and_then(|answered| under_way.remove(&answered))
                else {
                    return;
                };
                let mut progress = progress.borrow_mut();
                if error {
                    let code = text.split_once(r#""code":""#).and_then(|(_, rest)| rest.split('"').next());
                    *progress.errors.entry(code.unwrap_or("no code").to_owned()).or_default() += 1;
                } else if progress.counting {
                    progress.acked += 1;
                    progress.latency.add(now().saturating_sub(sent));
                }
            })
            .await?;
    }
}
