//! Relay of events between nodes through the store, while any node can't reach the others through Redis.
//!
//! A node without Redis writes a sign of this into the store. While any node's sign is valid, every node writes notices
//! of the logs to which it appended, and reads the notices of the others; its hub backfills the missing entries. While
//! no sign is valid, no node writes or reads notices: the regular health check of the store detects the signs.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{hints::Hints, reconciler::Reconciler};
use crate::{
    backplane::Backplane,
    degrade::Degrade,
    hub::Hub,
    metrics::Metrics,
    model::{LogId, NodeId, Seq},
    store::{Notices, RelaySign, Store},
};

pub(super) mod growth;

use growth::Growth;

/// Interval between two writes of notices.
const WRITE_INTERVAL: Duration = Duration::from_millis(100);
/// Interval between two signs of this node while it has no notice to write.
const SIGN_INTERVAL: Duration = Duration::from_secs(1);
/// Lifetime of a sign. The sign of a dead node stays valid until then.
const SIGN_TTL: Duration = Duration::from_secs(3);
/// Interval between two reads of notices.
const READ_INTERVAL: Duration = Duration::from_millis(250);
/// Overlap of a read with the one before: the commit of a notice may come this long after its timestamp.
const OVERLAP: Duration = Duration::from_secs(2);
/// Look-back of the first read: other nodes may have written notices before this node learned of the sign.
const FIRST_LOOK_BACK: Duration = Duration::from_secs(10);
/// Time from a node's first sign until all nodes know that they must write notices. A crash of PostgreSQL also removes the
/// signs; nodes write theirs again within [`SIGN_INTERVAL`].
const ALL_NODES_WRITE_AFTER: Duration = Duration::from_millis(1_500);

/// Writes notices to the store and reads those of other nodes, while any node can't reach the others through Redis.
pub(super) struct Relay {
    pub(super) node: NodeId,
    pub(super) store: Arc<dyn Store>,
    pub(super) backplane: Arc<Backplane>,
    pub(super) hub: Arc<Hub>,
    pub(super) degrade: Arc<Degrade>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) growth: Arc<Growth>,
    pub(super) reconciler: Arc<Reconciler>,
    pub(super) hints: Arc<Hints>,
}

impl Relay {
    /// Writes and reads notices until its task is stopped.
    pub(super) async fn run(&self) {
        tokio::join!(self.write_notices(), self.read_notices());
    }

    /// Writes notices of the entries that this node stores, while any node's sign is valid.
    async fn write_notices(&self) {
        let mut changes = self.degrade.changes();
        while changes.wait_for(|_| self.degrade.relays()).await.is_ok() {
            let (mut noticed, mut signed_at) = (HashMap::new(), None);
            let mut ticks = interval(WRITE_INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while self.degrade.relays() {
                ticks.tick().await;
                let alone = self.degrade.may_be_alone();
                self.growth.add_recent();
                if alone {
                    self.add_unpublished(&mut noticed);
                } else if signed_at.take().is_some() {
                    self.withdraw_sign().await;
                }
                self.write_notice(alone, &mut signed_at).await;
            }
            if signed_at.is_some() {
                self.withdraw_sign().await;
            }
        }
    }

    async fn withdraw_sign(&self) {
        for sign in [RelaySign::alone(self.node.clone()), RelaySign::apart(self.node.clone())] {
            if let Err(error) = self.store.withdraw_notice(&sign).await {
                tracing::debug!(%error, "the sign was not withdrawn from the store; it expires by itself");
            }
        }
    }

    /// Adds the logs of entries that Redis did not accept before its outage was detected. `noticed` holds those added
    /// before.
    fn add_unpublished(&self, noticed: &mut HashMap<LogId, Seq>) {
        let mut unpublished = self.backplane.unpublished();
        unpublished.retain(|(log, seq)| noticed.get(log) != Some(seq));
        noticed.extend(unpublished.iter().cloned());
        self.growth.add(unpublished);
    }

    /// Writes notices of the logs that grew. A node that is `alone` (without Redis) also renews its sign.
    async fn write_notice(&self, alone: bool, signed_at: &mut Option<Instant>) {
        let grown = self.growth.drain();
        let renews = alone && signed_at.is_none_or(|signed_at| signed_at.elapsed() >= SIGN_INTERVAL);
        if grown.is_empty() && !renews {
            return;
        }
        let sign_ttl = if alone { SIGN_TTL } else { Duration::ZERO };
        // A node for which Redis works must not look as if it were without: the others find it missing in theirs.
        let of = if self.degrade.is_apart() && self.degrade.is_heard() { RelaySign::apart } else { RelaySign::alone };
        match self.store.give_notice(&of(self.node.clone()), sign_ttl, &grown).await {
            Ok(()) => {
                if alone {
                    *signed_at = Some(Instant::now());
                }
                self.metrics.notices_given.inc_by(grown.len() as u64);
            }
            Err(error) => {
                tracing::debug!(%error, "notices were not written to the store; retrying");
                self.growth.add(grown);
            }
        }
    }

    /// Reads notices while any node's sign is valid.
    async fn read_notices(&self) {
        let mut changes = self.degrade.changes();
        while changes.wait_for(|_| self.degrade.relays()).await.is_ok() {
            self.metrics.relaying.set(1);
            let begun = Instant::now();
            let (mut last, mut look_back) = (begun, FIRST_LOOK_BACK);
            // Finds entries that other nodes stored before they knew of the sign.
            let mut compare_at = Some(begun + ALL_NODES_WRITE_AFTER);
            let mut ticks = interval(READ_INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while self.degrade.relays() {
                ticks.tick().await;
                let now = Instant::now();
                match self.store.notices(last.elapsed() + look_back).await {
                    Ok(Notices { heads, complete_since }) => {
                        heads.iter().for_each(|(log, head)| self.hub.record_head(log, *head));
                        self.hints.relayed(&heads);
                        if complete_since > last.into_std() {
                            // A crash of PostgreSQL may have emptied the table of notices, and that of the signs.
                            tracing::debug!("notices may be lost; comparing every followed log with the store");
                            self.reconciler.compare_soon();
                            compare_at = Some(now + SIGN_INTERVAL + ALL_NODES_WRITE_AFTER);
                        }
                        (last, look_back) = (now, OVERLAP);
                    }
                    Err(error) => tracing::debug!(%error, "notices can't be read from the store; retrying"),
                }
                if compare_at.is_some_and(|at| at <= Instant::now()) {
                    self.reconciler.compare_soon();
                    compare_at = None;
                }
            }
            self.metrics.relaying.set(0);
            // Finds entries that a node stored just before it died.
            self.reconciler.compare_soon();
        }
    }
}
