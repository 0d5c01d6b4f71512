//! Removes what a node left in Redis that ended between two steps: users in the view of a conversation to which they don't
//! listen, departures whose check was lost, and connections that a frozen node wrote after it was reaped. It reads all keys round by round, a few at a time.

use std::{collections::HashSet, sync::Arc, time::Duration};

use redis::Pipeline;
use tokio::time::Instant;

use super::{
    incarnation::Incarnation,
    keys::Keys,
    link::Link,
    link_error::LinkError,
    ops::Op,
    registry_calls::{add_listener, schedule_check},
    replies::Replies,
    scan::ScanCursor,
    shards::Shard,
};
use crate::model::{ConversationId, UserId};

/// Pause between two rounds, in leases.
const PAUSE_LEASES: u32 = 10;
/// Keys per step. A step runs about once a second on each node.
const KEYS: usize = 200;
/// Users per view that a step checks.
const USERS: usize = 200;

/// A set of users that other nodes and operators read.
enum View {
    /// Users of a shard who are online.
    Online(Shard),
    /// Users who listen to a conversation.
    Audience(ConversationId),
}

impl View {
    fn of(keys: &Keys, key: &str) -> Option<Self> {
        if let Some(shard) = keys.shard_of_online(key) {
            return Some(Self::Online(shard));
        }
        keys.conversation_of_audience(key).map(Self::Audience)
    }

    fn key(&self, keys: &Keys) -> String {
        match self {
            Self::Online(shard) => keys.online(*shard).to_owned(),
            Self::Audience(conversation) => keys.audience(conversation),
        }
    }
}

/// The reader of all keys.
pub(super) struct Scrub {
    pub(super) link: Arc<Link>,
    cursor: ScanCursor,
    pause: Duration,
    next_round: Instant,
}

impl Scrub {
    /// A reader for a node with leases of this length.
    pub(super) fn new(link: Arc<Link>, lease: Duration) -> Self {
        let pause = lease * PAUSE_LEASES;
        Self { link, cursor: ScanCursor::default(), pause, next_round: Instant::now() + pause }
    }

    /// Checks the next keys, unless the round is over and the next one is not due.
    pub(super) async fn step(&mut self) -> Result<(), LinkError> {
        if self.cursor.is_at_start() && Instant::now() < self.next_round {
            return Ok(());
        }
        let found = self.link.scan(Op::Sweep, &mut self.cursor, KEYS).await?;
        if self.cursor.is_at_start() {
            self.next_round = Instant::now() + self.pause;
        }
        let keys = self.link.keys();
        self.find_nodes(found.iter().filter_map(|key| keys.node_of_users(key)).collect()).await?;
        for view in found.iter().filter_map(|key| View::of(keys, key)) {
            self.check(&view).await?;
        }
        Ok(())
    }

    /// Enters nodes that have users and no lease as expired, so that they are reaped.
    async fn find_nodes(&self, nodes: Vec<(Shard, Incarnation)>) -> Result<(), LinkError> {
        if nodes.is_empty() {
            return Ok(());
        }
        let (mut pipeline, keys) = (Pipeline::new(), self.link.keys());
        for (shard, node) in &nodes {
            pipeline.cmd("ZADD").arg(keys.nodes(*shard)).arg("NX").arg(0).arg(node.as_str());
        }
        self.run(&pipeline).await.map(drop)
    }

    /// Removes users from a view whose entries don't confirm it, and adds those again who came meanwhile. A step checks a
    /// random part of a large view.
    async fn check(&self, view: &View) -> Result<(), LinkError> {
        let (mut pipeline, keys) = (Pipeline::new(), self.link.keys());
        pipeline.cmd("SRANDMEMBER").arg(view.key(keys)).arg(USERS);
        let users: Vec<String> = self.run(&pipeline).await?.take(0)?;
        let users: Vec<UserId> = users.iter().filter_map(|user| UserId::parse(user).ok()).collect();
        let confirmed = self.confirmed(view, &users).await?;
        if matches!(view, View::Online(_)) {
            self.schedule_departures(&confirmed).await?;
        }
        let gone: Vec<UserId> = users.into_iter().filter(|user| !confirmed.contains(user)).collect();
        if gone.is_empty() {
            return Ok(());
        }
        let mut pipeline = Pipeline::new();
        for user in &gone {
            pipeline.cmd("SREM").arg(view.key(keys)).arg(user.as_str());
        }
        self.run(&pipeline).await?;
        let mut pipeline = Pipeline::new();
        for user in self.confirmed(view, &gone).await? {
            match view {
                View::Online(shard) => drop(pipeline.cmd("SADD").arg(keys.online(*shard)).arg(user.as_str())),
                View::Audience(conversation) => add_listener(&mut pipeline, keys, conversation, &user),
            }
        }
        if pipeline.is_empty() { Ok(()) } else { self.run(&pipeline).await.map(drop) }
    }

    /// Schedules a check of the users who have no connection: the schedule of their departures may have been deleted.
    async fn schedule_departures(&self, users: &HashSet<UserId>) -> Result<(), LinkError> {
        let (mut pipeline, keys) = (Pipeline::new(), self.link.keys());
        for user in users {
            pipeline.cmd("HEXISTS").arg(keys.entry(user)).arg("c");
        }
        if users.is_empty() {
            return Ok(());
        }
        let (mut replies, mut checks) = (self.run(&pipeline).await?, Pipeline::new());
        for (index, user) in users.iter().enumerate() {
            if !replies.take::<bool>(index)? {
                // The check finds when the departure is due.
                schedule_check(&mut checks, keys, user, 0);
            }
        }
        if checks.is_empty() { Ok(()) } else { self.run(&checks).await.map(drop) }
    }

    /// Those of `users` whose entries confirm that they belong to the view.
    async fn confirmed(&self, view: &View, users: &[UserId]) -> Result<HashSet<UserId>, LinkError> {
        let (mut pipeline, keys) = (Pipeline::new(), self.link.keys());
        for user in users {
            match view {
                View::Online(_) => pipeline.cmd("EXISTS").arg(keys.entry(user)),
                View::Audience(conversation) => {
                    pipeline.cmd("HEXISTS").arg(keys.entry(user)).arg(format!("r/{conversation}"))
                }
            };
        }
        if users.is_empty() {
            return Ok(HashSet::new());
        }
        let mut replies = self.run(&pipeline).await?;
        let mut confirmed = HashSet::new();
        for (index, user) in users.iter().enumerate() {
            if replies.take(index)? {
                confirmed.insert(user.clone());
            }
        }
        Ok(confirmed)
    }

    async fn run(&self, pipeline: &Pipeline) -> Result<Replies, LinkError> {
        self.link.query(Op::Sweep, pipeline).await
    }
}
