//! Looks up which nodes hold connections of users. Redis is asked only for users whose entry changed since the last look: the
//! others are known, and one command for each shard proves that no change is on its way.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use futures_util::future::join_all;
use redis::Pipeline;

use super::{
    known_nodes::{Holders, KnownNodes},
    link::Link,
    link_error::LinkError,
    lossy::Lossy,
    ops::Op,
    shards::Shard,
    tracking::{Tracked, Tracking},
};
use crate::{
    metrics::Metrics,
    model::UserId,
    supervise::{Supervisor, TaskName},
};

/// Maximum number of users per pipeline who are read, and of those with them who are known.
const BATCH: usize = 100;
const KNOWN_PER_BATCH: usize = 1_000;
/// Number of reads over a connection that tells of changes. The second one is for users who change meanwhile.
const READS: usize = 2;

/// The look-ups.
pub(super) struct NodeQuery {
    link: Arc<Link>,
    known: Arc<KnownNodes>,
    /// `None` if nothing is to be remembered.
    tracking: Option<Arc<Tracking>>,
    metrics: Arc<Metrics>,
}

impl NodeQuery {
    /// Look-ups that remember at most `capacity` users.
    pub(super) fn start(link: &Arc<Link>, capacity: usize, metrics: &Arc<Metrics>, supervisor: &Supervisor) -> Self {
        let known = Arc::new(KnownNodes::new(capacity, metrics.presence_known_users.clone()));
        let tracking = (capacity > 0 && link.target().is_some()).then(|| {
            let tracking = Arc::new(Tracking::new(link.clone(), known.clone(), metrics.clone()));
            supervisor.spawn_until_stop(TaskName::Tracking, tracking.clone(), |tracking| Box::pin(tracking.run()));
            tracking
        });
        Self { link: link.clone(), known, tracking, metrics: metrics.clone() }
    }

    /// For each user, the nodes that hold a connection right now; `None` where Redis does not tell.
    pub(super) async fn of(&self, users: &[&UserId]) -> Vec<Option<Holders>> {
        let mut each: Vec<&UserId> = users.to_vec();
        each.sort_unstable();
        each.dedup();
        let mut found = HashMap::with_capacity(each.len());
        if let Some(tracking) = &self.tracking
            && self.link.is_open()
            && !self.link.is_silent()
        {
            let groups = self.by_connection(tracking, &each);
            let looked_up = groups.iter().map(|(tracked, users)| self.look_up(tracked, users));
            found.extend(join_all(looked_up).await.into_iter().flatten());
        }
        each.retain(|user| !found.contains_key(user));
        for batch in each.chunks(BATCH) {
            let mut pipeline = Pipeline::new();
            batch.iter().for_each(|user| self.add_read(&mut pipeline, user));
            if let Ok(mut replies) = self.link.query(Op::Presence, &pipeline).await {
                for (index, user) in batch.iter().enumerate() {
                    let lines = replies.take::<Option<Lossy>>(index);
                    found.extend(lines.ok().map(|lines| (*user, Holders::parse(lines.as_ref()))));
                }
            }
            self.metrics.presence_asked.inc_by(batch.len() as u64);
        }
        users.iter().map(|user| found.get(user).cloned()).collect()
    }

    /// The users by the connections that tell of changes to them.
    fn by_connection<'a>(&self, tracking: &Tracking, users: &[&'a UserId]) -> Vec<(Tracked, Vec<&'a UserId>)> {
        let (mut by_shard, mut groups) = (HashMap::<Shard, Vec<&UserId>>::new(), Vec::<(Tracked, Vec<&UserId>)>::new());
        for user in users {
            by_shard.entry(self.link.keys().shard_of(user)).or_default().push(*user);
        }
        for (shard, users) in by_shard {
            let Some(tracked) = tracking.to(shard) else { continue };
            match groups.iter_mut().find(|(other, _)| other.source == tracked.source) {
                Some((_, all)) => all.extend(users),
                None => groups.push((tracked, users)),
            }
        }
        groups
    }

    /// Looks users up over a connection that tells of changes to them. Some may be missing in the result.
    async fn look_up<'a>(&self, tracked: &Tracked, users: &[&'a UserId]) -> Vec<(&'a UserId, Holders)> {
        let (mut found, mut rest) = (Vec::with_capacity(users.len()), users);
        while !rest.is_empty() {
            let (batch, next) = rest.split_at(self.batch(tracked, rest));
            rest = next;
            let mut left = batch.to_vec();
            for _ in 0..READS {
                match self.look_up_batch(tracked, left, &mut found).await {
                    Ok(changed) if changed.is_empty() => break,
                    Ok(changed) => left = changed,
                    Err(_) => {
                        tracked.end();
                        return found;
                    }
                }
            }
        }
        found
    }

    /// The number of the first users who fit one pipeline.
    fn batch(&self, tracked: &Tracked, users: &[&UserId]) -> usize {
        let mut reads = 0;
        let fit = users.iter().take(KNOWN_PER_BATCH).take_while(|user| {
            reads += usize::from(self.known.get(user, tracked.source).is_none());
            reads <= BATCH
        });
        fit.count()
    }

    /// Reads the users who are not known, and proves that the others did not change. Returns those who did.
    async fn look_up_batch<'a>(
        &self,
        tracked: &Tracked,
        users: Vec<&'a UserId>,
        found: &mut Vec<(&'a UserId, Holders)>,
    ) -> Result<Vec<&'a UserId>, LinkError> {
        let (keys, source, mut turn) = (self.link.keys(), tracked.source, None);
        let (known, unknown) = loop {
            let (known, unknown): (Vec<&UserId>, Vec<&UserId>) =
                users.iter().copied().partition(|user| self.known.get(user, source).is_some());
            if unknown.is_empty() || turn.is_some() {
                break (known, unknown);
            }
            turn = Some(tracked.turn.lock().await);
        };
        if tracked.has_ended() {
            return Err(LinkError::Down);
        }
        let mut pipeline = Pipeline::new();
        let shards: BTreeSet<Shard> = known.iter().map(|user| keys.shard_of(user)).collect();
        for shard in &shards {
            // A master that has given the slot away, or is about to, refuses it.
            pipeline.cmd("EXISTS").arg(keys.absent(*shard));
        }
        let reading = self.known.begin(unknown.iter().copied());
        unknown.iter().for_each(|user| self.add_read(&mut pipeline, user));
        let mut replies = self.link.run_on(Op::Presence, &mut tracked.connection.clone(), &pipeline).await?;
        for (index, shard) in shards.iter().enumerate() {
            if replies.take::<i64>(index).is_err() {
                self.known.forget_those(|user| keys.shard_of(user) == *shard);
            }
        }
        for (index, user) in unknown.iter().enumerate() {
            if let Ok(lines) = replies.take::<Option<Lossy>>(shards.len() + index) {
                let holders = Holders::parse(lines.as_ref());
                self.known.finish(reading, source, user, &holders);
                found.push((*user, holders));
            }
        }
        self.metrics.presence_asked.inc_by(unknown.len() as u64);
        let before = found.len();
        let mut changed = Vec::new();
        for user in known {
            match self.known.get(user, source) {
                Some(holders) => found.push((user, holders)),
                None => changed.push(user),
            }
        }
        self.metrics.presence_known.inc_by((found.len() - before) as u64);
        Ok(changed)
    }

    fn add_read(&self, pipeline: &mut Pipeline, user: &UserId) {
        pipeline.cmd("HGET").arg(self.link.keys().entry(user)).arg("c");
    }
}
