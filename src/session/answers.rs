//! The answers of a session to its client. They wait for room in the outbox: a client that asks for much and reads slowly
//! gets all of it, at its own speed. Meanwhile no further command of the client begins.

use std::{collections::VecDeque, sync::Arc};

use tokio::time::{Instant, timeout_at};

use super::{open::Open, roster::Roster};
use crate::{
    chat::{CommandReply, Replay},
    dialect::RequestMeta,
    metrics::Metrics,
    model::{Event, Reject, Reply},
    outbox::{Frame, Outbox},
    supervise::TaskName,
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

    fn push(&mut self, frame: Option<Frame>) {
        self.waiting.push_back(Answer { frame, replays: Vec::new() });
    }

    fn count(&mut self) {
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
            Some(Answer { frame: Some(frame), .. }) => outbox.answer(frame).await,
            Some(_) => false,
            None => std::future::pending().await,
        };
        (unwritten, self.waiting.pop_front().map(|answer| answer.replays).unwrap_or_default())
    }

    fn try_send(&mut self, outbox: &Outbox) -> Option<(bool, Vec<Replay>)> {
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

/// True if the answer must not wait: one that has its place in the order of a log, or is an answer to no command of the
/// client.
fn is_in_order(reply: &Reply) -> bool {
    matches!(reply, Reply::Sent(_) | Reply::Joined(..) | Reply::Left { .. })
}

impl Open {
    /// Answers a command.
    pub(super) fn reply(&mut self, request: RequestMeta, answer: Result<CommandReply, Reject>) {
        let CommandReply { reply, replays, echo, acked } = match answer {
            Ok(answer) => answer,
            Err(reject) => return self.reject(request, reject),
        };
        self.roster.iter_mut().filter(|_| matches!(reply, Reply::Joined(..))).for_each(Roster::outdate);
        let dialect = self.connection.dialect;
        if is_in_order(&reply) {
            let echo = echo.and_then(|entry| dialect.event(&Event::Entry { entry, origin: None }, None));
            let answer = if acked { None } else { dialect.reply(request, &reply) };
            self.push_frames(answer.into_iter().chain(echo));
            return self.begin_replays(replays);
        }
        let parts = dialect.parts(reply, self.context.config.limits.answer_bytes());
        for part in parts {
            let frame = dialect.reply(request.clone(), &part);
            self.answers.push(frame);
        }
        if let Some(last) = self.answers.waiting.back_mut() {
            last.replays = replays;
        }
        self.send_answers();
    }

    /// Refuses a command.
    pub(super) fn reject(&mut self, request: RequestMeta, reject: Reject) {
        let frame = self.connection.dialect.reject(request, &reject);
        self.answers.push(Some(frame));
        self.send_answers();
    }

    /// Sends frames that the client did not ask for, each when there is room.
    pub(super) fn send_all(&mut self, frames: impl IntoIterator<Item = Frame>) {
        frames.into_iter().for_each(|frame| self.answers.push(Some(frame)));
        self.send_answers();
    }

    /// Puts the answers for which there is room into the outbox.
    fn send_answers(&mut self) {
        while let Some(sent) = self.answers.try_send(&self.connection.outbox) {
            self.record_sent(sent);
        }
        self.answers.count();
    }

    /// Records an answer that is in the outbox, and begins the replays after it.
    pub(super) fn record_sent(&mut self, (unwritten, replays): (bool, Vec<Replay>)) {
        self.unwritten |= unwritten;
        self.begin_replays(replays);
        self.answers.count();
    }

    fn begin_replays(&self, replays: Vec<Replay>) {
        if !replays.is_empty() {
            let replay = self.context.chat.clone().replay(self.connection.clone(), replays);
            self.context.spawn(TaskName::Replay, replay);
        }
    }

    /// Hands over the answers that wait, before a close. The outbox is written here, since the loop has ended.
    pub(super) async fn finish_answers(&mut self, deadline: Instant) {
        let outbox = self.connection.outbox.clone();
        while !self.answers.is_empty() && matches!(timeout_at(deadline, outbox.drained()).await, Ok(true)) {
            self.send_answers();
        }
    }
}
