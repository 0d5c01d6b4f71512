//! Small questions to the store that come in herds, as connects do: what waits is asked at once.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::{mpsc, oneshot};

use super::command::unavailable;
use crate::{
    model::{LogId, Reject, Seq, Status, UserId},
    store::Store,
};

/// Questions that may wait.
const QUEUE: usize = 10_000;
/// Questions that are asked at once.
const BATCH: usize = 500;

/// Something asked, and who waits for the answer.
#[derive(Debug)]
enum Question {
    /// The newest seq of a log.
    Head(LogId, oneshot::Sender<Result<Seq, Reject>>),
    /// A user's status; dropped where it can't be had.
    Status(UserId, oneshot::Sender<Status>),
}

/// Asks the store such questions.
#[derive(Debug, Clone)]
pub(super) struct BatchLoader {
    questions: mpsc::Sender<Question>,
}

/// Answers what was asked of a [`BatchLoader`].
pub(super) struct Batches {
    store: Arc<dyn Store>,
    questions: mpsc::Receiver<Question>,
}

impl BatchLoader {
    /// Questions are answered once [`Batches::run`] runs.
    pub(super) fn new(store: Arc<dyn Store>) -> (Self, Batches) {
        let (questions, asked) = mpsc::channel(QUEUE);
        (Self { questions }, Batches { store, questions: asked })
    }

    /// The newest seq of a log; 0 where there is no such log.
    pub(super) async fn head(&self, log: &LogId) -> Result<Seq, Reject> {
        let (answer, answered) = oneshot::channel();
        self.questions.try_send(Question::Head(log.clone(), answer)).map_err(|_| Reject::Unavailable)?;
        answered.await.unwrap_or(Err(Reject::Unavailable))
    }

    /// A user's status; none where the store can't say.
    pub(super) async fn status(&self, user: &UserId) -> Option<Status> {
        let (answer, answered) = oneshot::channel();
        self.questions.try_send(Question::Status(user.clone(), answer)).ok()?;
        answered.await.ok()
    }
}

impl Batches {
    /// Answers what waits, until it is stopped; what comes meanwhile is in the next batch.
    pub(super) async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        while self.questions.recv_many(&mut batch, BATCH).await > 0 {
            let (mut heads, mut statuses) = (Vec::new(), Vec::new());
            for question in batch.drain(..) {
                match question {
                    Question::Head(log, asker) => heads.push((log, asker)),
                    Question::Status(user, asker) => statuses.push((user, asker)),
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
        for (log, asker) in asked {
            let head = heads.as_ref().map(|heads| heads.get(&log).copied().unwrap_or(0));
            let _gone = asker.send(head.map_err(Clone::clone));
        }
    }

    async fn answer_statuses(&self, asked: Vec<(UserId, oneshot::Sender<Status>)>) {
        if asked.is_empty() {
            return;
        }
        let users: Vec<UserId> = asked.iter().map(|(user, _)| user.clone()).collect();
        let Ok(known) = self.store.statuses(&users).await else { return };
        let known: HashMap<UserId, Status> = known.into_iter().map(|(user, status, _)| (user, status)).collect();
        for (user, asker) in asked {
            let _gone = asker.send(known.get(&user).copied().unwrap_or_default());
        }
    }
}
