//! What happened reaches other nodes through the store, while any node can't reach the others through Redis.
//!
//! A node whose Redis is down says so in the store. While some node does, every node gives notice in the store of the logs
//! that grew by it, and reads the notices of others; its hub fetches what it lacks. While none does, nobody does any of
//! this: the sign of life that the store is asked for all the time tells.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::reconciler::Reconciler;
use crate::{
    backplane::Backplane,
    degrade::{Degrade, Feature, Mode},
    hub::Hub,
    metrics::Metrics,
    model::{LogId, NodeId, Seq},
    store::Store,
};

pub(super) mod growth;

use growth::Growth;

/// Between two looks at what notice is to be given of.
const GIVE_EVERY: Duration = Duration::from_millis(100);
/// Between two signs that this node can't reach others, where it has no notice to give.
const SIGN_EVERY: Duration = Duration::from_secs(1);
/// How long such a sign stands. A node that died says so until then.
const SIGN_STANDS: Duration = Duration::from_secs(3);
/// Between two readings of notices.
const READ_EVERY: Duration = Duration::from_millis(250);
/// How far a reading looks back beyond the one before: a notice may be committed that long after it was written.
const OVERLAP: Duration = Duration::from_secs(2);
/// How far the first reading looks back: others may have given notice for a while before this node knew.
const FIRST_LOOK: Duration = Duration::from_secs(10);
/// When all nodes know that notice is to be given.
const ALL_KNOW: Duration = Duration::from_millis(1_500);

/// Gives notices through the store and reads those of others, while any node can't reach the others through Redis.
pub(super) struct Relay {
    pub(super) node: NodeId,
    pub(super) store: Arc<dyn Store>,
    pub(super) backplane: Arc<Backplane>,
    pub(super) hub: Arc<Hub>,
    pub(super) degrade: Arc<Degrade>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) growth: Arc<Growth>,
    pub(super) reconciler: Arc<Reconciler>,
}

impl Relay {
    /// Gives and reads notices until it is stopped.
    pub(super) async fn run(self) {
        tokio::join!(self.give_notices(), self.read_notices());
    }

    /// Gives notice of what this node stores, while some node can't be told otherwise.
    async fn give_notices(&self) {
        let mut changes = self.degrade.changes();
        while changes.wait_for(|_| self.degrade.relays()).await.is_ok() {
            let (mut owed, mut signed) = (HashMap::new(), None);
            let mut ticks = interval(GIVE_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while self.degrade.relays() {
                ticks.tick().await;
                let alone = self.degrade.mode(Feature::Fanout) == Mode::Relayed;
                if alone {
                    self.note_owed(&mut owed);
                } else if signed.take().is_some() {
                    self.withdraw_notice().await;
                }
                self.give_notice(alone, &mut signed).await;
            }
            if signed.is_some() {
                self.withdraw_notice().await;
            }
        }
    }

    async fn withdraw_notice(&self) {
        if let Err(error) = self.store.withdraw_notice(&self.node).await {
            tracing::debug!(%error, "a notice was not withdrawn, and lapses");
        }
    }

    /// What Redis did not take before it was known to be down is given notice of as well. `owed`: what was, already.
    fn note_owed(&self, owed: &mut HashMap<LogId, Seq>) {
        let mut news = self.backplane.unpublished();
        news.retain(|(log, seq)| owed.get(log) != Some(seq));
        owed.extend(news.iter().cloned());
        self.growth.add(news);
    }

    /// Gives notice of what grew; a node that is `alone` says so from time to time.
    async fn give_notice(&self, alone: bool, signed: &mut Option<Instant>) {
        let grown = self.growth.take();
        let sign = alone && signed.is_none_or(|signed| signed.elapsed() >= SIGN_EVERY);
        if grown.is_empty() && !sign {
            return;
        }
        let stands = if alone { SIGN_STANDS } else { Duration::ZERO };
        match self.store.give_notice(&self.node, stands, &grown).await {
            Ok(()) => {
                if alone {
                    *signed = Some(Instant::now());
                }
                self.metrics.notices_given.inc_by(grown.len() as u64);
            }
            Err(error) => {
                tracing::debug!(%error, "a notice was not given");
                self.growth.add(grown);
            }
        }
    }

    /// Reads notices for as long as any node gives some.
    async fn read_notices(&self) {
        let mut changes = self.degrade.changes();
        while changes.wait_for(|_| self.degrade.relays()).await.is_ok() {
            self.metrics.relaying.set(1);
            let begun = Instant::now();
            let (mut last, mut look_back, mut compared) = (begun, FIRST_LOOK, false);
            let mut ticks = interval(READ_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while self.degrade.relays() {
                ticks.tick().await;
                let now = Instant::now();
                match self.store.notices(last.elapsed() + look_back).await {
                    Ok(heads) => {
                        heads.iter().for_each(|(log, head)| self.hub.learn(log, *head));
                        (last, look_back) = (now, OVERLAP);
                    }
                    Err(error) => tracing::debug!(%error, "notices can't be read now"),
                }
                if !compared && begun.elapsed() >= ALL_KNOW {
                    // What others stored before they knew.
                    self.reconciler.compare_soon();
                    compared = true;
                }
            }
            self.metrics.relaying.set(0);
            // What a node stored last before it died.
            self.reconciler.compare_soon();
        }
    }
}
