//! Refusals and closes: what clients are told when the broker says no. Every dialect maps them exhaustively.

use std::time::Duration;

/// What is wrong with a token. `Display` goes to the log, and to clients under `dev` alone: it would help whoever forges one.
/// Each text fits into a close frame, behind `Invalid token: `.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenFlaw {
    /// No token came.
    #[error("there is none: send it as ?token=… or as Authorization: Bearer …")]
    Missing,
    /// The first frame brought none.
    #[error(r#"the first frame must be {{"type":"authenticate","token":"…"}}"#)]
    NotInFirstFrame,
    /// It is longer than tokens are.
    #[error("it is too long")]
    TooLong,
    /// It is no JWT.
    #[error("it is not a JWT: three parts in base64url between dots")]
    Malformed,
    /// Its header is none, or names an algorithm that doesn't exist.
    #[error("its header can't be read, or names an unknown algorithm")]
    Header,
    /// Its header names extensions that must be understood.
    #[error("its header has crit, and no extension is understood here")]
    Critical,
    /// It is signed with an algorithm that is not the pinned one.
    #[error("its algorithm (alg) is not the one this server takes (JWT_ALGORITHM)")]
    Algorithm,
    /// Its signature doesn't match.
    #[error("its signature does not match this server's key (JWT_SECRET or JWT_PUBLIC_KEY)")]
    Signature,
    /// No published key is the one it names.
    #[error("its key (kid) is not among those published under JWT_JWKS_URL")]
    UnknownKey,
    /// It has no `sub`, or one that is no user id.
    #[error("sub must be a user id: 1 to 128 of A-Z a-z 0-9 . _ : @ -")]
    Subject,
    /// It has no `exp`.
    #[error("it has no exp")]
    NoExpiry,
    /// Its `exp` is no time.
    #[error("exp is not a number of seconds since 1970")]
    Expiry,
    /// Its `nbf` is no time.
    #[error("nbf is not a number of seconds since 1970")]
    NotBefore,
    /// It counts only later.
    #[error("it counts only later (nbf); are the clocks right?")]
    Early,
    /// Its `aud` is not what it must be.
    #[error("aud is missing, or not JWT_AUDIENCE")]
    Audience,
    /// Its `iss` is not what it must be.
    #[error("iss is missing, or not JWT_ISSUER")]
    Issuer,
}

/// Why a command or a connection was refused. `Display` is what a client reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// Not a frame of this dialect: bad JSON, a missing field, a bad id.
    #[error("{0}")]
    Invalid(String),
    /// A `type` the dialect doesn't have.
    #[error("Unknown message type: {0}")]
    UnknownType(String),
    /// The token is missing, malformed, or not signed by whom it must be. A client is not told which.
    #[error("Invalid token")]
    InvalidToken(TokenFlaw),
    /// The same, where the client may know: under `dev`.
    #[error("Invalid token: {0}")]
    InvalidTokenExplained(TokenFlaw),
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
            Self::InvalidToken(_) | Self::InvalidTokenExplained(_) => "invalid_token",
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

    /// What is wrong with the token, for the log, where that is the reason.
    pub fn token_flaw(&self) -> Option<TokenFlaw> {
        match self {
            Self::InvalidToken(flaw) | Self::InvalidTokenExplained(flaw) => Some(*flaw),
            _ => None,
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
    /// What is wrong with the token, for the log, where that is the reason.
    pub fn token_flaw(&self) -> Option<TokenFlaw> {
        match self {
            Self::Refused(reject) => reject.token_flaw(),
            _ => None,
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_what_is_wrong_with_a_token_only_where_that_was_decided() {
        assert_eq!(Reject::InvalidToken(TokenFlaw::Signature).to_string(), "Invalid token");
        let explained = Reject::InvalidTokenExplained(TokenFlaw::NotInFirstFrame);
        assert!(explained.to_string().contains(r#"{"type":"authenticate""#), "{explained}");
        assert_eq!(explained.code(), Reject::InvalidToken(TokenFlaw::Missing).code());
    }
}
