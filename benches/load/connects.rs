//! Connects: the cost of opening a socket in each dialect. The same clients also connect to a bare handshake loop, so that
//! its figures differ from the node's by the node alone.

use std::{
    cell::RefCell,
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    rc::Rc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{task::spawn_local, time::Instant};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::{
    BenchResult,
    args::Args,
    measure::{Cpu, World},
    record::Record,
    support::token,
    wire::{self, Socket, server_text},
};

/// Connects at a time.
const CONCURRENT: usize = 64;
/// Members of a room or conversation.
const MEMBERS: usize = 10;
/// Time for work that follows a greeting or a close.
const SETTLE: Duration = Duration::from_secs(2);

/// The destination of the connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    Bare,
    Native,
    Direct,
    Rooms,
    Conversation,
    Personas,
}

impl Target {
    /// The node's dialects.
    pub const DIALECTS: [Self; 5] = [Self::Native, Self::Direct, Self::Rooms, Self::Conversation, Self::Personas];

    pub fn label(self) -> &'static str {
        match self {
            Self::Bare => "bare handshake loop",
            Self::Native => "native",
            Self::Direct => "direct",
            Self::Rooms => "rooms",
            Self::Conversation => "conversation",
            Self::Personas => "personas",
        }
    }

    /// The opening of a client of its own, whose group has some other clients.
    fn numbered_opening(self, index: usize) -> Opening {
        let user = format!("{self:?}-{index}").to_lowercase();
        self.opening(&user, &format!("{self:?}-group-{}", index / MEMBERS).to_lowercase())
    }

    /// A client's opening; the dialects with one conversation open `group`.
    pub fn opening(self, user: &str, group: &str) -> Opening {
        let token = token(user);
        let (path, greeting) = match self {
            Self::Bare | Self::Native => (format!("/v1/ws?token={token}"), r#""authenticated""#),
            Self::Direct => ("/ws".to_owned(), r#""authenticated""#),
            Self::Rooms => (format!("/ws/{group}?token={token}"), r#""connected""#),
            Self::Conversation => (format!("/api/chat/ws/{group}?token={token}"), r#""system""#),
            Self::Personas => (format!("/ws/auth?token={token}"), r#""online_users""#),
        };
        let first = (self == Self::Direct).then(|| format!(r#"{{"type":"authenticate","token":"{token}"}}"#));
        Opening { path, first, greeting }
    }
}

/// The bytes with which a client connects, and the frame that it awaits.
pub struct Opening {
    path: String,
    first: Option<String>,
    greeting: &'static str,
}

impl Opening {
    /// Connects and waits for the greeting.
    pub async fn open(&self, address: SocketAddr) -> std::io::Result<Socket> {
        let socket = Socket::open(address, &self.path).await?;
        if let Some(first) = &self.first {
            socket.write(&wire::text(first)).await?;
        }
        socket.expect(self.greeting).await?;
        Ok(socket)
    }
}

/// Figures of a run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Figures {
    pub target: Target,
    pub connects: u64,
    pub seconds: f64,
    pub cpu: Cpu,
}

/// The figures of all targets for the run's file.
pub fn record(bare: &Figures, dialects: &[Figures]) -> Record {
    let mut record = Record::of("connects");
    for figures in dialects {
        let Figures { target, connects, seconds, cpu } = figures;
        let label = target.label();
        cpu.add_to(&mut record, label, *connects);
        record.rate(format!("{label}: connects"), *connects as f64 / seconds);
        let (own, floor) = (cpu.micros_per(*connects), bare.cpu.micros_per(bare.connects));
        record.cpu_ratio(format!("{label}: node / bare handshake loop"), own.node, floor.node);
    }
    record
}

/// Measures the connects of users whom the node knows: they connected before, and their rooms exist.
pub async fn run(args: &Args, world: &World, target: Target) -> BenchResult<Figures> {
    let openings: Rc<Vec<Opening>> = Rc::new((0..args.connects).map(|index| target.numbered_opening(index)).collect());
    if target != Target::Bare {
        drop(open_all(&openings, world.address).await?);
        tokio::time::sleep(SETTLE).await;
    }
    let (start, cpu) = (Instant::now(), Cpu::so_far(world));
    let sockets = open_all(&openings, world.address).await?;
    let seconds = start.elapsed().as_secs_f64();
    // Work that follows the greeting is part of a connect.
    tokio::time::sleep(SETTLE).await;
    let cpu = Cpu::so_far(world).since(cpu);
    Ok(Figures { target, connects: sockets.len() as u64, seconds, cpu })
}

async fn open_all(openings: &Rc<Vec<Opening>>, address: SocketAddr) -> BenchResult<Vec<Socket>> {
    let sockets = Rc::new(RefCell::new(Vec::with_capacity(openings.len())));
    let workers: Vec<_> = (0..CONCURRENT)
        .map(|first| {
            let (openings, sockets) = (Rc::clone(openings), Rc::clone(&sockets));
            spawn_local(async move {
                for opening in openings.iter().skip(first).step_by(CONCURRENT) {
                    let socket = opening.open(address).await?;
                    sockets.borrow_mut().push(socket);
                }
                Ok::<_, std::io::Error>(())
            })
        })
        .collect();
    for worker in workers {
        worker.await??;
    }
    Ok(sockets.take())
}

/// The bare handshake loop: accepts sockets, answers each upgrade with 101 and a greeting, and keeps the socket. Prints its
/// address, and runs until it is killed.
pub fn serve_bare() -> BenchResult<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("listening on {}", listener.local_addr()?);
    let greeting = server_text(r#"{"type":"authenticated","connection_id":"0190f3c2-0000-7000-8000-000000000000"}"#);
    let (mut sockets, mut buffer) = (Vec::new(), vec![0; 4 * 1_024]);
    loop {
        let (mut socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        let mut read = 0;
        while !buffer[..read].ends_with(b"\r\n\r\n") {
            match socket.read(&mut buffer[read..])? {
                0 => break,
                bytes => read += bytes,
            }
        }
        let head = std::str::from_utf8(&buffer[..read])?;
        let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap_or_default();
        let accept = derive_accept_key(key.as_bytes());
        let mut answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        )
        .into_bytes();
        answer.extend(&greeting);
        socket.write_all(&answer)?;
        sockets.push(socket);
    }
}
