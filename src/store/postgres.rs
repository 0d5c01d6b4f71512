//! The store on PostgreSQL: pooled connections, statements prepared once on each connection, every wait bounded.
//!
//! Each of the store's traits has a file with its statements. `rows` holds the queries and row parsers that several of
//! them use.

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
pub(super) mod diagnose;
mod lifecycle;
mod logs;
mod members;
mod messages;
mod notifications;
mod relay;
mod rows;
mod settings;
mod users;

/// Maximum time that a call waits for a pooled connection.
const CHECKOUT_TIMEOUT: Duration = Duration::from_millis(500);
/// Maximum time for any call; after it the connection is discarded.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Settings of each new session. Its timeouts are shorter than [`CALL_TIMEOUT`], so that a frozen node doesn't hold a
/// conversation's locks.
const SESSION_SETTINGS: &str = "SET statement_timeout = '4s'; SET lock_timeout = '2s'; \
     SET idle_in_transaction_session_timeout = '4s'; SET default_transaction_isolation = 'read committed'; \
     SET client_min_messages = 'warning'";

/// The store on PostgreSQL.
pub struct Postgres {
    pool: Pool<Sessions>,
    sessions: Sessions,
    metrics: Arc<Metrics>,
}

impl Postgres {
    /// Builds a pool for the configured server, and opens one connection to prove that the server can be reached.
    ///
    /// # Errors
    /// The URL or the certificates are invalid, or the server can't be reached.
    pub async fn connect(config: &StoreConfig, metrics: Arc<Metrics>) -> Result<Self, StoreError> {
        let store = Self::unconnected(config, metrics)?;
        store.sessions.connect().await?;
        Ok(store)
    }

    /// Builds the pool without opening a connection.
    fn unconnected(config: &StoreConfig, metrics: Arc<Metrics>) -> Result<Self, StoreError> {
        let StoreBackend::Postgres { url, ca_file } = &config.backend else {
            return Err(StoreError::Unavailable("no PostgreSQL is configured".into()));
        };
        let (server_config, tls) = settings::read(url, ca_file.as_deref())?;
        let sessions = Sessions { config: Arc::new(server_config), tls };
        let size = config.pool_size + u32::try_from(config.lanes).unwrap_or(u32::MAX);
        let pool = Pool::builder()
            .max_size(size)
            .connection_timeout(CHECKOUT_TIMEOUT)
            .test_on_check_out(false)
            // The most recently used connection already has the frequent statements prepared.
            .queue_strategy(QueueStrategy::Lifo)
            .error_sink(Box::new(LogSink))
            .build_unchecked(sessions.clone());
        Ok(Self { pool, sessions, metrics })
    }

    /// Runs a query and records its duration and errors in the metrics.
    async fn query(
        &self,
        operation: Operation,
        sql: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        let started = Instant::now();
        let result = self.run_statement(sql, parameters).await;
        let label = [operation.label()];
        self.metrics.store_seconds.with_label_values(&label).observe(started.elapsed().as_secs_f64());
        if result.is_err() {
            self.metrics.store_errors.with_label_values(&label).inc();
        }
        result
    }

    async fn run_statement(
        &self,
        sql: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        let session = self.pool.get().await.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let call = tokio::time::timeout(CALL_TIMEOUT, async {
            let statement = session.statement(sql).await.map_err(|error| prepare_error(&error))?;
            session.client.query(&statement, parameters).await.map_err(|error| query_error(&error))
        });
        call.await.unwrap_or_else(|_| {
            session.broken.store(true, Ordering::Release);
            Err(StoreError::Unknown("no answer within 5 s".into()))
        })
    }
}

/// Maps an error of `prepare`: no statement ran, so nothing was written.
fn prepare_error(error: &tokio_postgres::Error) -> StoreError {
    match error.as_db_error() {
        Some(_) => StoreError::Failed(describe(error)),
        None => StoreError::Unavailable(describe(error)),
    }
}

/// Maps an error of an executed statement by what may have been written.
fn query_error(error: &tokio_postgres::Error) -> StoreError {
    let transient = [
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
        Some(code) if transient.contains(code) => StoreError::Unavailable(describe(error)),
        Some(_) => StoreError::Failed(describe(error)),
        None => StoreError::Unknown(describe(error)),
    }
}

/// The error as text: the server's code and message where there are some, never the values of the statement.
fn describe(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), std::error::Error::source(error)) {
        (Some(db_error), _) => format!("{}: {}", db_error.code().code(), db_error.message()),
        (None, Some(cause)) => format!("{error}: {cause}"),
        (None, None) => error.to_string(),
    }
}

/// One connection, and the statements prepared on it.
struct Session {
    client: Client,
    prepared: Mutex<HashMap<&'static str, Statement>>,
    /// True after a call timed out: the connection may still be busy with it, so the pool must discard it.
    broken: AtomicBool,
}

impl Session {
    async fn statement(&self, sql: &'static str) -> Result<Statement, tokio_postgres::Error> {
        let cached = self.prepared.lock().unwrap_or_else(PoisonError::into_inner).get(sql).cloned();
        if let Some(statement) = cached {
            return Ok(statement);
        }
        let statement = self.client.prepare(sql).await?;
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner).insert(sql, statement.clone());
        Ok(statement)
    }
}

/// Opens connections for the pool.
#[derive(Clone)]
struct Sessions {
    config: Arc<tokio_postgres::Config>,
    tls: MakeRustlsConnect,
}

impl ManageConnection for Sessions {
    type Connection = Session;
    type Error = StoreError;

    async fn connect(&self) -> Result<Session, StoreError> {
        let connecting = tokio::time::timeout(settings::CONNECT_TIMEOUT, self.config.connect(self.tls.clone()));
        let connected = connecting.await.map_err(|_| StoreError::Unavailable("no connection within 5 s".into()))?;
        let (client, connection) = connected.map_err(|error| StoreError::Unavailable(describe(&error)))?;
        // This task ends when the client is dropped, because that closes the connection.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::warn!(error = describe(&error), "a connection to PostgreSQL ended");
            }
        });
        let session = Session { client, prepared: Mutex::default(), broken: AtomicBool::new(false) };
        session
            .client
            .batch_execute(SESSION_SETTINGS)
            .await
            .map_err(|error| StoreError::Unavailable(describe(&error)))?;
        Ok(session)
    }

    async fn is_valid(&self, session: &mut Session) -> Result<(), StoreError> {
        session.client.check_connection().await.map_err(|error| StoreError::Unavailable(describe(&error)))
    }

    fn has_broken(&self, session: &mut Session) -> bool {
        session.client.is_closed() || session.broken.load(Ordering::Acquire)
    }
}

/// Logs the pool's own errors.
#[derive(Debug, Clone, Copy)]
struct LogSink;

impl bb8::ErrorSink<StoreError> for LogSink {
    fn sink(&self, error: StoreError) {
        tracing::warn!(%error, "a pooled connection to PostgreSQL failed");
    }

    fn boxed_clone(&self) -> Box<dyn bb8::ErrorSink<StoreError>> {
        Box::new(*self)
    }
}
