//! Answers commands and refuses them. Answers wait for room in the outbox, and meanwhile no further command of the client
//! begins.

use std::sync::Arc;

use futures_util::FutureExt;
use tokio::time::{Instant, timeout_at};

use super::open::Open;
use crate::{
    chat::{AckPlace, CommandReply, Replay},
    dialect::RequestMeta,
    model::{Event, PendingAck, Reject, Reply},
    outbox::Frame,
    supervise::TaskName,
};

/// True if the answer must not wait: one that has its place in the order of a log, or is an answer to no command of the
/// client.
fn is_in_order(reply: &Reply) -> bool {
    matches!(reply, Reply::Sent(_) | Reply::Joined(..) | Reply::Left { .. })
}

impl Open {
    /// Answers a command.
    pub(super) fn reply(&mut self, request: RequestMeta, answer: Result<CommandReply, Reject>) {
        let answer = match answer {
            Ok(mut answer) => match std::mem::replace(&mut answer.ack, AckPlace::Taken) {
                AckPlace::Alone(ack) => return self.send_alone(request, ack, answer),
                ack => CommandReply { ack, ..answer },
            },
            Err(reject) => return self.reject(request, reject),
        };
        let CommandReply { reply, replays, echo, ack } = answer;
        self.roster.iter_mut().filter(|_| matches!(reply, Reply::Joined(..))).for_each(|roster| roster.outdate());
        let dialect = self.connection.dialect;
        if is_in_order(&reply) {
            let echo = echo.and_then(|entry| dialect.event(&Event::Entry { entry, origin: None }, None));
            let answer = if matches!(ack, AckPlace::Anywhere) { dialect.reply(request, &reply) } else { None };
            self.push_frames(answer.into_iter().chain(echo));
            return self.begin_replays(replays);
        }
        let parts = dialect.parts(reply, self.context.config.limits.answer_bytes());
        let last = parts.len().saturating_sub(1);
        let mut replays = Some(replays);
        for (at, part) in parts.iter().enumerate() {
            let replays = replays.take_if(|_| at == last).unwrap_or_default();
            self.answers.push(dialect.reply(request.clone(), part), replays);
        }
        self.send_answers();
    }

    /// Sends an ack whose socket did not listen when it was ready.
    fn send_alone(&mut self, request: RequestMeta, ack: Arc<PendingAck>, answer: CommandReply) {
        let (connection, meta) = (self.connection.clone(), request.clone());
        let frame = move |reply: &Reply| connection.dialect.reply(meta, reply);
        if let Some(placed) = self.context.chat.send_alone(&self.connection, ack, answer, frame) {
            self.pending.push(placed.map(move |answer| (request, answer)));
        }
    }

    /// Refuses a command.
    pub(super) fn reject(&mut self, request: RequestMeta, reject: Reject) {
        self.context.advice.tell_reject(&reject);
        let frame = self.connection.dialect.reject(request, &reject);
        self.answers.push(Some(frame), Vec::new());
        self.send_answers();
    }

    /// Sends frames that the client did not ask for, each when there is room.
    pub(super) fn send_all(&mut self, frames: impl IntoIterator<Item = Frame>) {
        frames.into_iter().for_each(|frame| self.answers.push(Some(frame), Vec::new()));
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
