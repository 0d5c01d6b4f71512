//! Waiting for room in an outbox: replays and answers are only queued if there is some, so that they never overflow it.

use super::{Outbox, frame::Frame, state::State};

impl Outbox {
    /// Waits until less than half of the limit is used, so that a replay never overflows; false once closed.
    pub async fn has_room(&self) -> bool {
        loop {
            let room = self.room.notified();
            {
                let mut state = self.lock();
                if state.closed || state.broken {
                    return false;
                }
                if state.bytes() < self.limits.bytes / 2 {
                    return true;
                }
                state.awaited = true;
            }
            room.await;
        }
    }

    /// Queues an answer if there is room: it may fill the outbox up to three quarters, so that events still fit beside it. A
    /// longer one needs an outbox in which nothing waits. Returns `None` if there is no room, else as [`Outbox::push`].
    #[must_use]
    pub fn try_answer(&self, answer: &Frame) -> Option<bool> {
        let mut state = self.lock();
        if state.closed || state.broken {
            return Some(false);
        }
        let waiting = state.bytes();
        let fits = waiting + answer.len() <= self.limits.bytes / 4 * 3 && !self.budget.is_exhausted();
        if waiting > 0 && !fits {
            state.answer_waits = true;
            return None;
        }
        let idle = state.queue.is_empty();
        state.queue_for(answer.class).push(answer.clone());
        if !idle || state.held.is_some() {
            self.update_gauge(&mut state);
        }
        Some(idle && !state.queue.is_empty())
    }

    /// Queues an answer once there is room, as [`Outbox::try_answer`]. Cancel-safe.
    pub async fn answer(&self, answer: &Frame) -> bool {
        loop {
            let room = self.room.notified();
            if let Some(unwritten) = self.try_answer(answer) {
                return unwritten;
            }
            room.await;
        }
    }

    /// Wakes the tasks that wait for room, after a write; `before` is the number of bytes that were unwritten before it.
    pub(super) fn wake_for_room(&self, state: &mut State, before: usize) {
        let replays = state.awaited && (state.bytes() < self.limits.bytes / 2 || state.broken);
        let answers = state.answer_waits && (state.queue.unwritten() < before || state.broken);
        if replays {
            state.awaited = false;
        }
        if answers {
            state.answer_waits = false;
        }
        if replays || answers {
            self.room.notify_waiters();
        }
    }
}
