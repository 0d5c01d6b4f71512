//! The clients that stay: talkers, which send at a fixed pace, and witnesses, which check that every message comes once.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    time::Duration,
};

use rand::RngExt;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, interval_at, sleep},
};

use super::{
    connection::Connection,
    frames::{Client as _, Dialect, Heard, hear},
    ledger::{Audience, Ledger, Number, RECIPIENTS},
};

/// Time after which a message without an answer is sent again.
const ANSWERING: Duration = Duration::from_secs(10);
/// Pause before a message that was refused is sent again, and between two looks for such messages.
const AGAIN: Duration = Duration::from_secs(1);
/// Refusals after which a message is sent again.
const RETRYABLE: [&str; 6] = ["unavailable", "unknown", "overloaded", "rate_limited", "timeout", "internal"];

/// Phase of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Load,
    /// No more new messages; what is under way gets its answer.
    Settle,
    End,
}

/// The state that all clients share.
pub struct Shared {
    pub addresses: Vec<SocketAddr>,
    pub ledger: RefCell<Ledger>,
    pub phase: watch::Sender<Phase>,
    /// Each change moves the clients to the next node.
    pub moves: watch::Sender<u64>,
}

impl Shared {
    /// The address of a node; those behind the last one begin anew.
    pub fn address(&self, node: usize) -> SocketAddr {
        self.addresses[node % self.addresses.len()]
    }

    pub fn ended(&self) -> bool {
        *self.phase.borrow() == Phase::End
    }
}

/// Pause before a client connects again.
pub async fn pause() {
    sleep(Duration::from_millis(rand::rng().random_range(200..1_000))).await;
}

/// The end of a connection that its client chose.
enum Left {
    Moved,
    Ended,
}

/// A client that sends.
pub struct Talker {
    pub index: usize,
    /// Number of all talkers.
    pub talkers: usize,
    pub dialect: Dialect,
    pub user: String,
    /// The room, or in the direct dialect the recipient.
    pub to: String,
    pub node: usize,
    /// Time between two messages.
    pub pace: Duration,
    /// Messages without an answer, and when they are sent again.
    pub under_way: HashMap<Number, Instant>,
}

impl Talker {
    /// Talks until the end of the run; returns the number of messages without an answer.
    pub async fn run(mut self, shared: &Shared) -> usize {
        let mut round = 0;
        // The talkers begin one after another, so that the load is even.
        let first = Instant::now() + self.pace.mul_f64(self.index as f64 / self.talkers as f64);
        let mut pace = interval_at(first, self.pace);
        pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
        while !shared.ended() {
            match self.session(shared, &mut pace, &mut round).await {
                Ok(Left::Moved) => self.node += 1,
                Ok(Left::Ended) => break,
                Err(why) => {
                    shared.ledger.borrow_mut().end(&why);
                    pause().await;
                }
            }
        }
        self.under_way.len()
    }

    async fn session(
        &mut self,
        shared: &Shared,
        pace: &mut tokio::time::Interval,
        round: &mut u64,
    ) -> Result<Left, String> {
        let (mut phase, mut moves) = (shared.phase.subscribe(), shared.moves.subscribe());
        let mut connection = Connection::open(shared.address(self.node), self.dialect, &self.user, &self.to).await?;
        shared.ledger.borrow_mut().connects += 1;
        if let Some(join) = self.dialect.join(&self.to, None) {
            connection.send(&join).await?;
        }
        // Messages without an answer on the connection before are sent again.
        self.under_way.values_mut().for_each(|again| *again = Instant::now());
        let mut look = interval(AGAIN);
        loop {
            tokio::select! {
                frame = connection.next() => self.hear(&hear(&frame?), shared),
                _ = pace.tick(), if *phase.borrow() == Phase::Load => {
                    let number = *round * self.talkers as u64 + self.index as u64;
                    *round += 1;
                    shared.ledger.borrow_mut().sent += 1;
                    self.send(&connection, number).await?;
                }
                _ = look.tick() => {
                    let now = Instant::now();
                    let due: Vec<_> = self.under_way.iter().filter(|(_, again)| **again <= now).map(|(n, _)| *n).collect();
                    for number in due {
                        self.send(&connection, number).await?;
                    }
                }
                _ = moves.changed() => {
                    connection.close().await;
                    return Ok(Left::Moved);
                }
                _ = phase.wait_for(|phase| *phase == Phase::End) => {
                    connection.close().await;
                    return Ok(Left::Ended);
                }
            }
        }
    }

    async fn send(&mut self, connection: &Connection, number: Number) -> Result<(), String> {
        self.under_way.insert(number, Instant::now() + ANSWERING);
        connection.send(&self.dialect.send(&self.to, number)).await
    }

    fn hear(&mut self, heard: &Heard, shared: &Shared) {
        let mut ledger = shared.ledger.borrow_mut();
        let direct = self.dialect == Dialect::Direct;
        let audience = if direct { Audience::User } else { Audience::Room };
        match heard {
            // In some dialects the sender's own message is its ack; in all of them it is stored.
            Heard::Acked(number) | Heard::Message { number, .. } if self.is_own(*number) => {
                self.under_way.remove(number);
                ledger.ack(*number, audience);
            }
            Heard::Message { number, .. } if direct => ledger.receive(RECIPIENTS, *number),
            Heard::Refused(number, code) => {
                ledger.refuse(code);
                if let (true, Some(again)) = (RETRYABLE.contains(&code.as_str()), self.under_way.get_mut(number)) {
                    *again = Instant::now() + AGAIN;
                } else {
                    self.under_way.remove(number);
                }
            }
            _ => {}
        }
    }

    fn is_own(&self, number: Number) -> bool {
        number % self.talkers as u64 == self.index as u64
    }
}

/// A client that listens to all rooms, and names the last entry that it has when it comes back.
pub struct Witness {
    pub index: usize,
    pub user: String,
    pub node: usize,
    pub rooms: Vec<String>,
    /// The last entry of each room that it has.
    pub last: BTreeMap<String, i64>,
}

impl Witness {
    /// Listens until the end of the run. `live` gets a value once it listens to all rooms.
    pub async fn run(mut self, shared: &Shared, live: watch::Sender<usize>) {
        while !shared.ended() {
            match self.session(shared, &live).await {
                Ok(Left::Moved) => self.node += 1,
                Ok(Left::Ended) => return,
                Err(why) => {
                    shared.ledger.borrow_mut().end(&why);
                    pause().await;
                }
            }
        }
    }

    async fn session(&mut self, shared: &Shared, live: &watch::Sender<usize>) -> Result<Left, String> {
        let (mut phase, mut moves) = (shared.phase.subscribe(), shared.moves.subscribe());
        let mut connection = Connection::open(shared.address(self.node), Dialect::Native, &self.user, "").await?;
        shared.ledger.borrow_mut().connects += 1;
        for room in &self.rooms {
            if let Some(join) = Dialect::Native.join(room, self.last.get(room).copied()) {
                connection.send(&join).await?;
            }
        }
        let (mut joined, rooms) = (0, self.rooms.len());
        loop {
            tokio::select! {
                frame = connection.next() => match hear(&frame?) {
                    Heard::Message { room, seq, number } => {
                        self.last.insert(room, seq);
                        shared.ledger.borrow_mut().receive(self.index, number);
                    }
                    Heard::Joined { room, head } => {
                        self.last.entry(room).or_insert(head);
                        joined += 1;
                        if joined == rooms {
                            live.send_modify(|live| *live += 1);
                        }
                    }
                    Heard::Resync { room, head } => {
                        self.last.insert(room, head);
                        shared.ledger.borrow_mut().resyncs += 1;
                    }
                    Heard::Acked(_) | Heard::Refused(..) | Heard::Other => {}
                },
                _ = moves.changed() => {
                    connection.close().await;
                    return Ok(Left::Moved);
                }
                _ = phase.wait_for(|phase| *phase == Phase::End) => return Ok(Left::Ended),
            }
        }
    }
}
