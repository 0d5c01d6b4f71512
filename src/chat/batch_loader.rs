//! Batches small reads of the store that arrive in bursts, such as those of connects: one query serves all that wait.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::{mpsc, oneshot};

use super::command::unavailable;
use crate::{
    model::{LogId, Reject, Status, UserId},
    store::{Ends, Store},
    supervise::{TaskName, checkpoint},
};

/// Lookups that may wait.
const QUEUE: usize = 10_000;
/// Lookups that one query serves.
const BATCH: usize = 500;

/// A lookup, and the channel for its result.
#[derive(Debug)]
enum Lookup {
    /// The ends of a log.
    Ends(LogId, oneshot::Sender<Result<Ends, Reject>>),
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

    /// The ends of a log.
    pub(super) async fn ends(&self, log: &LogId) -> Result<Ends, Reject> {
        let (answer, answered) = oneshot::channel();
        self.lookups.try_send(Lookup::Ends(log.clone(), answer)).map_err(|_| Reject::Unavailable)?;
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
            let (mut logs, mut statuses) = (Vec::new(), Vec::new());
            for lookup in batch.drain(..) {
                match lookup {
                    Lookup::Ends(log, reply_to) => logs.push((log, reply_to)),
                    Lookup::Status(user, reply_to) => statuses.push((user, reply_to)),
                }
            }
            tokio::join!(self.answer_ends(logs), self.answer_statuses(statuses));
        }
    }

    async fn answer_ends(&self, asked: Vec<(LogId, oneshot::Sender<Result<Ends, Reject>>)>) {
        if asked.is_empty() {
            return;
        }
        let logs: Vec<LogId> = asked.iter().map(|(log, _)| log.clone()).collect();
        let ends = self.store.ends(&logs).await.map_err(|error| unavailable(&error));
        let ends = ends.map(|ends| ends.into_iter().collect::<HashMap<_, _>>());
        for (log, reply_to) in asked {
            let of_log = ends.as_ref().map(|ends| ends.get(&log).copied().unwrap_or_default());
            let _gone = reply_to.send(of_log.map_err(Clone::clone));
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
