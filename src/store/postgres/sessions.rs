//! Connections of the pools, and the statements prepared on each.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI32, Ordering},
    },
    time::{Duration, Instant},
};

use bb8::ManageConnection;
use tokio::sync::watch;
use tokio_postgres::{Client, Statement, types::Type};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    super::{Cause, Pool, StoreError},
    access::Access,
    errors::describe,
    pooler,
    session_settings::{IDENTITY, Server, SessionSettings, fit},
    settings::CONNECT_TIMEOUT,
};
use crate::{
    config::{PostgresConfig, StoreBackend, StoreConfig},
    degrade::Fault,
};

/// Numbers in place of a process id.
const NOBODY: i32 = 0;
const UNTOLD: i32 = -1;

/// The process that serves a session on the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Served {
    /// This process.
    By(i32),
    /// No process so far: a pooler has lent none.
    Nobody,
    /// A process that is not known.
    Untold,
}

/// One connection, and the statements prepared on it.
pub(super) struct Session {
    pub(super) client: Client,
    /// The process that serves it on the server, or a number below.
    pid: AtomicI32,
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

    /// The process that serves it on the server.
    pub(super) fn served(&self) -> Served {
        match self.pid.load(Ordering::Acquire) {
            NOBODY => Served::Nobody,
            UNTOLD => Served::Untold,
            pid => Served::By(pid),
        }
    }

    /// Records the process that serves it on the server now.
    pub(super) fn note_served(&self, served: Served) {
        let pid = match served {
            Served::Nobody => NOBODY,
            Served::Untold => UNTOLD,
            Served::By(pid) => pid,
        };
        self.pid.store(pid, Ordering::Release);
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

/// Types of the parameters of statements.
type ParameterTypes = Arc<Mutex<HashMap<&'static str, Arc<[Type]>>>>;

/// Opens connections to the server.
#[derive(Clone)]
pub(super) struct Sessions {
    pub(super) access: Arc<Access>,
    /// Settings of the sessions of this pool, or of its transactions.
    pub(super) settings: SessionSettings,
    /// True if a pooler lends the server's connections by the transaction: a session keeps nothing on the server then.
    pub(super) pooled: bool,
    /// Known types of parameters, through a pooler: one statement of each is prepared.
    pub(super) types: ParameterTypes,
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
        match &config.backend {
            StoreBackend::Postgres(postgres) => Self::to(postgres),
            StoreBackend::Sqlite { .. } => Err(StoreError::Unavailable("no PostgreSQL is configured".into())),
        }
    }

    /// The same for migrations; `None` if they have no URL of their own.
    pub(super) fn for_migrations(config: &StoreConfig) -> Result<Option<Self>, StoreError> {
        match &config.backend {
            StoreBackend::Postgres(postgres) => postgres.for_migrations().as_ref().map(Self::to).transpose(),
            StoreBackend::Sqlite { .. } => Ok(None),
        }
    }

    fn to(postgres: &PostgresConfig) -> Result<Self, StoreError> {
        let access = Arc::new(Access::of(postgres)?);
        let (settings, types, refused, seen, suspects_pooler) = Default::default();
        Ok(Self { access, settings, pooled: postgres.pooled, types, refused, seen, suspects_pooler })
    }

    /// The same server, with sessions for a pool: for heavy reads if there is a timeout.
    pub(super) fn of_pool(&self, pool: Pool, heavy: Option<Duration>) -> Self {
        Self { settings: SessionSettings { heavy, planned_once: pool.plans_once() }, ..self.clone() }
    }

    /// TLS with the current certificates.
    pub(super) fn tls(&self) -> MakeRustlsConnect {
        self.access.tls()
    }

    /// Changes whenever a session was lost, or a new one led to another server.
    pub(super) fn reconnects(&self) -> watch::Receiver<u64> {
        self.seen.reconnects.subscribe()
    }

    /// Records that sessions were given up, because the server did not answer or takes no writes.
    pub(super) fn note_loss(&self) {
        self.seen.note_reconnect();
    }

    /// Finds a pooler that lends connections, unless one is expected.
    ///
    /// # Errors
    /// As [`pooler::refuse`].
    pub(super) async fn refuse_pooler(&self) -> Result<(), StoreError> {
        if self.pooled {
            return Ok(());
        }
        pooler::refuse(self.open(), self.open()).await
    }

    /// Records the server that a transaction led to.
    pub(super) fn note_server(&self, server: &Server) {
        self.seen.note_server(server);
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
    pub(super) async fn open_session(&self) -> Result<Session, StoreError> {
        if self.suspects_pooler.load(Ordering::Acquire) {
            self.refuse_pooler().await?;
            self.suspects_pooler.store(false, Ordering::Release);
        }
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, async {
            let client = self.open().await?;
            let first = if self.pooled { IDENTITY.to_owned() } else { self.settings.of_session() };
            let answers = client.simple_query(&first).await?;
            Ok((client, answers))
        });
        let silent = |_| StoreError::Unavailable(Cause::named(Fault::StoreSilent, "no connection within 5 s"));
        let connected = connecting.await.map_err(silent)?;
        let (client, answers) = connected.map_err(|error| self.access.explain(&error))?;
        let (pid, server) = fit(&answers)?;
        // Before the first call over the session, so that what it reads or writes counts as of another server.
        self.seen.note_server(&server);
        let now = Instant::now();
        let (prepared, answered, broken) = (Mutex::default(), Mutex::new(now), AtomicBool::new(false));
        let pid = AtomicI32::new(if self.pooled { NOBODY } else { pid });
        Ok(Session { client, pid, server, opened: now, prepared, answered, broken })
    }

    /// Opens a connection outside the pools.
    pub(super) async fn open(&self) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = self.access.connect().await?;
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
