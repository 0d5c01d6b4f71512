//! Keeps the registry in Redis equal to this node's state: in a new era, after a write that failed, and each half hour.

use std::{collections::HashMap, sync::PoisonError, time::Duration};

use redis::Pipeline;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, interval, sleep},
};

use super::{
    era::{Era, Eras},
    line::Line,
    link_error::LinkError,
    local::Held,
    ops::Op,
    registry::Registry,
    registry_calls::{Unwritten, add_listener},
    shards::Shard,
    types::BackplaneEvent,
};
use crate::{
    config::HostPort,
    model::UserId,
    supervise::{TaskName, checkpoint},
};

/// Interval between two renewals of all entries.
const RENEW_EVERY: Duration = Duration::from_secs(1_800);
/// Interval between two repairs of dirty users.
const REPAIR_EVERY: Duration = Duration::from_secs(1);
/// Number of users per pipeline when many are synced, and the pause between two pipelines.
const BATCH: usize = 100;
const BATCH_PAUSE: Duration = Duration::from_millis(5);

impl Registry {
    /// Keeps Redis equal to this node's state until `stop` is cancelled.
    pub(super) async fn run(&self, mut eras: watch::Receiver<Eras>, events: mpsc::Sender<BackplaneEvent>) {
        let mut ticks = interval(REPAIR_EVERY);
        let (mut renew_at, mut views_written) = (Instant::now() + RENEW_EVERY, 0);
        loop {
            tokio::select! {
                _ = eras.changed() => {}
                _ = ticks.tick() => {}
            }
            checkpoint(TaskName::Registry, || "");
            let now = eras.borrow_and_update().clone();
            if !now.up {
                continue;
            }
            let renews = Instant::now() >= renew_at;
            let begun: HashMap<Shard, Era> = now.up().map(|(shard, era)| (shard, *era)).collect();
            let new = |shard: &Shard, era: &Era| era.number != self.written_era(*shard);
            let begun: HashMap<Shard, (Era, bool)> =
                begun.into_iter().map(|(shard, era)| (shard, (era, new(&shard, &era)))).collect();
            if renews || begun.values().any(|(_, new)| *new) {
                let of_user = |user: &UserId| {
                    let (era, new) = begun.get(&self.link.keys().shard_of(user))?;
                    (*new || renews).then(|| Unwritten { era: new.then_some(*era), ..Unwritten::default() })
                };
                if self.sync_all(of_user, &events).await.is_ok() {
                    let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
                    written.extend(begun.iter().map(|(shard, (era, _))| (*shard, era.number)));
                    renew_at = Instant::now() + RENEW_EVERY;
                }
            } else {
                // A later round writes the entries that Redis refuses now.
                let _repaired = self.repair(&events).await;
            }
            let returned: Vec<_> = now.returned.iter().filter(|(_, number)| *number > views_written).collect();
            let masters: Vec<&HostPort> = returned.iter().map(|(master, _)| master).collect();
            if !masters.is_empty() && self.write_views(&masters).await.is_ok() {
                views_written = returned.iter().map(|(_, number)| *number).max().unwrap_or(views_written);
            }
        }
    }

    /// The number of the era of a shard in which all of this node's users there were written last.
    pub(super) fn written_era(&self, shard: Shard) -> u64 {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).get(&shard).copied().unwrap_or(0)
    }

    /// Writes those of this node's users to Redis for whom `which` says how. In a new era, sends [`BackplaneEvent::Returned`] for
    /// those whom other nodes believe to be offline.
    async fn sync_all(
        &self,
        which: impl Fn(&UserId) -> Option<Unwritten>,
        events: &mpsc::Sender<BackplaneEvent>,
    ) -> Result<(), LinkError> {
        let mut last: Option<UserId> = None;
        loop {
            let users = self.local.users_after(last.as_ref(), BATCH);
            let Some(end) = users.last().cloned() else { break };
            let batch: Vec<_> = users.into_iter().filter_map(|user| Some((which(&user)?, user))).collect();
            if !batch.is_empty() {
                // The repair writes those again whom Redis refused.
                let batch = batch.into_iter().map(|(unwritten, user)| (user, unwritten)).collect();
                let _refusal = self.write(batch, events).await?;
                sleep(BATCH_PAUSE).await;
            }
            last = Some(end);
        }
        // The era is written: what is refused now is repaired by itself.
        let _repaired = self.repair(events).await;
        Ok(())
    }

    /// Writes the views that these masters have of all of this node's users: a cluster keeps them apart from the entries, and a
    /// master that took over may lack some.
    async fn write_views(&self, masters: &[&HostPort]) -> Result<(), LinkError> {
        let (keys, mut last) = (self.link.keys(), None::<UserId>);
        loop {
            let users = self.local.users_after(last.as_ref(), BATCH);
            let Some(end) = users.last().cloned() else { return Ok(()) };
            let mut pipeline = Pipeline::new();
            for share in users.iter().filter_map(|user| self.local.share(user)) {
                let rooms = share.rooms.iter().map(|(room, _)| room);
                for room in rooms.filter(|room| self.link.is_on(&keys.audience(room), masters)) {
                    add_listener(&mut pipeline, keys, room, &share.user);
                }
                if self.link.is_on(&keys.summary(&share.user), masters) {
                    let me = self.lease.me(keys.shard_of(&share.user));
                    let line = |held: &Held| Line { id: held.id, holder: me.clone(), since: held.since, dialect: None };
                    let lines: Vec<Line> = share.connections.iter().map(line).collect();
                    self.summarize(&mut pipeline, &share.user, &lines);
                }
            }
            if !pipeline.is_empty() {
                self.link.run(Op::Sync, "views", &pipeline).await?;
                sleep(BATCH_PAUSE).await;
            }
            last = Some(end);
        }
    }

    /// Writes the dirty users to Redis.
    async fn repair(&self, events: &mpsc::Sender<BackplaneEvent>) -> Result<(), LinkError> {
        loop {
            let batch: Vec<(UserId, Unwritten)> = {
                let mut dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
                // Those whose shard is down wait for its return.
                let keys = self.link.keys();
                let writable = dirty.keys().filter(|user| self.link.may_call(&keys.entry(user)));
                let some: Vec<_> = writable.take(BATCH).cloned().collect();
                some.into_iter().filter_map(|user| dirty.remove_entry(&user)).collect()
            };
            if batch.is_empty() {
                return Ok(());
            }
            if let Some(refusal) = self.write(batch, events).await? {
                return Err(refusal);
            }
            sleep(BATCH_PAUSE).await;
        }
    }
}
