//! Batches small reads of the store that arrive in bursts, such as those of connects: one query serves all that wait.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::{mpsc, oneshot};

use super::command::unavailable;
use crate::{
    model::{LogId, Reject, Seq, Status, UserId},
    store::Store,
    supervise::{TaskName, checkpoint},
};

/// Lookups that may wait.
const QUEUE: usize = 10_000;
/// Lookups that one query serves.
const BATCH: usize = 500;

/// A lookup, and the channel for its result.
#[derive(Debug)]
enum Lookup {
    /// The newest seq of a log.
    Head(LogId, oneshot::Sender<Result<Seq, Reject>>),
    /// A user's status. The sender is dropped if the store can't be read.
    Status(UserId, oneshot::Sender<Status>),
}

/// Queues lookups for [`Batches`].
#[derive(Debug, Clone)]
pub(super) struct BatchLoader {
    lookups: mpsc::Sender<Lookup>,
}

/// Reads the store for the lookups of a [`BatchLoader`].
pub(super) struct Batches {
    store: Arc<dyn Store>,
    lookups: mpsc::Receiver<Lookup>,
}

impl BatchLoader {
    /// Creates a queue. Lookups complete only while [`Batches::run`] runs.
    pub(super) fn new(store: Arc<dyn Store>) -> (Self, Batches) {
        let (lookups, asked) = mpsc::channel(QUEUE);
        (Self { lookups }, Batches { store, lookups: asked })
    }

    /// The newest seq of a log; 0 if the log does not exist.
    pub(super) async fn head(&self, log: &LogId) -> Result<Seq, Reject> {
        let (answer, answered) = oneshot::channel();
        self.lookups.try_send(Lookup::Head(log.clone(), answer)).map_err(|_| Reject::Unavailable)?;
        answered.await.unwrap_or(Err(Reject::Unavailable))
    }

    /// A user's status; none if the store can't be read.
    pub(super) async fn status(&self, user: &UserId) -> Option<Status> {
        let (answer, answered) = oneshot::channel();
        self.lookups.try_send(Lookup::Status(user.clone(), answer)).ok()?;
        answered.await.ok()
    }
}

impl Batches {
    /// Serves lookups batch by batch. Lookups that arrive during a query go into the next batch.
    pub(super) async fn run(&mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        while self.lookups.recv_many(&mut batch, BATCH).await > 0 {
            checkpoint(TaskName::BatchLoader, || "");
            let (mut heads, mut statuses) = (Vec::new(), Vec::new());
            for lookup in batch.drain(..) {
                match lookup {
                    Lookup::Head(log, reply_to) => heads.push((log, reply_to)),
                    Lookup::Status(user, reply_to) => statuses.push((user, reply_to)),
                }
            }
            tokio::join!(self.answer_heads(heads), self.answer_statuses(statuses));
        }
    }

    async fn answer_heads(&self, asked: Vec<(LogId, oneshot::Sender<Result<Seq, Reject>>)>) {
        if asked.is_empty() {
            return;
        }
        let logs: Vec<LogId> = asked.iter().map(|(log, _)| log.clone()).collect();
        let ends = self.store.ends(&logs).await.map_err(|error| unavailable(&error));
        let heads = ends.map(|ends| ends.into_iter().map(|(log, ends)| (log, ends.head)).collect::<HashMap<_, _>>());
        for (log, reply_to) in asked {
            let head = heads.as_ref().map(|heads| heads.get(&log).copied().unwrap_or(0));
            let _gone = reply_to.send(head.map_err(Clone::clone));
        }
    }

    async fn answer_statuses(&self, asked: Vec<(UserId, oneshot::Sender<Status>)>) {
        if asked.is_empty() {
            return;
        }
        let users: Vec<UserId> = asked.iter().map(|(user, _)| user.clone()).collect();
        let Ok(known) = self.store.statuses(&users).await else { return };
        let known: HashMap<UserId, Status> = known.into_iter().map(|(user, status, _)| (user, status)).collect();
        for (user, reply_to) in asked {
            let _gone = reply_to.send(known.get(&user).copied().unwrap_or_default());
        }
    }
}
