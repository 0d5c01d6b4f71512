//! Refusals and closes: what clients are told when the broker says no. Every dialect maps them exhaustively.

use std::time::Duration;

/// Why a command or a connection was refused. `Display` is what a client reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// Not a frame of this dialect: bad JSON, a missing field, a bad id.
    #[error("{0}")]
    Invalid(String),
    /// A `type` the dialect doesn't have.
    #[error("Unknown message type: {0}")]
    UnknownType(String),
    /// The token is missing, malformed, or not signed by whom it must be.
    #[error("Invalid token")]
    InvalidToken,
    /// The token's time is over.
    #[error("Token expired")]
    TokenExpired,
    /// No token came in time.
    #[error("Authentication timeout")]
    AuthTimeout,
    /// Not a member of that conversation.
    #[error("Not a member of this conversation")]
    NotMember,
    /// May not do that.
    #[error("{0}")]
    Forbidden(&'static str),
    /// No such thing.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// There is one already.
    #[error("{0}")]
    Conflict(&'static str),
    /// Too many messages.
    #[error("Rate limit exceeded")]
    RateLimited {
        /// How many were sent within the window.
        sent: u32,
        /// How many may be.
        limit: u32,
        /// When the next one will be taken.
        retry_after: Duration,
    },
    /// The user has as many sockets as they may have.
    #[error("Too many connections")]
    TooManyConnections,
    /// As above, but some of them may be those of a dead node: worth another try.
    #[error("Too many connections, try again")]
    TooManyConnectionsMaybe,
    /// The socket listens to as many conversations as it may.
    #[error("Too many conversations on this connection")]
    TooManyConversations,
    /// The store can't take it now; it was not stored.
    #[error("Temporarily unavailable, try again")]
    Unavailable,
    /// The store may or may not have it: the same `client_id` settles that.
    #[error("Outcome unknown, try again with the same client_id")]
    Unknown,
    /// This deployment can't do that.
    #[error("{0}")]
    Unsupported(&'static str),
    /// The persona that was to answer a message did not. The message itself is stored.
    #[error("The persona did not answer")]
    PersonaFailed,
}

impl Reject {
    /// A short stable code: what programs read, and the label in metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::UnknownType(_) => "unknown_type",
            Self::InvalidToken => "invalid_token",
            Self::TokenExpired => "token_expired",
            Self::AuthTimeout => "auth_timeout",
            Self::NotMember => "not_member",
            Self::Forbidden(_) => "forbidden",
            Self::NotFound(_) => "not_found",
            Self::Conflict(_) => "conflict",
            Self::RateLimited { .. } => "rate_limited",
            Self::TooManyConnections => "too_many_connections",
            Self::TooManyConnectionsMaybe => "too_many_connections_maybe",
            Self::TooManyConversations => "too_many_conversations",
            Self::Unavailable => "unavailable",
            Self::Unknown => "unknown",
            Self::Unsupported(_) => "unsupported",
            Self::PersonaFailed => "persona_failed",
        }
    }

    /// In how many milliseconds the next message will be taken, where there were too many.
    pub fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::RateLimited { retry_after, .. } => u64::try_from(retry_after.as_millis()).ok(),
            _ => None,
        }
    }

    /// Whether the same request may succeed later.
    pub fn retryable(&self) -> bool {
        matches!(self, Self::RateLimited { .. } | Self::TooManyConnectionsMaybe | Self::Unavailable | Self::Unknown)
    }
}

/// Why this side closes a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloseReason {
    /// The client said goodbye, or is gone.
    ClientLeft,
    /// The connection could not be opened, or may not stay.
    Refused(Reject),
    /// The token's time is over.
    TokenExpired,
    /// The client reads too slowly; it is to resume.
    TooSlow,
    /// No answer to pings, or a half-open socket.
    Silent,
    /// A frame or message is too large.
    TooLarge,
    /// A text frame that is not UTF-8.
    NotUtf8,
    /// A breach of RFC 6455.
    Protocol,
    /// Binary frames are not spoken here.
    Binary,
    /// Too many frames a second.
    Flood,
    /// The node goes away; come back after this long.
    Restart(Duration),
}

impl CloseReason {
    /// The label in metrics and logs.
    pub fn label(&self) -> &'static str {
        match self {
            Self::ClientLeft => "client_left",
            Self::Refused(reject) => reject.code(),
            Self::TokenExpired => "token_expired",
            Self::TooSlow => "too_slow",
            Self::Silent => "silent",
            Self::TooLarge => "too_large",
            Self::NotUtf8 => "not_utf8",
            Self::Protocol => "protocol",
            Self::Binary => "binary",
            Self::Flood => "flood",
            Self::Restart(_) => "restart",
        }
    }
}
