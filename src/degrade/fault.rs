//! What can be wrong outside a node, by the names under which `docs/operations/failure-modes.md` tells of it.

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Redis takes no connections.
    RedisUnreachable,
    /// Redis takes connections, and does not answer.
    RedisSilent,
    /// Redis wants another password, or its user may not do what a node does.
    RedisDeniesAccess,
    /// Redis is a replica, loads, or can't save: it answers, and takes no writes.
    RedisRefusesWrites,
    /// Redis is at its `maxmemory`.
    RedisFull,
    /// Redis throws keys away when it is full.
    RedisEvicts,
    /// What is published is not heard.
    RedisDeaf,
    /// PostgreSQL takes no connections.
    StoreUnreachable,
    /// PostgreSQL takes connections, and does not answer.
    StoreSilent,
    /// PostgreSQL wants another password, or its user may not do what a node does.
    StoreDeniesAccess,
    /// PostgreSQL is a standby, or read-only.
    StoreRefusesWrites,
    /// Migrations are pending.
    StoreNotMigrated,
    /// A node's lease is out, and its users are not yet taken out.
    NodeDead,
    /// Nodes say that they reach each other through the store alone.
    NodesRelay,
    /// This machine's clock, Redis' and PostgreSQL's differ.
    ClocksDiffer,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 15] = [
        Self::RedisUnreachable,
        Self::RedisSilent,
        Self::RedisDeniesAccess,
        Self::RedisRefusesWrites,
        Self::RedisFull,
        Self::RedisEvicts,
        Self::RedisDeaf,
        Self::StoreUnreachable,
        Self::StoreSilent,
        Self::StoreDeniesAccess,
        Self::StoreRefusesWrites,
        Self::StoreNotMigrated,
        Self::NodeDead,
        Self::NodesRelay,
        Self::ClocksDiffer,
    ];

    /// Its name, which is also its heading in `docs/operations/failure-modes.md`.
    pub fn name(self) -> &'static str {
        match self {
            Self::RedisUnreachable => "redis-unreachable",
            Self::RedisSilent => "redis-silent",
            Self::RedisDeniesAccess => "redis-denies-access",
            Self::RedisRefusesWrites => "redis-refuses-writes",
            Self::RedisFull => "redis-full",
            Self::RedisEvicts => "redis-evicts",
            Self::RedisDeaf => "redis-deaf",
            Self::StoreUnreachable => "store-unreachable",
            Self::StoreSilent => "store-silent",
            Self::StoreDeniesAccess => "store-denies-access",
            Self::StoreRefusesWrites => "store-refuses-writes",
            Self::StoreNotMigrated => "store-not-migrated",
            Self::NodeDead => "node-dead",
            Self::NodesRelay => "nodes-relay",
            Self::ClocksDiffer => "clocks-differ",
        }
    }

    /// Whether a node can't work as it should for it; else it is worth knowing.
    pub fn is_grave(self) -> bool {
        !matches!(
            self,
            Self::RedisEvicts | Self::StoreNotMigrated | Self::NodeDead | Self::NodesRelay | Self::ClocksDiffer
        )
    }
}

/// What was found, with what is said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong.
    pub fault: Fault,
    /// In which way, in words; no secrets.
    pub detail: String,
}

impl Finding {
    /// A finding.
    pub fn new(fault: Fault, detail: impl Into<String>) -> Self {
        Self { fault, detail: detail.into() }
    }
}

/// How a part is: what it says of itself, and what is wrong with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Examined {
    /// What it is, in words; empty where it could not be asked.
    pub state: String,
    /// What was found.
    pub findings: Vec<Finding>,
}

impl From<Finding> for Examined {
    fn from(finding: Finding) -> Self {
        Self { state: String::new(), findings: vec![finding] }
    }
}
