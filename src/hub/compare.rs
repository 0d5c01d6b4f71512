//! Comparison of what went out with the store. A store that was set back to an earlier state, by a restored backup or a
//! standby that lacked the newest commits, has lost entries that went out, and assigns their seqs again.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{
    Given, Hub,
    delivery::resync_notes,
    resequencer::Resequencer,
    set_back::{SetBack, Stored},
    shard::Op,
    track::Track,
};
use crate::{
    model::{EntryStamp, LogId, Seq},
    outbox::Outbox,
};

impl Hub {
    /// What the listeners of a followed log were given. `None` before delivery begins.
    pub fn given(&self, log: &LogId) -> Option<Given> {
        let tracks = self.partition(log);
        let track = tracks.get(log).filter(|track| track.has_base)?;
        Some(track.delivered.given(track.resequencer.last()))
    }

    /// Compares a log with the store, which was read after `given` was known, and backfills missing entries. If the store has
    /// lost an entry that went out, nothing goes out any more until [`Hub::restart`].
    pub fn compare(self: &Arc<Self>, log: &LogId, stored: Stored<'_>, given: Option<&Given>) -> Option<SetBack> {
        let mut tracks = self.partition(log);
        let track = tracks.get_mut(log)?;
        if !track.has_base {
            track.record_seq(stored.head);
            return None;
        }
        let given = given.filter(|given| track.delivered.includes(given))?;
        let is_lost = |stamp: &&EntryStamp| stamp.seq >= stored.first && !stored.stamps.contains(stamp);
        let lost: Vec<&EntryStamp> = given.stamps.iter().filter(is_lost).collect();
        let lowered = given.last > stored.head;
        if let (None, false) = (lost.first(), lowered) {
            track.delivered.trust(given);
            track.delivered.forget_before(stored.first);
            let known = track.delivered.newest().is_some();
            if let Some(newest) = stored
                .newest
                .filter(|newest| !known && newest.seq == track.resequencer.last() && newest.seq >= stored.first)
            {
                track.delivered.push(newest);
            }
            track.resequencer.record_seq(stored.head);
            self.backfill_if_needed(log, track);
            return None;
        }
        track.delivered.doubt();
        let first_lost = lost.first().map_or(Seq::MAX, |stamp| stamp.seq);
        let kept = given.seqs().take_while(|seq| *seq < first_lost).last().filter(|_| !lost.is_empty());
        let lost_at = lost.last().map(|stamp| stamp.at);
        Some(SetBack { log: log.clone(), kept, lost_at, restarts: given.restarts })
    }

    /// Begins a log again after `last`, since the store was set back: all listeners resync, and get what the store has after
    /// that, up to `head` and beyond. Does nothing and returns false if the log was restarted meanwhile.
    pub fn restart(self: &Arc<Self>, set_back: &SetBack, first: Seq, last: Seq, head: Seq) -> bool {
        let (log, restarts) = (&set_back.log, set_back.restarts);
        let mut tracks = self.partition(log);
        let known = tracks.get_mut(log).filter(|track| track.has_base && track.delivered.restarts() == restarts);
        let Some(track) = known else { return false };
        track.resequencer = Resequencer::after(last);
        track.resequencer.record_seq(head);
        track.delivered.restart(last);
        track.early.clear();
        track.first = first;
        self.metrics.resyncs.inc();
        let notes = resync_notes(log, first, last);
        for shard in &self.shards {
            shard.queue(log, Op::Resync { head: last, notes: notes.clone(), only: None });
            shard.wake();
        }
        self.backfill_if_needed(log, track);
        true
    }

    /// The outboxes of the sockets that listen to a log.
    pub async fn listeners(&self, log: &LogId) -> Vec<Arc<Outbox>> {
        let mut answers = Vec::with_capacity(self.shards.len());
        for shard in &self.shards {
            let (answer, listeners) = oneshot::channel();
            shard.queue(log, Op::List(answer));
            shard.wake();
            answers.push(listeners);
        }
        let mut all = Vec::new();
        for listeners in answers {
            all.extend(listeners.await.unwrap_or_default());
        }
        all
    }

    /// Doubts what went out of a log: nothing more goes out until a comparison.
    pub(super) fn doubt(&self, log: &LogId, track: &mut Track) {
        track.delivered.doubt();
        self.doubts.add(log);
    }

    /// Waits for logs with contradictory entries, which must be compared with the store, and takes them.
    pub async fn doubted(&self) -> Vec<LogId> {
        self.doubts.take().await
    }
}
