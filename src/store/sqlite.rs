//! The store in one file, for one node: SQLite with a write-ahead log.
//!
//! One thread writes and one reads; both take work from bounded queues, so that nothing here blocks a runtime's worker.
//! `synchronous=NORMAL`: what was committed survives the end of the process (kill -9 too), but the last moments before a
//! loss of power may be lost.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::{
    Access, Direct, Ends, MessagesPage, NewEntry, Operation, Outcome, Store, StoreError, Waiting, Within, migrations,
    row::direct_key,
};
use crate::{
    metrics::Metrics,
    model::{
        Conversation, ConversationId, Entry, LogId, Message, NewConversation, NodeId, Notification, Pair, Seq, Status,
        Timestamp, UserId,
    },
};

mod append;
mod pages;
mod queries;

/// Calls that may wait for a thread.
const QUEUE: usize = 10_000;

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// The store in one file.
pub struct Sqlite {
    writer: mpsc::Sender<Job>,
    reader: mpsc::Sender<Job>,
    metrics: Arc<Metrics>,
}

impl Sqlite {
    /// Opens the file, and makes it and its folder where there is none.
    ///
    /// # Errors
    /// The file can't be used.
    pub fn open(path: &Path, metrics: Arc<Metrics>) -> Result<Self, StoreError> {
        let unusable = |error: &dyn std::fmt::Display| StoreError::Failed(format!("{}: {error}", path.display()));
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| unusable(&error))?;
        }
        let connect = || -> Result<Connection, StoreError> {
            let connection = Connection::open(path).map_err(|error| unusable(&error))?;
            let settings = "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA busy_timeout = 5000;";
            connection.execute_batch(settings).map_err(|error| unusable(&error))?;
            connection.set_prepared_statement_cache_capacity(64);
            Ok(connection)
        };
        Ok(Self { writer: worker(connect()?)?, reader: worker(connect()?)?, metrics })
    }

    async fn call<T: Send + 'static>(
        &self,
        operation: Operation,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let started = Instant::now();
        let thread = if matches!(operation, Operation::Read | Operation::Ping) { &self.reader } else { &self.writer };
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let _gone = answer.send(work(connection));
        });
        let label = [operation.label()];
        let result = match thread.try_send(job) {
            Err(_) => Err(StoreError::Unavailable("too much waits already".into())),
            Ok(()) => match answered.await {
                Ok(result) => result.map_err(|error| fault(&error)),
                Err(_) => Err(StoreError::Unknown("the store's thread ended".into())),
            },
        };
        self.metrics.store_seconds.with_label_values(&label).observe(started.elapsed().as_secs_f64());
        if result.is_err() {
            self.metrics.store_errors.with_label_values(&label).inc();
        }
        result
    }

    /// Runs work in one transaction on the writing thread.
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

/// A thread that does what it is given, until nobody can give it more.
fn worker(mut connection: Connection) -> Result<mpsc::Sender<Job>, StoreError> {
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

fn fault(error: &rusqlite::Error) -> StoreError {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, DiskFull, ReadOnly};
    match error.sqlite_error_code() {
        Some(DatabaseBusy | DatabaseLocked | DiskFull | ReadOnly) => StoreError::Unavailable(error.to_string()),
        _ => StoreError::Failed(error.to_string()),
    }
}

/// The time, as rows keep it.
fn now() -> i64 {
    crate::model::Clock::system().now().micros()
}

#[async_trait]
impl Store for Sqlite {
    async fn migrate(&self) -> Result<usize, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let failed = |error: refinery_core::Error| StoreError::Failed(error.to_string());
            let report = migrations::runner(migrations::SQLITE).and_then(|all| all.run(connection).map_err(failed));
            let _gone = answer.send(report.map(|report| report.applied_migrations().len()));
        });
        let failed = |_| StoreError::Failed("the store's thread ended".into());
        self.writer.send(job).await.map_err(|_| StoreError::Failed("the store's thread ended".into()))?;
        answered.await.map_err(failed)?
    }

    async fn ping(&self) -> Result<bool, StoreError> {
        self.call(Operation::Ping, |connection| connection.query_row("SELECT false", [], |row| row.get(0))).await
    }

    // One node alone has nobody to give notice to.
    async fn give_notice(&self, _: &NodeId, _: Duration, _: &[(LogId, Seq)]) -> Result<(), StoreError> {
        Ok(())
    }

    async fn withdraw_notice(&self, _: &NodeId) -> Result<(), StoreError> {
        Ok(())
    }

    async fn notices(&self, _: Duration) -> Result<Vec<(LogId, Seq)>, StoreError> {
        Ok(Vec::new())
    }

    async fn append(&self, batch: &[NewEntry]) -> Result<Vec<Outcome>, StoreError> {
        let batch = batch.to_vec();
        self.write(Operation::Append, move |db| batch.iter().map(|new| append::append(db, new)).collect()).await
    }

    async fn ends(&self, logs: &[LogId]) -> Result<Vec<(LogId, Ends)>, StoreError> {
        let logs = logs.to_vec();
        self.read(move |db| queries::ends(db, logs)).await
    }

    async fn entries(&self, log: &LogId, after: Seq, limit: u32) -> Result<Vec<Entry>, StoreError> {
        let log = log.clone();
        self.read(move |db| queries::entries(db, &log, after, limit)).await
    }

    async fn messages(
        &self,
        conversation: &ConversationId,
        reader: &UserId,
        page: MessagesPage,
    ) -> Result<(Vec<Message>, i64), StoreError> {
        let (id, reader) = (conversation.clone(), reader.clone());
        self.read(move |db| pages::messages(db, &id, &reader, page)).await
    }

    async fn message(
        &self,
        conversation: &ConversationId,
        seq: Seq,
        reader: &UserId,
    ) -> Result<Option<Message>, StoreError> {
        let (id, reader) = (conversation.clone(), reader.clone());
        self.read(move |db| pages::message(db, &id, seq, &reader)).await
    }

    async fn search(&self, within: &Within, words: &str, limit: u32, offset: u32) -> Result<Vec<Entry>, StoreError> {
        let (within, words) = (within.clone(), words.to_owned());
        self.read(move |db| pages::search(db, &within, &words, limit, offset)).await
    }

    async fn access(&self, conversation: &ConversationId, user: &UserId) -> Result<Option<Access>, StoreError> {
        let (id, user) = (conversation.clone(), user.clone());
        self.read(move |db| queries::access(db, &id, &user)).await
    }

    async fn create(
        &self,
        new: &NewConversation,
        id: &ConversationId,
        creator: &UserId,
    ) -> Result<Option<(Conversation, Vec<Entry>)>, StoreError> {
        let (new, id, creator) = (new.clone(), id.clone(), creator.clone());
        self.write(Operation::Write, move |db| {
            let members = new.members.iter().chain([&creator]).cloned().collect();
            let Some(told) = append::create(db, &new, &id, None, &creator, members)? else { return Ok(None) };
            Ok(queries::conversation(db, &id, &creator)?.map(|conversation| (conversation, told)))
        })
        .await
    }

    async fn direct(&self, one: &UserId, other: &UserId) -> Result<(ConversationId, Vec<Entry>), StoreError> {
        let (one, other) = (one.clone(), other.clone());
        self.write(Operation::Write, move |db| {
            let key = direct_key(&one, &other);
            if let Some(id) = queries::direct(db, &key)? {
                return Ok((id, Vec::new()));
            }
            let (id, members) = (ConversationId::fresh(), [one.clone(), other].into());
            let told = append::create(db, &NewConversation::default(), &id, Some(&key), &one, members)?;
            Ok((id, told.unwrap_or_default()))
        })
        .await
    }

    async fn conversation(&self, id: &ConversationId, reader: &UserId) -> Result<Option<Conversation>, StoreError> {
        let (id, reader) = (id.clone(), reader.clone());
        self.read(move |db| queries::conversation(db, &id, &reader)).await
    }

    async fn conversations(
        &self,
        user: &UserId,
        archived: bool,
        limit: u32,
        offset: u32,
    ) -> Result<(Vec<Conversation>, i64), StoreError> {
        let user = user.clone();
        self.read(move |db| pages::conversations(db, &user, archived, limit, offset)).await
    }

    async fn archive(&self, conversation: &ConversationId, user: &UserId, archived: bool) -> Result<bool, StoreError> {
        let (id, user) = (conversation.clone(), user.clone());
        let sql = "UPDATE members SET archived = ?3 WHERE conversation = ?1 AND user_id = ?2";
        self.write(Operation::Write, move |db| Ok(db.execute(sql, (id.as_str(), user.as_str(), archived))? > 0)).await
    }

    async fn directs(&self, user: &UserId, limit: u32) -> Result<Vec<Direct>, StoreError> {
        let user = user.clone();
        self.read(move |db| pages::directs(db, &user, limit)).await
    }

    async fn pair(&self, conversation: &ConversationId) -> Result<Option<Pair>, StoreError> {
        let id = conversation.clone();
        self.read(move |db| pages::pair_of(db, &id)).await
    }

    async fn acquaintances(&self, user: &UserId, limit: u32) -> Result<Vec<UserId>, StoreError> {
        let user = user.clone();
        self.read(move |db| pages::acquaintances(db, &user, limit)).await
    }

    async fn mark(
        &self,
        conversation: &ConversationId,
        user: &UserId,
        delivered: Seq,
        read: Seq,
    ) -> Result<Option<(Seq, Seq)>, StoreError> {
        let (id, user) = (conversation.clone(), user.clone());
        self.write(Operation::Write, move |db| append::mark(db, &id, &user, delivered.max(read), read)).await
    }

    async fn know(&self, users: &[(UserId, Arc<str>)]) -> Result<(), StoreError> {
        let users = users.to_vec();
        self.write(Operation::Write, move |db| {
            let sql =
                "INSERT INTO users (id, name) VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET name = excluded.name";
            users
                .iter()
                .try_for_each(|(user, name)| db.prepare_cached(sql)?.execute((user.as_str(), &**name)).map(drop))
        })
        .await
    }

    async fn set_status(&self, user: &UserId, status: Status) -> Result<(), StoreError> {
        let user = user.clone();
        let sql = "UPDATE users SET status = ?2 WHERE id = ?1";
        self.write(Operation::Write, move |db| db.execute(sql, (user.as_str(), status.code())).map(drop)).await
    }

    async fn seen(&self, users: &[UserId], at: Timestamp) -> Result<(), StoreError> {
        let users = users.to_vec();
        self.write(Operation::Write, move |db| {
            let sql = "UPDATE users SET last_seen = max(coalesce(last_seen, 0), ?2) WHERE id = ?1";
            users.iter().try_for_each(|user| db.execute(sql, (user.as_str(), at.micros())).map(drop))
        })
        .await
    }

    async fn statuses(&self, users: &[UserId]) -> Result<Vec<(UserId, Status, Option<Timestamp>)>, StoreError> {
        let users = users.to_vec();
        self.read(move |db| queries::statuses(db, users)).await
    }

    async fn members(
        &self,
        conversation: &ConversationId,
        after: Option<&UserId>,
        limit: u32,
    ) -> Result<Vec<UserId>, StoreError> {
        let (id, after) = (conversation.clone(), after.map_or_else(String::new, ToString::to_string));
        self.read(move |db| {
            Ok(queries::members(db, &id, &after, limit)?.into_iter().map(|member| member.user).collect())
        })
        .await
    }

    async fn notify(
        &self,
        conversation: &ConversationId,
        waiting: Waiting,
        users: &[UserId],
    ) -> Result<Vec<Entry>, StoreError> {
        let (id, users) = (conversation.clone(), users.to_vec());
        self.write(Operation::Write, move |db| append::notify(db, &id, waiting, users)).await
    }

    async fn notifications(&self, user: &UserId, limit: u32, offset: u32) -> Result<Vec<Notification>, StoreError> {
        let user = user.clone();
        self.read(move |db| queries::notifications(db, &user, limit, offset)).await
    }

    async fn read_notifications(&self, user: &UserId, ids: Option<&[i64]>) -> Result<u64, StoreError> {
        let (user, ids) = (user.clone(), ids.map(<[i64]>::to_vec));
        self.write(Operation::Write, move |db| append::read_notifications(db, &user, ids)).await
    }
}
