//! Deliveries: rooms full of listeners, messages at a steady rate. The same readers also read from the bare write loop,
//! so that its figures differ from the node's by the node alone.

use std::{cell::RefCell, collections::HashMap, rc::Rc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{task::spawn_local, time::Instant};

use crate::{
    BenchResult,
    args::Args,
    engines::{each_server, each_since},
    measure::{Commands, Cpu, Latencies, Latency, World},
    record::Record,
    support::token,
    wire::{self, Socket},
};

/// Text before the time in a message's content.
pub const MARK: &str = "~t";
/// Digits of a time in nanoseconds, and of a message's number.
pub const TIME_DIGITS: usize = 19;
const NUMBER_DIGITS: usize = 10;
/// Bytes of a message's content.
const CONTENT_BYTES: usize = 100;

/// Time before measuring begins.
const WARM_UP: Duration = Duration::from_secs(2);

/// Figures of one run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Figures {
    pub seconds: f64,
    pub messages: u64,
    pub deliveries: u64,
    /// Deliveries that never came, warm-up included.
    pub missing: u64,
    pub cpu: Cpu,
    /// CPU seconds of each server of Redis.
    pub redis_each: Vec<f64>,
    pub commands: Commands,
    /// Time from a message's send to each of its deliveries.
    pub latency: Latency,
    /// Time from a message's first delivery to each further one.
    pub spread: Latency,
    /// A delivered frame.
    pub sample: String,
}

impl Figures {
    /// Adds what is kept of them.
    pub fn add_to(&self, record: &mut Record, rate: &str) {
        let Self { seconds, messages, deliveries, missing, cpu, commands, latency, spread, .. } = self;
        cpu.add_to(record, &format!("{rate}: a delivery"), *deliveries);
        record.rate(format!("{rate}: delivered"), *deliveries as f64 / seconds);
        record.latency(&format!("{rate}: delivery"), latency.p50, latency.p99);
        record.latency(&format!("{rate}: spread"), spread.p50, spread.p99);
        record.faults(format!("{rate}: missing"), *missing);
        if commands.sum() > 0 {
            let each = commands.sum() as f64 / *messages as f64;
            record.commands(format!("{rate}: Redis commands per message"), each);
        }
    }

    /// Adds what is kept of the node's figures, and their ratios to those of the bare write loop.
    pub fn add_beside(&self, floor: &Self, record: &mut Record, rate: &str) {
        self.add_to(record, rate);
        let (own, bare) = (self.cpu.micros_per(self.deliveries), floor.cpu.micros_per(floor.deliveries));
        record.cpu_ratio(format!("{rate}: CPU, node / bare write loop"), own.node, bare.node);
        record.tail_ratio(format!("{rate}: spread p99, node / bare write loop"), self.spread.p99, floor.spread.p99);
    }
}

/// Received deliveries.
struct Receipts {
    counting: bool,
    all: u64,
    counted: u64,
    latency: Latencies,
    spread: Latencies,
    first: HashMap<u64, u64>,
    sample: String,
}

impl Receipts {
    fn add(&mut self, payload: &[u8], now: u64) {
        let Ok(text) = std::str::from_utf8(payload) else { return };
        let Some((_, stamp)) = text.split_once(MARK) else { return };
        if !text.contains("new_message") {
            return;
        }
        self.all += 1;
        if !self.counting {
            return;
        }
        let (Some(Ok(sent)), Some(Ok(number))) = (
            stamp.get(..TIME_DIGITS).map(str::parse::<u64>),
            stamp.get(TIME_DIGITS + 1..TIME_DIGITS + 1 + NUMBER_DIGITS).map(str::parse::<u64>),
        ) else {
            return;
        };
        self.counted += 1;
        self.latency.add(now.saturating_sub(sent));
        match self.first.entry(number) {
            std::collections::hash_map::Entry::Occupied(first) => self.spread.add(now.saturating_sub(*first.get())),
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(now);
            }
        }
        if self.sample.is_empty() {
            text.clone_into(&mut self.sample);
        }
    }
}

/// Content of message `number`, sent at time `sent`.
fn content(sent: u64, number: u64) -> String {
    let mut content = format!("{MARK}{sent:0TIME_DIGITS$}.{number:0NUMBER_DIGITS$} ");
    content.extend(std::iter::repeat_n('x', CONTENT_BYTES - content.len()));
    content
}

/// A frame of a node's form and size, for runs without a node.
pub fn sample_frame() -> String {
    let (id, content) = ("0".repeat(36), content(0, 0));
    format!(
        r#"{{"type":"new_message","data":{{"id":"{id}","room_id":"bench-0","sender_id":"listener-0","sender_name":"Listener-0","content":"{content}","seq":12345,"created_at":"2026-11-01T12:00:00.000000Z"}}}}"#
    )
}

/// The frame `sample`, changed into message `number`, sent at time `sent`.
pub fn restamped(sample: &str, sent: u64, number: u64) -> String {
    let at = sample.find(MARK).map_or(0, |at| at + MARK.len());
    let end = at + TIME_DIGITS + 1 + NUMBER_DIGITS;
    format!("{}{sent:0TIME_DIGITS$}.{number:0NUMBER_DIGITS$}{}", &sample[..at], &sample[end..])
}

/// Runs the load at `rate` deliveries a second, against a node or, without Redis, against the bare write loop.
pub async fn run(args: &Args, world: &World, rate: u64) -> BenchResult<Figures> {
    let receipts = Rc::new(RefCell::new(Receipts {
        counting: false,
        all: 0,
        counted: 0,
        latency: Latencies::new(),
        spread: Latencies::new(),
        first: HashMap::new(),
        sample: String::new(),
    }));
    let bare = world.redis.is_empty();
    let sockets = connect(args, world, bare).await?;
    for socket in &sockets {
        let (socket, receipts) = (Rc::clone(socket), Rc::clone(&receipts));
        spawn_local(async move {
            while socket.read(|payload| receipts.borrow_mut().add(payload, wire::now())).await.is_ok() {}
        });
    }
    if bare {
        // The loop begins to write when it gets these bytes.
        sockets[0].write(b"go").await?;
    } else {
        // Wait until the presence events of all connects have been delivered.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    let rooms = args.rooms as u64;
    let audience = args.sockets as u64 / rooms;
    let pause = Duration::from_nanos(1_000_000_000 * audience / rate);
    let begin = Instant::now();
    let window = Duration::from_secs(args.seconds);
    let mut start = None;
    let mut number = 0;
    while begin.elapsed() < WARM_UP + window {
        tokio::time::sleep_until(begin + pause * u32::try_from(number)?).await;
        if start.is_none() && begin.elapsed() >= WARM_UP {
            let commands = Commands::so_far(world).await?;
            start = Some((Instant::now(), number, Cpu::so_far(world), each_server(world), commands));
            receipts.borrow_mut().counting = true;
        }
        if !bare {
            // Members send in turn.
            let sender = (number % rooms) * audience + (number / rooms) % audience;
            let content = content(wire::now(), number);
            let frame = format!(r#"{{"type":"send_message","data":{{"content":"{content}"}}}}"#);
            sockets[usize::try_from(sender)?].write(&wire::text(&frame)).await?;
        }
        number += 1;
    }
    let (since, before, cpu, each, commands) = start.ok_or("the run was shorter than its warm-up")?;
    let (seconds, cpu) = (since.elapsed().as_secs_f64(), Cpu::so_far(world).since(cpu));
    let redis_each = each_since(world, &each);
    let commands = Commands::so_far(world).await?.since(&commands);
    let counted = receipts.borrow().counted;
    // Wait for late deliveries.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let receipts = receipts.borrow();
    Ok(Figures {
        seconds,
        messages: number - before,
        deliveries: counted,
        missing: if bare { 0 } else { (number * audience).saturating_sub(receipts.all) },
        cpu,
        redis_each,
        commands,
        latency: receipts.latency.summary(),
        spread: receipts.spread.summary(),
        sample: receipts.sample.clone(),
    })
}

/// Opens all sockets; those of one room are adjacent in the result.
async fn connect(args: &Args, world: &World, bare: bool) -> BenchResult<Vec<Rc<Socket>>> {
    let audience = args.sockets / args.rooms;
    let mut sockets = Vec::with_capacity(args.sockets);
    for index in 0..audience * args.rooms {
        let socket = if bare {
            Socket::connect(world.address).await?
        } else {
            let (room, user) = (index / audience, format!("listener-{index}"));
            let socket = Socket::open(world.address, &format!("/ws/bench-{room}?token={}", token(&user))).await?;
            socket.expect(r#""connected""#).await?;
            socket
        };
        sockets.push(Rc::new(socket));
    }
    Ok(sockets)
}
