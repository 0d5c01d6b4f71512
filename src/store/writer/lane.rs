//! A lane: takes batches and commits them, one after the other.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::{
    super::{Appended, Logs, NewEntry, Outcome, StoreError},
    batch::{contents, dedupe, entry, inbox_of, origins, written_logs},
    queue::Queue,
    refusals::{call_of, lasting_fault, work_of},
    types::{AppendError, Committed, Outcomes, Queued, WriterSettings},
};
use crate::{
    degrade::{Degrade, Part},
    metrics::Metrics,
    model::{Entry, LogId, PendingAck},
    supervise::{Supervisor, TaskName, checkpoint},
};

/// First wait before a batch with an unknown outcome is retried.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// Maximum wait between such retries. It is short, because the later entries of its logs wait with the batch.
const BACKOFF_MAX: Duration = Duration::from_millis(250);

/// A lane.
pub(super) struct Lane {
    pub(super) store: Arc<dyn Logs>,
    pub(super) settings: WriterSettings,
    pub(super) metrics: Arc<Metrics>,
    pub(super) degrade: Arc<Degrade>,
    pub(super) outcomes: Arc<Outcomes>,
    pub(super) supervisor: Supervisor,
}

impl Lane {
    /// Commits batches of the queue until that is closed and empty.
    pub(super) async fn run(&self, queue: &Queue) {
        let (stop, mut stopping) = (self.supervisor.stop(), false);
        loop {
            let taken = tokio::select! {
                taken = queue.take() => taken,
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    queue.close();
                    continue;
                }
            };
            let Some(mut taken) = taken else { return };
            let batch = taken.entries();
            // Appenders of a batch that panics learn that its outcome is unknown, because their senders are dropped.
            let logs: Vec<LogId> = batch.iter().flat_map(|queued| written_logs(&queued.entry)).collect();
            if self.supervisor.guard(TaskName::WriterLane, self.commit(batch)).await.is_none() {
                (self.outcomes.doubted)(logs);
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
                Err(error) if batch.len() > 1 && error.may_be_of_a_part() => {
                    tracing::debug!(%error, entries = batch.len(), "a batch failed and is retried in halves");
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
        let (work, call) = (work_of(entries), call_of(entries));
        loop {
            let error = match self.store.append(entries, *maybe_stored).await {
                Ok(outcomes) => {
                    self.metrics.batch_entries.observe(entries.len() as f64);
                    // A repeat is answered without a write, and so is a refusal.
                    let wrote = || outcomes.iter().flatten().any(|appended| !appended.duplicate);
                    if wrote() {
                        self.degrade.call_succeeded(work, call);
                    }
                    return Ok(outcomes);
                }
                Err(error) => error,
            };
            let lost = matches!(error, StoreError::Unknown(_));
            // One broken connection is no outage; the retry over another one tells.
            let tells = !lost || wait > BACKOFF_MIN;
            if let Some(fault) = lasting_fault(&error, entries) {
                error.tell_refusal(&self.degrade, (work, call), fault);
            } else if tells && !matches!(error, StoreError::Failed(_) | StoreError::Busy { .. }) {
                if !error.is_conflict() {
                    self.degrade.report(Part::Store, Err(error.finding()));
                }
                self.degrade.call_failed(work, call, error.finding());
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
