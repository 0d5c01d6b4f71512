//! Group commit: each lane gathers queued entries and commits them in one round trip.
//!
//! Invariants: entries of one log go through one lane, in the order in which they were queued; `committed` receives
//! every stored entry before its appender gets the answer, and receives it again if the entry is sent again; an entry
//! that may have been stored is never reported as refused. Therefore a retried batch says so: the store then looks for
//! stored entries before it judges the rights of their senders, who may have lost them since the first try.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep},
};

use self::refusals::{lasting_fault, work_of};
use super::{AppendRefused, Appended, Logs, NewEntry, Outcome, StoreError};
use crate::{
    degrade::{Degrade, Part},
    metrics::Metrics,
    model::{Body, Entry, LogId, PendingAck},
    supervise::{Supervisor, TaskName, checkpoint},
};

/// First wait before a batch with an unknown outcome is retried.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// Maximum wait between such retries. It is short, because all entries of the lane wait with the batch.
const BACKOFF_MAX: Duration = Duration::from_millis(250);

/// Settings of the writer: batch size, queues and retries.
#[derive(Debug, Clone, Copy)]
pub struct WriterSettings {
    /// Number of lanes, each with its own group commit. A few lanes perform better than many.
    pub lanes: usize,
    /// Maximum number of entries in one commit.
    pub max_batch: usize,
    /// Maximum number of entries that wait for one lane.
    pub queue: usize,
    /// Maximum time for which a batch with an unknown outcome is retried before the appender gets
    /// [`AppendError::Unknown`].
    pub retry_for: Duration,
}

impl Default for WriterSettings {
    fn default() -> Self {
        Self { lanes: 2, max_batch: 400, queue: 10_000, retry_for: Duration::from_secs(10) }
    }
}

/// The receivers of a writer's results. They must not block.
pub struct Outcomes {
    /// Gets every newly stored entry once, in commit order per log and before the appenders get their answers,
    /// including the entries that were put into inboxes.
    pub committed: Box<dyn Fn(Vec<Committed>) + Send + Sync>,
    /// Gets the logs to which an append that is [given up](AppendError::Unknown) may have stored an entry.
    pub doubted: Box<dyn Fn(Vec<LogId>) + Send + Sync>,
}

/// A stored entry, and the ack that the socket that sent it awaits.
#[derive(Debug, Clone)]
pub struct Committed {
    /// The entry.
    pub entry: Arc<Entry>,
    /// The ack; none if no socket sent the entry.
    pub origin: Option<Arc<PendingAck>>,
}

/// The reason for which an entry was not, or may not have been, appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The store refused the entry.
    #[error(transparent)]
    Refused(#[from] AppendRefused),
    /// The store is unavailable; the entry was not stored.
    #[error("not stored: the store is unavailable")]
    Unavailable,
    /// The entry may or may not be stored; another append with the same `dedupe` finds out.
    #[error("the outcome is unknown")]
    Unknown,
}

type AppendResult = Result<Appended, AppendError>;

struct Queued {
    entry: NewEntry,
    origin: Option<Arc<PendingAck>>,
    answer: oneshot::Sender<AppendResult>,
}

/// An item in the queue of a lane.
enum Item {
    Append(Queued),
    /// Answered once every entry that was queued before it has its outcome.
    Barrier(oneshot::Sender<()>),
}

/// The only way to append entries to the logs.
pub struct Writer {
    lanes: Vec<mpsc::Sender<Item>>,
}

impl Writer {
    /// Starts the lanes. After the supervisor's stop, they still finish the queued entries. A batch whose commit panics is
    /// answered with [`AppendError::Unknown`].
    pub fn start(
        store: Arc<dyn Logs>,
        settings: WriterSettings,
        metrics: Arc<Metrics>,
        degrade: Arc<Degrade>,
        outcomes: Outcomes,
        supervisor: &Supervisor,
    ) -> Self {
        let outcomes = Arc::new(outcomes);
        let lanes = (0..settings.lanes.max(1)).map(|_| {
            let (sender, receiver) = mpsc::channel(settings.queue);
            let (store, metrics, degrade) = (store.clone(), metrics.clone(), degrade.clone());
            let (outcomes, supervisor) = (outcomes.clone(), supervisor.clone());
            let lane = Lane { store, settings, metrics, degrade, outcomes, supervisor: supervisor.clone() };
            supervisor.spawn(TaskName::WriterLane, (lane, receiver), |(lane, queue)| lane.run(queue).boxed());
            sender
        });
        Self { lanes: lanes.collect() }
    }

    /// Queues the entry during the call, so that consecutive calls keep their order. The future resolves when the
    /// outcome is known.
    pub fn append(
        &self,
        entry: NewEntry,
        origin: Option<Arc<PendingAck>>,
    ) -> impl Future<Output = AppendResult> + Send + use<> {
        let lane = self.lane(&entry.log);
        let (answer, result) = oneshot::channel();
        let queued = lane.try_send(Item::Append(Queued { entry, origin, answer })).is_ok();
        async move {
            if !queued {
                return Err(AppendError::Unavailable);
            }
            result.await.unwrap_or(Err(AppendError::Unknown))
        }
    }

    /// Waits until every entry of this log that was queued before has its outcome.
    pub async fn settled(&self, log: &LogId) {
        let (answer, passed) = oneshot::channel();
        // A full queue or a stopped lane ends the wait.
        if self.lane(log).try_send(Item::Barrier(answer)).is_ok() {
            let _ = passed.await;
        }
    }

    fn lane(&self, log: &LogId) -> &mpsc::Sender<Item> {
        let mut hasher = DefaultHasher::new();
        log.hash(&mut hasher);
        &self.lanes[hasher.finish() as usize % self.lanes.len()]
    }
}

struct Lane {
    store: Arc<dyn Logs>,
    settings: WriterSettings,
    metrics: Arc<Metrics>,
    degrade: Arc<Degrade>,
    outcomes: Arc<Outcomes>,
    supervisor: Supervisor,
}

impl Lane {
    async fn run(&self, queue: &mut mpsc::Receiver<Item>) {
        let stop = self.supervisor.stop();
        let mut waiting = Vec::with_capacity(self.settings.max_batch);
        loop {
            let count = tokio::select! {
                count = queue.recv_many(&mut waiting, self.settings.max_batch) => count,
                () = stop.cancelled(), if !queue.is_closed() => {
                    queue.close();
                    continue;
                }
            };
            if count == 0 {
                return;
            }
            let mut barriers = Vec::new();
            let appends = waiting.drain(..).filter_map(|item| match item {
                Item::Append(queued) => Some(queued),
                Item::Barrier(passed) => {
                    barriers.push(passed);
                    None
                }
            });
            for batch in split(appends) {
                // Appenders of a batch that panics learn that its outcome is unknown, because their senders are dropped.
                let logs: Vec<LogId> = batch.iter().flat_map(|queued| written_logs(&queued.entry)).collect();
                if self.supervisor.guard(TaskName::WriterLane, self.commit(batch)).await.is_none() {
                    (self.outcomes.doubted)(logs);
                }
            }
            for barrier in barriers {
                let _gone = barrier.send(());
            }
        }
    }

    /// Commits one batch. A batch that fails is halved repeatedly until the faulty entry is alone.
    async fn commit(&self, batch: Vec<Queued>) {
        // Each batch carries a flag: true if an earlier try may have stored some of it.
        checkpoint(TaskName::WriterLane, || contents(&batch));
        let mut todo = vec![(batch, false)];
        while let Some((mut batch, mut maybe_stored)) = todo.pop() {
            let (entries, indices, other) = dedupe(&mut batch);
            if !other.is_empty() {
                todo.push((other, maybe_stored));
            }
            match self.append(&entries, &mut maybe_stored).await {
                Ok(outcomes) => {
                    // Only this lane's own earlier try may stand for a command of the batch; others are repeated commands.
                    let origins = if maybe_stored { origins(&batch, &indices) } else { HashMap::new() };
                    self.republish_duplicates(&entries, &outcomes, origins).await;
                    self.publish_and_answer(batch, &indices, &outcomes);
                }
                Err(StoreError::Failed(error)) if batch.len() > 1 => {
                    tracing::warn!(%error, entries = batch.len(), "a batch failed and is retried in halves");
                    let rest = batch.split_off(batch.len() / 2);
                    todo.extend([(rest, maybe_stored), (batch, maybe_stored)]);
                }
                Err(error) => {
                    // The fault that stands is logged once, with its name.
                    match self.degrade.works(work_of(&entries)) {
                        true => tracing::warn!(%error, entries = batch.len(), "entries were not stored"),
                        false => tracing::debug!(%error, entries = batch.len(), "entries were not stored"),
                    }
                    let answer = match error {
                        StoreError::Unknown(_) => {
                            (self.outcomes.doubted)(entries.iter().flat_map(written_logs).collect());
                            AppendError::Unknown
                        }
                        StoreError::Unavailable(_)
                        | StoreError::Failed(_)
                        | StoreError::Busy { .. }
                        | StoreError::TooSlow => AppendError::Unavailable,
                    };
                    for queued in batch {
                        let _gone = queued.answer.send(Err(answer));
                    }
                }
            }
        }
    }

    /// Reads back the entries that an earlier try stored, and passes them to `committed`: the node that stored them may
    /// have died before it published them. An entry that an earlier try of this lane may have stored takes its ack of `origins`,
    /// by its index, into its place before those of later entries. The inboxes to which that try appended are doubted, so that
    /// the lane does not wait for the reads of others. If the read fails, all of these logs are doubted.
    async fn republish_duplicates(
        &self,
        entries: &[NewEntry],
        outcomes: &[Outcome],
        mut origins: HashMap<usize, Arc<PendingAck>>,
    ) {
        let (mut duplicates, mut inboxes, mut acks) = (Vec::new(), Vec::new(), HashMap::new());
        for (at, (new, outcome)) in entries.iter().zip(outcomes).enumerate() {
            if let Ok(Appended { seq, duplicate: true, .. }) = outcome {
                duplicates.push((new.log.clone(), *seq));
                inboxes.extend(inbox_of(new));
                acks.extend(origins.remove(&at).map(|ack| ((new.log.clone(), *seq), ack)));
            }
        }
        if duplicates.is_empty() {
            return;
        }
        match self.store.read_back(&duplicates).await {
            Ok(entries) => {
                let mut committed = |entry: Entry| {
                    let origin = acks.remove(&(entry.log.clone(), entry.seq));
                    Committed { entry: Arc::new(entry), origin }
                };
                (self.outcomes.committed)(entries.into_iter().map(&mut committed).collect());
            }
            Err(_) => (self.outcomes.doubted)(duplicates.into_iter().map(|(log, _)| log).collect()),
        }
        #[cfg(feature = "faults")]
        inboxes.retain(|_| !crate::faults::has(crate::faults::Fault::NotRetold));
        if !inboxes.is_empty() {
            (self.outcomes.doubted)(inboxes);
        }
    }

    /// Appends a batch, and retries while an earlier try may have stored it.
    async fn append(&self, entries: &[NewEntry], maybe_stored: &mut bool) -> Result<Vec<Outcome>, StoreError> {
        let (started, mut wait) = (Instant::now(), BACKOFF_MIN);
        let work = work_of(entries);
        loop {
            let error = match self.store.append(entries, *maybe_stored).await {
                Ok(outcomes) => {
                    self.metrics.batch_entries.observe(entries.len() as f64);
                    // A repeat is answered without a write, and so is a refusal.
                    let wrote = || outcomes.iter().flatten().any(|appended| !appended.duplicate);
                    if !self.degrade.works(work) && wrote() {
                        self.degrade.note_work(work, None);
                    }
                    return Ok(outcomes);
                }
                Err(error) => error,
            };
            let lost = matches!(error, StoreError::Unknown(_));
            // One broken connection is no outage; the retry over another one tells.
            let tells = !lost || wait > BACKOFF_MIN;
            if let Some(fault) = lasting_fault(&error, entries) {
                self.degrade.note_work(work, Some(fault));
            } else if tells && !matches!(error, StoreError::Failed(_) | StoreError::Busy { .. }) {
                self.degrade.report(Part::Store, Err(error.finding()));
            }
            *maybe_stored |= lost;
            match error {
                error if !*maybe_stored => return Err(error),
                StoreError::Failed(error) if entries.len() > 1 => return Err(StoreError::Failed(error)),
                error if started.elapsed() >= self.settings.retry_for => {
                    return Err(StoreError::Unknown(error.to_string()));
                }
                _ => {
                    sleep(wait).await;
                    wait = (wait * 2).min(BACKOFF_MAX);
                }
            }
        }
    }

    fn publish_and_answer(&self, batch: Vec<Queued>, indices: &[usize], outcomes: &[Outcome]) {
        let mut committed = Vec::with_capacity(batch.len());
        let mut answers = Vec::with_capacity(batch.len());
        let mut answered = vec![false; outcomes.len()];
        for (queued, index) in batch.into_iter().zip(indices) {
            let Some(outcome) = outcomes.get(*index) else { continue };
            let mut answer = outcome.clone();
            let first = !std::mem::replace(&mut answered[*index], true);
            if let Ok(appended) = &mut answer {
                if first && !appended.duplicate {
                    let also = std::mem::take(&mut appended.also).into_iter();
                    let entry = entry(queued.entry, appended);
                    committed.push(Committed { entry: Arc::new(entry), origin: queued.origin });
                    committed.extend(also.map(|entry| Committed { entry: Arc::new(entry), origin: None }));
                }
                appended.duplicate |= !first;
            }
            answers.push((queued.answer, answer));
        }
        if !committed.is_empty() {
            (self.outcomes.committed)(committed);
        }
        for (appender, answer) in answers {
            let _gone = appender.send(answer.map_err(AppendError::Refused));
        }
    }
}

/// The texts of a batch.
fn contents(batch: &[Queued]) -> String {
    let text = |queued: &Queued| match &queued.entry.body {
        Body::Message { content, .. } => content.to_string(),
        _ => String::new(),
    };
    batch.iter().map(text).collect()
}

/// Splits queued entries into batches that the store accepts: consecutive messages together, each change alone, all in
/// order.
fn split(waiting: impl Iterator<Item = Queued>) -> Vec<Vec<Queued>> {
    let mut batches: Vec<Vec<Queued>> = Vec::new();
    let mut open = false;
    for queued in waiting {
        let message = queued.entry.body.is_message();
        match batches.last_mut() {
            Some(batch) if open && message => batch.push(queued),
            _ => batches.push(vec![queued]),
        }
        open = message;
    }
    batches
}

/// Returns the batch without repeated entries, and for each queued entry its index in that list. Cuts the batch before an
/// entry that reuses the id of another one for something else, and returns the rest: the store judges it once the first
/// one has its outcome.
fn dedupe(batch: &mut Vec<Queued>) -> (Vec<NewEntry>, Vec<usize>, Vec<Queued>) {
    let mut entries: Vec<NewEntry> = Vec::with_capacity(batch.len());
    let mut index_of = HashMap::with_capacity(batch.len());
    let mut indices = Vec::with_capacity(batch.len());
    for Queued { entry, .. } in &*batch {
        let index = *index_of.entry((&entry.log, &entry.sender, &entry.dedupe)).or_insert(entries.len());
        match entries.get(index) {
            None => entries.push(entry.clone()),
            Some(known) if known.body == entry.body => {}
            Some(_) => break,
        }
        indices.push(index);
    }
    drop(index_of);
    let rest = batch.split_off(indices.len());
    (entries, indices, rest)
}

/// The acks that wait for entries of a batch, each under the index of its entry. The first command of an entry has it.
fn origins(batch: &[Queued], indices: &[usize]) -> HashMap<usize, Arc<PendingAck>> {
    let mut origins = HashMap::new();
    for (queued, index) in batch.iter().zip(indices) {
        if let Some(ack) = &queued.origin {
            origins.entry(*index).or_insert_with(|| ack.clone());
        }
    }
    origins
}

/// The logs to which an append of `new` writes.
fn written_logs(new: &NewEntry) -> impl Iterator<Item = LogId> + use<> {
    [new.log.clone()].into_iter().chain(inbox_of(new))
}

/// The inbox to which an append of `new` writes as well.
fn inbox_of(new: &NewEntry) -> Option<LogId> {
    match &new.body {
        Body::MemberAdded { user } | Body::MemberRemoved { user } => Some(LogId::inbox(user)),
        _ => None,
    }
}

fn entry(new: NewEntry, appended: &Appended) -> Entry {
    Entry {
        log: new.log,
        seq: appended.seq,
        message_no: appended.message_no,
        sender: new.sender,
        sender_name: new.sender_name,
        client_id: new.client_gave_id.then_some(new.dedupe),
        at: appended.at,
        body: new.body,
    }
}

mod refusals;
#[cfg(test)]
mod tests;
