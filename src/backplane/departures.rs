//! Departures: claims those whose grace is over and reaps dead nodes, so that exactly one node announces each
//! departure.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use redis::Pipeline;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};

use super::{
    era::Eras,
    incarnation::Incarnation,
    keys::departing_user,
    lease::Lease,
    lease_calls::Doubt,
    link::Link,
    link_error::{LinkError, is_wrong_type},
    local::Local,
    names::Names,
    ops::Op,
    refusals::RefusedPlace,
    registry::Registry,
    registry_calls::{add_listener, schedule_check},
    replies::Replies,
    scrub::Scrub,
    shards::Shard,
    types::{BackplaneEvent, Departure},
    view_repeats::ViewRepeats,
};
use crate::{
    degrade::{Degrade, Feature, Mode},
    metrics::Metrics,
    model::{ConversationId, UserId},
    supervise::{TaskName, checkpoint},
};

/// Interval between two sweeps, varied by up to 10 %.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Number of departures per round of a sweep, and of users per round of reaping.
pub(super) const BATCH: usize = 100;
/// Number of departures of each shard per round of a sweep, at least.
const BATCH_OF_SHARD: usize = 10;
/// Maximum number of users whose departure is still to be announced to other nodes. Beyond it no node announces the
/// departure; presence queries still answer correctly.
const UNANNOUNCED_MAX: usize = 100_000;

/// One route for all calls of sweeps, so that they reach Redis in the order in which they were made.
const ROUTE: &str = "departures";

/// Departures that were announced to this node's listeners only, because Redis was down.
type Unannounced = HashMap<UserId, Departure>;

/// The reply of `claim.lua`: true if the user is offline, the signed name, the time of the next departure, the
/// conversations left, and those left before. Redis holds what anybody wrote, so names need not be text.
type Claimed = (bool, Vec<u8>, String, Vec<Vec<u8>>, Vec<Vec<u8>>);

/// A change of the views by departures. One that is made again is not remembered, else frequent failovers would repeat it for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ViewChange {
    First,
    Again,
}

/// The state of [`Departures::run`]. It outlives a panic.
pub(super) struct Sweeps {
    reap_at: Instant,
    unannounced: Unannounced,
    scrub: Scrub,
    /// The number of the era of each shard in which what the former incarnation left was removed last.
    cleaned: HashMap<Shard, u64>,
}

impl Sweeps {
    /// No sweep yet.
    pub(super) fn new(departures: &Departures) -> Self {
        let scrub = Scrub::new(departures.link.clone(), departures.lease.length());
        Self { reap_at: Instant::now(), unannounced: Unannounced::new(), scrub, cleaned: HashMap::new() }
    }
}

/// Finds departures over all nodes while Redis is up, else on this node alone.
pub(super) struct Departures {
    pub(super) link: Arc<Link>,
    pub(super) lease: Arc<Lease>,
    pub(super) local: Arc<Local>,
    pub(super) registry: Arc<Registry>,
    pub(super) names: Arc<Names>,
    pub(super) degrade: Arc<Degrade>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) events: mpsc::Sender<BackplaneEvent>,
    /// Announced departures whose change of the views is made again.
    pub(super) repeats: ViewRepeats,
}

impl Departures {
    /// Sweeps and reaps until its task is stopped.
    pub(super) async fn run(&self, sweeps: &mut Sweeps, eras: &watch::Receiver<Eras>) {
        loop {
            sleep(SWEEP_EVERY.min(self.lease.interval()).mul_f64(rand::random_range(0.9..1.1))).await;
            checkpoint(TaskName::Departures, || "");
            let now = eras.borrow().clone();
            self.sweep_local(&mut sweeps.unannounced, &now).await;
            if now.up {
                self.sweep_shared(sweeps, &now).await;
            }
        }
    }

    /// Sweeps the shards that are up, and reaps dead nodes there.
    async fn sweep_shared(&self, sweeps: &mut Sweeps, eras: &Eras) {
        let (lease, keys, Sweeps { reap_at, unannounced, scrub, cleaned }) = (&self.lease, self.link.keys(), sweeps);
        // The node that reaped this one has announced these departures.
        unannounced.retain(|user, _| {
            let era = eras.of(keys.shard_of(user));
            !(era.up && era.reaped)
        });
        let ended = lease.take_ended(eras.up().map(|(shard, _)| shard));
        #[cfg(feature = "faults")]
        let ended = ended && !crate::faults::has(crate::faults::Fault::NoCompareAfterLease);
        if ended {
            // The channel closes only when the node stops.
            let _stopping = self.events.send(BackplaneEvent::Missed).await;
        }
        if self.sweep(eras.up().map(|(shard, _)| shard).collect()).await.is_err() {
            return;
        }
        for (shard, era) in eras.up().filter(|(shard, era)| era.number == self.registry.written_era(*shard)) {
            if cleaned.get(&shard) != Some(&era.number) && self.remove_former(shard).await.is_ok() {
                cleaned.insert(shard, era.number);
                // Its primary may be a replica that lacks the latest ones.
                self.repeats.repeat(|user| keys.shard_of(user) == shard);
            }
        }
        let is_old = |shard: Shard| eras.of(shard).up && eras.of(shard).since.elapsed() >= lease.length();
        if eras.up().all(|(shard, _)| is_old(shard)) {
            // A failure is retried in the next round.
            let _ = scrub.step().await;
        }
        if Instant::now() < *reap_at {
            return;
        }
        let (mut dead, mut any) = (HashMap::<Incarnation, Vec<Shard>>::new(), false);
        for (shard, _) in eras.up().filter(|(shard, _)| is_old(*shard)) {
            any = true;
            for (node, _) in lease.doubtful(shard).into_iter().filter(|(_, doubt)| *doubt == Doubt::Dead) {
                dead.entry(node).or_default().push(shard);
            }
        }
        for (node, shards) in dead {
            // A failure is retried in the next round, by this node or another.
            let _ = self.reap(&node, &shards).await;
        }
        if any {
            let _ = self.announce_to_others(unannounced, |user| is_old(keys.shard_of(user))).await;
            *reap_at = Instant::now() + lease.interval();
        }
    }

    /// Removes departures that are due from the local state. Announces those of users whose shard is down, or all while Redis is off
    /// or down: otherwise [`Self::sweep`] does.
    async fn sweep_local(&self, unannounced: &mut Unannounced, eras: &Eras) {
        let departures = self.local.take_due_departures(Instant::now());
        let shared = self.degrade.mode(Feature::Presence) == Mode::Shared;
        for departure in departures {
            if shared && eras.of(self.link.keys().shard_of(&departure.user)).up {
                continue;
            }
            self.registry.mark_announced(&departure.user);
            self.remember_unannounced(unannounced, &departure);
            self.announce(departure).await;
        }
    }

    /// Records a departure that other nodes have not heard of. Does nothing without Redis, as there are no other nodes.
    fn remember_unannounced(&self, unannounced: &mut Unannounced, departure: &Departure) {
        let user = &departure.user;
        if self.link.target().is_none() || unannounced.len() >= UNANNOUNCED_MAX && !unannounced.contains_key(user) {
            return;
        }
        let known = unannounced.entry(user.clone()).or_insert_with(|| Departure {
            left: Vec::new(),
            left_before: Vec::new(),
            offline: false,
            announced_here: true,
            ..departure.clone()
        });
        known.offline |= departure.offline;
        // A user may come and go often while Redis is down.
        let add = |known: &mut Vec<ConversationId>, left: &[ConversationId]| {
            let new: Vec<_> = left.iter().filter(|id| !known.contains(id)).cloned().collect();
            known.extend(new);
        };
        add(&mut known.left, &departure.left);
        add(&mut known.left_before, &departure.left_before);
    }

    /// Announces to other nodes the departures that happened while Redis was down. Runs one lease after Redis came
    /// back: every node has then registered its connections again, so a user with an entry in Redis is online, or has a
    /// later departure that the sweep announces.
    async fn announce_to_others(
        &self,
        unannounced: &mut Unannounced,
        which: impl Fn(&UserId) -> bool,
    ) -> Result<(), LinkError> {
        loop {
            let ready = unannounced.values().filter(|departure| which(&departure.user));
            let some: Vec<_> = ready.take(BATCH).cloned().collect();
            if some.is_empty() {
                return Ok(());
            }
            let mut still = self.still_gone(&some).await?;
            some.iter().for_each(|departure| drop(unannounced.remove(&departure.user)));
            // If this fails, the half-hourly renewal corrects the views.
            let _ = self.update_views(&mut still, ViewChange::First).await;
            for departure in still {
                self.announce(departure).await;
            }
        }
    }

    /// The departures of users who did not come back, without the conversations to which they did.
    async fn still_gone(&self, departures: &[Departure]) -> Result<Vec<Departure>, LinkError> {
        let (mut pipeline, keys) = (Pipeline::new(), self.link.keys());
        for Departure { user, left, .. } in departures {
            pipeline.cmd("EXISTS").arg(keys.entry(user));
            for room in left {
                pipeline.cmd("HEXISTS").arg(keys.entry(user)).arg(format!("r/{room}"));
            }
        }
        let mut replies = self.link.run(Op::Sweep, ROUTE, &pipeline).await?;
        let mut index = 0..;
        let mut gone = || index.next().is_some_and(|index| replies.take(index) == Ok(false));
        let still = departures.iter().cloned().map(|mut departure| {
            departure.offline &= gone();
            departure.left.retain(|_| gone());
            if !departure.offline {
                departure.left_before.clear();
            }
            departure
        });
        Ok(still.filter(says_something).collect())
    }

    /// Changes the views again that Redis refused to change, or may have lost. Users who came back since keep theirs.
    async fn update_again(&self) -> Result<(), LinkError> {
        let mut unwritten = self.repeats.take();
        while !unwritten.is_empty() {
            let mut some = unwritten.split_off(unwritten.len().saturating_sub(BATCH));
            let updated = match self.still_gone(&some).await {
                Ok(mut still) => self.update_views(&mut still, ViewChange::Again).await,
                Err(error) => Err(error),
            };
            if updated.is_err() {
                unwritten.append(&mut some);
                self.repeats.add(unwritten);
                return updated;
            }
        }
        Ok(())
    }

    /// Claims departures whose grace is over, in these shards.
    async fn sweep(&self, mut shards: Vec<Shard>) -> Result<(), LinkError> {
        self.update_again().await?;
        while !shards.is_empty() {
            shards = self.sweep_shards(&shards).await?;
        }
        Ok(())
    }

    /// Claims some departures of each of these shards. Returns those that may have more.
    async fn sweep_shards(&self, shards: &[Shard]) -> Result<Vec<Shard>, LinkError> {
        let (link, keys, mut pipeline) = (&self.link, self.link.keys(), Pipeline::new());
        let batch = (BATCH / shards.len()).max(BATCH_OF_SHARD);
        for shard in shards {
            let (key, now) = (keys.leaving(*shard), self.lease.redis_micros(*shard));
            // A check that is due later than any can be was written before Redis' clock was set back.
            let stranded = format!("({}", now.saturating_add(self.registry.latest_due()));
            pipeline.cmd("ZRANGEBYSCORE").arg(key).arg("-inf").arg(now).arg("LIMIT").arg(0).arg(batch);
            pipeline.cmd("ZRANGEBYSCORE").arg(key).arg(stranded).arg("+inf").arg("LIMIT").arg(0).arg(batch);
        }
        let mut found = link.run(Op::Sweep, ROUTE, &pipeline).await?;
        let (mut claims, mut removals, mut more) = (HashSet::new(), Vec::new(), Vec::new());
        for (index, shard) in shards.iter().enumerate() {
            let due = found.take::<Vec<Vec<u8>>>(2 * index);
            if is_wrong_type(&due) {
                // The link has deleted what another program stored in the place of the schedule.
                continue;
            }
            let (mut members, stranded) = match (due, found.take::<Vec<Vec<u8>>>(2 * index + 1)) {
                // Its master went down a moment ago.
                (Err(LinkError::Down | LinkError::Timeout | LinkError::Broken(_)), _) => continue,
                (due, stranded) => (due?, stranded?),
            };
            members.extend(stranded);
            claims.extend(members.iter().filter_map(|member| departing_user(std::str::from_utf8(member).ok()?)));
            if members.len() >= batch {
                more.push(*shard);
            }
            if !members.is_empty() {
                removals.push((*shard, members));
            }
        }
        if removals.is_empty() {
            return Ok(more);
        }
        let (users, mut pipeline) = (Vec::from_iter(claims), Pipeline::new());
        for user in &users {
            self.registry.claim(&mut pipeline, user);
        }
        for (shard, members) in &removals {
            pipeline.cmd("ZREM").arg(keys.leaving(*shard)).arg(members);
        }
        let replies = link.run(Op::Sweep, ROUTE, &pipeline).await?;
        self.handle_claims(users.into_iter().enumerate(), replies, false).await?;
        Ok(more)
    }

    /// Reads replies of `claim.lua`, updates the views and announces the claimed departures. `foreign`: they are departures
    /// of another deployment's users, who are nobody's business here.
    pub(super) async fn handle_claims(
        &self,
        users: impl Iterator<Item = (usize, UserId)>,
        mut replies: Replies,
        foreign: bool,
    ) -> Result<(), LinkError> {
        let (mut departures, mut checks) = (Vec::new(), Pipeline::new());
        for (index, user) in users {
            let Ok(claimed) = replies.take::<Claimed>(index) else {
                // Its check is removed from the schedule; the repair schedules another one.
                self.registry.mark_dirty(&user, false);
                continue;
            };
            let (offline, name, next_due, left, left_before) = claimed;
            let [left, left_before] = [left, left_before].map(conversations);
            if let Ok(due) = next_due.parse::<i64>() {
                schedule_check(&mut checks, self.link.keys(), &user, due);
            }
            if offline || !left.is_empty() {
                let name = if foreign { user.as_str().into() } else { self.names.verified(&user, &name) };
                departures.push(Departure { user, name, left, left_before, offline, announced_here: false });
            }
        }
        let scheduled = if checks.is_empty() { Ok(()) } else { self.write(&checks).await };
        let updated = self.update_views(&mut departures, ViewChange::First).await;
        if foreign {
            self.names.refusals.note(RefusedPlace::Foreign, self.link.keys().leaving(Shard::HOME), departures.len());
            return scheduled.and(updated);
        }
        for departure in departures {
            self.announce(departure).await;
        }
        scheduled.and(updated)
    }

    /// Removes departed users from the views, and adds those again who came back meanwhile. Removes these from the departures
    /// too: their arrival was announced, and a later announcement of the departure would contradict it.
    async fn update_views(&self, departures: &mut Vec<Departure>, change: ViewChange) -> Result<(), LinkError> {
        let (mut pipeline, keys) = (Pipeline::new(), self.link.keys());
        for Departure { user, left, offline, .. } in &*departures {
            if *offline {
                let online = keys.online(keys.shard_of(user));
                pipeline.cmd("SREM").arg(online).arg(user.as_str()).cmd("DEL").arg(keys.summary(user));
            }
            for room in left {
                pipeline.cmd("SREM").arg(keys.audience(room)).arg(user.as_str());
            }
        }
        let first_check = pipeline.len();
        for Departure { user, left, .. } in &*departures {
            pipeline.cmd("HEXISTS").arg(keys.entry(user)).arg("c");
            for room in left {
                pipeline.cmd("HEXISTS").arg(keys.entry(user)).arg(format!("r/{room}"));
            }
        }
        if first_check == 0 {
            return Ok(());
        }
        // A user who comes back is written to the entry first, and then to the views.
        let mut replies = self.link.run_in_order(Op::Sweep, ROUTE, &pipeline, first_check).await?;
        match (replies.are_whole(), change) {
            (true, ViewChange::First) => self.repeats.remember(departures),
            (true, ViewChange::Again) => {}
            (false, _) => self.repeats.add(departures.iter().cloned()),
        }
        let (mut returned, mut index) = (Pipeline::new(), first_check..);
        let mut came_back = || index.next().is_some_and(|index| replies.take(index) == Ok(true));
        for Departure { user, left, left_before, offline, .. } in &mut *departures {
            if came_back() {
                returned.cmd("SADD").arg(keys.online(keys.shard_of(user))).arg(user.as_str());
                *offline = false;
                left_before.clear();
            }
            left.retain(|room| {
                let back = came_back();
                if back {
                    add_listener(&mut returned, keys, room, user);
                }
                !back
            });
        }
        departures.retain(says_something);
        if returned.is_empty() { Ok(()) } else { self.write(&returned).await }
    }

    async fn announce(&self, departure: Departure) {
        // A send fails only when the node has ended.
        let _ = self.events.send(BackplaneEvent::Departed(departure)).await;
    }

    pub(super) async fn write(&self, pipeline: &Pipeline) -> Result<(), LinkError> {
        self.link.run(Op::Sweep, ROUTE, pipeline).await.map(|_| ())
    }
}

/// The ids among what Redis holds.
fn conversations(ids: Vec<Vec<u8>>) -> Vec<ConversationId> {
    ids.iter().filter_map(|id| ConversationId::parse(std::str::from_utf8(id).ok()?).ok()).collect()
}

/// True unless the user came back everywhere.
fn says_something(departure: &Departure) -> bool {
    departure.offline || !departure.left.is_empty()
}
