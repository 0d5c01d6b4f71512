//! The store on PostgreSQL: pooled connections, statements prepared once on each connection, every wait bounded.
//!
//! Each class of calls has a pool of its own ([`Pool`]). Each of the store's traits has a file with its
//! statements. `sessions` has the connections; `rows` holds the queries and row parsers that several files use.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use bb8::{PooledConnection, QueueStrategy};
use tokio_postgres::{Row, types::ToSql};

use self::{
    errors::{fault, is_unfit, prepare_error, query_error},
    liveness::Liveness,
    running::Running,
    sessions::{LogSink, Session, Sessions},
};
use super::{
    Cause, Operation, Pool, StoreError,
    turns::{self, Answers, Bounds, Turns},
};
use crate::{
    config::StoreConfig,
    degrade::{Degrade, Fault, Part},
    metrics::Metrics,
};

mod access;
mod blocks;
mod conversations;
mod deployment;
pub(super) mod diagnose;
mod errors;
mod lifecycle;
mod liveness;
mod logs;
mod members;
mod messages;
mod notifications;
mod personal;
mod pooler;
mod relay;
mod restrictions;
mod retention;
mod rows;
mod running;
mod schema;
mod search;
mod segments;
mod session_settings;
mod sessions;
mod settings;
mod transactions;
mod users;
mod watches;

/// Maximum time to open a connection for a call whose turn has come. A busy server may take seconds to start a process.
const CHECKOUT_TIMEOUT: Duration = Duration::from_secs(3);
/// The same, if the server refuses connections meanwhile.
const REFUSED_CHECKOUT_TIMEOUT: Duration = Duration::from_millis(500);
/// Maximum time for any call; after it the connection is discarded.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// The store on PostgreSQL.
pub struct Postgres {
    config: StoreConfig,
    sessions: Sessions,
    /// Sessions for migrations, if they have a URL of their own.
    migrating: Option<Sessions>,
    /// In the order of [`Pool::ALL`]. Empty until the server was reached and the migrations were applied: every call is
    /// refused until then, because the tables may be those of another version.
    pools: OnceLock<[Connections; Pool::ALL.len()]>,
    /// It opens connections of its own, so that no call can keep it from asking the server.
    liveness: Liveness,
    metrics: Arc<Metrics>,
    degrade: Arc<Degrade>,
    answers: Arc<Answers>,
}

/// The connections of one pool, and the turns of the calls that use them.
struct Connections {
    turns: Turns,
    connections: bb8::Pool<Sessions>,
    sessions: Sessions,
}

impl Connections {
    fn new(
        pool: Pool,
        (sessions, sink): (&Sessions, &LogSink),
        answers: &Arc<Answers>,
        (config, metrics): (&StoreConfig, &Metrics),
    ) -> Self {
        let size = pool.size(config);
        let statement_timeout = pool.is_heavy().then_some(config.heavy_read_timeout);
        let connections = bb8::Pool::builder()
            .max_size(u32::try_from(size).unwrap_or(u32::MAX))
            // Frequent calls never wait for the server to open a connection while it is busy.
            .min_idle(pool.is_frequent().then_some(1))
            .connection_timeout(CHECKOUT_TIMEOUT)
            .test_on_check_out(false)
            // The most recently used connection already has the frequent statements prepared.
            .queue_strategy(QueueStrategy::Lifo)
            .error_sink(Box::new(sink.clone()))
            .build_unchecked(sessions.of_pool(pool, statement_timeout));
        let turns = Turns::new(pool, Bounds::of(pool, size, config), Some(answers.clone()), metrics);
        Self { turns, connections, sessions: sessions.of_pool(pool, statement_timeout) }
    }

    /// Takes a connection, or opens one, and discards dead ones.
    async fn session(&self, liveness: &Liveness) -> Result<PooledConnection<'_, Sessions>, StoreError> {
        let began = Instant::now();
        loop {
            let session = self.checkout().await?;
            // The loop ends: a new session is trusted, and the pool has a bounded number of old ones.
            let is_current = session.opened >= began || self.sessions.is_current(&session);
            if is_current && liveness.trusts(&session) {
                return Ok(session);
            }
            session.discard();
        }
    }

    /// No connection came in time: the newest refusal since `started` tells why.
    fn timed_out(&self, started: Instant) -> StoreError {
        let silent = || Cause::named(Fault::StoreSilent, "no connection came in time");
        StoreError::Unavailable(self.sessions.refused_since(started).unwrap_or_else(silent))
    }

    /// Takes a connection, or opens one. Gives up early if the server refuses connections.
    async fn checkout(&self) -> Result<PooledConnection<'_, Sessions>, StoreError> {
        let started = Instant::now();
        let refused = async {
            loop {
                tokio::time::sleep(REFUSED_CHECKOUT_TIMEOUT).await;
                if let Some(reason) = self.sessions.refused_since(started) {
                    return reason;
                }
            }
        };
        tokio::select! {
            taken = self.connections.get() => taken.map_err(|error| match error {
                bb8::RunError::User(error) => error,
                bb8::RunError::TimedOut => self.timed_out(started),
            }),
            reason = refused => Err(StoreError::Unavailable(reason)),
        }
    }
}

impl Postgres {
    /// Reads the address of the configured server without opening a connection. Calls are refused as unavailable until
    /// [`Lifecycle::start`](super::Lifecycle::start) or [`Lifecycle::migrate`](super::Lifecycle::migrate) succeeds. Calls that
    /// the server refuses although it answers are told to `degrade`.
    ///
    /// # Errors
    /// The URL or the certificates are invalid.
    pub fn new(config: &StoreConfig, metrics: Arc<Metrics>, degrade: Arc<Degrade>) -> Result<Self, StoreError> {
        let (sessions, migrating) = (Sessions::of(config)?, Sessions::for_migrations(config)?);
        Pool::ALL.into_iter().for_each(|pool| turns::show(pool, pool.size(config), &metrics));
        let liveness = Liveness::new(sessions.clone());
        let (config, pools, answers) = (config.clone(), OnceLock::new(), Arc::default());
        Ok(Self { config, sessions, migrating, pools, liveness, metrics, degrade, answers })
    }

    /// Opens the pools: the server was reached and has the right tables.
    fn open_pools(&self) {
        let (sink, settings) = (LogSink::default(), (&self.config, &*self.metrics));
        self.answers.note();
        let open = |pool| Connections::new(pool, (&self.sessions, &sink), &self.answers, settings);
        self.pools.get_or_init(|| Pool::ALL.map(open));
    }

    /// Tries whether the server lets a connection in, if it let in none for a call.
    fn try_after_refusal(&self) {
        let sessions = self.sessions.clone();
        self.degrade.try_entry(Part::Store, || async move { sessions.open_session().await.is_ok() });
    }

    /// A pool; `None` before the start.
    fn pool(&self, pool: Pool) -> Option<&Connections> {
        self.pools.get().map(|pools| &pools[pool as usize])
    }

    /// Runs a query on a connection of the operation's pool, and records its duration and errors in the metrics.
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
        let result = self.run_statement(operation.pool(), sql, parameters).await;
        let label = [operation.label()];
        self.metrics.store_seconds.with_label_values(&label).observe(started.elapsed().as_secs_f64());
        if result.is_err() {
            self.metrics.store_errors.with_label_values(&label).inc();
        }
        if let Some(work) = operation.work() {
            match &result {
                Ok(_) => self.degrade.call_succeeded(work, sql),
                Err(error) => match error.refused_call() {
                    Some(fault) => error.tell_refusal(&self.degrade, (work, sql), fault),
                    None if matches!(error, StoreError::Unavailable(_) | StoreError::Unknown(_)) => {
                        self.degrade.call_failed(work, sql, error.finding());
                    }
                    None => {}
                },
            }
        }
        result
    }

    /// Discards the session if the server says that it is of no use, and every open one if it takes no writes or a pooler lends
    /// them: a statement could else run as another one of the same name.
    fn drop_unfit(&self, session: &Session, error: &tokio_postgres::Error) {
        if is_unfit(error) {
            session.discard();
        }
        match fault(error) {
            Some(Fault::StoreRefusesWrites) => self.liveness.reject_open_sessions(),
            Some(Fault::StorePooled) => {
                self.sessions.suspect_pooler();
                self.liveness.reject_open_sessions();
            }
            _ => {}
        }
    }

    async fn run_statement(
        &self,
        pool: Pool,
        sql: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<(Vec<Row>, Instant), StoreError> {
        let not_started = || StoreError::Unavailable("PostgreSQL has not been reached since the start".into());
        let pooled = self.pool(pool).ok_or_else(not_started)?;
        let turn = pooled.turns.take().await?;
        let session = pooled.session(&self.liveness).await?;
        let running = Running::new(&session, pool.is_heavy().then_some(&self.sessions), turn);
        let began = running.began();
        let call = async {
            let unfit = |error: &tokio_postgres::Error| self.drop_unfit(&session, error);
            if pooled.sessions.pooled {
                return transactions::run(&session, &pooled.sessions, pool, (sql, parameters), unfit).await;
            }
            let statement = session.statement(sql).await.inspect_err(unfit).map_err(|error| prepare_error(&error))?;
            let rows = session.client.query(&statement, parameters).await;
            let rows = rows.inspect_err(unfit).map_err(|error| query_error(pool, &error))?;
            Ok((rows, session.opened))
        };
        let why = tokio::select! {
            result = call => {
                running.answered();
                if result.as_ref().err().is_none_or(StoreError::is_answer) {
                    self.answers.note();
                }
                return result;
            }
            () = self.liveness.until_dead(&session, began) => "the connection is dead",
            () = tokio::time::sleep(CALL_TIMEOUT) => "no answer within 5 s",
        };
        session.discard();
        self.liveness.distrust(began);
        tracing::warn!(after_ms = began.elapsed().as_millis(), why, "a call to PostgreSQL got no answer");
        Err(StoreError::Unknown(why.into()))
    }
}
