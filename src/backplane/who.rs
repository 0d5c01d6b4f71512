//! Answers who is there: over all nodes, or, where Redis can't be asked, on this one.

use std::{sync::Arc, time::Duration};

use redis::{Cmd, FromRedisValue, Pipeline};

use super::{
    incarnation::Incarnation,
    keys,
    lease::Lease,
    line::parse_lines,
    link::{Link, LinkError, Replies},
    local::Local,
    ops::Op,
    types::NodeInfo,
};
use crate::model::{ConnectionInfo, ConversationId, NodeId, UserId};

/// Users asked about per pipeline.
const BATCH: usize = 100;
/// The most listeners of one conversation that are listed.
const AUDIENCE_MAX: usize = 1_000;

/// The questions.
pub(super) struct Who {
    pub(super) link: Arc<Link>,
    pub(super) lease: Arc<Lease>,
    pub(super) local: Arc<Local>,
    pub(super) node: NodeId,
}

impl Who {
    /// Who of these is online, in their order; for a while after a goodbye a user still is.
    pub(super) async fn online(&self, users: &[UserId]) -> Vec<bool> {
        let ask = |user: &UserId| redis::cmd("EXISTS").arg(keys::entry(user)).take();
        self.each(users, ask, |user| self.local.online(user)).await
    }

    /// Who of these has a connection right now, in their order.
    pub(super) async fn connected(&self, users: &[UserId]) -> Vec<bool> {
        let ask = |user: &UserId| redis::cmd("HEXISTS").arg(keys::entry(user)).arg("c").take();
        self.each(users, ask, |user| self.local.is_connected(user)).await
    }

    /// Asks the same of each user, which holds for those who are connected to this node: Redis, or where it can't be asked
    /// this node.
    async fn each(&self, users: &[UserId], ask: impl Fn(&UserId) -> Cmd, local: impl Fn(&UserId) -> bool) -> Vec<bool> {
        let mut answers: Vec<bool> = users.iter().map(|user| self.local.is_connected(user)).collect();
        let elsewhere: Vec<usize> = (0..users.len()).filter(|index| !answers[*index]).collect();
        for batch in elsewhere.chunks(BATCH) {
            let mut pipeline = Pipeline::new();
            for index in batch {
                pipeline.add_command(ask(&users[*index]));
            }
            let asked = self.ask_all(&pipeline).await;
            let told = asked.and_then(|mut replies| (0..batch.len()).map(|n| replies.take(n)).collect());
            let told: Result<Vec<bool>, LinkError> = told;
            let told = told.unwrap_or_else(|_| batch.iter().map(|index| local(&users[*index])).collect());
            for (index, told) in batch.iter().zip(told) {
                answers[*index] = told;
            }
        }
        answers
    }

    /// A page of all who are online.
    pub(super) async fn online_page(&self, cursor: u64, limit: u32) -> (Vec<UserId>, u64) {
        let mut scan = redis::cmd("SSCAN");
        scan.arg(keys::ONLINE).arg(cursor).arg("COUNT").arg(limit.max(1));
        match self.ask::<(u64, Vec<String>)>(scan).await {
            Ok((next, users)) => (parse_users(&users), next),
            Err(_) => self.local.online_page(cursor, limit.max(1)),
        }
    }

    /// How many are online.
    pub(super) async fn online_count(&self) -> u64 {
        let mut count = redis::cmd("SCARD");
        count.arg(keys::ONLINE);
        self.ask(count).await.unwrap_or_else(|_| self.local.online_count())
    }

    /// Who listens to a conversation.
    pub(super) async fn audience(&self, conversation: &ConversationId) -> Vec<UserId> {
        let mut some = redis::cmd("SRANDMEMBER");
        some.arg(keys::audience(conversation)).arg(AUDIENCE_MAX);
        match self.ask::<Vec<String>>(some).await {
            Ok(users) => parse_users(&users),
            Err(_) => self.local.audience(conversation, AUDIENCE_MAX),
        }
    }

    /// What a user listens to.
    pub(super) async fn joined(&self, user: &UserId) -> Vec<ConversationId> {
        let mut fields = redis::cmd("HKEYS");
        fields.arg(keys::entry(user));
        match self.ask::<Vec<String>>(fields).await {
            Ok(fields) => {
                fields.iter().filter_map(|field| ConversationId::parse(field.strip_prefix("r/")?).ok()).collect()
            }
            Err(_) => self.local.joined(user),
        }
    }

    /// A user's connections.
    pub(super) async fn connections_of(&self, user: &UserId) -> Vec<ConnectionInfo> {
        let mut lines = redis::cmd("HGET");
        lines.arg(keys::entry(user)).arg("c");
        match self.ask::<Option<String>>(lines).await {
            Ok(lines) => {
                let lines = parse_lines(&lines.unwrap_or_default()).into_iter();
                let info = lines.map(|line| {
                    Some(ConnectionInfo { connection: line.id, node: line.holder.node()?, since: line.since })
                });
                info.flatten().collect()
            }
            Err(_) => {
                let held = self.local.connections_of(user).into_iter();
                let node = || self.node.clone();
                held.map(|one| ConnectionInfo { connection: one.id, node: node(), since: one.since }).collect()
            }
        }
    }

    /// The nodes that have a lease.
    pub(super) async fn nodes(&self) -> Result<Vec<NodeInfo>, LinkError> {
        let mut leases = redis::cmd("ZRANGE");
        leases.arg(keys::NODES).arg(0).arg(-1).arg("WITHSCORES");
        let leases: Vec<(String, f64)> = self.ask(leases).await?;
        let leases = leases.iter().filter_map(|(life, out)| Some((Incarnation::parse(life)?, *out)));
        let leases: Vec<_> = leases.collect();
        let mut pipeline = Pipeline::new();
        for (life, _) in &leases {
            pipeline.cmd("SCARD").arg(keys::node_users(life)).cmd("HGET").arg(keys::CONNECTIONS).arg(life.as_str());
        }
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        let mut replies = self.ask_all(&pipeline).await?;
        let now = self.lease.redis_micros() as f64 / 1_000.0;
        let info = leases.into_iter().enumerate().map(|(index, (life, out))| {
            let lease_left = Duration::try_from_secs_f64((out - now) / 1_000.0).unwrap_or_default();
            let node = life.node().ok_or(LinkError::Unexpected)?;
            let connections: Option<u64> = replies.take(2 * index + 1)?;
            Ok(NodeInfo { node, lease_left, users: replies.take(2 * index)?, connections: connections.unwrap_or(0) })
        });
        info.collect()
    }

    async fn ask<T: FromRedisValue>(&self, command: Cmd) -> Result<T, LinkError> {
        let mut pipeline = Pipeline::new();
        pipeline.add_command(command);
        self.ask_all(&pipeline).await?.take(0)
    }

    async fn ask_all(&self, pipeline: &Pipeline) -> Result<Replies, LinkError> {
        self.link.ask(Op::Presence, pipeline).await
    }
}

fn parse_users(ids: &[String]) -> Vec<UserId> {
    ids.iter().filter_map(|id| UserId::parse(id).ok()).collect()
}
