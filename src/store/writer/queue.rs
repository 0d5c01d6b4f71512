//! The entries that wait to be stored, one queue for each log, for all lanes.
//!
//! Invariants: the entries of a log leave in the order in which they came; those of one log are in the hands of one lane at a
//! time; logs take turns, so that a log with many entries delays another one by one batch at most.
//!
//! A commit costs PostgreSQL about as much as a message, so messages are gathered: while a lane commits some, the others wait
//! for the end of that commit, unless they fill a batch of their own or the commit takes longer than [`PATIENCE`]. Few messages
//! don't wait for a commit of few, because gathering would save little and delay them by a commit.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::{Notify, oneshot},
    time::{Duration, Instant, sleep_until},
};

use super::types::Queued;
use crate::model::LogId;

/// Time for which messages wait for the end of another lane's commit. A healthy one is several times quicker; one that waits
/// for a lock, or is retried, must not hold up other conversations.
pub(super) const PATIENCE: Duration = Duration::from_millis(20);

/// Messages in a batch beside which one more batch may be committed at once.
pub(super) const FEW: usize = 4;

/// An item in the queue of a log.
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

struct Waiting {
    logs: HashMap<LogId, OfLog>,
    /// The logs with items that no lane has taken, in turn: those that begin with a message, and those that begin with a
    /// change, which is stored alone.
    messages: VecDeque<LogId>,
    changes: VecDeque<LogId>,
    /// The next batch is a change, if there is one.
    change_next: bool,
    /// Number of entries that wait, and of those that fill a batch.
    entries: usize,
    batch: usize,
    /// Number of batches of messages in the hands of lanes, and of their messages; the time at which the newest was taken.
    under_way: usize,
    committing: usize,
    newest: Instant,
    /// A lane looks again once [`PATIENCE`] is over.
    watched: bool,
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
    pub(super) fn new(limit: usize, batch: usize) -> Self {
        let waiting = Waiting {
            logs: HashMap::new(),
            messages: VecDeque::new(),
            changes: VecDeque::new(),
            change_next: false,
            entries: 0,
            batch,
            under_way: 0,
            committing: 0,
            newest: Instant::now(),
            watched: false,
            closed: false,
        };
        Self { waiting: Mutex::new(waiting), limit, came: Notify::new() }
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
        let (log, is_change) = (queued.entry.log.clone(), !queued.entry.body.is_message());
        waiting.add(log, Item::Append(Box::new(queued)));
        let wakes = is_change || waiting.lets_messages() || !std::mem::replace(&mut waiting.watched, true);
        drop(waiting);
        if wakes {
            self.came.notify_one();
        }
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

    /// Takes the next batch of messages, or one change; waits until there is one. `None` if the queue is closed and nothing waits
    /// that this lane could store.
    pub(super) async fn take(&self) -> Option<Taken<'_>> {
        loop {
            let mut came = std::pin::pin!(self.came.notified());
            came.as_mut().enable();
            let look_again = {
                let mut waiting = self.waiting();
                if let Some((batch, logs)) = waiting.take() {
                    // One push wakes one lane, and more may wait than this one takes.
                    if waiting.has_more() {
                        self.came.notify_one();
                    }
                    let of_messages = batch.first().is_some_and(|first| first.entry.body.is_message());
                    let messages = if of_messages { batch.len() } else { 0 };
                    return Some(Taken { queue: self, batch, logs, messages });
                }
                if waiting.closed {
                    return None;
                }
                waiting.watched = !waiting.messages.is_empty();
                waiting.watched.then(|| waiting.newest + PATIENCE)
            };
            match look_again {
                Some(at) => tokio::select! { () = came => {}, () = sleep_until(at) => {} },
                None => came.await,
            }
        }
    }
}

impl Waiting {
    fn add(&mut self, log: LogId, item: Item) {
        let of_log = self.logs.entry(log.clone()).or_default();
        of_log.items.push_back(item);
        if !of_log.taken && of_log.items.len() == 1 {
            self.make_ready(log);
        }
    }

    /// Puts a log whose first item is an entry into its row.
    fn make_ready(&mut self, log: LogId) {
        let begins_with_change = self.logs.get(&log).is_some_and(OfLog::begins_with_change);
        if begins_with_change { &mut self.changes } else { &mut self.messages }.push_back(log);
    }

    /// True if a lane may take messages now.
    fn lets_messages(&self) -> bool {
        let few = || self.under_way == 1 && self.committing <= FEW;
        let waited = || self.newest.elapsed() >= PATIENCE;
        self.under_way == 0 || self.closed || self.entries >= self.batch || few() || waited()
    }

    fn has_more(&self) -> bool {
        !self.changes.is_empty() || !self.messages.is_empty() && self.lets_messages()
    }

    /// The next batch, and the logs of which it has entries.
    fn take(&mut self) -> Option<(Vec<Queued>, Vec<LogId>)> {
        let has_messages = !self.messages.is_empty() && self.lets_messages();
        let change = !has_messages || self.change_next;
        self.change_next = !change;
        self.watched = false;
        if change && let Some(log) = self.changes.pop_front() {
            let batch = self.logs.get_mut(&log).map_or_else(Vec::new, OfLog::take_change);
            self.entries -= batch.len();
            return Some((batch, vec![log]));
        }
        if !has_messages {
            return None;
        }
        let (mut batch, mut logs) = (Vec::new(), Vec::new());
        while batch.len() < self.batch
            && let Some(log) = self.messages.pop_front()
        {
            let Some(of_log) = self.logs.get_mut(&log) else { continue };
            of_log.take_messages(self.batch, &mut batch);
            logs.push(log);
        }
        self.entries -= batch.len();
        self.under_way += 1;
        self.committing += batch.len();
        self.newest = Instant::now();
        Some((batch, logs))
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
                self.make_ready(log.clone());
                more = true;
            }
        }
        more
    }
}

impl OfLog {
    fn begins_with_change(&self) -> bool {
        matches!(self.items.front(), Some(Item::Append(queued)) if !queued.entry.body.is_message())
    }

    /// Moves the messages at the front to the batch.
    fn take_messages(&mut self, max: usize, batch: &mut Vec<Queued>) {
        self.taken = true;
        while batch.len() < max && !self.begins_with_change() {
            match self.items.pop_front() {
                Some(Item::Append(queued)) => batch.push(*queued),
                // It is answered once the entries before it have their outcomes.
                Some(barrier @ Item::Barrier(_)) => return self.items.push_front(barrier),
                None => return,
            }
        }
    }

    /// Takes the change at the front.
    fn take_change(&mut self) -> Vec<Queued> {
        self.taken = true;
        match self.items.pop_front() {
            Some(Item::Append(queued)) => vec![*queued],
            _ => Vec::new(),
        }
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
    /// Number of messages; 0 for a change.
    messages: usize,
}

impl Taken<'_> {
    /// The entries: messages, or one change.
    pub(super) fn entries(&mut self) -> Vec<Queued> {
        std::mem::take(&mut self.batch)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut waiting = self.queue.waiting();
        waiting.under_way -= usize::from(self.messages > 0);
        waiting.committing -= self.messages;
        if waiting.give_back(&self.logs) || waiting.has_more() {
            self.queue.came.notify_one();
        }
    }
}
