//! Where logs end: asked of the store for many at once, since connects come in herds.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::{Chat, unavailable};
use crate::model::{LogId, Reject, Seq};

/// Questions that may wait.
pub(super) const QUEUE: usize = 10_000;
/// Logs in one question to the store.
const BATCH: usize = 500;

/// A log, and who asks for its end.
pub(super) type Question = (LogId, oneshot::Sender<Result<Seq, Reject>>);

impl Chat {
    /// The newest seq of a log; 0 where there is no such log.
    pub(super) async fn head(&self, log: &LogId) -> Result<Seq, Reject> {
        let (answer, answered) = oneshot::channel();
        self.heads.try_send((log.clone(), answer)).map_err(|_| Reject::Unavailable)?;
        answered.await.unwrap_or(Err(Reject::Unavailable))
    }

    /// Answers what waits with one question to the store; what comes meanwhile is in the next.
    pub(super) async fn answer_heads(self: Arc<Self>, mut questions: mpsc::Receiver<Question>) {
        let mut batch = Vec::with_capacity(BATCH);
        while questions.recv_many(&mut batch, BATCH).await > 0 {
            let logs: Vec<LogId> = batch.iter().map(|(log, _)| log.clone()).collect();
            let ends = self.store.ends(&logs).await.map_err(|error| unavailable(&error));
            let heads = ends.map(|ends| {
                ends.into_iter().map(|(log, ends)| (log, ends.head)).collect::<std::collections::HashMap<_, _>>()
            });
            for (log, asker) in batch.drain(..) {
                let head = heads.as_ref().map(|heads| heads.get(&log).copied().unwrap_or(0));
                let _gone = asker.send(head.map_err(Clone::clone));
            }
        }
    }
}
