//! The store in one file, for a single node: SQLite with a write-ahead log.
//!
//! One thread writes and one reads. Both receive jobs from bounded queues, so that SQLite never blocks a runtime
//! worker. `synchronous=NORMAL`: committed data survives the end of the process (kill -9 too), but the last commits
//! before a power loss may be lost.
//!
//! Each of the store's traits has a file with its statements. `rows` holds the queries and row parsers that several of
//! them use.

use std::{path::Path, sync::Arc, time::Instant};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::{Operation, StoreError};
use crate::{
    config::{make_private_folder, open_private_file},
    metrics::Metrics,
};

mod conversations;
mod lifecycle;
mod logs;
mod members;
mod messages;
mod notifications;
mod relay;
mod rows;
mod users;

/// Maximum number of calls that wait for one thread.
const QUEUE: usize = 10_000;

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// The store in one file.
pub struct Sqlite {
    writer: mpsc::Sender<Job>,
    reader: mpsc::Sender<Job>,
    metrics: Arc<Metrics>,
}

impl Sqlite {
    /// Opens the file; creates it and its folder if they don't exist.
    ///
    /// # Errors
    /// The file can't be used.
    pub fn open(path: &Path, metrics: Arc<Metrics>) -> Result<Self, StoreError> {
        let unusable = |error: &dyn std::fmt::Display| StoreError::Failed(format!("{}: {error}", path.display()));
        if let Some(folder) = path.parent() {
            make_private_folder(folder).map_err(|error| unusable(&error))?;
        }
        // SQLite gives its write-ahead log the permissions of the database.
        drop(open_private_file(path, false).map_err(|error| unusable(&error))?);
        for suffix in ["-wal", "-shm"] {
            let mut beside = path.as_os_str().to_owned();
            beside.push(suffix);
            let beside = Path::new(&beside);
            if beside.exists() {
                drop(open_private_file(beside, false).map_err(|error| unusable(&error))?);
            }
        }
        let connect = || -> Result<Connection, StoreError> {
            let connection = Connection::open(path).map_err(|error| unusable(&error))?;
            let settings = "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA busy_timeout = 5000;";
            connection.execute_batch(settings).map_err(|error| unusable(&error))?;
            connection.set_prepared_statement_cache_capacity(64);
            Ok(connection)
        };
        Ok(Self { writer: spawn_worker(connect()?)?, reader: spawn_worker(connect()?)?, metrics })
    }

    /// A store for tests that can't be reached: no thread receives its jobs, so every call fails.
    #[cfg(test)]
    pub(crate) fn unreachable(metrics: Arc<Metrics>) -> Self {
        Self { writer: mpsc::channel(1).0, reader: mpsc::channel(1).0, metrics }
    }

    async fn call<T: Send + 'static>(
        &self,
        operation: Operation,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let started = Instant::now();
        let thread = if matches!(operation, Operation::Read | Operation::Ping) { &self.reader } else { &self.writer };
        let (answer, reply) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let _gone = answer.send(work(connection));
        });
        let label = [operation.label()];
        let result = match thread.try_send(job) {
            Err(_) => Err(StoreError::Unavailable("the queue of the SQLite thread is full".into())),
            Ok(()) => match reply.await {
                Ok(result) => result.map_err(|error| store_error(&error)),
                Err(_) => Err(StoreError::Unknown("the SQLite thread ended".into())),
            },
        };
        self.metrics.store_seconds.with_label_values(&label).observe(started.elapsed().as_secs_f64());
        if result.is_err() {
            self.metrics.store_errors.with_label_values(&label).inc();
        }
        result
    }

    /// Runs `work` in one transaction on the writing thread.
    async fn write<T: Send + 'static>(
        &self,
        operation: Operation,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.call(operation, move |connection| {
            let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        })
        .await
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.call(Operation::Read, move |connection| work(connection)).await
    }
}

/// Starts a thread that runs jobs until every sender is dropped.
fn spawn_worker(mut connection: Connection) -> Result<mpsc::Sender<Job>, StoreError> {
    let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
    std::thread::Builder::new()
        .name("sqlite".into())
        .spawn(move || {
            while let Some(job) = queue.blocking_recv() {
                job(&mut connection);
            }
        })
        .map_err(|error| StoreError::Failed(error.to_string()))?;
    Ok(jobs)
}

fn store_error(error: &rusqlite::Error) -> StoreError {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, DiskFull, ReadOnly};
    match error.sqlite_error_code() {
        Some(DatabaseBusy | DatabaseLocked | DiskFull | ReadOnly) => StoreError::Unavailable(error.to_string()),
        _ => StoreError::Failed(error.to_string()),
    }
}

/// The current time in µs, as rows store it.
fn now() -> i64 {
    crate::model::Clock::system().now().micros()
}
