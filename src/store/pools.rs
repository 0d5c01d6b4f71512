//! The pools of the store: each class of calls has connections (PostgreSQL) or a thread (SQLite) of its own, so that no
//! class can exhaust what another one needs.

use crate::config::StoreConfig;

/// A class of store calls with a pool of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    /// Appends of the writer lanes.
    Append,
    /// The health check.
    Ping,
    /// The notices between nodes.
    Relay,
    /// Small reads: memberships, heads, entries for joins and backfills.
    Read,
    /// History and lists.
    List,
    /// Searches.
    Search,
    /// Small writes: marks, users, statuses, notifications, conversations with few members.
    Write,
    /// Large writes: conversations with many members, the search index, and the removal of old entries.
    Bulk,
}

impl Pool {
    /// Every pool.
    pub const ALL: [Self; 8] =
        [Self::Append, Self::Ping, Self::Relay, Self::Read, Self::List, Self::Search, Self::Write, Self::Bulk];

    /// The label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Ping => "ping",
            Self::Relay => "relay",
            Self::Read => "read",
            Self::List => "list",
            Self::Search => "search",
            Self::Write => "write",
            Self::Bulk => "bulk",
        }
    }

    /// True for reads of many rows, whose duration a client chooses.
    pub(super) fn is_heavy(self) -> bool {
        matches!(self, Self::List | Self::Search)
    }

    /// True if one plan of a statement is right for all of its values. The plan of a search, and of what fills its index, may
    /// depend on the words and on the lengths of the logs, and to make it costs little beside running it.
    pub(super) fn plans_once(self) -> bool {
        !matches!(self, Self::Search | Self::Bulk)
    }

    /// True for calls that nearly every command or every second makes.
    pub(super) fn is_frequent(self) -> bool {
        matches!(self, Self::Append | Self::Ping | Self::Relay | Self::Read | Self::Write)
    }

    /// Number of connections: one for each writer lane, one each for the health check, notices and bulk writes. The
    /// rest is shared out evenly; what remains goes to small reads, then small writes, then lists.
    pub(super) fn size(self, config: &StoreConfig) -> usize {
        let rest = (config.pool_size as usize).saturating_sub(3);
        let part = |surplus: usize| ((rest + surplus) / 4).max(1);
        match self {
            Self::Append => config.lanes.max(1),
            Self::Ping | Self::Relay | Self::Bulk => 1,
            Self::Read => part(3),
            Self::Write => part(2),
            Self::List => part(1),
            Self::Search => part(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StoreBackend;

    #[test]
    fn the_pools_share_out_exactly_the_configured_connections() {
        for pool_size in 7..40 {
            let backend = StoreBackend::Sqlite { path: "none".into() };
            let config = StoreConfig { pool_size, lanes: 3, ..StoreConfig::with_defaults(backend) };
            let sizes = Pool::ALL.map(|pool| pool.size(&config));
            assert_eq!(sizes.iter().sum::<usize>(), pool_size as usize + 3, "{sizes:?}");
            assert!(sizes.iter().all(|size| *size > 0), "{sizes:?}");
            let cancels: usize = Pool::ALL.iter().filter(|pool| pool.is_heavy()).map(|pool| pool.size(&config)).sum();
            assert!(
                config.max_files() > sizes.iter().sum::<usize>() + cancels,
                "room for the liveness check: {sizes:?}"
            );
        }
    }
}
