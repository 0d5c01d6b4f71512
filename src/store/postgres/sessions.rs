//! Connections of the pools, and the statements prepared on each.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bb8::ManageConnection;
use tokio::sync::watch;
use tokio_postgres::{
    Client, Config, Connection, SimpleQueryMessage, Socket, Statement, config::TargetSessionAttrs, tls::MakeTlsConnect,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    super::{Cause, Pool, StoreError},
    errors::{connect_error, describe},
    pooler,
    settings::{self, CONNECT_TIMEOUT},
};
use crate::{
    config::{StoreBackend, StoreConfig},
    degrade::Fault,
};

/// Settings of each new session. The timeouts are shorter than [`CALL_TIMEOUT`](super::CALL_TIMEOUT), so that a frozen node
/// doesn't hold a conversation's locks.
const SETTINGS: &str = "SET statement_timeout = '4s'; SET lock_timeout = '2s'; \
     SET idle_in_transaction_session_timeout = '4s'; SET default_transaction_isolation = 'read committed'; \
     SET client_min_messages = 'warning'";

/// Makes an ack wait for the disk, although the role or the database does not: a message that is acked is stored.
const DURABLE: &str = "CASE current_setting('synchronous_commit') WHEN 'off' \
     THEN set_config('synchronous_commit', 'on', false) END";

/// Settings of the sessions of the pools, which make the plan of a statement once for each session. The planner would
/// otherwise plan a statement with an array anew at each call, because it takes a plan for one value to be cheaper than the
/// plan for any number of values; that costs more than to run it. A plan may be made while tables are empty and used once they
/// are large: therefore no plan reads a whole table where there is an index, nor joins other than through an index. The
/// planner takes a scan without an index to be so expensive that it would compile it.
const PLANNED_ONCE: &str = "; SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; \
     SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off";

/// One connection, and the statements prepared on it.
pub(super) struct Session {
    pub(super) client: Client,
    /// The process that serves it on the server.
    pub(super) pid: i32,
    server: Server,
    /// Time at which it was open. The server has not crashed since then, because a crash ends every session.
    pub(super) opened: Instant,
    prepared: Mutex<HashMap<&'static str, Statement>>,
    /// Time of the last answer.
    answered: Mutex<Instant>,
    /// True after a call got no answer: the connection may be dead or busy, so the pool must discard it.
    broken: AtomicBool,
}

impl Session {
    /// Prepares a statement, unless it is prepared already.
    pub(super) async fn statement(&self, sql: &'static str) -> Result<Statement, tokio_postgres::Error> {
        let cached = self.prepared.lock().unwrap_or_else(PoisonError::into_inner).get(sql).cloned();
        if let Some(statement) = cached {
            return Ok(statement);
        }
        let statement = self.client.prepare(sql).await?;
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner).insert(sql, statement.clone());
        Ok(statement)
    }

    /// Records an answer of the server.
    pub(super) fn answered(&self) {
        *self.answered.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Time of the last answer of the server.
    pub(super) fn last_answer(&self) -> Instant {
        *self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the pool discard the session.
    pub(super) fn discard(&self) {
        self.broken.store(true, Ordering::Release);
    }
}

/// The identity of a server process and its database: when it started, and the number of the database. The server after a
/// failover has another one, and so has a copy of a database beside the original.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Server {
    started: String,
    database: String,
}

/// What all sessions together know of the server.
#[derive(Debug, Default)]
struct Seen {
    /// The server of the newest session. Older ones of another server are not used again.
    current: Mutex<Option<Server>>,
    /// Number of times that a session was lost, or a new one led to another server.
    reconnects: watch::Sender<u64>,
    /// Reasons of lost sessions: a server that ends, ends all of them.
    lost: LogSink,
}

impl Seen {
    fn note_reconnect(&self) {
        self.reconnects.send_modify(|count| *count += 1);
    }

    /// Records that a session was lost.
    fn note_lost(&self, reason: String) {
        self.note_reconnect();
        if self.lost.is_new(reason.clone()) {
            tracing::warn!(error = reason, "a connection to PostgreSQL ended");
        } else {
            tracing::debug!(error = reason, "a connection to PostgreSQL ended");
        }
    }

    /// Records the server of a new session.
    fn note_server(&self, server: &Server) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref() == Some(server) {
            return;
        }
        if let Some(former) = current.replace(server.clone()) {
            let (started, database) = (&server.started, &server.database);
            let before = format!("started {}, database {}", former.started, former.database);
            tracing::warn!(
                started,
                database,
                before,
                "new connections to PostgreSQL lead to another server or database, or the server was started again"
            );
            self.note_reconnect();
        }
    }
}

/// A client, and what reads and writes for it.
type Connected = (Client, Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>);

/// Opens connections to the server.
#[derive(Clone)]
pub(super) struct Sessions {
    pub(super) config: Arc<Config>,
    pub(super) tls: MakeRustlsConnect,
    /// The settings for each host alone, and the place of the one that was used last.
    hosts: Arc<[Config]>,
    last_used: Arc<AtomicUsize>,
    /// Maximum duration of a heavy read's statement; `None` for other calls.
    heavy: Option<Duration>,
    /// True if each session makes a plan of each statement once.
    planned_once: bool,
    /// Time and reason of the last refusal of a connection, through any pool.
    refused: Arc<Mutex<Option<(Instant, Cause)>>>,
    seen: Arc<Seen>,
    /// True after a session lost its statements: a pooler that lends connections is looked for before a new one is used.
    suspects_pooler: Arc<AtomicBool>,
}

impl Sessions {
    /// Connections to the configured server; opens none.
    ///
    /// # Errors
    /// The URL or the certificates are invalid.
    pub(super) fn of(config: &StoreConfig) -> Result<Self, StoreError> {
        let StoreBackend::Postgres { url, ca_file } = &config.backend else {
            return Err(StoreError::Unavailable("no PostgreSQL is configured".into()));
        };
        let (config, tls) = settings::read(url, ca_file.as_deref())?;
        let (refused, seen, suspects_pooler, last_used) = Default::default();
        let hosts = settings::each_host(&config).into_iter().map(|(_, host)| host).collect();
        let (config, heavy, planned_once) = (Arc::new(config), None, false);
        Ok(Self { config, tls, hosts, last_used, heavy, planned_once, refused, seen, suspects_pooler })
    }

    /// The same server, with sessions for a pool: for heavy reads if there is a timeout.
    pub(super) fn of_pool(&self, pool: Pool, heavy: Option<Duration>) -> Self {
        Self { heavy, planned_once: pool.plans_once(), ..self.clone() }
    }

    /// Changes whenever a session was lost, or a new one led to another server.
    pub(super) fn reconnects(&self) -> watch::Receiver<u64> {
        self.seen.reconnects.subscribe()
    }

    /// Records that sessions were given up, because the server did not answer or takes no writes.
    pub(super) fn note_loss(&self) {
        self.seen.note_reconnect();
    }

    /// Finds a pooler that lends connections.
    ///
    /// # Errors
    /// As [`pooler::refuse`].
    pub(super) async fn refuse_pooler(&self) -> Result<(), StoreError> {
        pooler::refuse(self.open(), self.open()).await
    }

    /// Records that a session lost its statements.
    pub(super) fn suspect_pooler(&self) {
        self.suspects_pooler.store(true, Ordering::Release);
    }

    /// True if the session is one of the server to which new sessions lead.
    pub(super) fn is_current(&self, session: &Session) -> bool {
        self.seen.current.lock().unwrap_or_else(PoisonError::into_inner).as_ref() == Some(&session.server)
    }

    /// Why the server refused a connection since `since`; `None` if it refused none.
    pub(super) fn refused_since(&self, since: Instant) -> Option<Cause> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.as_ref().filter(|(at, _)| *at >= since).map(|(_, reason)| reason.clone())
    }

    fn note_refusal(&self, error: &StoreError) {
        let reason = match error {
            StoreError::Unavailable(cause) | StoreError::Failed(cause) => cause.clone(),
            other => other.to_string().into(),
        };
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), reason));
    }

    /// Opens a connection and makes its first statements.
    async fn open_session(&self) -> Result<Session, StoreError> {
        if self.suspects_pooler.load(Ordering::Acquire) {
            self.refuse_pooler().await?;
            self.suspects_pooler.store(false, Ordering::Release);
        }
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, async {
            let client = self.open().await?;
            let answers = client.simple_query(&self.begin()).await?;
            Ok((client, answers))
        });
        let connected = connecting.await.map_err(|_| StoreError::Unavailable("no connection within 5 s".into()))?;
        let (client, answers) = connected.map_err(|error| connect_error(&error))?;
        let (pid, server) = fit(&answers)?;
        // Before the first call over the session, so that what it reads or writes counts as of another server.
        self.seen.note_server(&server);
        let now = Instant::now();
        let (prepared, answered, broken) = (Mutex::default(), Mutex::new(now), AtomicBool::new(false));
        Ok(Session { client, pid, server, opened: now, prepared, answered, broken })
    }

    /// The first statements of a session: its settings, and the question for its process id.
    fn begin(&self) -> String {
        let heavy = self.heavy.map_or_else(String::new, |timeout| {
            // A heavy read uses one process of the server, and the planner never compiles it.
            // One that waits for a lock fails before, and by another name than one that has too much to read.
            format!(
                "; SET statement_timeout = {}; SET lock_timeout = {}; SET max_parallel_workers_per_gather = 0; SET jit = off",
                timeout.as_millis(),
                timeout.as_millis() / 2
            )
        });
        let plans = if self.planned_once { PLANNED_ONCE } else { "" };
        #[cfg(not(feature = "faults"))]
        let durable = DURABLE;
        #[cfg(feature = "faults")]
        let durable = if crate::faults::has(crate::faults::Fault::AckBeforeCommit) { "NULL" } else { DURABLE };
        format!(
            "{SETTINGS}{heavy}{plans}; SELECT pg_backend_pid(), pg_is_in_recovery(), current_setting('transaction_read_only'), \
             current_setting('server_encoding'), extract(epoch FROM pg_postmaster_start_time()), \
             (SELECT oid FROM pg_database WHERE datname = current_database()), {durable}"
        )
    }

    /// Connects to the first of the hosts that lets this user in and is as the URL demands. A host that accepts and then says
    /// nothing, because it is frozen, has its share of the time and no more.
    async fn connect_to_a_host(&self) -> Result<Connected, tokio_postgres::Error> {
        let (count, each) = (self.hosts.len(), settings::host_timeout(self.hosts.len()));
        if count < 2 {
            return self.config.connect(self.tls.clone()).await;
        }
        // Only one host takes writes, so the order is of no importance then.
        let writable = self.config.get_target_session_attrs() == TargetSessionAttrs::ReadWrite;
        let first = if writable { self.last_used.load(Ordering::Acquire) } else { 0 };
        let mut refused = None;
        for at in (0..count).map(|place| (first + place) % count) {
            let connecting = self.hosts[at].connect(self.tls.clone());
            match tokio::time::timeout(each, connecting).await {
                Ok(Ok(connected)) => {
                    self.last_used.store(at, Ordering::Release);
                    return Ok(connected);
                }
                Ok(Err(error)) => refused = Some(error),
                Err(_silent) => {}
            }
        }
        match refused {
            Some(error) => Err(error),
            // All are silent. The caller's time ends this, unless one of them answers late.
            None => self.config.connect(self.tls.clone()).await,
        }
    }

    /// Opens a connection outside the pools.
    pub(super) async fn open(&self) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = self.connect_to_a_host().await?;
        let seen = self.seen.clone();
        // This task ends when the client is dropped, because that closes the connection.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                seen.note_lost(describe(&error));
            }
        });
        Ok(client)
    }
}

/// Checks the answers to [`Sessions::begin`]: the server must take writes. Returns the process that serves the session, and
/// the server.
fn fit(answers: &[SimpleQueryMessage]) -> Result<(i32, Server), StoreError> {
    let row = answers.iter().find_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let column = |index| row.and_then(|row| row.try_get(index).ok().flatten()).unwrap_or_default();
    let refuses = |why: &str| Err(StoreError::Unavailable(Cause::named(Fault::StoreRefusesWrites, why)));
    match (column(0).parse(), column(1), column(2), column(3)) {
        (Err(_), ..) => Err(StoreError::Unavailable("the server did not tell its process id".into())),
        (Ok(_), "t", ..) => refuses("the server is a standby (pg_is_in_recovery)"),
        (Ok(_), _, "on", _) => refuses("the server's transactions are read-only (default_transaction_read_only)"),
        (Ok(pid), _, _, "UTF8") => Ok((pid, Server { started: column(4).to_owned(), database: column(5).to_owned() })),
        (Ok(_), _, _, encoding) => Err(StoreError::Failed(Cause::named(
            Fault::StoreWrongEncoding,
            format!(
                "the database's encoding is {encoding}; it must be UTF8: create it with ENCODING 'UTF8' TEMPLATE template0"
            ),
        ))),
    }
}

impl ManageConnection for Sessions {
    type Connection = Session;
    type Error = StoreError;

    async fn connect(&self) -> Result<Session, StoreError> {
        self.open_session().await.inspect_err(|error| self.note_refusal(error))
    }

    async fn is_valid(&self, session: &mut Session) -> Result<(), StoreError> {
        session.client.check_connection().await.map_err(|error| StoreError::Unavailable(describe(&error).into()))
    }

    fn has_broken(&self, session: &mut Session) -> bool {
        session.client.is_closed() || session.broken.load(Ordering::Acquire)
    }
}

/// Logs errors of connections: each reason once, until it was absent for [`QUIET`]. Pools retry several times a second, and a
/// server that ends has many connections.
#[derive(Debug, Clone, Default)]
pub(super) struct LogSink(Arc<Mutex<Option<(String, Instant)>>>);

/// Time without a reason after which it is logged again.
const QUIET: Duration = Duration::from_secs(60);

impl LogSink {
    /// True if this reason was not logged within [`QUIET`].
    fn is_new(&self, reason: String) -> bool {
        let now = Instant::now();
        let before = self.0.lock().unwrap_or_else(PoisonError::into_inner).replace((reason.clone(), now));
        before.is_none_or(|(known, at)| known != reason || now.duration_since(at) > QUIET)
    }
}

impl bb8::ErrorSink<StoreError> for LogSink {
    fn sink(&self, error: StoreError) {
        if self.is_new(error.to_string()) {
            tracing::warn!(%error, "a pooled connection to PostgreSQL failed");
        }
    }

    fn boxed_clone(&self) -> Box<dyn bb8::ErrorSink<StoreError>> {
        Box::new(self.clone())
    }
}
