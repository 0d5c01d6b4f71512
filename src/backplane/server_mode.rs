//! Redis servers that answer a node's commands in part, and are of another kind than a node needs.

use redis::aio::MultiplexedConnection;

use crate::degrade::{Fault, Finding};

/// The mode of a Redis that a node can't use, as the reply to HELLO names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ServerMode {
    /// A node of a Redis Cluster.
    Cluster,
    /// A Sentinel.
    Sentinel,
}

impl ServerMode {
    /// Asks the server; `None` if it is fit or does not tell.
    pub(super) async fn unfit(connection: &mut MultiplexedConnection) -> Option<Self> {
        let mut hello = redis::cmd("HELLO");
        let reply = hello.arg(3).query_async::<redis::Value>(connection).await.ok()?;
        let said = reply.as_map_iter()?.find_map(|(name, value)| {
            let name: String = redis::from_redis_value_ref(name).ok()?;
            (name == "mode").then(|| redis::from_redis_value_ref::<String>(value).ok())?
        })?;
        match said.as_str() {
            "cluster" => Some(Self::Cluster),
            "sentinel" => Some(Self::Sentinel),
            _ => None,
        }
    }

    /// Why a node can't use such a server.
    pub(super) fn finding(self) -> Finding {
        let (fault, why) = match self {
            Self::Cluster => {
                let why = "the server runs in cluster mode: write redis+cluster://host:port, or the address of a Redis that is not \
                           a cluster";
                (Fault::RedisIsCluster, why)
            }
            Self::Sentinel => (
                Fault::RedisIsSentinel,
                "the server is a Sentinel, which holds no data: write redis+sentinel://host:port?sentinel_master_name=NAME, \
                 or the address of the primary",
            ),
        };
        Finding::new(fault, why)
    }
}
