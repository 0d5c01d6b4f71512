//! The features that depend on Redis and the store, and how they can work.

/// A feature that depends on Redis or the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// Delivery to members on other nodes.
    Fanout,
    /// Limits on sends and connections.
    Limits,
    /// Online state of users.
    Presence,
    /// Storing messages.
    Append,
    /// Reading stored entries.
    History,
}

impl Feature {
    /// Every feature.
    pub const ALL: [Self; 5] = [Self::Fanout, Self::Limits, Self::Presence, Self::Append, Self::History];

    /// The name in the health report.
    pub fn label(self) -> &'static str {
        match self {
            Self::Fanout => "fanout",
            Self::Limits => "limits",
            Self::Presence => "presence",
            Self::Append => "append",
            Self::History => "history",
        }
    }
}

impl Mode {
    /// The name in the health report.
    pub fn label(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Partial => "partial",
            Self::Relayed => "relayed",
            Self::Local => "local",
            Self::Limited => "limited",
            Self::Refused => "refused",
        }
    }
}

/// The current mode of a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Works over all nodes.
    Shared,
    /// Works over all nodes for most users and conversations, or over some nodes. Some shards of a Redis Cluster are down: for theirs,
    /// this node's state counts. Or some nodes use another Redis: only those of the same one count. Messages reach other nodes
    /// through the store.
    Partial,
    /// Works over all nodes through the store, with a delay of up to a second.
    Relayed,
    /// Works with this node's state alone.
    Local,
    /// Works, but some calls are refused: too many wait, or the store refuses them.
    Limited,
    /// Does not work now.
    Refused,
}
