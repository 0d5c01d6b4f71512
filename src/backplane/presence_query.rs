//! Presence queries: over all nodes, or on this node alone while Redis is unavailable.

use std::{sync::Arc, time::Duration};

use redis::{Cmd, FromRedisValue, Pipeline};

use super::{
    incarnation::Incarnation,
    lease::Lease,
    line::{Line, parse_lines},
    link::{Link, Replies},
    link_error::LinkError,
    local::{Held, Local},
    lossy::Lossy,
    ops::Op,
    types::{Listeners, NodeInfo},
};
use crate::model::{ConnectionInfo, ConversationId, NodeId, UserId};

/// Number of users per pipeline.
const BATCH: usize = 100;
/// Maximum number of listeners returned for one conversation.
const AUDIENCE_MAX: usize = 1_000;

/// The presence queries.
pub(super) struct PresenceQuery {
    pub(super) link: Arc<Link>,
    pub(super) lease: Arc<Lease>,
    pub(super) local: Arc<Local>,
    pub(super) node: NodeId,
}

impl PresenceQuery {
    /// For each user, true if online; during the grace a user still is.
    pub(super) async fn online(&self, users: &[UserId]) -> Vec<bool> {
        let command = |user: &UserId| redis::cmd("EXISTS").arg(self.link.keys().entry(user)).take();
        self.check_each(users, command, |user| self.local.online(user)).await
    }

    /// For each user, true if there is a connection right now.
    pub(super) async fn connected(&self, users: &[UserId]) -> Vec<bool> {
        let command = |user: &UserId| redis::cmd("HEXISTS").arg(self.link.keys().entry(user)).arg("c").take();
        self.check_each(users, command, |user| self.local.is_connected(user)).await
    }

    /// For each user, the nodes that hold a connection right now. While Redis is unavailable, this node at most.
    pub(super) async fn nodes_of(&self, users: &[UserId]) -> Vec<Vec<NodeId>> {
        let mut nodes = Vec::with_capacity(users.len());
        for batch in users.chunks(BATCH) {
            let mut pipeline = Pipeline::new();
            for user in batch {
                pipeline.cmd("HGET").arg(self.link.keys().entry(user)).arg("c");
            }
            let mut replies = self.query_all(&pipeline).await;
            for (index, user) in batch.iter().enumerate() {
                let lines = replies.as_mut().ok().and_then(|replies| replies.take::<Option<Lossy>>(index).ok());
                let lines = parse_lines(&lines.flatten().unwrap_or_default().0);
                let mut held: Vec<NodeId> = lines.iter().filter_map(|line| line.holder.node()).collect();
                held.extend(self.local.is_connected(user).then(|| self.node.clone()));
                held.sort_unstable();
                held.dedup();
                nodes.push(held);
            }
        }
        nodes
    }

    /// Answers true for users who are connected to this node, and sends `command` to Redis for each other one. Falls
    /// back to `local` while Redis is unavailable.
    async fn check_each(
        &self,
        users: &[UserId],
        command: impl Fn(&UserId) -> Cmd,
        local: impl Fn(&UserId) -> bool,
    ) -> Vec<bool> {
        let mut answers: Vec<bool> = users.iter().map(|user| self.local.is_connected(user)).collect();
        let elsewhere: Vec<usize> = (0..users.len()).filter(|index| !answers[*index]).collect();
        for batch in elsewhere.chunks(BATCH) {
            let mut pipeline = Pipeline::new();
            for index in batch {
                pipeline.add_command(command(&users[*index]));
            }
            let replies = self.query_all(&pipeline).await;
            let answer = replies.and_then(|mut replies| (0..batch.len()).map(|n| replies.take(n)).collect());
            let answer: Result<Vec<bool>, LinkError> = answer;
            let answer = answer.unwrap_or_else(|_| batch.iter().map(|index| local(&users[*index])).collect());
            for (index, answer) in batch.iter().zip(answer) {
                answers[*index] = answer;
            }
        }
        answers
    }

    /// A page of all online users.
    pub(super) async fn online_page(&self, cursor: u64, limit: u32) -> (Vec<UserId>, u64) {
        let mut scan = redis::cmd("SSCAN");
        scan.arg(self.link.keys().online()).arg(cursor).arg("COUNT").arg(limit.max(1));
        match self.query::<(u64, Vec<Lossy>)>(scan).await {
            Ok((next, users)) => (parse_users(&users), next),
            Err(_) => self.local.online_page(cursor, limit.max(1)),
        }
    }

    /// Number of online users.
    pub(super) async fn online_count(&self) -> u64 {
        let mut count = redis::cmd("SCARD");
        count.arg(self.link.keys().online());
        self.query(count).await.unwrap_or_else(|_| self.local.online_count())
    }

    /// The users who listen to each of these conversations.
    pub(super) async fn audiences(&self, conversations: &[ConversationId]) -> Vec<Listeners> {
        if conversations.is_empty() {
            return Vec::new();
        }
        let mut pipeline = Pipeline::new();
        for conversation in conversations {
            pipeline.cmd("SRANDMEMBER").arg(self.link.keys().audience(conversation)).arg(AUDIENCE_MAX);
        }
        let mut replies = self.query_all(&pipeline).await;
        let mut listeners = |(index, conversation): (usize, &ConversationId)| match replies
            .as_mut()
            .map(|replies| replies.take::<Vec<Lossy>>(index))
        {
            Ok(Ok(users)) => Listeners { users: parse_users(&users), of_all_nodes: true },
            Ok(Err(_)) | Err(_) => {
                let users = self.local.audience(conversation, AUDIENCE_MAX);
                Listeners { users, of_all_nodes: self.link.target().is_none() }
            }
        };
        conversations.iter().enumerate().map(&mut listeners).collect()
    }

    /// For each user, true if the user's entry has the conversation; `None` while Redis is unavailable.
    pub(super) async fn listening(&self, conversation: &ConversationId, users: &[UserId]) -> Option<Vec<bool>> {
        let field = format!("r/{conversation}");
        let mut answers = Vec::with_capacity(users.len());
        for batch in users.chunks(BATCH) {
            let mut pipeline = Pipeline::new();
            for user in batch {
                pipeline.cmd("HEXISTS").arg(self.link.keys().entry(user)).arg(&field);
            }
            let mut replies = self.query_all(&pipeline).await.ok()?;
            for index in 0..batch.len() {
                answers.push(replies.take(index).ok()?);
            }
        }
        Some(answers)
    }

    /// Conversations that a user listens to.
    pub(super) async fn joined(&self, user: &UserId) -> Vec<ConversationId> {
        let mut fields = redis::cmd("HKEYS");
        fields.arg(self.link.keys().entry(user));
        match self.query::<Vec<Lossy>>(fields).await {
            Ok(fields) => {
                fields.iter().filter_map(|field| ConversationId::parse(field.0.strip_prefix("r/")?).ok()).collect()
            }
            Err(_) => self.local.joined(user),
        }
    }

    /// A user's connections.
    pub(super) async fn connections_of(&self, user: &UserId) -> Vec<ConnectionInfo> {
        let mut lines = redis::cmd("HGET");
        lines.arg(self.link.keys().entry(user)).arg("c");
        match self.query::<Option<Lossy>>(lines).await {
            Ok(lines) => {
                let lines = parse_lines(&lines.unwrap_or_default().0).into_iter();
                let info = lines.map(|line| {
                    let Line { id, since, dialect, .. } = &line;
                    let (node, dialect) = (line.holder.node()?, dialect.clone());
                    Some(ConnectionInfo { connection: *id, node, since: *since, dialect })
                });
                info.flatten().collect()
            }
            Err(_) => {
                let held = self.local.connections_of(user).into_iter();
                let node = || self.node.clone();
                let info = |one: Held| {
                    let dialect = Some(one.dialect.into());
                    ConnectionInfo { connection: one.id, node: node(), since: one.since, dialect }
                };
                held.map(info).collect()
            }
        }
    }

    /// The nodes that have a lease.
    pub(super) async fn nodes(&self) -> Result<Vec<NodeInfo>, LinkError> {
        let mut leases = redis::cmd("ZRANGE");
        leases.arg(self.link.keys().nodes()).arg(0).arg(-1).arg("WITHSCORES");
        let leases: Vec<(Lossy, f64)> = self.query(leases).await?;
        let leases =
            leases.iter().filter_map(|(incarnation, until)| Some((Incarnation::parse(&incarnation.0)?, *until)));
        let leases: Vec<_> = leases.collect();
        let mut pipeline = Pipeline::new();
        for (incarnation, _) in &leases {
            pipeline
                .cmd("SCARD")
                .arg(self.link.keys().node_users(incarnation))
                .cmd("HGET")
                .arg(self.link.keys().connections())
                .arg(incarnation.as_str());
        }
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        let mut replies = self.query_all(&pipeline).await?;
        let now = self.lease.redis_micros() as f64 / 1_000.0;
        let info = leases.into_iter().enumerate().map(|(index, (incarnation, until))| {
            let lease_left = Duration::try_from_secs_f64((until - now) / 1_000.0).unwrap_or_default();
            let node = incarnation.node().ok_or(LinkError::Unexpected)?;
            // What another program wrote counts as none.
            let connections = replies.take::<Option<u64>>(2 * index + 1).unwrap_or_default().unwrap_or(0);
            let users = replies.take(2 * index).unwrap_or_default();
            Ok(NodeInfo { node, lease_left, users, connections })
        });
        info.collect()
    }

    async fn query<T: FromRedisValue>(&self, command: Cmd) -> Result<T, LinkError> {
        let mut pipeline = Pipeline::new();
        pipeline.add_command(command);
        self.query_all(&pipeline).await?.take(0)
    }

    async fn query_all(&self, pipeline: &Pipeline) -> Result<Replies, LinkError> {
        self.link.query(Op::Presence, pipeline).await
    }
}

fn parse_users(ids: &[Lossy]) -> Vec<UserId> {
    ids.iter().filter_map(|id| UserId::parse(&id.0).ok()).collect()
}
