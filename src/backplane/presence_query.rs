//! Presence queries: over all nodes, or on this node alone while Redis is unavailable.

use std::{sync::Arc, time::Duration};

use redis::{Cmd, FromRedisValue, Pipeline};

use super::{
    incarnation::Incarnation,
    known_nodes::Holders,
    lease::Lease,
    line::{Line, parse_lines},
    link::Link,
    link_error::LinkError,
    local::{Held, Local},
    lossy::Lossy,
    node_query::NodeQuery,
    ops::Op,
    replies::Replies,
    shards::Shard,
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
    pub(super) nodes: NodeQuery,
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
        let mut answers: Vec<bool> = users.iter().map(|user| self.local.is_connected(user)).collect();
        let elsewhere: Vec<usize> = (0..users.len()).filter(|index| !answers[*index]).collect();
        let asked: Vec<&UserId> = elsewhere.iter().map(|index| &users[*index]).collect();
        for (index, holders) in elsewhere.into_iter().zip(self.nodes.of(&asked).await) {
            answers[index] = holders.map_or_else(|| self.local.is_connected(&users[index]), |held| held.connected);
        }
        answers
    }

    /// For each user, the nodes that hold a connection right now. While Redis is unavailable, this node at most.
    pub(super) async fn nodes_of(&self, users: &[UserId]) -> Vec<Vec<NodeId>> {
        let asked: Vec<&UserId> = users.iter().collect();
        let nodes = |(user, holders): (&UserId, Option<Holders>)| {
            let mut held = holders.map_or_else(Vec::new, |held| held.nodes.to_vec());
            held.extend(self.local.is_connected(user).then(|| self.node.clone()));
            held.sort_unstable();
            held.dedup();
            held
        };
        users.iter().zip(self.nodes.of(&asked).await).map(nodes).collect()
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
            let mut replies = self.query_all(&pipeline).await;
            for (place, index) in batch.iter().enumerate() {
                let answer = replies.as_mut().ok().and_then(|replies| replies.take(place).ok());
                answers[*index] = answer.unwrap_or_else(|| local(&users[*index]));
            }
        }
        answers
    }

    /// A page of all online users: one shard after the other. The cursor is that of Redis within a shard, and the shard.
    pub(super) async fn online_page(&self, cursor: u64, limit: u32) -> (Vec<UserId>, u64) {
        let limit = limit.max(1);
        match self.online_page_of(cursor, limit).await {
            Ok(page) => page,
            Err(_) => self.local.online_page(cursor, limit),
        }
    }

    async fn online_page_of(&self, cursor: u64, limit: u32) -> Result<(Vec<UserId>, u64), LinkError> {
        let keys = self.link.keys();
        let shards: Vec<Shard> = keys.shards().collect();
        let count = shards.len() as u64;
        let (first, within) = (usize::try_from(cursor % count).unwrap_or_default(), cursor / count);
        // Several small shards fit one page.
        if count > 1 && within == 0 {
            let whole = self.shards_that_fit(&shards[first..], limit).await?;
            if whole > 0 {
                let mut pipeline = Pipeline::new();
                for shard in &shards[first..first + whole] {
                    pipeline.cmd("SRANDMEMBER").arg(keys.online(*shard)).arg(limit);
                }
                let (mut replies, mut users) = (self.query_all(&pipeline).await?, Vec::new());
                for (index, shard) in shards[first..first + whole].iter().enumerate() {
                    match replies.take::<Vec<Lossy>>(index) {
                        Ok(found) => users.extend(parse_users(&found)),
                        Err(LinkError::Down) => users.extend(self.local_users_of(*shard)),
                        Err(error) => return Err(error),
                    }
                }
                let next = (first + whole) as u64;
                return Ok((users, if next < count { next } else { 0 }));
            }
        }
        let mut scan = redis::cmd("SSCAN");
        scan.arg(keys.online(shards[first])).arg(within).arg("COUNT").arg(limit);
        let (next, users) = match self.query::<(u64, Vec<Lossy>)>(scan).await {
            Ok((next, found)) => (next, parse_users(&found)),
            Err(LinkError::Down) if count > 1 && self.link.is_open() => (0, self.local_users_of(shards[first])),
            Err(error) => return Err(error),
        };
        let next = match (next, first as u64 + 1) {
            (0, shard) if shard < count => shard,
            (0, _) => 0,
            (next, shard) => next.saturating_mul(count).saturating_add(shard - 1),
        };
        Ok((users, next))
    }

    /// The number of shards, from the first one, that have at most `limit` users together.
    async fn shards_that_fit(&self, shards: &[Shard], limit: u32) -> Result<usize, LinkError> {
        let (mut room, mut fit) = (u64::from(limit), 0);
        for size in self.online_sizes(shards).await? {
            match room.checked_sub(size) {
                Some(left) => (room, fit) = (left, fit + 1),
                None => break,
            }
        }
        Ok(fit)
    }

    /// Number of online users of each of these shards.
    async fn online_sizes(&self, shards: &[Shard]) -> Result<Vec<u64>, LinkError> {
        let mut pipeline = Pipeline::new();
        for shard in shards {
            pipeline.cmd("SCARD").arg(self.link.keys().online(*shard));
        }
        let mut replies = self.query_all(&pipeline).await?;
        let size = |(index, shard): (usize, &Shard)| match replies.take(index) {
            Err(LinkError::Down) => Ok(self.local_users_of(*shard).len() as u64),
            size => size,
        };
        shards.iter().enumerate().map(size).collect()
    }

    /// This node's online users of a shard that is down.
    fn local_users_of(&self, shard: Shard) -> Vec<UserId> {
        self.local.online_users(|user| self.link.keys().shard_of(user) == shard)
    }

    /// Number of online users.
    pub(super) async fn online_count(&self) -> u64 {
        let shards: Vec<Shard> = self.link.keys().shards().collect();
        match self.online_sizes(&shards).await {
            Ok(sizes) => sizes.into_iter().fold(0, u64::saturating_add),
            Err(_) => self.local.online_count(),
        }
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

    /// For each user, true if the user's entry has the conversation; `None` for users whose shard is down, and while Redis is
    /// unavailable.
    pub(super) async fn listening(&self, conversation: &ConversationId, users: &[UserId]) -> Option<Vec<Option<bool>>> {
        let field = format!("r/{conversation}");
        let mut answers = Vec::with_capacity(users.len());
        for batch in users.chunks(BATCH) {
            let mut pipeline = Pipeline::new();
            for user in batch {
                pipeline.cmd("HEXISTS").arg(self.link.keys().entry(user)).arg(&field);
            }
            let mut replies = match self.query_all(&pipeline).await {
                Err(LinkError::Down) if self.link.is_open() => Replies::unanswered(batch.len(), &LinkError::Down),
                replies => replies.ok()?,
            };
            for index in 0..batch.len() {
                answers.push(match replies.take(index) {
                    Err(LinkError::Down) => None,
                    answer => Some(answer.ok()?),
                });
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

    /// The nodes that have a lease: on a cluster, in the first shard.
    pub(super) async fn nodes(&self) -> Result<Vec<NodeInfo>, LinkError> {
        let (keys, shards, mut pipeline) = (self.link.keys(), self.link.up_shards(), Pipeline::new());
        if shards.first() != Some(&Shard::HOME) {
            return Err(LinkError::Down);
        }
        for shard in &shards {
            pipeline.cmd("ZRANGE").arg(keys.nodes(*shard)).arg(0).arg(-1).arg("WITHSCORES");
        }
        // A node may have an incarnation of its own in each shard.
        let (mut leases, mut incarnations, mut sizes) = (self.query_all(&pipeline).await?, Vec::new(), Pipeline::new());
        for (index, shard) in shards.iter().enumerate() {
            let of_shard = leases.take::<Vec<(Lossy, f64)>>(index);
            let of_shard = if *shard == Shard::HOME { of_shard? } else { of_shard.unwrap_or_default() };
            for (incarnation, until) in of_shard {
                if let Some(incarnation) = Incarnation::parse(&incarnation.0) {
                    sizes.cmd("SCARD").arg(keys.node_users(*shard, &incarnation));
                    incarnations.push((*shard, incarnation, until));
                }
            }
        }
        if incarnations.is_empty() {
            return Ok(Vec::new());
        }
        let mut counts = sizes.len()..;
        for (_, incarnation, _) in incarnations.iter().filter(|(shard, ..)| *shard == Shard::HOME) {
            sizes.cmd("HGET").arg(keys.connections()).arg(incarnation.as_str());
        }
        let (mut replies, now) = (self.query_all(&sizes).await?, self.lease.redis_micros(Shard::HOME) as f64 / 1_000.0);
        let mut found = Vec::<NodeInfo>::new();
        for (index, (shard, incarnation, until)) in incarnations.into_iter().enumerate() {
            let node = incarnation.node().ok_or(LinkError::Unexpected)?;
            // What another program wrote counts as none.
            let users = replies.take::<u64>(index).unwrap_or_default();
            if shard == Shard::HOME {
                let lease_left = Duration::try_from_secs_f64((until - now) / 1_000.0).unwrap_or_default();
                let count = counts.next().map(|at| replies.take::<Option<u64>>(at).unwrap_or_default());
                found.push(NodeInfo { node, lease_left, users, connections: count.flatten().unwrap_or(0) });
            } else if let Some(info) = found.iter_mut().filter(|one| one.node == node).max_by_key(|one| one.lease_left)
            {
                info.users = info.users.saturating_add(users);
            }
        }
        Ok(found)
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
