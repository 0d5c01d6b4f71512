//! A client that sends, resumes, moves between nodes, and records what it sees.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tokio::{
    sync::{broadcast, watch},
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};

use crate::{
    history::{Delivered, Kind, Name, Recorder, Session, What},
    operations::{Conversation, Operations},
    socket::Socket,
};

/// Maximum number of operations under way.
const UNDER_WAY: usize = 4;
/// Interval between two sends, in milliseconds.
const PACE: std::ops::Range<u64> = 50..700;

/// Phase of all clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// They send new operations.
    Busy,
    /// They only finish operations under way.
    Quiet,
    /// They leave.
    Leaving,
}

/// An order that one in three clients carries out.
#[derive(Debug, Clone, Copy)]
pub enum Order {
    Cut,
    Move,
    Stall(Duration),
}

/// Channels that carry phases and orders to the clients.
#[derive(Debug, Clone)]
pub struct Orders {
    pub phase: watch::Sender<Phase>,
    orders: broadcast::Sender<Order>,
}

impl Orders {
    pub fn new() -> Self {
        Self { phase: watch::Sender::new(Phase::Busy), orders: broadcast::Sender::new(64) }
    }

    pub fn give(&self, order: Order) {
        let _nobody_there = self.orders.send(order);
    }
}

/// State of a client, visible to the run.
#[derive(Debug, Default, Clone)]
pub struct ClientStatus {
    /// True if its connection listens to all of its conversations.
    pub live: bool,
    pub unsettled: usize,
    /// Seq up to which it has each conversation.
    pub has: BTreeMap<Name, i64>,
}

/// Progress in a conversation: the client has all entries up to `has`, and some of its own beyond.
#[derive(Debug, Default)]
struct Progress {
    has: i64,
    ahead: BTreeSet<i64>,
}

impl Progress {
    fn delivered(&mut self, seq: i64) {
        self.has = self.has.max(seq);
        while self.ahead.remove(&(self.has + 1)) {
            self.has += 1;
        }
        self.ahead = self.ahead.split_off(&self.has);
    }

    fn acked(&mut self, seq: i64) {
        self.ahead.insert(seq);
        self.delivered(self.has);
    }
}

/// Reason for the end of a session.
enum End {
    Lost(String),
    /// The client ends the connection without a close frame, or keeps it open and falls silent.
    Cut,
    /// The client opens the next connection before it closes this one.
    Moved,
    Left,
}

/// A chat client.
pub struct Client {
    user: Name,
    rng: StdRng,
    recorder: Recorder,
    phase: watch::Receiver<Phase>,
    orders: broadcast::Receiver<Order>,
    addresses: Vec<SocketAddr>,
    node: usize,
    session: Session,
    conversations: Vec<Conversation>,
    progress: BTreeMap<Name, Progress>,
    /// Conversations that this session does not listen to yet.
    awaited: BTreeSet<Name>,
    operations: Operations,
    /// Maximum silence of a node before the client gives the connection up.
    patience: Duration,
    status: Arc<Mutex<ClientStatus>>,
}

impl Client {
    /// Makes client `number` of a user; it has no connection yet.
    pub fn new(
        (number, user): (usize, Name),
        conversations: Vec<Conversation>,
        addresses: Vec<SocketAddr>,
        seed: u64,
        recorder: Recorder,
        orders: &Orders,
    ) -> Self {
        let mut rng = StdRng::seed_from_u64(seed.wrapping_add(number as u64 + 1));
        Self {
            recorder,
            phase: orders.phase.subscribe(),
            orders: orders.orders.subscribe(),
            node: number % addresses.len(),
            addresses,
            session: Session { client: number, number: 0 },
            conversations,
            progress: BTreeMap::new(),
            awaited: BTreeSet::new(),
            operations: Operations::new(user.clone(), number),
            patience: Duration::from_millis(rng.random_range(2_500..9_000)),
            status: Arc::default(),
            user,
            rng,
        }
    }

    /// State of this client, updated as it runs.
    pub fn status(&self) -> Arc<Mutex<ClientStatus>> {
        self.status.clone()
    }

    /// Runs until the phase is `Leaving`.
    pub async fn run(mut self) {
        let mut former: Option<Socket> = None;
        while *self.phase.borrow() != Phase::Leaving {
            let opened = Socket::open(self.addresses[self.node], &self.user).await;
            let Some(mut socket) = opened else {
                self.node = self.rng.random_range(0..self.addresses.len());
                sleep(Duration::from_millis(self.rng.random_range(50..300))).await;
                continue;
            };
            if let Some(former) = former.take() {
                former.close(self.rng.random()).await;
            }
            self.session.number += 1;
            self.recorder.record(Some(self.session), What::Open { node: self.node });
            let end = self.serve(&mut socket).await;
            self.end_session(&end);
            match end {
                End::Lost(_) => drop(socket),
                End::Cut => socket.abandon(self.rng.random()),
                End::Moved => former = Some(socket),
                End::Left => socket.close(true).await,
            }
        }
        if let Some(former) = former {
            former.close(true).await;
        }
    }

    /// Records the end of a session and chooses the next node.
    fn end_session(&mut self, end: &End) {
        let why = match end {
            End::Lost(why) => why.clone(),
            End::Cut => "cut".into(),
            End::Moved => "moves".into(),
            End::Left => "leaves".into(),
        };
        self.recorder.record(Some(self.session), What::Close { why });
        for id in self.operations.lost() {
            self.recorder.record(Some(self.session), What::Unknown { id });
        }
        self.status.lock().unwrap().live = false;
        if matches!(end, End::Moved) || self.rng.random() {
            self.node = (self.node + self.rng.random_range(1..self.addresses.len())) % self.addresses.len();
        }
    }

    async fn serve(&mut self, socket: &mut Socket) -> End {
        match self.talk(socket).await {
            Ok(end) => end,
            Err(why) => End::Lost(why),
        }
    }

    async fn talk(&mut self, socket: &mut Socket) -> Result<End, String> {
        self.join_all(socket).await?;
        let mut pings = interval(Duration::from_secs(1));
        pings.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (mut heard, mut next_send) = (Instant::now(), Instant::now());
        loop {
            self.publish_status();
            let phase = *self.phase.borrow_and_update();
            if phase == Phase::Leaving {
                return Ok(End::Left);
            }
            let sends = self.awaited.is_empty() && self.operations.under_way() < UNDER_WAY;
            tokio::select! {
                frame = socket.next() => {
                    heard = Instant::now();
                    self.handle_frame(&frame?)?;
                }
                () = sleep_until(next_send), if sends => {
                    next_send = Instant::now() + Duration::from_millis(self.rng.random_range(PACE));
                    self.send_one(socket, phase == Phase::Busy).await?;
                }
                _ = pings.tick() => {
                    if heard.elapsed() > self.patience {
                        return Err("silence".into());
                    }
                    socket.send(&json!({ "type": "ping" })).await?;
                }
                Ok(order) = self.orders.recv() => if let Some(end) = self.carry_out(order).await {
                    return Ok(end);
                },
                _ = self.phase.changed() => {}
            }
        }
    }

    /// Carries out an order, with a probability of one in three.
    async fn carry_out(&mut self, order: Order) -> Option<End> {
        if self.rng.random_range(0..3) != 0 {
            return None;
        }
        match order {
            Order::Cut => Some(End::Cut),
            Order::Move => Some(End::Moved),
            Order::Stall(time) => {
                self.recorder.record(Some(self.session), What::Stall { begins: true });
                sleep(time).await;
                self.recorder.record(Some(self.session), What::Stall { begins: false });
                None
            }
        }
    }

    /// Joins all conversations: in one frame or in many, from the seq that the client has, or from now.
    async fn join_all(&mut self, socket: &mut Socket) -> Result<(), String> {
        self.awaited = self.conversations.iter().map(|conversation| conversation.id.clone()).collect();
        let cursors: BTreeMap<_, _> = self.progress.iter().map(|(id, progress)| (id.clone(), progress.has)).collect();
        if cursors.len() == self.conversations.len() && self.rng.random() {
            return socket.send(&json!({ "type": "sync", "conversations": cursors, "ref": "sync" })).await;
        }
        for Conversation { id, .. } in &self.conversations {
            let mut join = json!({ "type": "join", "conversation_id": id, "ref": "join" });
            if let Some(since) = cursors.get(id) {
                join["since_seq"] = json!(since);
            }
            socket.send(&join).await?;
        }
        Ok(())
    }

    async fn send_one(&mut self, socket: &mut Socket, anything_new: bool) -> Result<(), String> {
        let Some(operation) = self.operations.next(&mut self.rng, &self.conversations, anything_new) else {
            return Ok(());
        };
        let (id, conversation) = (operation.id.clone(), operation.conversation.clone());
        self.recorder.record(Some(self.session), What::Invoke { conversation, id, kind: operation.kind });
        let frame = operation.frame.clone();
        socket.send(&frame).await
    }

    /// Handles a frame. `Err` if the session can't go on.
    fn handle_frame(&mut self, frame: &Value) -> Result<(), String> {
        let kind = frame["type"].as_str().unwrap_or_default();
        let conversation: Name = frame["conversation_id"].as_str().unwrap_or_default().into();
        match kind {
            "joined" | "resync" => self.listens(&conversation, frame["head"].as_i64(), kind == "resync"),
            "synced" => {
                for one in frame["conversations"].as_array().into_iter().flatten() {
                    let conversation: Name = one["conversation_id"].as_str().unwrap_or_default().into();
                    self.listens(&conversation, one["head"].as_i64(), one["resync"].is_object())?;
                }
                Ok(())
            }
            "ack" => {
                self.acked(frame);
                Ok(())
            }
            "error" => self.refused(frame),
            "message" | "message_edited" | "message_deleted" | "reaction" => {
                self.delivered(conversation, Kind::of_frame(kind).expect("one of the four"), frame);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn listens(&mut self, conversation: &Name, head: Option<i64>, resync: bool) -> Result<(), String> {
        let head = head.ok_or_else(|| format!("may not listen to {conversation}"))?;
        let since = self.progress.get(conversation).map(|progress| progress.has);
        let from = if resync { head } else { since.unwrap_or(head) };
        self.awaited.remove(conversation);
        self.progress.insert(conversation.clone(), Progress { has: from, ahead: BTreeSet::new() });
        self.recorder
            .record(Some(self.session), What::Resume { conversation: conversation.clone(), since, from, resync });
        Ok(())
    }

    fn acked(&mut self, frame: &Value) {
        let (Some(id), Some(seq)) = (frame["client_id"].as_str(), frame["seq"].as_i64()) else { return };
        let conversation: Name = frame["conversation_id"].as_str().unwrap_or_default().into();
        let duplicate = frame["duplicate"] == true;
        let what = What::Ok { conversation: conversation.clone(), id: id.into(), seq, duplicate };
        self.recorder.record(Some(self.session), what);
        self.operations.acked(id, seq);
        if let Some(progress) = self.progress.get_mut(&conversation).filter(|_| !duplicate) {
            progress.acked(seq);
        }
    }

    fn refused(&mut self, frame: &Value) -> Result<(), String> {
        let code = frame["code"].as_str().unwrap_or_default();
        let Some(id) = frame["client_id"].as_str() else { return Err(format!("refused: {frame}")) };
        if code == "unknown" {
            self.operations.outcome_unknown(id);
            self.recorder.record(Some(self.session), What::Unknown { id: id.into() });
        } else {
            let last = self.operations.failed(id, frame["retryable"] == true, &mut self.rng);
            self.recorder.record(Some(self.session), What::Fail { id: id.into(), code: code.into(), last });
        }
        Ok(())
    }

    fn delivered(&mut self, conversation: Name, kind: Kind, frame: &Value) {
        let seq = frame["seq"].as_i64().unwrap_or_default();
        let sender = frame["sender_id"].as_str().unwrap_or_default().into();
        if kind == Kind::Message {
            self.operations.seen(&conversation, seq);
        }
        if let Some(progress) = self.progress.get_mut(&conversation) {
            progress.delivered(seq);
        }
        let entry = Delivered { seq, kind, sender, id: frame["client_id"].as_str().map(Into::into) };
        self.recorder.record(Some(self.session), What::Deliver { conversation, entry });
    }

    fn publish_status(&self) {
        let has = self.progress.iter().map(|(id, progress)| (id.clone(), progress.has)).collect();
        let (live, unsettled) = (self.awaited.is_empty(), self.operations.unsettled());
        *self.status.lock().unwrap() = ClientStatus { live, unsettled, has };
    }
}
