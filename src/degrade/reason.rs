//! The reasons why a node is not healthy, as the health report names them.

/// A reason why a node is not healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The node drains.
    Draining,
    /// Redis does not work.
    RedisDown,
    /// Some shards of the Redis Cluster don't work.
    RedisShardsDown,
    /// The store does not work.
    StoreDown,
    /// The store works, and more history, searches and lists are asked for than it can read; some are refused.
    SlowReads,
    /// Redis answers, and this node does not reach other nodes through it.
    RedisDeaf,
    /// Redis answers, and other nodes use another one.
    RedisSplit,
    /// Redis answers, and refuses some commands of this node.
    RedisRefuses,
    /// The store answers, and refuses to store messages or other entries.
    AppendsFail,
    /// The store answers, and refuses some reads.
    ReadsFail,
    /// The store answers, and refuses to store other things than entries.
    WritesFail,
}

impl Reason {
    /// The name in the health report.
    pub fn label(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::RedisDown => "redis_down",
            Self::RedisShardsDown => "redis_shards_down",
            Self::StoreDown => "store_down",
            Self::SlowReads => "slow_reads",
            Self::RedisDeaf => "redis_deaf",
            Self::RedisSplit => "redis_split",
            Self::RedisRefuses => "redis_refuses",
            Self::AppendsFail => "appends_fail",
            Self::ReadsFail => "reads_fail",
            Self::WritesFail => "writes_fail",
        }
    }
}
