//! Native clients that send one message at a time: the next one follows once all receivers have the last.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::{sync::Notify, task::JoinSet, time::Instant};

use super::deployment::Deployment;
use crate::{
    BenchResult,
    measure::{Cpu, Latencies, Latency},
    support::token,
    wire::{self, Socket},
};

/// Connects, and joins, at a time.
const CONCURRENT: usize = 64;
/// Maximum time for anything that is awaited.
const PATIENCE: Duration = Duration::from_secs(60);
/// Sends before measuring begins.
const WARM_UP: u64 = 10;

/// The text of every message.
const CONTENT: &str = "A message of the usual length, about as long as people write them.";

/// Numbers of frames that all sockets received.
#[derive(Default)]
struct Received {
    messages: Cell<u64>,
    acks: Cell<u64>,
    /// Answers to `join` and `sync`.
    joins: Cell<u64>,
    /// The first refusal, or the first end of a socket.
    failure: RefCell<Option<String>>,
    acked_at: Cell<u64>,
    changed: Notify,
}

impl Received {
    fn take(&self, payload: &[u8]) {
        let kind = payload.strip_prefix(br#"{"type":""#).and_then(|rest| rest.split(|&byte| byte == b'"').next());
        let counter = match kind.unwrap_or_default() {
            b"message" => &self.messages,
            b"ack" => {
                self.acked_at.set(wire::now());
                &self.acks
            }
            b"joined" => &self.joins,
            b"synced" => {
                if payload.windows(8).any(|bytes| bytes == br#""error":"#) {
                    return self.fail(&String::from_utf8_lossy(payload));
                }
                &self.joins
            }
            b"error" => return self.fail(&String::from_utf8_lossy(payload)),
            _ => return,
        };
        counter.set(counter.get() + 1);
        self.changed.notify_one();
    }

    fn fail(&self, why: &str) {
        self.failure.borrow_mut().get_or_insert_with(|| why.to_owned());
        self.changed.notify_one();
    }
}

/// A message to send: the socket, the conversation, and the number of other sockets that get it.
pub struct Send {
    pub socket: usize,
    pub conversation: String,
    pub receivers: u64,
}

/// The cost of sends.
pub struct Sends {
    /// CPU of each in µs, without that of an idle deployment.
    pub cpu: Cpu,
    /// Time from a send to its ack.
    pub latency: Latency,
}

/// Connected clients.
pub struct Clients {
    sockets: Vec<Rc<Socket>>,
    received: Rc<Received>,
    /// The tasks that read the sockets; they end with the clients, and the sockets with them.
    _readers: JoinSet<()>,
    /// Begin of the messages' ids.
    unique: u64,
    sent: u64,
}

impl Clients {
    /// Connects the users in turn to the addresses.
    pub async fn connect(addresses: &[SocketAddr], users: impl Iterator<Item = String>) -> BenchResult<Self> {
        let received: Rc<Received> = Rc::default();
        let open = |(address, user): (SocketAddr, String)| async move {
            let socket = Socket::open(address, &format!("/v1/ws?token={}", token(&user))).await?;
            socket.expect(r#""authenticated""#).await?;
            Ok::<_, std::io::Error>(Rc::new(socket))
        };
        let places = addresses.iter().copied().cycle().zip(users);
        let sockets: Vec<_> = stream::iter(places.map(open)).buffered(CONCURRENT).try_collect().await?;
        let mut readers = JoinSet::new();
        for socket in &sockets {
            let (socket, received) = (Rc::clone(socket), Rc::clone(&received));
            readers.spawn_local(async move {
                loop {
                    if let Err(error) = socket.read(|payload| received.take(payload)).await {
                        return received.fail(&error.to_string());
                    }
                }
            });
        }
        Ok(Self { sockets, received, _readers: readers, unique: rand::random(), sent: 0 })
    }

    /// Sends each frame to its socket, some at a time, and waits until all are answered.
    pub async fn join(&self, at_once: usize, frames: impl Iterator<Item = (usize, String)>) -> BenchResult<()> {
        let mut frames = frames.peekable();
        while frames.peek().is_some() {
            let before = self.received.joins.get();
            let mut written = 0;
            for (socket, frame) in frames.by_ref().take(at_once) {
                self.sockets[socket].write(&wire::text(&frame)).await?;
                written += 1;
            }
            self.until("answers to joins", || self.received.joins.get() >= before + written).await?;
        }
        Ok(())
    }

    /// All clients join one conversation.
    pub async fn join_all(&self, conversation: &str) -> BenchResult<()> {
        let frame = format!(r#"{{"type":"join","conversation_id":"{conversation}","ref":0}}"#);
        self.join(CONCURRENT, (0..self.sockets.len()).map(|socket| (socket, frame.clone()))).await
    }

    /// Sends messages for `window`, but at least `least`. `idle` is the CPU per second that is none of theirs.
    pub async fn send(
        &mut self,
        deployment: &Deployment,
        idle: Cpu,
        window: Duration,
        least: u64,
        next: impl Fn(u64) -> Send,
    ) -> BenchResult<Sends> {
        for _ in 0..WARM_UP {
            self.send_one(&next(self.sent)).await?;
        }
        let mut latencies = Latencies::new();
        let (start, before) = (Instant::now(), deployment.cpu());
        while start.elapsed() < window || latencies.count() < least {
            latencies.add(self.send_one(&next(self.sent)).await?);
        }
        let cpu = deployment.cpu().since(before).since(idle.times(start.elapsed().as_secs_f64()));
        Ok(Sends { cpu: cpu.micros_per(latencies.count()), latency: latencies.summary() })
    }

    /// Sends one message, waits until everyone has it, and returns the time until the ack, in ns.
    async fn send_one(&mut self, Send { socket, conversation, receivers }: &Send) -> BenchResult<u64> {
        let number = self.sent;
        self.sent += 1;
        let (messages, acks) = (self.received.messages.get() + receivers, self.received.acks.get() + 1);
        let frame = format!(
            r#"{{"type":"send","conversation_id":"{conversation}","content":"{CONTENT}","client_id":"{}-{number}","ref":{number}}}"#,
            self.unique
        );
        let sent = wire::now();
        self.sockets[*socket].write(&wire::text(&frame)).await?;
        let received = &self.received;
        self.until("a message", || received.messages.get() >= messages && received.acks.get() >= acks).await?;
        Ok(received.acked_at.get().saturating_sub(sent))
    }

    /// Waits until `done`. A refusal or a lost socket is an error.
    async fn until(&self, what: &str, done: impl Fn() -> bool) -> BenchResult<()> {
        let received = &self.received;
        while !done() {
            if let Some(failure) = received.failure.borrow().as_ref() {
                return Err(format!("{what}: {failure}").into());
            }
            let waiting = tokio::time::timeout(PATIENCE, received.changed.notified()).await;
            waiting.map_err(|_| format!("{what}: nothing within {PATIENCE:?}"))?;
        }
        Ok(())
    }
}
