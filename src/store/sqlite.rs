//! The store in one file, for a single node: SQLite with a write-ahead log.
//!
//! One thread writes; each class of reads has a thread of its own ([`Pool`]). They receive jobs from bounded queues, so
//! that SQLite never blocks a runtime worker. `synchronous=NORMAL`: committed data survives the end of the process (kill
//! -9 too), but the last commits before a power loss may be lost.
//!
//! Each of the store's traits has a file with its statements. `rows` holds the queries and row parsers that several of
//! them use.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rusqlite::{Connection, functions::FunctionFlags};
use tokio::sync::{mpsc, oneshot};

use super::{
    Operation, Pool, StoreError,
    turns::{Bounds, Turns},
};
use crate::{
    config::{StoreConfig, make_private_folder, open_private_file},
    metrics::Metrics,
    model::search_tokens,
    supervise::{TaskName, catch_panic},
};

mod conversations;
mod lifecycle;
mod logs;
mod members;
mod messages;
mod notifications;
mod personal;
mod relay;
mod restrictions;
mod retention;
mod rights;
mod rows;
mod users;
mod watches;

/// Maximum number of jobs in the queue of a thread: as many as have a turn.
const QUEUE: usize = 1_024;
/// Number of steps of SQLite between two checks of a heavy read's deadline.
const STEPS_BETWEEN_CHECKS: i32 = 1_000;

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// The store in one file.
pub struct Sqlite {
    /// In the order of [`Pool::ALL`].
    pools: Vec<Worker>,
    writer: mpsc::Sender<Job>,
    metrics: Arc<Metrics>,
}

/// The thread of a pool, and the turns of the calls that it runs. The pools that write share one thread; each has at most
/// a few jobs in its queue, so an append waits for few others.
struct Worker {
    turns: Turns,
    jobs: mpsc::Sender<Job>,
}

impl Sqlite {
    /// Opens the file; creates it and its folder if they don't exist.
    ///
    /// # Errors
    /// The file can't be used.
    pub fn open(path: &Path, config: &StoreConfig, metrics: Arc<Metrics>) -> Result<Self, StoreError> {
        let unusable =
            |error: &dyn std::fmt::Display| StoreError::Failed(format!("{}: {error}", path.display()).into());
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
            // Temporary tables stay in memory: the image's root is read-only, and has no folder for files of theirs.
            let settings = "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA busy_timeout = 5000; \
                            PRAGMA temp_store = MEMORY;";
            connection.execute_batch(settings).map_err(|error| unusable(&error))?;
            connection.set_prepared_statement_cache_capacity(64);
            add_search_tokens(&connection).map_err(|error| unusable(&error))?;
            Ok(connection)
        };
        let writer = spawn_worker(connect()?, None, metrics.clone())?;
        let worker = |pool: Pool| {
            let jobs = match pool {
                Pool::Append | Pool::Relay | Pool::Write | Pool::Bulk => writer.clone(),
                Pool::Ping | Pool::Read => spawn_worker(connect()?, None, metrics.clone())?,
                Pool::List | Pool::Search => {
                    spawn_worker(connect()?, Some(config.heavy_read_timeout), metrics.clone())?
                }
            };
            Ok(Worker { turns: turns(pool, config, &metrics), jobs })
        };
        let pools = Pool::ALL.into_iter().map(worker).collect::<Result<_, StoreError>>()?;
        Ok(Self { pools, writer, metrics })
    }

    /// A store for tests that can't be reached: no thread receives its jobs, so every call fails.
    #[cfg(test)]
    pub(crate) fn unreachable(config: &StoreConfig, metrics: Arc<Metrics>) -> Self {
        let worker = |pool| Worker { turns: turns(pool, config, &metrics), jobs: mpsc::channel(1).0 };
        Self { pools: Pool::ALL.map(worker).into(), writer: mpsc::channel(1).0, metrics }
    }

    fn turns(&self, pool: Pool) -> &Turns {
        &self.pools[pool as usize].turns
    }

    async fn call<T: Send + 'static>(
        &self,
        operation: Operation,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let started = Instant::now();
        let result = self.run_job(operation.pool(), work).await;
        let label = [operation.label()];
        self.metrics.store_seconds.with_label_values(&label).observe(started.elapsed().as_secs_f64());
        if result.is_err() {
            self.metrics.store_errors.with_label_values(&label).inc();
        }
        result
    }

    async fn run_job<T: Send + 'static>(
        &self,
        pool: Pool,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let Worker { turns, jobs } = &self.pools[pool as usize];
        let turn = turns.take().await?;
        let (answer, reply) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // The caller may be gone, and its job not needed any more; a write is done all the same.
            if !pool.is_heavy() || !answer.is_closed() {
                let _gone = answer.send(work(connection));
            }
            drop(turn);
        });
        jobs.try_send(job).map_err(|_| StoreError::Unavailable("the SQLite thread takes no jobs".into()))?;
        match reply.await {
            Ok(result) => result.map_err(|error| store_error(&error)),
            Err(_) => Err(StoreError::Unknown("the SQLite thread panicked or ended".into())),
        }
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
        operation: Operation,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.call(operation, move |connection| work(connection)).await
    }
}

/// Adds the function by which the triggers of the tables index messages.
fn add_search_tokens(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_INNOCUOUS;
    connection.create_scalar_function("search_tokens", 1, flags, |arguments| {
        let text: Option<String> = arguments.get(0)?;
        Ok(search_tokens(&text.unwrap_or_default()).join(" "))
    })
}

fn turns(pool: Pool, config: &StoreConfig, metrics: &Metrics) -> Turns {
    let size = if pool == Pool::Append { pool.size(config) } else { 1 };
    Turns::new(pool, Bounds::of(pool, size, config), None, metrics)
}

/// Starts a thread that runs jobs until every sender is dropped. A job that takes longer than `timeout` is interrupted.
fn spawn_worker(
    mut connection: Connection,
    timeout: Option<Duration>,
    metrics: Arc<Metrics>,
) -> Result<mpsc::Sender<Job>, StoreError> {
    let failed = |error: &dyn std::fmt::Display| StoreError::Failed(error.to_string().into());
    let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
    let began = Arc::new(Mutex::new(Instant::now()));
    if let Some(timeout) = timeout {
        let began = began.clone();
        let overdue = move || began.lock().unwrap_or_else(PoisonError::into_inner).elapsed() >= timeout;
        connection.progress_handler(STEPS_BETWEEN_CHECKS, Some(overdue)).map_err(|error| failed(&error))?;
    }
    let run = move || {
        while let Some(job) = queue.blocking_recv() {
            *began.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            // The transaction of a job that panics is rolled back, and its caller learns that the outcome is unknown.
            let _panicked = catch_panic(&metrics, TaskName::Sqlite, || job(&mut connection));
        }
    };
    std::thread::Builder::new().name("sqlite".into()).spawn(run).map_err(|error| failed(&error))?;
    Ok(jobs)
}

fn store_error(error: &rusqlite::Error) -> StoreError {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, DiskFull, OperationInterrupted, ReadOnly};
    match error.sqlite_error_code() {
        Some(OperationInterrupted) => StoreError::TooSlow,
        Some(DatabaseBusy | DatabaseLocked | DiskFull | ReadOnly) => StoreError::Unavailable(error.to_string().into()),
        _ => StoreError::Failed(error.to_string().into()),
    }
}

/// The current time in µs, as rows store it.
fn now() -> i64 {
    crate::model::Clock::system().now().micros()
}
