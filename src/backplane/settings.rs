//! Settings of the backplane.

use std::time::Duration;

use crate::{
    config::{Config, RedisConfig},
    model::NodeId,
};

/// Maximum wait for the first try to use Redis.
pub(super) const FIRST_TRY: Duration = Duration::from_secs(3);

/// Window in which commands are counted.
const WINDOW: Duration = Duration::from_secs(60);

/// Settings of the backplane.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Redis; `None`: the node runs alone.
    pub redis: Option<RedisConfig>,
    /// This node's id.
    pub node: NodeId,
    /// Duration of the node's lease: other nodes count the node as dead this long after its last renewal.
    pub lease: Duration,
    /// Time from the end of a user's last socket until the user has departed.
    pub presence_grace: Duration,
    /// Lifetime of the recent-message caches; zero: nothing is cached.
    pub cache_ttl: Duration,
    /// Maximum number of users whose nodes are remembered; 0: Redis is asked each time.
    pub presence_cache: usize,
    /// Window in which commands are counted (60 s).
    pub window: Duration,
    /// User-scoped sockets per user over all nodes, and conversation-scoped ones per user and conversation.
    pub connections_per_user: u32,
    /// All sockets of a user over all nodes.
    pub sockets_per_user: u32,
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        Self {
            redis: config.redis.clone(),
            node: config.node.clone(),
            lease: config.timing.lease,
            presence_grace: config.timing.presence_grace,
            cache_ttl: config.timing.cache_ttl,
            presence_cache: config.limits.presence_cache,
            window: WINDOW,
            connections_per_user: config.limits.connections_per_user,
            sockets_per_user: config.limits.sockets_per_user,
        }
    }
}
