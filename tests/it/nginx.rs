//! The repository's nginx in front of two real nodes: which requests pass, which are refused, what is logged, and what
//! survives changes.

mod changes;
mod limits;
mod logs;
mod routes;

use crate::support::{Node, NodeBuilder, Postgres, RedisServer};

/// Two nodes and their servers.
struct Pair {
    one: Node,
    two: Node,
    _redis: RedisServer,
}

impl Pair {
    /// Starts two nodes that trust a proxy on this machine.
    async fn start() -> Self {
        Self::with(|node| node).await
    }

    /// The same with further settings.
    async fn with(set: impl Fn(NodeBuilder) -> NodeBuilder) -> Self {
        let (redis, database) = (RedisServer::start().await, Postgres::shared().await.database().await);
        let node = set(Node::serve(&redis.url(), &database).set("TRUSTED_PROXIES", "127.0.0.0/8"));
        let (one, two) = (node.clone().set("NODE_ID", "one").start().await, node.set("NODE_ID", "two").start().await);
        Self { one, two, _redis: redis }
    }

    fn nodes(&self) -> [&Node; 2] {
        [&self.one, &self.two]
    }
}
