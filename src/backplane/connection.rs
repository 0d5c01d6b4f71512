//! A connection to Redis: to one server, or to all masters of a cluster. Nobody else asks which of the two it is.

use futures_util::FutureExt;
use redis::{Cmd, FromRedisValue, Pipeline, aio::MultiplexedConnection};

use super::{cluster::Router, link_error::LinkError, replies::Replies, shards::Shard};

/// A connection.
#[derive(Clone)]
pub(super) enum Connection {
    /// To one server.
    Single(MultiplexedConnection),
    /// To the masters of a cluster.
    Cluster(Router),
}

impl Connection {
    /// Sends a pipeline; error replies stay in [`Replies`].
    pub(super) async fn send(&mut self, pipeline: &Pipeline) -> Result<Replies, LinkError> {
        match self {
            Self::Single(one) => Ok(Replies::new(one.send_packed_commands(pipeline, 0, pipeline.len()).await?, false)),
            Self::Cluster(router) => {
                // In a box, so that calls to one server don't pay for the size of this future.
                let routed = router.send(pipeline).boxed().await?;
                Ok(Replies::new(routed.values, routed.redirected))
            }
        }
    }

    /// Sends one command.
    pub(super) async fn ask<T: FromRedisValue>(&mut self, command: Cmd) -> Result<T, LinkError> {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.add_command(command);
        self.send(&pipeline).await?.take(0)
    }

    /// A connection to each server, always in the same order while they stay the same.
    pub(super) fn servers(&self) -> Vec<Self> {
        match self {
            Self::Single(one) => vec![Self::Single(one.clone())],
            Self::Cluster(router) => router.nodes().into_iter().map(Self::Single).collect(),
        }
    }

    /// One shard of each server, another one each `turn`; and connections to the servers that have none.
    pub(super) fn represent(&self, turn: usize) -> (Vec<Shard>, Vec<Self>) {
        match self {
            Self::Single(_) => (vec![Shard::HOME], Vec::new()),
            Self::Cluster(router) => {
                let (shards, without) = router.represent(turn);
                (shards, without.into_iter().map(Self::Single).collect())
            }
        }
    }
}

impl From<MultiplexedConnection> for Connection {
    fn from(one: MultiplexedConnection) -> Self {
        Self::Single(one)
    }
}
