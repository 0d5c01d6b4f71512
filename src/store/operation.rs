//! The kinds of store calls.

use super::pools::Pool;
use crate::degrade::Work;

/// The kind of a store call: its label in metrics, and its pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Append,
    /// The health check.
    Ping,
    /// A notice between nodes.
    Relay,
    Read,
    /// A page of history, or a list.
    List,
    Search,
    Write,
    /// The creation of a conversation with few members.
    Create,
    /// The creation of a conversation with many members.
    CreateLarge,
    /// An addition to the search index.
    Index,
    /// Work that one node does for all: the removal of old entries.
    Upkeep,
}

impl Operation {
    /// Every operation.
    pub(crate) const ALL: [Self; 11] = [
        Self::Append,
        Self::Ping,
        Self::Relay,
        Self::Read,
        Self::List,
        Self::Search,
        Self::Write,
        Self::Create,
        Self::CreateLarge,
        Self::Index,
        Self::Upkeep,
    ];

    /// The creation of a conversation with `members`. Only large ones wait for each other, because each takes a second.
    pub(super) fn creation(members: usize) -> Self {
        const FEW: usize = 20;
        if members <= FEW { Self::Create } else { Self::CreateLarge }
    }

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Ping => "ping",
            Self::Relay => "relay",
            Self::Read => "read",
            Self::List => "list",
            Self::Search => "search",
            Self::Write => "write",
            Self::Create => "create",
            Self::CreateLarge => "create_large",
            Self::Index => "index",
            Self::Upkeep => "upkeep",
        }
    }

    /// The work of which the call is a part; `None` if others judge it: the writer, and the watch of the store.
    pub(super) fn work(self) -> Option<Work> {
        match self {
            Self::Append | Self::Ping => None,
            Self::Read | Self::List | Self::Search => Some(Work::Read),
            Self::Relay => Some(Work::Relay),
            Self::Write | Self::Create | Self::CreateLarge | Self::Index | Self::Upkeep => Some(Work::Write),
        }
    }

    pub(super) fn pool(self) -> Pool {
        match self {
            Self::Append => Pool::Append,
            Self::Ping => Pool::Ping,
            Self::Relay => Pool::Relay,
            Self::Read => Pool::Read,
            Self::List => Pool::List,
            Self::Search => Pool::Search,
            Self::Write | Self::Create => Pool::Write,
            Self::CreateLarge | Self::Index | Self::Upkeep => Pool::Bulk,
        }
    }
}
