//! A connection to Redis: to one server, or to all masters of a cluster. Nobody else asks which of the two it is.

use futures_util::FutureExt;
use redis::{Cmd, FromRedisValue, Pipeline, aio::MultiplexedConnection};

use super::{cluster::Router, link_error::LinkError, replies::Replies, shards::Shard};
use crate::config::HostPort;

/// A connection.
#[derive(Clone)]
pub(super) enum Connection {
    /// To one server.
    Single(MultiplexedConnection),
    /// To the masters of a cluster.
    Cluster(Router),
}

impl Connection {
    /// Sends a pipeline; error replies stay in [`Replies`]. Of a cluster, so do the failures of masters that did not answer, unless
    /// none did.
    pub(super) async fn send(&mut self, pipeline: &Pipeline) -> Result<Replies, LinkError> {
        match self {
            Self::Single(one) => Ok(Replies::new(one.send_packed_commands(pipeline, 0, pipeline.len()).await?, false)),
            Self::Cluster(router) => {
                // In a box, so that calls to one server don't pay for the size of this future.
                let routed = router.send(pipeline).boxed().await?;
                Ok(Replies::new(routed.values, routed.redirected)
                    .with_failures(routed.failures)
                    .with_places(routed.refused_by))
            }
        }
    }

    /// Sends one command.
    pub(super) async fn ask<T: FromRedisValue>(&mut self, command: Cmd) -> Result<T, LinkError> {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.add_command(command);
        self.send(&pipeline).await?.take(0)
    }

    /// The same connection for the one who watches: it also sends to masters that are down for others.
    pub(super) fn watching(self) -> Self {
        match self {
            Self::Single(one) => Self::Single(one),
            Self::Cluster(router) => Self::Cluster(router.watching()),
        }
    }

    /// Uses a connection to a master of a cluster from now on.
    pub(super) fn replace(&self, master: &HostPort, connection: MultiplexedConnection) {
        if let Self::Cluster(router) = self {
            router.replace(master, connection);
        }
    }

    /// Records that this node is registered with every server that this connection reaches.
    pub(super) fn note_up(&self) {
        if let Self::Cluster(router) = self {
            router.note_up();
        }
    }

    /// The shards that this connection reaches.
    pub(super) fn reached(&self) -> Vec<Shard> {
        match self {
            Self::Single(_) => vec![Shard::HOME],
            Self::Cluster(router) => router.reached(),
        }
    }

    /// A connection to each server that is up, always in the same order while they stay the same.
    pub(super) fn servers(&self) -> Vec<Self> {
        match self {
            Self::Single(one) => vec![Self::Single(one.clone())],
            Self::Cluster(router) => router.nodes().into_iter().map(Self::Single).collect(),
        }
    }

    /// The connection to this master of a cluster, if there is one.
    pub(super) fn server(&self, master: &HostPort) -> Option<Self> {
        match self {
            Self::Single(_) => None,
            Self::Cluster(router) => router.node(master).map(Self::Single),
        }
    }

    /// One shard of each server that is up and has any.
    pub(super) fn represent(&self) -> Vec<Shard> {
        match self {
            Self::Single(_) => vec![Shard::HOME],
            Self::Cluster(router) => router.represent(),
        }
    }
}

impl From<MultiplexedConnection> for Connection {
    fn from(one: MultiplexedConnection) -> Self {
        Self::Single(one)
    }
}
