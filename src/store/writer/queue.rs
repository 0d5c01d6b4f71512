//! The entries that wait to be stored, one queue for each log, for all lanes.
//!
//! Invariants: the entries of a log leave in the order in which they came; those of one log are in the hands of one lane at a
//! time; logs take turns, so that a log with many entries delays another one by one batch at most.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, oneshot};

use super::types::Queued;
use crate::model::LogId;

/// What waits in the queue of a log.
enum Item {
    Append(Box<Queued>),
    /// Answered once every entry of the log that was queued before it has its outcome.
    Barrier(oneshot::Sender<()>),
}

/// A log that has waiting entries, or some that are being stored.
#[derive(Default)]
struct OfLog {
    items: VecDeque<Item>,
    /// True while a lane has entries of the log.
    taken: bool,
}

#[derive(Default)]
struct Waiting {
    logs: HashMap<LogId, OfLog>,
    /// The logs with items that no lane has taken, in turn.
    ready: VecDeque<LogId>,
    /// Number of entries that wait.
    entries: usize,
    closed: bool,
}

/// The queue of all lanes.
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// Maximum number of entries that wait.
    limit: usize,
    /// Wakes a lane that waits for entries.
    came: Notify,
}

impl Queue {
    pub(super) fn new(limit: usize) -> Self {
        Self { waiting: Mutex::default(), limit, came: Notify::new() }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an entry. False if the queue is full or closed; the entry is then dropped.
    pub(super) fn push(&self, queued: Queued) -> bool {
        let mut waiting = self.waiting();
        if waiting.closed || waiting.entries >= self.limit {
            return false;
        }
        waiting.entries += 1;
        let log = queued.entry.log.clone();
        waiting.add(log, Item::Append(Box::new(queued)));
        drop(waiting);
        self.came.notify_one();
        true
    }

    /// Waits until every entry of the log that was queued before has its outcome.
    pub(super) async fn settled(&self, log: &LogId) {
        let passed = {
            let mut waiting = self.waiting();
            if !waiting.logs.contains_key(log) {
                return;
            }
            let (answer, passed) = oneshot::channel();
            waiting.add(log.clone(), Item::Barrier(answer));
            passed
        };
        let _stopped = passed.await;
    }

    /// Takes no further entries; those that wait are still stored.
    pub(super) fn close(&self) {
        self.waiting().closed = true;
        self.came.notify_waiters();
    }

    /// Takes the next batch of at most `max` messages, or one change; waits until there is one. `None` if the queue is closed
    /// and nothing waits that this lane could store.
    pub(super) async fn take(&self, max: usize) -> Option<Taken<'_>> {
        loop {
            let mut came = std::pin::pin!(self.came.notified());
            came.as_mut().enable();
            {
                let mut waiting = self.waiting();
                let (batch, logs) = waiting.take(max);
                if !batch.is_empty() {
                    // One call wakes one lane only, and more may wait than this one takes.
                    if !waiting.ready.is_empty() {
                        self.came.notify_one();
                    }
                    return Some(Taken { queue: self, batch, logs });
                }
                if waiting.closed {
                    return None;
                }
            }
            came.await;
        }
    }
}

impl Waiting {
    fn add(&mut self, log: LogId, item: Item) {
        let of_log = self.logs.entry(log.clone()).or_default();
        of_log.items.push_back(item);
        if !of_log.taken && of_log.items.len() == 1 {
            self.ready.push_back(log);
        }
    }

    /// The next batch, and the logs of which it has entries.
    fn take(&mut self, max: usize) -> (Vec<Queued>, Vec<LogId>) {
        let (mut batch, mut logs, mut later) = (Vec::new(), Vec::new(), Vec::new());
        while batch.len() < max {
            let Some(log) = self.ready.pop_front() else { break };
            let Some(of_log) = self.logs.get_mut(&log) else { continue };
            let before = batch.len();
            let is_change = of_log.take(max, &mut batch);
            let took = batch.len() - before;
            self.entries -= took;
            of_log.taken = took > 0;
            match took {
                0 if of_log.items.is_empty() => drop(self.logs.remove(&log)),
                0 => later.push(log),
                _ => logs.push(log),
            }
            if is_change {
                break;
            }
        }
        // A change is stored alone, so it waits until this batch of messages is complete.
        later.into_iter().rev().for_each(|log| self.ready.push_front(log));
        (batch, logs)
    }

    /// Ends the stay of these logs with a lane. True if one of them has more entries.
    fn give_back(&mut self, logs: &[LogId]) -> bool {
        let mut more = false;
        for log in logs {
            let Some(of_log) = self.logs.get_mut(log) else { continue };
            of_log.taken = false;
            of_log.pass_barriers();
            if of_log.items.is_empty() {
                self.logs.remove(log);
            } else {
                self.ready.push_back(log.clone());
                more = true;
            }
        }
        more
    }
}

impl OfLog {
    /// Moves the messages at the front of the queue to the batch. A change is taken only into an empty batch, and alone: then
    /// returns true.
    fn take(&mut self, max: usize, batch: &mut Vec<Queued>) -> bool {
        self.pass_barriers();
        while batch.len() < max {
            let is_message = match self.items.front() {
                Some(Item::Append(queued)) => queued.entry.body.is_message(),
                _ => return false,
            };
            if !is_message && !batch.is_empty() {
                return false;
            }
            if let Some(Item::Append(queued)) = self.items.pop_front() {
                batch.push(*queued);
            }
            if !is_message {
                return true;
            }
        }
        false
    }

    /// Answers the barriers at the front: no lane has the log, so all entries before them have their outcomes.
    fn pass_barriers(&mut self) {
        while let Some(Item::Barrier(_)) = self.items.front() {
            if let Some(Item::Barrier(passed)) = self.items.pop_front() {
                let _gone = passed.send(());
            }
        }
    }
}

/// A batch in the hands of a lane. Until it is dropped, no lane gets other entries of its logs.
pub(super) struct Taken<'a> {
    queue: &'a Queue,
    batch: Vec<Queued>,
    logs: Vec<LogId>,
}

impl Taken<'_> {
    /// The entries: messages, or one change.
    pub(super) fn entries(&mut self) -> Vec<Queued> {
        std::mem::take(&mut self.batch)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if self.queue.waiting().give_back(&self.logs) {
            self.queue.came.notify_one();
        }
    }
}
