//! The store on PostgreSQL: pooled connections, statements prepared once on each connection, every wait bounded.
//!
//! Each of the store's traits has a file with its statements. `rows` holds the queries and row parsers that several of
//! them use.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bb8::{Pool, PooledConnection, QueueStrategy};
use tokio_postgres::{Row, types::ToSql};

use self::{
    errors::{prepare_error, query_error},
    liveness::{DOUBT_AFTER, Liveness},
    sessions::{LogSink, Session, Sessions},
};
use super::{Operation, StoreError};
use crate::{
    config::{StoreBackend, StoreConfig},
    metrics::Metrics,
};

mod conversations;
pub(super) mod diagnose;
mod errors;
mod lifecycle;
mod liveness;
mod logs;
mod members;
mod messages;
mod notifications;
mod relay;
mod rows;
mod sessions;
mod settings;
mod users;

/// Maximum time that a call waits for a pooled connection.
const CHECKOUT_TIMEOUT: Duration = Duration::from_millis(500);
/// Maximum time for any call; after it the connection is discarded.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// The store on PostgreSQL.
pub struct Postgres {
    pool: Pool<Sessions>,
    sessions: Sessions,
    liveness: Liveness,
    metrics: Arc<Metrics>,
    /// True once the server was reached and the migrations were applied. Until then every call is refused, because the
    /// tables may be those of another version.
    started: AtomicBool,
}

impl Postgres {
    /// Builds a pool for the configured server without opening a connection. Calls are refused as unavailable until
    /// [`Lifecycle::start`](super::Lifecycle::start) or [`Lifecycle::migrate`](super::Lifecycle::migrate) succeeds.
    ///
    /// # Errors
    /// The URL or the certificates are invalid.
    pub fn new(config: &StoreConfig, metrics: Arc<Metrics>) -> Result<Self, StoreError> {
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
        let liveness = Liveness::new(sessions.clone());
        Ok(Self { pool, sessions, liveness, metrics, started: AtomicBool::new(false) })
    }

    /// Runs a query and records its duration and errors in the metrics.
    async fn query(
        &self,
        operation: Operation,
        sql: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        self.query_and_age(operation, sql, parameters).await.map(|(rows, _)| rows)
    }

    /// As [`Self::query`]. Also returns a time since which the server has not crashed.
    async fn query_and_age(
        &self,
        operation: Operation,
        sql: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<(Vec<Row>, Instant), StoreError> {
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
    ) -> Result<(Vec<Row>, Instant), StoreError> {
        if !self.started.load(Ordering::Acquire) {
            return Err(StoreError::Unavailable("PostgreSQL has not been reached since the start".into()));
        }
        let session = self.session().await?;
        let began = Instant::now();
        let call = async {
            let statement = session.statement(sql).await.map_err(|error| prepare_error(&error))?;
            session.client.query(&statement, parameters).await.map_err(|error| query_error(&error))
        };
        let unanswered = Unanswered { session: &session, began };
        let why = tokio::select! {
            result = call => {
                std::mem::forget(unanswered);
                session.answered();
                return result.map(|rows| (rows, session.opened));
            }
            () = self.liveness.until_dead(&session, began) => "the connection is dead",
            () = tokio::time::sleep(CALL_TIMEOUT) => "no answer within 5 s",
        };
        session.discard();
        self.liveness.distrust(began);
        tracing::warn!(after_ms = began.elapsed().as_millis(), why, "a call to PostgreSQL got no answer");
        Err(StoreError::Unknown(why.into()))
    }

    /// Takes a connection from the pool, and discards dead ones.
    async fn session(&self) -> Result<PooledConnection<'_, Sessions>, StoreError> {
        loop {
            let session = self.pool.get().await.map_err(|error| StoreError::Unavailable(error.to_string()))?;
            // The loop ends: a new session is trusted, and the pool has a bounded number of old ones.
            if self.liveness.trusts(&session) {
                return Ok(session);
            }
            session.discard();
        }
    }
}

/// A call that has no answer yet. If it is dropped after a while, for example because its caller gave up, the pool
/// discards the session: the connection may be dead.
struct Unanswered<'a> {
    session: &'a Session,
    began: Instant,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if self.began.elapsed() >= DOUBT_AFTER / 2 {
            self.session.discard();
        }
    }
}
