//! Backfill: the entries between the last one that went out and those that were announced.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt;

use super::{
    BACKFILL_DELAY, BACKOFF_MAX, Hub, Wanted,
    track::{OpenGap, StuckGap, Track},
};
use crate::{
    model::{Entry, EntryStamp, Event, LogId, Seq},
    supervise::{TaskName, checkpoint},
};

/// True if entries that come after this seq are not the next ones, without a gap.
fn has_hole(after: Seq, entries: &[Entry]) -> bool {
    entries.iter().zip(after + 1..).any(|(entry, expected)| entry.seq != expected)
}

/// A gap of a log.
struct Gap {
    /// The last entry that went out.
    last: Seq,
    /// The same with its time, if that is known.
    stamp: Option<EntryStamp>,
    /// The highest announced seq.
    known: Seq,
    /// The entry of that seq, if it waits.
    proof: Option<EntryStamp>,
}

impl Hub {
    /// Starts a backfill of the log, if it has a gap and none runs.
    pub(super) fn backfill_if_needed(self: &Arc<Self>, log: &LogId, track: &mut Track) {
        #[cfg(feature = "faults")]
        if crate::faults::has(crate::faults::Fault::NoBackfill) {
            return;
        }
        let open = track.has_base && track.resequencer.has_gap() && !track.delivered.is_doubted();
        if open && !std::mem::replace(&mut track.backfilling, true) {
            self.metrics.gaps_found.inc();
            let state = (self.clone(), log.clone(), OpenGap::new(self.metrics.clone()));
            self.supervisor.spawn_until_stop(TaskName::Backfill, state, |(hub, log, _open)| hub.backfill(log).boxed());
        }
    }

    /// Fetches the missing entries of a log until it has no gap.
    async fn backfill(self: &Arc<Self>, log: &LogId) {
        let (mut wait, mut stuck) = (BACKFILL_DELAY, None);
        loop {
            tokio::time::sleep(wait).await;
            let Some(gap) = self.find_gap(log) else { return };
            checkpoint(TaskName::Backfill, || "");
            let _failed = self.fetch_gap(log, &gap).await;
            let moved = self.last(log).is_some_and(|now| now > gap.last);
            wait = if moved { Duration::ZERO } else { (wait * 2).clamp(BACKFILL_DELAY, BACKOFF_MAX) };
            stuck = (wait == BACKOFF_MAX).then(|| stuck.take().unwrap_or_else(|| StuckGap::new(self.metrics.clone())));
        }
    }

    /// Fetches missing entries once, with the last one that went out: if the store has another one there, it was set back.
    async fn fetch_gap(self: &Arc<Self>, log: &LogId, gap: &Gap) -> Result<(), super::SourceFailed> {
        let after = if gap.stamp.is_some() { gap.last - 1 } else { gap.last };
        let fetched = {
            let _turn = self.backfills.acquire().await;
            let fetched = self.source.after(Wanted { log, after, proof: gap.proof }).await?;
            match has_hole(after, &fetched) && gap.proof.is_some() {
                // Copies may lack what the store has.
                true => self.source.after(Wanted { log, after, proof: None }).await?,
                false => fetched,
            }
        };
        // An entry of this node may be stored, and not here yet. From the store it would come without its ack.
        self.source.settled(log).await;
        let mut fetched = fetched.into_iter();
        if let Some(expected) = gap.stamp
            && fetched.next().is_none_or(|first| first.stamp() != expected)
        {
            if let Some(track) = self.partition(log).get_mut(log) {
                self.doubt(log, track);
            }
            return Ok(());
        }
        match fetched.as_slice().first() {
            None => self.drop_unstored(log, gap.known),
            Some(first) if first.seq > gap.last + 1 => self.skip_hole(log, gap.last, first.seq),
            Some(_) => {}
        }
        self.apply(fetched.map(|entry| Event::Entry { entry: Arc::new(entry), origin: None }).collect());
        Ok(())
    }

    /// Goes on at `next`, because the store has no entry between `last` and it. A seq is given out only after the one before is
    /// committed, so these entries were removed, or the head of the log was changed by hand.
    fn skip_hole(&self, log: &LogId, last: Seq, next: Seq) {
        if let Some(track) = self.partition(log).get_mut(log)
            && track.resequencer.skip(last, next)
        {
            self.metrics.log_holes.inc();
            tracing::warn!(%log, after = last, before = next, "the store lacks entries of a log; listeners go on after them");
        }
    }

    /// Drops announced seqs that the store does not have, unless a higher seq than `known` was announced meanwhile.
    fn drop_unstored(&self, log: &LogId, known: Seq) {
        if let Some(track) = self.partition(log).get_mut(log) {
            track.resequencer.drop_unstored(known);
            track.early.clear();
        }
    }

    /// The gap of a log. Without one, and while the log is doubted, it returns `None` and ends the backfill.
    fn find_gap(&self, log: &LogId) -> Option<Gap> {
        let mut tracks = self.partition(log);
        let track = tracks.get_mut(log)?;
        let (last, known) = (track.resequencer.last(), track.resequencer.known());
        if track.resequencer.has_gap() && !track.delivered.is_doubted() {
            return Some(Gap { last, stamp: track.newest(), known, proof: track.proof() });
        }
        track.backfilling = false;
        self.metrics.gaps_healed.inc();
        None
    }
}
