//! The store on PostgreSQL: pooled connections, statements prepared once on each, every wait bounded.
//!
//! Each of the store's traits has a file with the statements it needs; `rows` reads what more than one of them asks for.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bb8::{ManageConnection, Pool, QueueStrategy};
use tokio_postgres::{Client, Row, Statement, error::SqlState, types::ToSql};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{Operation, StoreError};
use crate::{
    config::{StoreBackend, StoreConfig},
    metrics::Metrics,
};

mod conversations;
mod diagnose;
mod lifecycle;
mod logs;
mod members;
mod messages;
mod notifications;
mod relay;
mod rows;
mod settings;
mod users;

pub use diagnose::diagnose;

/// How long a call waits for a connection of the pool.
const CHECKOUT: Duration = Duration::from_millis(500);
/// How long a new connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long any call may take; then its connection is given up.
const CALL: Duration = Duration::from_secs(5);
/// Said to the server at the start of each session, shorter than [`CALL`]: a frozen node must not hold a conversation.
const SESSION: &str = "SET statement_timeout = '4s'; SET lock_timeout = '2s'; \
     SET idle_in_transaction_session_timeout = '4s'; SET default_transaction_isolation = 'read committed'; \
     SET client_min_messages = 'warning'";

/// The store on PostgreSQL.
pub struct Postgres {
    pool: Pool<Sessions>,
    sessions: Sessions,
    metrics: Arc<Metrics>,
}

impl Postgres {
    /// A pool over the configured server, and a first connection as proof that it can be reached.
    ///
    /// # Errors
    /// The URL or certificates are faulty, or the server can't be reached.
    pub async fn connect(config: &StoreConfig, metrics: Arc<Metrics>) -> Result<Self, StoreError> {
        let store = Self::unconnected(config, metrics)?;
        store.sessions.connect().await?;
        Ok(store)
    }

    /// The same, without proof.
    fn unconnected(config: &StoreConfig, metrics: Arc<Metrics>) -> Result<Self, StoreError> {
        let StoreBackend::Postgres { url, ca_file } = &config.backend else {
            return Err(StoreError::Unavailable("no PostgreSQL is configured".into()));
        };
        let (config_of_server, tls) = settings::read(url, ca_file.as_deref())?;
        let sessions = Sessions { config: Arc::new(config_of_server), tls };
        let size = config.pool_size + u32::try_from(config.lanes).unwrap_or(u32::MAX);
        let pool = Pool::builder()
            .max_size(size)
            .connection_timeout(CHECKOUT)
            .test_on_check_out(false)
            // The connection used last has what is asked most prepared already.
            .queue_strategy(QueueStrategy::Lifo)
            .error_sink(Box::new(Sink))
            .build_unchecked(sessions.clone());
        Ok(Self { pool, sessions, metrics })
    }

    /// Asks for rows.
    async fn query(
        &self,
        operation: Operation,
        sql: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        let started = Instant::now();
        let result = self.ask(sql, parameters).await;
        let label = [operation.label()];
        self.metrics.store_seconds.with_label_values(&label).observe(started.elapsed().as_secs_f64());
        if result.is_err() {
            self.metrics.store_errors.with_label_values(&label).inc();
        }
        result
    }

    async fn ask(&self, sql: &'static str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, StoreError> {
        let session = self.pool.get().await.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let asked = tokio::time::timeout(CALL, async {
            let statement = session.statement(sql).await.map_err(|error| unavailable(&error))?;
            session.client.query(&statement, parameters).await.map_err(|error| fault(&error))
        });
        asked.await.unwrap_or_else(|_| {
            session.broken.store(true, Ordering::Release);
            Err(StoreError::Unknown("no answer in time".into()))
        })
    }
}

/// A statement could not even be prepared: nothing was asked yet.
fn unavailable(error: &tokio_postgres::Error) -> StoreError {
    match error.as_db_error() {
        Some(_) => StoreError::Failed(describe(error)),
        None => StoreError::Unavailable(describe(error)),
    }
}

/// What an error says about what was done.
fn fault(error: &tokio_postgres::Error) -> StoreError {
    let passing = [
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::QUERY_CANCELED,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::TOO_MANY_CONNECTIONS,
        SqlState::READ_ONLY_SQL_TRANSACTION,
        SqlState::DISK_FULL,
        SqlState::OUT_OF_MEMORY,
    ];
    match error.code() {
        Some(code) if passing.contains(code) => StoreError::Unavailable(describe(error)),
        Some(_) => StoreError::Failed(describe(error)),
        None => StoreError::Unknown(describe(error)),
    }
}

/// An error in words: the server's own where there are some, never the statement's values.
fn describe(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), std::error::Error::source(error)) {
        (Some(said), _) => format!("{}: {}", said.code().code(), said.message()),
        (None, Some(cause)) => format!("{error}: {cause}"),
        (None, None) => error.to_string(),
    }
}

/// One connection, and what was prepared on it.
struct Session {
    client: Client,
    prepared: Mutex<HashMap<&'static str, Statement>>,
    /// A call was given up on: whatever it still does, nobody waits for it.
    broken: AtomicBool,
}

impl Session {
    async fn statement(&self, sql: &'static str) -> Result<Statement, tokio_postgres::Error> {
        let known = self.prepared.lock().unwrap_or_else(PoisonError::into_inner).get(sql).cloned();
        if let Some(statement) = known {
            return Ok(statement);
        }
        let statement = self.client.prepare(sql).await?;
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner).insert(sql, statement.clone());
        Ok(statement)
    }
}

/// Makes connections for the pool.
#[derive(Clone)]
struct Sessions {
    config: Arc<tokio_postgres::Config>,
    tls: MakeRustlsConnect,
}

impl ManageConnection for Sessions {
    type Connection = Session;
    type Error = StoreError;

    async fn connect(&self) -> Result<Session, StoreError> {
        let connecting = tokio::time::timeout(CONNECT, self.config.connect(self.tls.clone()));
        let connected = connecting.await.map_err(|_| StoreError::Unavailable("no connection in time".into()))?;
        let (client, connection) = connected.map_err(|error| StoreError::Unavailable(describe(&error)))?;
        // Ends with the connection, which the client closes when it is dropped.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::warn!(error = describe(&error), "a connection to PostgreSQL ended");
            }
        });
        let session = Session { client, prepared: Mutex::default(), broken: AtomicBool::new(false) };
        session.client.batch_execute(SESSION).await.map_err(|error| StoreError::Unavailable(describe(&error)))?;
        Ok(session)
    }

    async fn is_valid(&self, session: &mut Session) -> Result<(), StoreError> {
        session.client.check_connection().await.map_err(|error| StoreError::Unavailable(describe(&error)))
    }

    fn has_broken(&self, session: &mut Session) -> bool {
        session.client.is_closed() || session.broken.load(Ordering::Acquire)
    }
}

/// Where the pool's own errors go.
#[derive(Debug, Clone, Copy)]
struct Sink;

impl bb8::ErrorSink<StoreError> for Sink {
    fn sink(&self, error: StoreError) {
        tracing::warn!(%error, "PostgreSQL");
    }

    fn boxed_clone(&self) -> Box<dyn bb8::ErrorSink<StoreError>> {
        Box::new(*self)
    }
}
