//! The answers of a session that wait for room in the outbox: a client that asks for much and reads slowly gets all of it, at
//! its own speed.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    chat::Replay,
    metrics::Metrics,
    outbox::{Frame, Outbox},
};

/// An answer that waits for room.
#[derive(Debug)]
struct Answer {
    frame: Option<Frame>,
    /// The replays that follow it.
    replays: Vec<Replay>,
}

/// The answers that wait for room: those to one command and to the commands that were under way beside it.
pub(super) struct Answers {
    waiting: VecDeque<Answer>,
    /// True if the metrics count this session as one with answers that wait.
    counted: bool,
    metrics: Arc<Metrics>,
}

impl Answers {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { waiting: VecDeque::new(), counted: false, metrics }
    }

    /// Adds an answer, and the replays that follow it.
    pub(super) fn push(&mut self, frame: Option<Frame>, replays: Vec<Replay>) {
        self.waiting.push_back(Answer { frame, replays });
    }

    /// Updates the metric of sockets with answers that wait.
    pub(super) fn count(&mut self) {
        let counts = !self.is_empty();
        if counts != self.counted {
            self.counted = counts;
            self.metrics.answers_waiting.add(if counts { 1 } else { -1 });
        }
    }

    /// True if no answer waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Waits until the first answer is in the outbox. Returns whether the outbox needs a flush, and the replays that follow
    /// the answer. Never resolves if no answer waits. Cancel-safe.
    pub(super) async fn sent(&mut self, outbox: &Outbox) -> (bool, Vec<Replay>) {
        let unwritten = match self.waiting.front() {
            // Boxed, because answers seldom wait, and each task would keep room for it.
            Some(Answer { frame: Some(frame), .. }) => Box::pin(outbox.answer(frame)).await,
            Some(_) => false,
            None => std::future::pending().await,
        };
        (unwritten, self.waiting.pop_front().map(|answer| answer.replays).unwrap_or_default())
    }

    /// As [`Self::sent`], if there is room now.
    pub(super) fn try_send(&mut self, outbox: &Outbox) -> Option<(bool, Vec<Replay>)> {
        let unwritten = match &self.waiting.front()?.frame {
            Some(frame) => outbox.try_answer(frame)?,
            None => false,
        };
        self.waiting.pop_front().map(|answer| (unwritten, answer.replays))
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.waiting.clear();
        self.count();
    }
}
