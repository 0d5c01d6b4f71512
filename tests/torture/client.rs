//! A client that sends, resumes, moves between nodes, and records what it sees, in any dialect.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use tokio::{
    sync::{broadcast, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};

use crate::{
    ear::{Ear, ShownUsers},
    history::{Dialect, Name, Recorder, Session, What},
    operations::{Conversation, Operation, Operations, To},
    orders::{Order, Orders, Phase},
    rest::{Outcome, Rest},
    socket::{Opened, Socket},
    wire,
};

mod acts;

/// Maximum number of operations under way.
const UNDER_WAY: usize = 4;
/// Interval between two sends, in milliseconds.
const PACE: std::ops::Range<u64> = 50..800;
/// One in this many resumes of a conversation begins at its first entry, as a new client does.
const ANEW: u32 = 12;

/// State of a client, visible to the run.
#[derive(Debug, Clone)]
pub struct ClientStatus {
    pub session: Session,
    pub dialect: Dialect,
    /// True if its connection listens to all of its conversations.
    pub live: bool,
    /// True if it left for good.
    pub gone: bool,
    pub unsettled: usize,
    /// Conversations to which it listens.
    pub listening: BTreeSet<Name>,
    /// Seq up to which it has each conversation.
    pub has: BTreeMap<Name, i64>,
    /// The presence of other users as the client was last shown it.
    pub shown: ShownUsers,
}

/// Reason for the end of a session.
enum End {
    Lost(String),
    /// The client ends the connection without a close frame, or keeps it open and falls silent.
    Cut,
    /// The client opens the next connection before it closes this one.
    Moved,
    /// The client comes back after this time.
    Away(Duration),
    Left,
}

/// A result of a request over REST beside the socket.
enum Beside {
    Listed(Option<Vec<Conversation>>),
    Finished(Operation, Outcome),
}

/// Identity of a client.
#[derive(Debug, Clone)]
pub struct Role {
    pub number: usize,
    pub user: Name,
    pub dialect: Dialect,
    /// True if an order to retire concerns it.
    pub retires: bool,
}

/// A chat client.
pub struct Client {
    role: Role,
    rng: StdRng,
    ear: Ear,
    phase: watch::Receiver<Phase>,
    orders: broadcast::Receiver<Order>,
    addresses: Vec<SocketAddr>,
    rest: Rest,
    node: usize,
    conversations: Vec<Conversation>,
    operations: Operations,
    beside: JoinSet<Beside>,
    /// Number of operations that are tried over REST now.
    finishing: usize,
    /// True until the conversations are listed on this connection.
    unlisted: bool,
    /// Maximum silence of a node before the client gives the connection up.
    patience: Duration,
    gone: bool,
    status: Arc<Mutex<ClientStatus>>,
}

impl Client {
    /// Makes a client; it has no connection yet.
    pub fn new(role: Role, addresses: Vec<SocketAddr>, seed: u64, recorder: Recorder, orders: &Orders) -> Self {
        let mut rng = StdRng::seed_from_u64(seed.wrapping_add(role.number as u64 + 1));
        let ear = Ear::new(recorder, role.number, role.dialect);
        let status = ClientStatus {
            session: ear.session,
            dialect: role.dialect,
            live: false,
            gone: false,
            unsettled: 0,
            listening: BTreeSet::new(),
            has: BTreeMap::new(),
            shown: ShownUsers::new(),
        };
        Self {
            phase: orders.phase.subscribe(),
            orders: orders.subscribe(),
            node: role.number % addresses.len(),
            rest: Rest::new(addresses.clone()),
            addresses,
            conversations: Vec::new(),
            operations: Operations::new(role.user.clone(), role.number),
            beside: JoinSet::new(),
            finishing: 0,
            unlisted: true,
            patience: Duration::from_millis(rng.random_range(2_500..9_000)),
            gone: false,
            status: Arc::new(Mutex::new(status)),
            role,
            ear,
            rng,
        }
    }

    /// State of this client, updated as it runs.
    pub fn status(&self) -> Arc<Mutex<ClientStatus>> {
        self.status.clone()
    }

    /// Runs until the phase is `Leaving` or the client retires.
    pub async fn run(mut self) {
        let mut former: Option<Socket> = None;
        while *self.phase.borrow() != Phase::Leaving && !self.gone {
            let Some(mut socket) = self.open().await else {
                self.node = self.rng.random_range(0..self.addresses.len());
                sleep(Duration::from_millis(self.rng.random_range(50..300))).await;
                continue;
            };
            if let Some(former) = former.take() {
                former.close(self.closes_politely()).await;
            }
            let end = self.serve(&mut socket).await;
            self.end_session(&end);
            match end {
                End::Lost(_) => drop(socket),
                End::Cut => socket.abandon(self.rng.random()),
                End::Moved => former = Some(socket),
                End::Away(time) => {
                    socket.close(self.closes_politely()).await;
                    sleep(time).await;
                }
                End::Left => socket.close(self.role.dialect != Dialect::Direct).await,
            }
        }
        if let Some(former) = former {
            former.close(true).await;
        }
        while self.operations.unsettled() > 0 || self.finishing > 0 {
            self.finish_all().await;
        }
        self.publish_status(false);
    }

    /// A client of the direct dialect marks as delivered what it reads while it closes, so it doesn't read then.
    fn closes_politely(&mut self) -> bool {
        self.role.dialect != Dialect::Direct && self.rng.random()
    }

    /// Opens a connection and records the begin of its session.
    async fn open(&mut self) -> Option<Socket> {
        let (dialect, address) = (self.role.dialect, self.addresses[self.node]);
        if dialect.is_bound() && (self.ear.bound.is_none() || self.rng.random_range(0..4) == 0) {
            self.conversations = self.rest.conversations(self.node, &self.role.user).await?;
            self.ear.bound = Some(self.conversations.choose(&mut self.rng)?.id.clone());
        }
        let since = self.ear.bound.clone().and_then(|bound| self.since(&bound));
        let bound = self.ear.bound.clone().map(|bound| (bound, since));
        let url = wire::url(dialect, address, &self.role.user, bound.as_ref());
        let asked = self.ear.recorder.now();
        match Socket::open(address, &url, |frame| wire::is_greeting(dialect, frame)).await {
            Opened::Greeted { socket, greeting, early } => {
                self.ear.open(self.node, asked, since, &early);
                self.ear.hear(&greeting);
                self.unlisted = !dialect.is_bound();
                Some(*socket)
            }
            Opened::Refused(why) => {
                if why.contains("Not a member") {
                    self.ear.bound = None;
                }
                None
            }
            Opened::Down => None,
        }
    }

    /// The seq from which the client resumes a conversation; none for a first join from its head.
    fn since(&mut self, conversation: &Name) -> Option<i64> {
        let anew = self.rng.random_range(0..ANEW) == 0;
        match self.ear.has(conversation) {
            Some(_) if anew => Some(0),
            Some(has) => Some(has),
            None => self.rng.random::<bool>().then_some(0),
        }
    }

    /// Records the end of a session and chooses the next node.
    fn end_session(&mut self, end: &End) {
        let why = match end {
            End::Lost(why) => why.clone(),
            End::Cut => "cut".into(),
            End::Moved => "moves".into(),
            End::Away(_) => "goes away".into(),
            End::Left => "leaves".into(),
        };
        self.ear.record(What::Close { why: why.clone() });
        for id in self.operations.lost() {
            self.ear.record(What::Unknown { id });
        }
        if why.contains("Not a member") {
            self.ear.bound = None;
        }
        self.publish_status(false);
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
        self.list(Duration::ZERO);
        let mut pings = interval(Duration::from_secs(1));
        pings.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (mut heard, mut next_send) = (Instant::now(), Instant::now());
        loop {
            let ready = !self.unlisted && !self.ear.awaits();
            self.publish_status(ready);
            let phase = *self.phase.borrow_and_update();
            if phase == Phase::Leaving {
                return Ok(End::Left);
            }
            let sends = ready && self.operations.under_way() < UNDER_WAY;
            tokio::select! {
                frame = socket.next() => {
                    heard = Instant::now();
                    if let Some(frame) = frame? {
                        self.handle_frame(&frame);
                    }
                }
                () = sleep_until(next_send), if sends => {
                    next_send = Instant::now() + Duration::from_millis(self.rng.random_range(PACE));
                    self.act(socket, phase == Phase::Busy).await?;
                }
                _ = pings.tick() => {
                    if heard.elapsed() > self.patience {
                        return Err("silence".into());
                    }
                    socket.ping().await?;
                    self.finish_overdue();
                    // Frames of this dialect don't tell of new conversations.
                    if self.role.dialect == Dialect::Personas && phase == Phase::Busy && self.rng.random_range(0..4) == 0 {
                        self.list(Duration::ZERO);
                    }
                }
                Some(Ok(result)) = self.beside.join_next() => self.handle_beside(result, socket).await?,
                Ok(order) = self.orders.recv() => if let Some(end) = self.carry_out(order, socket).await? {
                    return Ok(end);
                },
                _ = self.phase.changed() => {}
            }
        }
    }

    /// Carries out an order. Most concern one in three clients.
    async fn carry_out(&mut self, order: Order, socket: &mut Socket) -> Result<Option<End>, String> {
        let concerns = self.rng.random_range(0..3) == 0;
        match order {
            Order::Contact(one, other) => {
                let me = &self.role.user;
                let to = if *me == one { Some(other) } else { Some(one).filter(|_| *me == other) };
                let writes = matches!(self.role.dialect, Dialect::Native | Dialect::Direct) && !self.unlisted;
                if let Some(to) = to.filter(|_| writes) {
                    let message = self.operations.message(&mut self.rng, To::User(to));
                    self.send(message, socket).await?;
                }
                Ok(None)
            }
            Order::Retire if self.role.retires => {
                self.gone = true;
                Ok(Some(End::Away(Duration::ZERO)))
            }
            Order::Retire => Ok(None),
            _ if !concerns => Ok(None),
            Order::Cut => Ok(Some(End::Cut)),
            Order::Move => Ok(Some(End::Moved)),
            Order::Away(time) => Ok(Some(End::Away(time))),
            Order::Stall(time) => {
                self.ear.record(What::Stall { begins: true });
                sleep(time).await;
                self.ear.record(What::Stall { begins: false });
                Ok(None)
            }
        }
    }
}
