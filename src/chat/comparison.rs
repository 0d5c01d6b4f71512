//! Comparison of followed logs with the store.
//!
//! It also finds out whether the store was set back to an earlier state: a backup was restored, or a standby that lacked the
//! newest commits was promoted. Heights don't tell, because the store assigns the lost seqs again; so the entries that went out
//! last are compared with those that the store has. After a set-back, listeners resync, and the deployment gets a new epoch,
//! by which the other nodes learn that they must compare too.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};

use super::derived::Derived;
use crate::{
    backplane::Backplane,
    hub::{Given, Hub, SetBack, Stored},
    metrics::Metrics,
    model::{ConversationId, EntryStamp, LogId, Seq, UserId},
    outbox::{Outbox, Signal},
    store::{Ends, Store, StoreError},
};

/// Logs per read.
pub(super) const PAGE: usize = 500;
/// Entries, and listeners, per read.
const ROWS: usize = 5_000;

/// Compares logs with the store, and keeps the epoch of the store.
pub(super) struct Comparison {
    store: Arc<dyn Store>,
    backplane: Arc<Backplane>,
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
    derived: Derived,
    /// The newest known epoch; 0 until the store has started.
    epoch: AtomicI64,
    /// The epoch of the last comparison of all logs.
    compared: AtomicI64,
    /// The epoch that began with the last set-back that this node found.
    found: AtomicI64,
    /// Only one set-back is handled at a time.
    handling: tokio::sync::Mutex<()>,
    /// Restarted logs, the memberships of whose listeners are not checked yet, each with the seq after which it began.
    unchecked: Mutex<HashMap<LogId, Seq>>,
}

impl Comparison {
    pub(super) fn new(
        (store, backplane): (Arc<dyn Store>, Arc<Backplane>),
        hub: Arc<Hub>,
        metrics: Arc<Metrics>,
        derived: Derived,
    ) -> Self {
        let (epoch, compared, found) = (AtomicI64::new(0), AtomicI64::new(0), AtomicI64::new(0));
        Self {
            store,
            backplane,
            hub,
            metrics,
            derived,
            epoch,
            compared,
            found,
            handling: Default::default(),
            unchecked: Mutex::default(),
        }
    }

    /// Sets the epoch with which the store has started.
    pub(super) fn begin(&self, epoch: i64) {
        self.backplane.set_epoch(epoch);
        self.epoch.store(epoch, Ordering::Release);
        self.compared.store(epoch, Ordering::Release);
    }

    /// The newest known epoch.
    pub(super) fn epoch(&self) -> i64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Compares every followed log. Returns true if the store was set back.
    pub(super) async fn compare_all(&self) -> Result<bool, StoreError> {
        let (epoch, mut set_back) = (self.epoch(), false);
        for logs in self.hub.logs().chunks(PAGE) {
            set_back |= self.compare(logs).await?;
        }
        self.compared.fetch_max(epoch, Ordering::AcqRel);
        Ok(set_back)
    }

    /// Compares some logs, at most [`PAGE`]. Returns true if the store was set back.
    pub(super) async fn compare(&self, logs: &[LogId]) -> Result<bool, StoreError> {
        let given: Vec<Option<Given>> = logs.iter().map(|log| self.hub.given(log)).collect();
        let mut ends: HashMap<LogId, Ends> = self.store.ends(logs).await?.into_iter().collect();
        let seqs = logs.iter().zip(&given).flat_map(|(log, given)| {
            let seqs = given.iter().flat_map(Given::seqs);
            seqs.map(|seq| (log.clone(), seq))
        });
        let mut stamps: HashMap<LogId, Vec<EntryStamp>> = HashMap::new();
        for seqs in seqs.collect::<Vec<_>>().chunks(ROWS) {
            for (log, stamp) in self.store.stamps(seqs).await? {
                stamps.entry(log).or_default().push(stamp);
            }
        }
        self.read_first_again(logs.iter().zip(&given), &stamps, &mut ends).await?;
        let found = logs.iter().zip(&given).filter_map(|(log, given)| {
            let ends @ Ends { first, head, .. } = ends.get(log).copied().unwrap_or_default();
            let stamps = stamps.get(log).map_or(&[][..], Vec::as_slice);
            let stored = Stored { first, head, newest: ends.newest(), stamps };
            self.hub.compare(log, stored, given.as_ref())
        });
        let found: Vec<SetBack> = found.collect();
        if !found.is_empty() {
            self.restart(&found).await?;
        }
        self.check_members().await?;
        Ok(!found.is_empty())
    }

    /// Reads the first seq again of logs whose entries seem lost: retention may have removed these since the ends were read.
    async fn read_first_again(
        &self,
        given: impl Iterator<Item = (&LogId, &Option<Given>)>,
        stamps: &HashMap<LogId, Vec<EntryStamp>>,
        ends: &mut HashMap<LogId, Ends>,
    ) -> Result<(), StoreError> {
        let found = |log: &LogId| stamps.get(log).map_or(0, Vec::len);
        let lacking =
            given.filter(|(log, given)| given.as_ref().is_some_and(|given| given.seqs().count() > found(log)));
        let lacking: Vec<LogId> = lacking.map(|(log, _)| log.clone()).collect();
        if lacking.is_empty() {
            return Ok(());
        }
        for (log, Ends { first, .. }) in self.store.ends(&lacking).await? {
            ends.entry(log).and_modify(|ends| ends.first = first);
        }
        Ok(())
    }

    /// Restarts logs whose entries were lost.
    async fn restart(&self, found: &[SetBack]) -> Result<(), StoreError> {
        let _turn = self.handling.lock().await;
        self.end_epoch(self.compared.load(Ordering::Acquire)).await?;
        // Nothing of these logs goes out meanwhile, so everything that went out of the present state is below these heads.
        let logs: Vec<LogId> = found.iter().map(|set_back| set_back.log.clone()).collect();
        let ends: HashMap<LogId, Ends> = self.store.ends(&logs).await?.into_iter().collect();
        let deep = found.iter().filter(|set_back| set_back.kept.is_none());
        let deep: Vec<_> = deep.filter_map(|set_back| Some((set_back.log.clone(), set_back.lost_at?))).collect();
        let last_old: HashMap<LogId, Seq> = match deep.is_empty() {
            true => HashMap::new(),
            false => self.store.ends_at(&deep).await?.into_iter().collect(),
        };
        let mut restarted = 0;
        for set_back in found {
            let Ends { first, head, .. } = ends.get(&set_back.log).copied().unwrap_or_default();
            let last = set_back.kept.or_else(|| last_old.get(&set_back.log).copied()).unwrap_or(head).min(head);
            if self.hub.restart(set_back, first, last, head) {
                self.lock_unchecked().insert(set_back.log.clone(), last);
                restarted += 1;
            }
        }
        // What was stored after the read above and before the restart went out to nobody.
        for (log, Ends { head, .. }) in self.store.ends(&logs).await? {
            self.hub.record_head(&log, head);
        }
        if restarted == 0 {
            return Ok(());
        }
        let epoch = self.epoch();
        if self.found.swap(epoch, Ordering::AcqRel) != epoch {
            self.metrics.store_set_backs.inc();
        }
        tracing::warn!(
            logs = restarted,
            epoch,
            "the store was set back to an earlier state: entries that were delivered are lost, and listeners resync"
        );
        Ok(())
    }

    /// Records the epoch that the store says. Returns true if the logs must be compared: another node found a set-back, or
    /// the store was set back to an earlier epoch.
    pub(super) async fn note_epoch(&self, epoch: i64) -> Result<bool, StoreError> {
        let known = self.epoch();
        if epoch == known || known == 0 {
            return Ok(false);
        }
        let _turn = self.handling.lock().await;
        // The node may have begun a new epoch since the store was asked.
        let (known, epoch) = (self.epoch(), self.store.deployment().await?.epoch);
        match epoch {
            same if same == known => return Ok(false),
            later if later > known => self.adopt(later),
            _ => self.end_epoch(known).await?,
        }
        Ok(true)
    }

    /// Ends an epoch, unless another node did so already.
    async fn end_epoch(&self, ended: i64) -> Result<(), StoreError> {
        let known = self.epoch();
        let begun = match self.store.next_epoch(ended).await {
            // The store was set back again, to an epoch that was over before.
            Ok(epoch) if epoch < known => self.store.next_epoch(known).await,
            begun => begun,
        };
        match begun {
            Ok(epoch) => self.adopt(epoch),
            Err(StoreError::Failed(error)) => {
                let remedy = "other nodes may not learn that the store was set back: restart them";
                tracing::error!(%error, remedy, "the deployment gets no new epoch");
                self.adopt(known);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Begins an epoch: what this node remembers of the store is of an earlier one.
    fn adopt(&self, epoch: i64) {
        let before = self.epoch.swap(epoch, Ordering::AcqRel);
        self.backplane.set_epoch(epoch);
        self.hub.begin_new_past();
        self.derived.forget();
        if before != epoch {
            tracing::info!(before, epoch, "the store has a new epoch");
        }
    }

    /// Ends the listening of users who are no members in the present state of the store.
    async fn check_members(&self) -> Result<(), StoreError> {
        let unchecked: Vec<(LogId, Seq)> = self.lock_unchecked().iter().map(|(log, seq)| (log.clone(), *seq)).collect();
        for (log, seq) in unchecked {
            if let Some(conversation) = log.conversation() {
                self.check_members_of(&log, &conversation, seq).await?;
            }
            self.lock_unchecked().remove(&log);
        }
        Ok(())
    }

    async fn check_members_of(&self, log: &LogId, conversation: &ConversationId, seq: Seq) -> Result<(), StoreError> {
        let listeners = self.hub.listeners(log).await;
        let users: HashSet<&UserId> = listeners.iter().filter_map(|outbox| outbox.user()).collect();
        let users: Vec<_> = users.into_iter().map(|user| (conversation.clone(), user.clone())).collect();
        let mut members = HashSet::new();
        for users in users.chunks(ROWS) {
            members.extend(self.store.members_among(users).await?.into_iter().map(|(_, user)| user));
        }
        let is_stranger = |outbox: &&Arc<Outbox>| outbox.user().is_some_and(|user| !members.contains(user));
        for outbox in listeners.iter().filter(is_stranger) {
            outbox.signal(Signal::NoMember { conversation: conversation.clone(), seq });
        }
        Ok(())
    }

    fn lock_unchecked(&self) -> std::sync::MutexGuard<'_, HashMap<LogId, Seq>> {
        self.unchecked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
