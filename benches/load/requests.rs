//! One request at a time on an idle deployment: what each kind costs and takes when it shares nothing with others.

use std::{cell::RefCell, rc::Rc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::spawn_local,
    time::Instant,
};

use crate::{
    BenchResult,
    args::Args,
    measure::{Cpu, Latencies, Latency, World},
    record::Record,
    support::token,
    wire::{self, Socket},
};

/// Time over which the cost of an idle deployment is measured, which every request is spared.
const IDLE: Duration = Duration::from_secs(5);
/// Work that follows the answers is part of a request.
const SETTLE: Duration = Duration::from_secs(1);
/// Pause between two requests, so that each finds everything idle.
const PAUSE: Duration = Duration::from_millis(5);
/// Requests of each kind before measuring begins: connections are opened, statements prepared, plans chosen.
const WARM_UP: usize = 20;
/// Number of conversations of the user who lists them, and of messages in the one that is read.
const CONVERSATIONS: usize = 20;
const MESSAGES: usize = 200;

/// Figures of one kind of request.
#[derive(Debug, Serialize, Deserialize)]
pub struct Figures {
    pub what: String,
    pub count: u64,
    /// CPU of all requests, without that of an idle deployment.
    pub cpu: Cpu,
    pub latency: Latency,
}

/// The figures of all kinds for the run's file.
pub fn record(figures: &[Figures]) -> Record {
    let mut record = Record::of("requests");
    for Figures { what, count, cpu, latency } in figures {
        cpu.add_to(&mut record, what, *count);
        record.latency(what, latency.p50, latency.p99);
    }
    record
}

/// The `ref` of the request whose answer is awaited, and its receiver.
type Awaited = Rc<RefCell<Option<(u64, oneshot::Sender<String>)>>>;

/// The client of all requests: a listening socket, and a connection for REST.
struct Requests<'a> {
    world: &'a World,
    repetitions: usize,
    /// CPU per second of the idle deployment.
    idle: Cpu,
    socket: Rc<Socket>,
    /// The socket is read all the time, because it also hears of others.
    awaited: Awaited,
    token: String,
    next: usize,
    sockets: usize,
}

/// Runs all kinds.
pub async fn run(args: &Args, world: &World) -> BenchResult<Vec<Figures>> {
    let token = token("asker");
    let socket = Socket::open(world.address, &format!("/v1/ws?token={token}")).await?;
    socket.expect(r#""authenticated""#).await?;
    let (socket, awaited, idle) = (Rc::new(socket), Rc::default(), Cpu::default());
    spawn_local(receive(Rc::clone(&socket), Rc::clone(&awaited)));
    let repetitions = args.repetitions;
    let mut asked = Requests { world, repetitions, idle, socket, awaited, token, next: 1, sockets: 0 };
    for room in 0..CONVERSATIONS {
        asked.ask(&format!(r#""type":"join","conversation_id":"requests-{room}""#)).await?;
    }
    for _ in 0..MESSAGES {
        asked.send().await?;
    }
    tokio::time::sleep(SETTLE).await;
    let before = Cpu::so_far(world);
    tokio::time::sleep(IDLE).await;
    asked.idle = Cpu::so_far(world).since(before).times(1.0 / IDLE.as_secs_f64());

    let mut figures = Vec::new();
    for kind in Kind::ALL {
        eprintln!("  measuring: {}", kind.label());
        figures.push(asked.measure(kind).await?);
    }
    Ok(figures)
}

/// Reads the socket and passes on the answer that is awaited.
async fn receive(socket: Rc<Socket>, awaited: Awaited) {
    let take = |payload: &[u8]| {
        let text = String::from_utf8_lossy(payload);
        let mut awaited = awaited.borrow_mut();
        if let Some((_, answer)) = awaited.take_if(|(number, _)| wire::number(&text, r#""ref":"#) == Some(*number)) {
            // Nobody awaits the answer to a request that took too long.
            let _late = answer.send(text.into_owned());
        }
    };
    while socket.read(take).await.is_ok() {}
}

/// A kind of request.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Send,
    Edit,
    History,
    Conversations,
    FirstDirect,
    ConnectNative,
    ConnectRoom,
    ConnectPersonas,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Send,
        Self::Edit,
        Self::History,
        Self::Conversations,
        Self::FirstDirect,
        Self::ConnectNative,
        Self::ConnectRoom,
        Self::ConnectPersonas,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Send => "send, until its ack",
            Self::Edit => "edit",
            Self::History => "history of 50",
            Self::Conversations => "list of conversations (REST)",
            Self::FirstDirect => "first direct message",
            Self::ConnectNative => "connect and close: native",
            Self::ConnectRoom => "connect and close: a room",
            Self::ConnectPersonas => "connect and close: personas",
        }
    }
}

impl Requests<'_> {
    async fn measure(&mut self, kind: Kind) -> BenchResult<Figures> {
        for _ in 0..WARM_UP {
            self.make(kind).await?;
        }
        tokio::time::sleep(SETTLE).await;
        let mut latencies = Latencies::new();
        let (start, before) = (Instant::now(), Cpu::so_far(self.world));
        for _ in 0..self.repetitions {
            let began = wire::now();
            self.make(kind).await.map_err(|error| format!("{}: {error}", kind.label()))?;
            latencies.add(wire::now() - began);
            tokio::time::sleep(PAUSE).await;
        }
        tokio::time::sleep(SETTLE).await;
        let idle = self.idle.times(start.elapsed().as_secs_f64());
        let cpu = Cpu::so_far(self.world).since(before).since(idle);
        Ok(Figures { what: kind.label().into(), count: self.repetitions as u64, cpu, latency: latencies.summary() })
    }

    async fn make(&mut self, kind: Kind) -> BenchResult<()> {
        match kind {
            Kind::Send => self.send().await,
            Kind::Edit => {
                let text = format!(
                    r#""conversation_id":"requests-0","seq":1,"content":"Edit {}","client_id":"e-{0}""#,
                    self.next
                );
                self.ask(&format!(r#""type":"edit",{text}"#)).await
            }
            Kind::History => self.ask(r#""type":"history","conversation_id":"requests-0","limit":50"#).await,
            Kind::Conversations => self.get("/api/chat/conversations").await,
            Kind::FirstDirect => {
                let text = format!(r#""recipient_id":"stranger-{}","content":"Hello","client_id":"d-{0}""#, self.next);
                self.ask(&format!(r#""type":"send",{text}"#)).await
            }
            Kind::ConnectNative => self.connect("/v1/ws", r#""authenticated""#).await,
            Kind::ConnectRoom => self.connect("/ws/requests-1", r#""connected""#).await,
            Kind::ConnectPersonas => self.connect("/ws/auth", r#""online_users""#).await,
        }
    }

    async fn send(&mut self) -> BenchResult<()> {
        let text = format!(r#""conversation_id":"requests-0","content":"A message","client_id":"s-{}""#, self.next);
        self.ask(&format!(r#""type":"send",{text}"#)).await
    }

    /// Sends a frame with a `ref` and waits for the answer to it, which must not be an error.
    async fn ask(&mut self, fields: &str) -> BenchResult<()> {
        let number = self.next as u64;
        self.next += 1;
        let (answer, answered) = oneshot::channel();
        self.awaited.replace(Some((number, answer)));
        self.socket.write(&wire::text(&format!(r#"{{{fields},"ref":{number}}}"#))).await?;
        let answer = tokio::time::timeout(Duration::from_secs(10), answered).await??;
        if answer.contains(r#""type":"error""#) { Err(answer.into()) } else { Ok(()) }
    }

    /// A request over a connection of its own.
    async fn get(&self, path: &str) -> BenchResult<()> {
        let mut stream = TcpStream::connect(self.world.address).await?;
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
            self.world.address, self.token
        );
        stream.write_all(head.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        if answer.starts_with(b"HTTP/1.1 200 ") { Ok(()) } else { Err(String::from_utf8_lossy(&answer).into()) }
    }

    /// Opens a socket of a new user, waits for the greeting and closes it.
    async fn connect(&mut self, path: &str, greeting: &str) -> BenchResult<()> {
        self.sockets += 1;
        let token = token(&format!("guest-{}", self.sockets));
        let socket = Socket::open(self.world.address, &format!("{path}?token={token}")).await?;
        socket.expect(greeting).await?;
        Ok(())
    }
}
