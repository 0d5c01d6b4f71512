//! Builds the parts of a node, serves clients, and shuts the node down in order.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admission::ConnectionAdmission,
    advice::Advice,
    auth::{Auth, AuthError, KeyReport},
    backplane::{self, Backplane, StartError},
    broker::{Broker, Drain},
    chat::{Chat, Parts},
    config::{Config, StoreBackend, StoreConfig},
    degrade::{Degrade, LinkState, Part},
    listener::{Kind, Listener},
    metrics::Metrics,
    model::Clock,
    outbox::OutboxBudget,
    restrictions::Restrictions,
    store::{self, Postgres, Pulse, Sqlite, Store, StoreError},
    supervise::{Supervisor, TaskName},
    tail::Tail,
    webhook::{Deliveries, Webhooks},
};

mod faults;
mod node_keys;
mod series;
mod starting;

pub use starting::NotStarted;

/// Maximum time that tasks have to end after the stop signal.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// Time that a start waits for a store that is away before the node listens, not ready, and its health tells the reason.
const LISTEN_AFTER: Duration = Duration::from_secs(1);
/// Time that a start waits for a store that no try found away before the node listens: a busy one takes longer to
/// migrate. A node that listens is ready then.
const LISTEN_AT_LAST: Duration = Duration::from_secs(10);

/// Reason why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration for tokens is unusable.
    #[error("tokens: {0}")]
    Auth(#[from] AuthError),
    /// Redis is unusable as configured.
    #[error("redis: {0}")]
    Backplane(#[from] StartError),
    /// The store is unusable.
    #[error("store: {0}")]
    Store(#[from] StoreError),
    /// The store did not start.
    #[error(transparent)]
    NotStarted(#[from] NotStarted),
    /// The node can't listen on an address.
    #[error("can't listen on {address}: {error}. {}", listen_remedy(*.kind, *.address, .error))]
    Listen {
        /// The listener that needed the address.
        kind: Kind,
        /// The address.
        address: SocketAddr,
        /// The error of the operating system.
        error: std::io::Error,
    },
    /// The HTTP client for webhooks can't be built.
    #[error("webhooks: {0}")]
    Webhooks(#[source] reqwest::Error),
    /// A signal ended the program before the migrations were applied.
    #[error("a signal ended the program before all migrations were applied: run it again")]
    Interrupted,
    /// The process can't receive signals.
    #[error("signals: {0}")]
    Signal(std::io::Error),
    /// Two metrics have the same name.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// A node: its parts, and the handles that end them.
struct Node {
    broker: Arc<Broker>,
    /// Supervises the tasks of the parts. They outlive the connections.
    supervisor: Supervisor,
    store: Arc<dyn Store>,
    backplane: Arc<Backplane>,
    /// Gets the store's answers to health checks.
    pulses: watch::Sender<Option<Pulse>>,
}

impl Node {
    async fn build(config: Config) -> Result<Self, RunError> {
        let config = Arc::new(config);
        if let Some(redis) = &config.redis {
            backplane::check_form(redis).await?;
        }
        let (clock, metrics) = (Clock::system(), Arc::new(Metrics::new()?));
        let supervisor = Supervisor::new(metrics.clone());
        let degrade = Arc::new(Degrade::new(if config.redis.is_some() { LinkState::Down } else { LinkState::Off }));
        degrade.await_store(None);
        let restrictions = Restrictions::unread(config.auth.longest_validity(), &metrics);
        let auth = Arc::new(Auth::new(&config.auth, clock.clone(), restrictions.clone())?);
        let (pulses, pulse) = watch::channel(None);
        let store = open_store(&config.store, metrics.clone(), degrade.clone())?;
        series::create(&metrics);
        let state = (degrade.clone(), metrics.clone(), faults::Shown::default());
        supervisor.spawn_until_stop(TaskName::DegradeWatch, state, |(degrade, metrics, shown)| {
            faults::watch(degrade, metrics, shown).boxed()
        });
        let console = config.console.as_ref();
        let tail = Tail::new(console, metrics.clone());
        let deliveries = Deliveries::new(console.map_or(0, |console| console.deliveries), metrics.clone());
        let webhooks = Webhooks::new(&config, &metrics, &deliveries).map_err(RunError::Webhooks)?;
        let settings = backplane::Settings::from(&*config);
        let (d, m) = (degrade.clone(), metrics.clone());
        let (backplane, events) = Backplane::start(settings, d, m, clock.clone(), &supervisor).await?;
        let chat = Chat::start(Parts {
            config: config.clone(),
            store: store.clone(),
            backplane: (backplane.clone(), events),
            webhooks: webhooks.clone(),
            degrade: degrade.clone(),
            metrics: metrics.clone(),
            restrictions: (restrictions, pulse),
            clock: clock.clone(),
            supervisor: supervisor.clone(),
        });
        let outboxes = OutboxBudget::new(config.limits.outbox_total_bytes, metrics.clone());
        supervisor.spawn_until_stop(TaskName::Outboxes, outboxes.clone(), |outboxes| outboxes.run().boxed());
        let broker = Arc::new(Broker {
            metrics,
            degrade,
            auth,
            chat,
            backplane: backplane.clone(),
            started_at: clock.now(),
            clock,
            admission: Arc::new(ConnectionAdmission::new(&config.limits)),
            advice: Arc::new(Advice::new(config.dev, config.open_conversations)),
            config,
            outboxes,
            drain: Arc::new(Drain::default()),
            tail,
            webhooks,
            deliveries,
            supervisor: supervisor.clone(),
            tasks: TaskTracker::new(),
            stop_accepting: CancellationToken::new(),
        });
        Ok(Self { broker, supervisor, store, backplane, pulses })
    }

    /// Waits for the store and reads its restrictions, then watches it.
    async fn start_store(&self) -> Result<(), RunError> {
        let Self { broker, store, backplane, .. } = self;
        starting::start_store(&**store, (backplane, &broker.chat), &broker.config.store, &broker.degrade).await?;
        let state = (store.clone(), broker.degrade.clone(), broker.metrics.clone(), self.pulses.clone());
        self.supervisor.spawn_until_stop(TaskName::StoreWatch, state, |(store, degrade, metrics, pulses)| {
            store::watch(store.clone(), degrade.clone(), metrics.clone(), pulses.clone()).boxed()
        });
        if backplane.needs_keys() {
            let state = (store.clone(), backplane.clone());
            self.supervisor.spawn_until_stop(TaskName::NodeKeys, state, |(store, backplane)| {
                node_keys::refresh(store.clone(), backplane.clone()).boxed()
            });
        }
        Ok(())
    }

    /// Waits until the node must listen although its store has not started.
    async fn waited_enough(&self) {
        tokio::time::sleep(LISTEN_AFTER).await;
        let degrade = &self.broker.degrade;
        let mut changes = degrade.changes();
        let away = async { while degrade.state(Part::Store).fault.is_none() && changes.changed().await.is_ok() {} };
        let _busy = timeout(LISTEN_AT_LAST - LISTEN_AFTER, away).await;
    }

    /// Binds every address and accepts sockets. Returns the addresses for clients and those for admins.
    fn listen(&self) -> Result<(Vec<SocketAddr>, Vec<SocketAddr>), RunError> {
        let broker = &self.broker;
        let (mut clients, mut admins) = (Vec::new(), Vec::new());
        let all: Vec<SocketAddr> = listen_on(&broker.config).map(|(_, address)| address).collect();
        for (kind, address) in listen_on(&broker.config) {
            let refused = |error| RunError::Listen { kind, address, error };
            let listener = Listener::bind(address, &all).map_err(refused)?;
            let bound = listener.local_addr().map_err(refused)?;
            match kind {
                Kind::Clients => clients.push(bound),
                Kind::Admin => admins.push(bound),
            }
            let until = match kind {
                Kind::Clients => &broker.stop_accepting,
                Kind::Admin => self.supervisor.stop(),
            };
            let state = (listener, broker.clone(), until.clone());
            self.supervisor.spawn(TaskName::Listener, state, move |(listener, broker, until)| {
                listener.serve(broker.clone(), kind, until.clone()).boxed()
            });
        }
        let list = |addresses: &[SocketAddr]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        tracing::info!(clients = list(&clients), admin = list(&admins), node = %broker.config.node, "listening");
        Ok((clients, admins))
    }

    /// Shuts the node down: reports unready at once, accepts connections for a further delay, closes them evenly over
    /// the drain window, then ends all tasks. Without `graceful`, delay and window are zero.
    async fn shut_down(self, graceful: bool) {
        let Self { broker, supervisor, backplane, store: _, pulses: _ } = self;
        let timing = &broker.config.timing;
        let (delay, window) =
            if graceful { (timing.shutdown_delay, timing.drain_window) } else { (Duration::ZERO, Duration::ZERO) };
        broker.degrade.drain();
        broker.metrics.draining.set(1);
        broker
            .metrics
            .drain_deadline
            .set(broker.clock.now().seconds() + (delay + window + END_TIMEOUT).as_secs() as i64);
        tracing::info!(delay_seconds = delay.as_secs(), window_seconds = window.as_secs(), "draining");
        tokio::time::sleep(delay).await;
        broker.stop_accepting.cancel();
        let connections = broker.chat.connections();
        broker.drain.begin(connections, window);
        broker.tasks.close();
        if timeout(window + END_TIMEOUT, broker.tasks.wait()).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
        backplane.leave().await;
        if !supervisor.end(END_TIMEOUT).await {
            tracing::warn!("some tasks did not end in time");
        }
        tracing::info!("stopped");
    }
}

/// The signals that end a node.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, RunError> {
        let receive = |kind| signal(kind).map_err(RunError::Signal);
        Ok(Self { terminate: receive(SignalKind::terminate())?, interrupt: receive(SignalKind::interrupt())? })
    }

    /// Waits for the next signal.
    async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Starts a node with these settings and serves until a signal ends it. Once the node listens, it calls `ready` with
/// the addresses for clients and those for admins. While the store is away, the node listens and is not ready.
///
/// # Errors
/// The node can't start; the error names the part.
pub async fn run(config: Config, ready: impl FnOnce(&Broker, &[SocketAddr], &[SocketAddr])) -> Result<(), RunError> {
    let mut signals = Signals::new()?;
    let node = Node::build(config).await?;
    let served = serve(&node, ready, &mut signals).await;
    let graceful = matches!(served, Ok(Stage::Serving)) && !node.broker.config.dev;
    tokio::select! {
        () = node.shut_down(graceful) => {}
        // A second signal ends the process at once, without the rest of the drain.
        () = signals.recv() => {}
    }
    served.map(drop)
}

/// Applies pending migrations, waiting for a store that is away as a node does. Returns their number.
///
/// # Errors
/// The store has a fault that only an operator can end, was away for too long, or a signal came.
pub async fn migrate(config: &StoreConfig) -> Result<usize, RunError> {
    let mut signals = Signals::new()?;
    let store = open_store(config, Arc::new(Metrics::new()?), Degrade::unwatched())?;
    tokio::select! {
        applied = starting::migrate_store(&*store, config) => Ok(applied?),
        // The connection breaks, and PostgreSQL takes the unfinished migration back.
        () = signals.recv() => Err(RunError::Interrupted),
    }
}

/// The progress of a node at the time of a signal.
enum Stage {
    /// It waited for the store. No client depends on it.
    Starting,
    /// It served clients.
    Serving,
}

/// Starts the store, listens, and serves until a signal comes.
async fn serve(
    node: &Node,
    ready: impl FnOnce(&Broker, &[SocketAddr], &[SocketAddr]),
    signals: &mut Signals,
) -> Result<Stage, RunError> {
    let mut store = std::pin::pin!(node.start_store());
    let mut started = false;
    tokio::select! {
        result = &mut store => { result?; started = true; }
        () = node.waited_enough() => {}
        () = signals.recv() => return Ok(Stage::Starting),
    }
    let broker = &node.broker;
    let (clients, admins) = node.listen()?;
    node.supervisor.spawn_until_stop(TaskName::Keys, broker.clone(), |broker| {
        let keys = broker.clone();
        async move { keys.auth.keep_fresh(|state| record_keys(&keys, state)).await }.boxed()
    });
    ready(broker, &clients, &admins);
    if !started {
        tokio::select! {
            result = &mut store => result?,
            () = signals.recv() => return Ok(Stage::Starting),
        }
    }
    signals.recv().await;
    Ok(Stage::Serving)
}

/// The remedy for an address that the node can't listen on: the flag that sets another one.
fn listen_remedy(kind: Kind, address: SocketAddr, error: &std::io::Error) -> String {
    let (flag, variable, end) = match kind {
        Kind::Clients => ("--listen", "LISTEN", ""),
        Kind::Admin => ("--admin-listen", "ADMIN_LISTEN", "; off disables it"),
    };
    let stop =
        if error.kind() == std::io::ErrorKind::AddrInUse { "Stop what listens there, or choose" } else { "Choose" };
    let other = SocketAddr::new(address.ip(), 0).to_string();
    let other = other.trim_end_matches('0');
    format!("{stop} another address: {flag} {other}PORT (or {variable}{end})")
}

/// Updates the metrics of published keys after a fetch.
fn record_keys(broker: &Broker, report: KeyReport) {
    let metrics = &broker.metrics;
    metrics.key_fetches.with_label_values(&[if report.fetched { "ok" } else { "failed" }]).inc();
    metrics.published_keys.set(i64::try_from(report.usable).unwrap_or(i64::MAX));
    if report.fetched {
        metrics.keys_fetched_at.set(broker.clock.now().seconds());
    }
}

fn listen_on(config: &Config) -> impl Iterator<Item = (Kind, SocketAddr)> + '_ {
    let clients = config.listen.iter().map(|address| (Kind::Clients, *address));
    clients.chain(config.admin_listen.map(|address| (Kind::Admin, address)))
}

/// Opens the configured store. PostgreSQL is not connected to before [`Lifecycle::start`](store::Lifecycle::start).
///
/// # Errors
/// The store is unusable as configured.
pub fn open_store(
    config: &StoreConfig,
    metrics: Arc<Metrics>,
    degrade: Arc<Degrade>,
) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match &config.backend {
        StoreBackend::Sqlite { path } => Arc::new(Sqlite::open(path, config, metrics)?),
        StoreBackend::Postgres { .. } => Arc::new(Postgres::new(config, metrics, degrade)?),
    })
}
