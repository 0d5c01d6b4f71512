//! The groups into which settings are sorted.

/// A group of settings; `--help` and the documentation are ordered by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Addresses, origins and the node's id.
    Network,
    /// Redis.
    Redis,
    /// PostgreSQL, or SQLite under dev.
    Store,
    /// Keys and rules for tokens.
    Tokens,
    /// Maximum numbers and sizes.
    Limits,
    /// Timeouts and intervals.
    Timing,
    /// Personas and notifications.
    Webhooks,
    /// The admin console.
    Console,
    /// Logs.
    Logs,
}

impl Group {
    /// All groups, in the order of the documentation.
    pub const ALL: [Self; 9] = [
        Self::Network,
        Self::Redis,
        Self::Store,
        Self::Tokens,
        Self::Limits,
        Self::Timing,
        Self::Webhooks,
        Self::Console,
        Self::Logs,
    ];

    /// The group's heading.
    pub fn title(self) -> &'static str {
        match self {
            Self::Network => "Network",
            Self::Redis => "Redis",
            Self::Store => "Store",
            Self::Tokens => "Tokens",
            Self::Limits => "Limits",
            Self::Timing => "Timing",
            Self::Webhooks => "Webhooks",
            Self::Console => "Admin console",
            Self::Logs => "Logs",
        }
    }
}
