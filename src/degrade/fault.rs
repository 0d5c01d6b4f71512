//! Faults outside a node, with their names in `docs/operations/failure-modes.md`.

/// A fault of Redis, PostgreSQL, the clocks or another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Redis accepts no connections.
    RedisUnreachable,
    /// Redis accepts connections and does not answer.
    RedisSilent,
    /// Redis rejects the password, or its ACL forbids a command or key that a node needs.
    RedisDeniesAccess,
    /// Redis answers and refuses writes: it is a replica, is loading, or can't save.
    RedisRefusesWrites,
    /// Redis has reached its `maxmemory`.
    RedisFull,
    /// Redis evicts keys when it is full.
    RedisEvicts,
    /// Redis does not deliver published messages.
    RedisDeaf,
    /// Redis does not know a command that a node needs, or it was renamed.
    RedisLacksCommand,
    /// Redis, or a proxy before it, does not speak RESP3 (`HELLO 3`), which Redis has since version 6.
    RedisTooOld,
    /// Redis has no database with the number in the URL.
    RedisWrongDatabase,
    /// Redis has reached its `maxclients`.
    RedisTooManyClients,
    /// The address is a node of a Redis Cluster.
    RedisIsCluster,
    /// The URL names a Redis Cluster, and a server that belongs to none answers.
    RedisIsNoCluster,
    /// Slots of a Redis Cluster have no master, or a master does not serve them.
    RedisClusterDown,
    /// A Redis Cluster refuses everything while one of its masters is down.
    RedisFullCoverage,
    /// Masters of the Redis Cluster have no replica.
    RedisNoReplica,
    /// Addresses of the Redis Cluster in REDIS_URL lead to no node that answers.
    RedisAddressesAway,
    /// Redis does not tell of changes to keys (`CLIENT TRACKING`), or this user may not ask for it.
    RedisUntracked,
    /// The address is a Sentinel, which holds no data.
    RedisIsSentinel,
    /// The URL names sentinels, and a server that is none answers.
    RedisIsNoSentinel,
    /// The sentinels don't know the name of the primary.
    RedisUnknownPrimary,
    /// Too few sentinels answer to agree on another primary.
    RedisSentinelsAway,
    /// Keys of nodes hold values of another type.
    RedisForeignValues,
    /// Another deployment, with a database of its own, uses the same keys.
    RedisShared,
    /// Other nodes of this deployment use another Redis, or other keys.
    RedisSplit,
    /// PostgreSQL accepts no connections.
    StoreUnreachable,
    /// PostgreSQL accepts connections and does not answer.
    StoreSilent,
    /// PostgreSQL rejects the password, or its user lacks a right that a node needs.
    StoreDeniesAccess,
    /// PostgreSQL is a standby, or read-only.
    StoreRefusesWrites,
    /// PostgreSQL has no disk space or memory left.
    StoreFull,
    /// PostgreSQL has no database with the name in the URL.
    StoreWrongDatabase,
    /// Migrations are pending.
    StoreNotMigrated,
    /// A table, column or function of the schema is missing, though no migration is pending.
    StoreLacksPart,
    /// Triggers, rules or row level security were added to the tables.
    StoreAltered,
    /// The database's encoding is not UTF8.
    StoreWrongEncoding,
    /// A pooler gives the transactions of one session to different server connections.
    StorePooled,
    /// A pooler runs fewer transactions at a time than a node may need.
    StorePoolSmall,
    /// PostgreSQL answers, and refuses to store messages for a reason that has no name here.
    StoreAppendsFail,
    /// PostgreSQL answers, and refuses reads or other writes for a reason that has no name here.
    StoreCallsFail,
    /// A node's lease has expired, and its users are still registered.
    NodeDead,
    /// Nodes state that they reach each other through the store only.
    NodesRelay,
    /// The clocks of this machine, Redis and PostgreSQL differ.
    ClocksDiffer,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 42] = [
        Self::RedisUnreachable,
        Self::RedisSilent,
        Self::RedisDeniesAccess,
        Self::RedisRefusesWrites,
        Self::RedisFull,
        Self::RedisEvicts,
        Self::RedisDeaf,
        Self::RedisLacksCommand,
        Self::RedisTooOld,
        Self::RedisWrongDatabase,
        Self::RedisTooManyClients,
        Self::RedisIsCluster,
        Self::RedisIsNoCluster,
        Self::RedisClusterDown,
        Self::RedisFullCoverage,
        Self::RedisNoReplica,
        Self::RedisAddressesAway,
        Self::RedisUntracked,
        Self::RedisIsSentinel,
        Self::RedisIsNoSentinel,
        Self::RedisUnknownPrimary,
        Self::RedisSentinelsAway,
        Self::RedisForeignValues,
        Self::RedisShared,
        Self::RedisSplit,
        Self::StoreUnreachable,
        Self::StoreSilent,
        Self::StoreDeniesAccess,
        Self::StoreRefusesWrites,
        Self::StoreFull,
        Self::StoreWrongDatabase,
        Self::StoreNotMigrated,
        Self::StoreLacksPart,
        Self::StoreAltered,
        Self::StoreWrongEncoding,
        Self::StorePooled,
        Self::StorePoolSmall,
        Self::StoreAppendsFail,
        Self::StoreCallsFail,
        Self::NodeDead,
        Self::NodesRelay,
        Self::ClocksDiffer,
    ];

    /// The name, which is also the heading in `docs/operations/failure-modes.md`.
    pub fn name(self) -> &'static str {
        match self {
            Self::RedisUnreachable => "redis-unreachable",
            Self::RedisSilent => "redis-silent",
            Self::RedisDeniesAccess => "redis-denies-access",
            Self::RedisRefusesWrites => "redis-refuses-writes",
            Self::RedisFull => "redis-full",
            Self::RedisEvicts => "redis-evicts",
            Self::RedisDeaf => "redis-deaf",
            Self::RedisLacksCommand => "redis-lacks-command",
            Self::RedisTooOld => "redis-too-old",
            Self::RedisWrongDatabase => "redis-wrong-database",
            Self::RedisTooManyClients => "redis-too-many-clients",
            Self::RedisIsCluster => "redis-is-cluster",
            Self::RedisIsNoCluster => "redis-is-no-cluster",
            Self::RedisClusterDown => "redis-cluster-down",
            Self::RedisFullCoverage => "redis-full-coverage",
            Self::RedisNoReplica => "redis-no-replica",
            Self::RedisAddressesAway => "redis-addresses-away",
            Self::RedisUntracked => "redis-untracked",
            Self::RedisIsSentinel => "redis-is-sentinel",
            Self::RedisIsNoSentinel => "redis-is-no-sentinel",
            Self::RedisUnknownPrimary => "redis-unknown-primary",
            Self::RedisSentinelsAway => "redis-sentinels-away",
            Self::RedisForeignValues => "redis-foreign-values",
            Self::RedisShared => "redis-shared",
            Self::RedisSplit => "redis-split",
            Self::StoreUnreachable => "store-unreachable",
            Self::StoreSilent => "store-silent",
            Self::StoreDeniesAccess => "store-denies-access",
            Self::StoreRefusesWrites => "store-refuses-writes",
            Self::StoreFull => "store-full",
            Self::StoreWrongDatabase => "store-wrong-database",
            Self::StoreNotMigrated => "store-not-migrated",
            Self::StoreLacksPart => "store-lacks-part",
            Self::StoreAltered => "store-altered",
            Self::StoreWrongEncoding => "store-wrong-encoding",
            Self::StorePooled => "store-pooled",
            Self::StorePoolSmall => "store-pool-small",
            Self::StoreAppendsFail => "store-appends-fail",
            Self::StoreCallsFail => "store-calls-fail",
            Self::NodeDead => "node-dead",
            Self::NodesRelay => "nodes-relay",
            Self::ClocksDiffer => "clocks-differ",
        }
    }

    /// True if the fault keeps a node from working correctly; else it is only a warning.
    pub fn is_critical(self) -> bool {
        !matches!(
            self,
            Self::RedisEvicts
                | Self::RedisFullCoverage
                | Self::RedisNoReplica
                | Self::RedisAddressesAway
                | Self::RedisUntracked
                | Self::RedisSentinelsAway
                | Self::RedisForeignValues
                | Self::StoreNotMigrated
                | Self::StoreAltered
                | Self::StorePoolSmall
                | Self::NodeDead
                | Self::NodesRelay
                | Self::ClocksDiffer
        )
    }
}

/// A fault that a check found, with details.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The fault.
    pub fault: Fault,
    /// Details in words; never a secret.
    pub detail: String,
}

impl Finding {
    /// A finding.
    pub fn new(fault: Fault, detail: impl Into<String>) -> Self {
        Self { fault, detail: detail.into() }
    }
}

/// The result of diagnosing a part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diagnosis {
    /// The part's state in words; empty if it could not be queried.
    pub state: String,
    /// Everything that the checks found.
    pub findings: Vec<Finding>,
}

impl From<Finding> for Diagnosis {
    fn from(finding: Finding) -> Self {
        Self { state: String::new(), findings: vec![finding] }
    }
}
