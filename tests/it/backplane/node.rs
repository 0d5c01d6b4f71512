//! A backplane as a node holds it, and helpers of the tests.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use switchboard::{
    backplane::{Backplane, BackplaneEvent, Departure, RefusedPlace, Registration, Return, Scope, Settings},
    config::RedisConfig,
    degrade::{Degrade, LinkState, Part},
    metrics::Metrics,
    model::{
        Body, Clock, ConnectionId, ConversationId, DeploymentId, Entry, Ephemeral, EphemeralEvent, Event, LogId,
        NodeId, NodeKey, NodeKeys, Timestamp, UserId,
    },
    supervise::Supervisor,
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};

/// Maximum time for anything that a test awaits.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// A node's backplane.
pub(crate) struct Node {
    pub(crate) backplane: Arc<Backplane>,
    pub(crate) degrade: Arc<Degrade>,
    pub(crate) metrics: Arc<Metrics>,
    events: mpsc::Receiver<BackplaneEvent>,
    /// Events that were skipped while waiting for another one.
    passed: VecDeque<BackplaneEvent>,
    supervisor: Supervisor,
}

/// The Redis at this URL.
fn redis_config(url: &str) -> RedisConfig {
    RedisConfig::at(url).unwrap()
}

/// Settings with short times.
pub(crate) fn settings(name: &str, url: Option<&str>) -> Settings {
    Settings {
        redis: url.map(redis_config),
        node: NodeId::parse(name).unwrap(),
        lease: Duration::from_millis(2_000),
        presence_grace: Duration::from_millis(600),
        cache_ttl: Duration::from_secs(600),
        presence_cache: 100_000,
        window: Duration::from_secs(60),
        connections_per_user: 2,
        sockets_per_user: 4,
    }
}

/// The keys with these numbers; the first one signs.
pub(crate) fn keys(ids: &[u8]) -> NodeKeys {
    let key = |id: &u8| (NodeKey::new((*id).into(), &[*id; 32]).unwrap(), true);
    NodeKeys::new(ids.iter().map(key)).unwrap()
}

/// The deployment with this number.
pub(crate) fn deployment(number: u64) -> DeploymentId {
    DeploymentId::parse(&format!("{number:032x}")).unwrap()
}

impl Node {
    /// Starts a backplane with short times.
    pub(crate) async fn start(name: &str, url: Option<&str>) -> Self {
        Self::with(settings(name, url)).await
    }

    /// Starts a backplane.
    pub(crate) async fn with(settings: Settings) -> Self {
        let node = Self::with_no_keys(settings).await;
        node.backplane.set_keys(&keys(&[1]));
        node
    }

    /// Starts a backplane whose store has not started yet.
    pub(crate) async fn without_keys(name: &str, url: Option<&str>) -> Self {
        Self::with_no_keys(settings(name, url)).await
    }

    async fn with_no_keys(settings: Settings) -> Self {
        let node = Self::without_deployment(settings).await;
        node.backplane.set_deployment(&deployment(1)).await;
        node
    }

    /// Starts a backplane of another deployment than the other functions.
    pub(crate) async fn of(number: u64, settings: Settings) -> Self {
        let node = Self::without_deployment(settings).await;
        node.backplane.set_keys(&keys(&[number as u8]));
        node.backplane.set_deployment(&deployment(number)).await;
        node
    }

    /// Starts a backplane that does not know its deployment.
    pub(crate) async fn without_deployment(settings: Settings) -> Self {
        let degrade = Arc::new(Degrade::new(if settings.redis.is_some() { LinkState::Down } else { LinkState::Off }));
        let metrics = Arc::new(Metrics::new().unwrap());
        let supervisor = Supervisor::new(metrics.clone());
        let started = Backplane::start(settings, degrade.clone(), metrics.clone(), Clock::system(), &supervisor);
        let (backplane, events) = started.await.unwrap();
        Self { backplane, degrade, metrics, events, passed: VecDeque::new(), supervisor }
    }

    /// Ends without unregistering: its tasks stop, its lease stands.
    pub(crate) async fn die(self) {
        assert!(self.supervisor.end(LONG).await, "tasks end when stopped");
    }

    /// Returns the next event that `wanted` accepts; keeps the others for later.
    pub(crate) async fn find<T>(&mut self, what: &str, wanted: impl Fn(&BackplaneEvent) -> Option<T>) -> T {
        if let Some(index) = self.passed.iter().position(|event| wanted(event).is_some()) {
            return self.passed.remove(index).as_ref().and_then(wanted).unwrap();
        }
        let deadline = Instant::now() + LONG;
        loop {
            let event = timeout_at(deadline, self.events.recv()).await;
            let event = event.unwrap_or_else(|_| panic!("no {what} in time")).expect("the backplane runs");
            if let Some(found) = wanted(&event) {
                return found;
            }
            self.passed.push_back(event);
        }
    }

    /// Returns the next events.
    pub(crate) async fn events(&mut self) -> Vec<Event> {
        let events = |event: &BackplaneEvent| {
            if let BackplaneEvent::Events(events) = event { Some(events.clone()) } else { None }
        };
        self.find("events", events).await
    }

    /// Waits for a `Missed` event.
    pub(crate) async fn missed(&mut self) {
        self.find("missed", |event| matches!(event, BackplaneEvent::Missed).then_some(())).await;
    }

    /// Returns the next logs that must be compared with the store.
    pub(crate) async fn doubtful(&mut self) -> Vec<LogId> {
        let logs = |event: &BackplaneEvent| {
            if let BackplaneEvent::Doubtful(logs) = event { Some(logs.clone()) } else { None }
        };
        self.find("doubtful logs", logs).await
    }

    /// The hints that came before the last event that was awaited.
    pub(crate) fn hints_so_far(&self) -> Vec<&BackplaneEvent> {
        self.passed.iter().filter(|event| matches!(event, BackplaneEvent::Hints(_))).collect()
    }

    /// The number of refusals in a place so far.
    pub(crate) fn refused(&self, place: RefusedPlace) -> u64 {
        self.metrics.redis_refused.with_label_values(&[place.label()]).get()
    }

    /// Reads events up to a `Missed` with a count beyond `known`; returns the number of entries before it.
    pub(crate) async fn until_missed(&mut self, known: u64) -> usize {
        let (mut heard, mut told) = (0, 0);
        loop {
            match timeout(LONG, self.events.recv()).await.expect("missed in time").expect("the backplane runs") {
                BackplaneEvent::Events(events) => heard += events.len(),
                BackplaneEvent::Missed if told >= known => return heard,
                BackplaneEvent::Missed => told += 1,
                BackplaneEvent::Doubtful(_) | BackplaneEvent::Hints(_) => {}
                BackplaneEvent::Departed(_) | BackplaneEvent::Returned(_) => {}
            }
        }
    }

    /// Returns the next departure.
    pub(crate) async fn departure(&mut self) -> Departure {
        let gone =
            |event: &BackplaneEvent| if let BackplaneEvent::Departed(gone) = event { Some(gone.clone()) } else { None };
        self.find("departure", gone).await
    }

    /// Returns the next return.
    pub(crate) async fn returned(&mut self) -> Return {
        let back =
            |event: &BackplaneEvent| if let BackplaneEvent::Returned(back) = event { Some(back.clone()) } else { None };
        self.find("return", back).await
    }

    /// The users whose return was reported so far and not taken.
    pub(crate) fn returns(&mut self) -> Vec<UserId> {
        while let Ok(event) = self.events.try_recv() {
            self.passed.push_back(event);
        }
        let back = |event: &BackplaneEvent| match event {
            BackplaneEvent::Returned(back) => Some(back.user.clone()),
            _ => None,
        };
        self.passed.iter().filter_map(back).collect()
    }

    /// Returns all departures until `deadline`.
    pub(crate) async fn departures_until(&mut self, deadline: Instant) -> Vec<Departure> {
        while let Ok(Some(event)) = timeout_at(deadline, self.events.recv()).await {
            self.passed.push_back(event);
        }
        let all = std::mem::take(&mut self.passed).into_iter();
        let (gone, rest) = all.partition(|event| matches!(event, BackplaneEvent::Departed(_)));
        self.passed = rest;
        let gone: VecDeque<_> = gone;
        gone.into_iter()
            .filter_map(|event| if let BackplaneEvent::Departed(gone) = event { Some(gone) } else { None })
            .collect()
    }

    /// Waits until the link to Redis is in this state.
    pub(crate) async fn redis_is(&self, link: LinkState) {
        let mut changes = self.degrade.changes();
        let wait = async {
            while self.degrade.state(Part::Redis).link != link {
                changes.changed().await.unwrap();
            }
        };
        timeout(LONG, wait).await.unwrap_or_else(|_| panic!("Redis is not {link:?} in time"));
    }

    /// Registers a user-scoped connection.
    pub(crate) async fn connect(&self, user: &str) -> (ConnectionId, bool) {
        let new = registration(user, Scope::User);
        let first = self.backplane.register(&new).await.expect("a connection is free");
        (new.connection, first)
    }

    /// True if a user is online.
    pub(crate) async fn online(&self, user: &str) -> bool {
        self.backplane.online(&[self::user(user)]).await[0]
    }

    /// Polls until the answer is true.
    pub(crate) async fn until<F: Future<Output = bool>>(&self, what: &str, check: impl Fn() -> F) {
        let wait = async {
            while !check().await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(LONG, wait).await.unwrap_or_else(|_| panic!("not in time: {what}"));
    }
}

/// Returns the departures that all of the nodes report until `deadline`.
pub(crate) async fn departures_until(nodes: &mut [&mut Node], deadline: Instant) -> Vec<Departure> {
    let mut all = Vec::new();
    for node in nodes {
        all.extend(node.departures_until(deadline).await);
    }
    all
}

pub(crate) fn user(id: &str) -> UserId {
    UserId::parse(id).unwrap()
}

pub(crate) fn room(id: &str) -> ConversationId {
    ConversationId::parse(id).unwrap()
}

pub(crate) fn log(id: &str) -> LogId {
    LogId::parse(id).unwrap()
}

pub(crate) fn registration(user: &str, scope: Scope) -> Registration {
    let name = user.to_uppercase().into();
    let connected_at = Clock::system().now();
    Registration {
        connection: ConnectionId::fresh(),
        user: self::user(user),
        name,
        scope,
        connected_at,
        dialect: "native",
    }
}

pub(crate) fn entry(log: &str, seq: i64, body: Body) -> Event {
    let (sender, at) = (user("alice"), Timestamp::from_micros(1_700_000_000_000_000 + seq));
    let log = LogId::parse(log).unwrap();
    let entry = Entry { log, seq, message_no: seq, sender, sender_name: "Alice".into(), client_id: None, at, body };
    Event::Entry { entry: Arc::new(entry), origin: None }
}

pub(crate) fn message(log: &str, seq: i64) -> Event {
    entry(log, seq, Body::message(format!("message {seq}")))
}

pub(crate) fn typing(log: &str) -> Event {
    typing_at(log, Clock::system().now())
}

pub(crate) fn typing_at(log: &str, at: Timestamp) -> Event {
    let what = Ephemeral::Typing { user: user("alice"), name: "Alice".into(), active: true };
    let log = LogId::parse(log).unwrap();
    Event::Ephemeral { ephemeral: Arc::new(EphemeralEvent { log, at, what }), origin: None }
}

/// Seqs of the entries.
pub(crate) fn seqs(events: &[Event]) -> Vec<i64> {
    let seq = |event: &Event| match event {
        Event::Entry { entry, .. } => Some(entry.seq),
        Event::Ephemeral { .. } => None,
    };
    events.iter().filter_map(seq).collect()
}
