//! Removal of what a dead node, or a former incarnation of this one, left in Redis.

use std::time::Duration;

use redis::Pipeline;

use super::{
    departures::{BATCH, Departures},
    incarnation::Incarnation,
    link_error::LinkError,
    lossy::Lossy,
    ops::Op,
    registry_calls::{Synced, sync_call},
    shards::Shard,
};
use crate::model::UserId;

/// Time after the end of a lease before its users are reaped, for differences between clocks and for round trips.
const REAP_MARGIN_MILLIS: i64 = 100;

impl Departures {
    /// Removes a dead node's connections in these shards. Its users depart at once; the claim lets exactly one node announce each.
    pub(super) async fn reap(&self, node: &Incarnation, shards: &[Shard]) -> Result<(), LinkError> {
        let (link, keys, mut pipeline) = (&self.link, self.link.keys(), Pipeline::new());
        for shard in shards {
            pipeline.cmd("ZSCORE").arg(keys.nodes(*shard)).arg(node.as_str());
        }
        let mut found = link.run(Op::Reap, node.as_str(), &pipeline).await?;
        let (mut removed, mut over) = (0, Vec::new());
        for (index, shard) in shards.iter().enumerate() {
            // Of a shard whose master went down a moment ago, nothing is known.
            let Ok(Some(expires_at)) = found.take::<Option<f64>>(index) else { continue };
            // The lease may have been renewed since this node last read the leases.
            if (expires_at as i64).saturating_add(REAP_MARGIN_MILLIS) <= self.lease.redis_micros(*shard) / 1_000 {
                over.push(*shard);
            }
        }
        for shard in &over {
            removed += self.remove_users(*shard, node, |_| true).await?;
        }
        if over.is_empty() {
            return Ok(());
        }
        let mut pipeline = Pipeline::new();
        for shard in &over {
            pipeline
                .cmd("DEL")
                .arg(keys.node_users(*shard, node))
                .cmd("ZREM")
                .arg(keys.nodes(*shard))
                .arg(node.as_str());
        }
        pipeline.cmd("HDEL").arg(keys.connections()).arg(node.as_str());
        self.write(&pipeline).await?;
        self.metrics.reaped.inc_by(removed);
        tracing::info!(%node, removed, "removed what a dead node left behind");
        Ok(())
    }

    /// Removes what this node's former incarnation left in a shard of users who are not connected here. A Redis that was set back to
    /// older data names users who left since; else only late commands leave something. The lease of the former incarnation
    /// stays, so that later ones are found when it ends.
    pub(super) async fn remove_former(&self, shard: Shard) -> Result<(), LinkError> {
        let (_, Some(former)) = self.lease.incarnations(shard) else { return Ok(()) };
        let removed = self.remove_users(shard, &former, |user| !self.local.is_connected(user)).await?;
        if removed > 0 {
            tracing::info!(removed, "removed connections that ended, and that Redis named again");
        }
        Ok(())
    }

    /// Removes the connections of an incarnation, of `which` users of a shard. Returns their number.
    async fn remove_users(
        &self,
        shard: Shard,
        of: &Incarnation,
        which: impl Fn(&UserId) -> bool,
    ) -> Result<u64, LinkError> {
        let (key, mut cursor, mut removed) = (self.link.keys().node_users(shard, of), 0_u64, 0);
        loop {
            let mut pipeline = Pipeline::new();
            pipeline.cmd("SSCAN").arg(&key).arg(cursor).arg("COUNT").arg(BATCH);
            let (next, users): (u64, Vec<Lossy>) = self.link.run(Op::Reap, of.as_str(), &pipeline).await?.take(0)?;
            let users = users.iter().filter_map(|user| UserId::parse(&user.0).ok()).filter(&which).collect();
            removed += self.reap_users(of, users).await?;
            cursor = next;
            if cursor == 0 {
                return Ok(removed);
            }
        }
    }

    async fn reap_users(&self, node: &Incarnation, users: Vec<UserId>) -> Result<u64, LinkError> {
        if users.is_empty() {
            return Ok(0);
        }
        let mut pipeline = Pipeline::new();
        for user in &users {
            sync_call(&mut pipeline, self.link.keys(), (user, ""), (node, None), None, Duration::ZERO);
            self.registry.claim(&mut pipeline, user);
        }
        let mut replies = self.link.run(Op::Reap, node.as_str(), &pipeline).await?;
        let refusal = replies.refusal();
        let synced = (0..users.len()).filter_map(|n| Synced::read(&mut replies, 2 * n).ok());
        let removed = synced.map(|synced| synced.removed).sum();
        // A node of another deployment may have written late, after this one took its keys.
        let foreign = node.deployment().is_some_and(|of| *self.link.keys().deployment().borrow() != Some(of));
        let users = users.into_iter().enumerate().map(|(n, user)| (2 * n + 1, user));
        self.handle_claims(users, replies, foreign).await?;
        // The others are reaped; the node is forgotten only once a later round had no refusal.
        refusal.map_or(Ok(removed), Err)
    }
}
