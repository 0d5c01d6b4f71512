//! [`RestrictionReader`]: reads the restrictions that admins make from the store into this node's memory, first all of them,
//! then the changes whenever an answer to the health check of the store shows some.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::{
    sync::watch,
    time::{Instant, interval},
};

use crate::{
    model::{Clock, Restriction, RestrictionChange, RestrictionMark, Timestamp},
    restrictions::Restrictions,
    store::{Pulse, RestrictionRow, Store, StoreError},
    supervise::{Supervisor, TaskName, checkpoint},
};

/// Number of rows that one query reads.
const PAGE: u32 = 10_000;
/// Time for which changes that are over stay stored. A node that missed changes for half of it reads everything anew.
const OVER_KEPT: Duration = Duration::from_secs(3_600);
/// Interval between two removals of what is over or expired.
const PRUNE_INTERVAL: Duration = Duration::from_secs(600);

/// Reads the store's restrictions into this node's memory.
#[derive(Clone)]
pub(super) struct RestrictionReader {
    pub(super) store: Arc<dyn Store>,
    pub(super) restrictions: Arc<Restrictions>,
    /// Maximum number of restrictions that stand.
    pub(super) max: u32,
    pub(super) clock: Clock,
}

/// The state of the task that follows the store's restrictions.
pub(super) struct Following {
    pulses: watch::Receiver<Option<Pulse>>,
    /// The store's time at which this node last had every change.
    complete_at: Timestamp,
    prune_at: Instant,
    /// This node's own changes that it had not read when the last answer came. They are older than the next answer.
    own: Vec<RestrictionMark>,
    /// True while new changes can't be read.
    failing: bool,
}

impl Following {
    pub(super) fn new(pulses: watch::Receiver<Option<Pulse>>) -> Self {
        let (complete_at, prune_at) = (Timestamp::from_micros(0), Instant::now() + PRUNE_INTERVAL);
        Self { pulses, complete_at, prune_at, own: Vec::new(), failing: false }
    }
}

impl RestrictionReader {
    /// Starts the task that follows the store.
    pub(super) fn start(self, pulses: watch::Receiver<Option<Pulse>>, supervisor: &Supervisor) {
        let state = (self, Following::new(pulses));
        supervisor
            .spawn_until_stop(TaskName::Restrictions, state, |(reader, following)| reader.follow(following).boxed());
    }

    /// Reads all standing restrictions. Until this has succeeded once, no token is accepted.
    pub(super) async fn read_all(&self) -> Result<(), StoreError> {
        let pulse = self.store.ping().await?;
        self.replace(pulse.restrictions, &[]).await
    }

    /// Applies new changes whenever an answer of the store shows some. After an error, the next answer is the next try.
    async fn follow(&self, following: &mut Following) {
        let mut forgetting = interval(PRUNE_INTERVAL);
        loop {
            tokio::select! {
                changed = following.pulses.changed() => if changed.is_err() { return },
                _ = forgetting.tick() => {
                    self.restrictions.forget_expired(self.clock.now());
                    continue;
                }
            }
            checkpoint(TaskName::Restrictions, || "");
            let pulse = *following.pulses.borrow_and_update();
            let Some(pulse) = pulse else { continue };
            let own = self.restrictions.unread_own();
            let result = self.catch_up(pulse, following, &own).await;
            following.own = own;
            match result {
                Ok(()) => (following.complete_at, following.failing) = (pulse.at, false),
                Err(error) => {
                    if !std::mem::replace(&mut following.failing, true) {
                        tracing::warn!(%error, "new restrictions can't be read; the ones before stay in force");
                    }
                    continue;
                }
            }
            if following.prune_at <= Instant::now() {
                following.prune_at = Instant::now() + PRUNE_INTERVAL.mul_f64(rand::random_range(1.0..2.0));
                self.prune(pulse.at).await;
            }
        }
    }

    /// Applies the changes up to the newest one of `pulse`.
    async fn catch_up(&self, pulse: Pulse, following: &Following, own: &[RestrictionMark]) -> Result<(), StoreError> {
        let known = self.restrictions.read_to();
        let lost_own = following.own.iter().any(|own| own.id > pulse.restrictions.id);
        if known == Some(pulse.restrictions) && !lost_own {
            return Ok(());
        }
        // Changes that are over may be gone from the store; an earlier time means that the database was replaced.
        let gap = pulse.at.since(following.complete_at);
        let fresh = following.complete_at <= pulse.at && gap < OVER_KEPT / 2;
        if let Some(known) = known.filter(|_| fresh && !lost_own)
            && let Some((changes, read_to)) = self.changes_after(known).await?
            && self.restrictions.apply(&changes, read_to)
        {
            changes.iter().for_each(report);
            return Ok(());
        }
        tracing::info!("reading all restrictions anew");
        self.replace(pulse.restrictions, own).await
    }

    /// Replaces this node's restrictions by the store's: those that stand, and every change after `mark`. `own` are this
    /// node's own changes from before.
    async fn replace(&self, mark: RestrictionMark, own: &[RestrictionMark]) -> Result<(), StoreError> {
        let (mut standing, mut after) = (Vec::new(), 0);
        loop {
            let rows = self.store.standing_restrictions(after, PAGE).await?;
            let full = rows.len() >= PAGE as usize;
            after = rows.last().map_or(after, |row| row.mark.id);
            standing.extend(rows.into_iter().filter_map(|row| row.change));
            if !full {
                break;
            }
        }
        // The newest change is never removed, so it is missing only if the database was replaced in this moment.
        let later = self.changes_after(mark).await?;
        let (later, read_to) = later
            .ok_or_else(|| StoreError::Unavailable("the store was replaced while restrictions were read".into()))?;
        self.restrictions.replace(&standing, &later, read_to, own);
        Ok(())
    }

    /// The changes after `mark`, and the place of the last one; `None` if the store does not have the change of `mark`.
    async fn changes_after(
        &self,
        mark: RestrictionMark,
    ) -> Result<Option<(Vec<RestrictionChange>, RestrictionMark)>, StoreError> {
        let (mut changes, mut read_to) = (Vec::new(), mark);
        loop {
            let rows = self.store.restriction_changes(read_to.id, PAGE).await?;
            let known = usize::from(read_to.id > 0);
            if rows.iter().map(|row| row.mark).take(known).ne(std::iter::repeat_n(read_to, known)) {
                return Ok(None);
            }
            let full = rows.len() >= PAGE as usize;
            read_to = rows.last().map_or(read_to, |row| row.mark);
            changes.extend(rows.into_iter().skip(known).filter_map(|row: RestrictionRow| row.change));
            if !full {
                return Ok(Some((changes, read_to)));
            }
        }
    }

    async fn prune(&self, now: Timestamp) {
        let over = Timestamp::from_micros(now.micros().saturating_sub(micros(OVER_KEPT)));
        match self.store.prune_restrictions(over, self.restrictions.kept_from(now)).await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "changes of restrictions that are over were removed"),
            Err(error) => tracing::debug!(%error, "changes of restrictions were not removed; retrying later"),
        }
    }
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

/// Writes the line of the audit log that this node applied a change.
fn report(change: &RestrictionChange) {
    let token = match &change.restriction {
        Restriction::TokenRevoked(token) => Some(token.as_str()),
        _ => None,
    };
    let (action, user, by, at) = (change.restriction.label(), change.user.as_str(), &*change.by, change.at);
    tracing::info!(target: "audit", action, user, token, by, %at, "restriction applied");
}
