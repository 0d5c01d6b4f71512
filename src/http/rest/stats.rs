//! State of this node, statistics of all nodes, and the caller's own connections.

use serde::Serialize;

use super::{Call, ok, unexpected};
use crate::{
    http::{
        HttpResult,
        health::{Component, Health},
    },
    model::{self, Command, ConnectionId, NodeId, PageLimit, Reply, Timestamp, UserId},
};

#[derive(Serialize)]
struct Status<'a> {
    status: &'static str,
    node: &'a str,
    version: &'static str,
    uptime_seconds: u64,
    connections: usize,
    users_online: u64,
    redis: Component,
    store: Component,
}

#[derive(Serialize)]
struct Connections<'a> {
    user_id: &'a UserId,
    connections: Vec<Connection<'a>>,
    count: usize,
}

#[derive(Serialize)]
struct Connection<'a> {
    connection_id: ConnectionId,
    node: &'a NodeId,
    connected_at: Timestamp,
}

impl<'a> Connection<'a> {
    fn of(held: &'a model::ConnectionInfo) -> Self {
        Self { connection_id: held.connection, node: &held.node, connected_at: held.since }
    }
}

#[derive(Serialize)]
struct Stats<'a> {
    node: &'a NodeId,
    connections: u64,
    total_connections: u64,
    followed: u64,
    users_online: u64,
    nodes: Vec<Node<'a>>,
}

#[derive(Serialize)]
struct Node<'a> {
    node: &'a NodeId,
    alive: bool,
    users: u64,
    connections: u64,
}

impl<'a> Stats<'a> {
    fn of(stats: &'a model::Stats) -> Self {
        let node = |node: &'a model::NodeStats| Node {
            node: &node.node,
            alive: node.alive,
            users: node.users,
            connections: node.connections,
        };
        Self {
            node: &stats.node,
            connections: stats.connections,
            total_connections: stats
                .nodes
                .iter()
                .filter(|node| node.alive)
                .fold(0, |sum: u64, node| sum.saturating_add(node.connections)),
            followed: stats.followed,
            users_online: stats.users_online,
            nodes: stats.nodes.iter().map(node).collect(),
        }
    }
}

impl Call<'_> {
    pub(super) async fn status(&self) -> HttpResult {
        let users_online = match self.execute(Command::Online { cursor: 0, limit: PageLimit::at_most(1) }).await? {
            Reply::Online { count, .. } => count,
            other => return Err(unexpected(&other)),
        };
        let Health { status, node, version, uptime_seconds, connections, components, .. } =
            Health::of(self.service.broker());
        let (redis, store) = (components.redis, components.store);
        ok(&Status { status, node, version, uptime_seconds, connections, users_online, redis, store })
    }

    pub(super) async fn connections(&self) -> HttpResult {
        match self.execute(Command::Connections).await? {
            Reply::Connections(held) => {
                let connections: Vec<_> = held.iter().map(Connection::of).collect();
                ok(&Connections { user_id: &self.identity.user, count: connections.len(), connections })
            }
            other => Err(unexpected(&other)),
        }
    }

    pub(super) async fn stats(&self) -> HttpResult {
        match self.execute(Command::Stats).await? {
            Reply::Stats(stats) => ok(&Stats::of(&stats)),
            other => Err(unexpected(&other)),
        }
    }
}
