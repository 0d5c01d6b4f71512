//! Refusals and close reasons. Every dialect maps each of them to a frame or a close code.

use std::time::Duration;

/// The flaw of a refused token. `Display` goes to the log, and to clients only under `dev`, because it would help an
/// attacker to forge a token. Each text fits into a close frame after `Invalid token: `.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenFlaw {
    /// The request has no token.
    #[error("there is none: send it as ?token=… or as Authorization: Bearer …")]
    Missing,
    /// The first frame has no token.
    #[error(r#"the first frame must be {{"type":"authenticate","token":"…"}}"#)]
    NotInFirstFrame,
    /// The token is longer than the limit.
    #[error("it is too long")]
    TooLong,
    /// The token is not a JWT.
    #[error("it is not a JWT: three parts in base64url between dots")]
    Malformed,
    /// The token's header can't be read, or names an unknown algorithm.
    #[error("its header can't be read, or names an unknown algorithm (alg)")]
    Header,
    /// The token's header names no algorithm.
    #[error("its header names no algorithm (alg)")]
    NoAlgorithm,
    /// The token's algorithm is `none`.
    #[error("it is not signed (alg none)")]
    Unsigned,
    /// The token's header has `crit`: extensions that the server must understand.
    #[error("its header has crit, and no extension is understood here")]
    Critical,
    /// The token is signed with another algorithm than the configured one.
    #[error("its algorithm (alg) is not the one this server takes (JWT_ALGORITHM)")]
    Algorithm,
    /// The signature doesn't match.
    #[error("its signature does not match this server's key (JWT_SECRET or JWT_PUBLIC_KEY)")]
    Signature,
    /// No published key has the token's `kid`.
    #[error("its key (kid) is not among those published under JWT_JWKS_URL")]
    UnknownKey,
    /// The token has no `kid`, and several keys are published.
    #[error("it names no key (kid), and several are published under JWT_JWKS_URL")]
    NoKeyId,
    /// `sub` is missing.
    #[error("it has no sub")]
    NoSubject,
    /// `sub` is not a valid user id.
    #[error("sub must be a user id: 1 to 128 of A-Z a-z 0-9 . _ : @ + = | -, not . or ..")]
    Subject,
    /// `sub` is the id of a persona.
    #[error("sub is the id of a persona (PERSONA_IDS)")]
    Persona,
    /// The token has expired.
    #[error("exp is past: it expired")]
    Expired,
    /// `exp` is missing.
    #[error("it has no exp")]
    NoExpiry,
    /// `exp` is not a number of seconds.
    #[error("exp is not a number of seconds since 1970")]
    Expiry,
    /// `exp` is a number of milliseconds.
    #[error("exp is in milliseconds; it must be in seconds since 1970")]
    ExpiryInMilliseconds,
    /// `nbf` is not a number of seconds.
    #[error("nbf is not a number of seconds since 1970")]
    NotBefore,
    /// `nbf` is a number of milliseconds.
    #[error("nbf is in milliseconds; it must be in seconds since 1970")]
    NotBeforeInMilliseconds,
    /// The token is not valid yet (`nbf`).
    #[error("it counts only later (nbf); are the clocks right?")]
    Early,
    /// The token lives longer than TOKEN_LIFETIME_MAX.
    #[error("it lives too long: exp is more than TOKEN_LIFETIME_MAX after iat (without iat: from now)")]
    TooLongLived,
    /// `iat` is not a number of seconds.
    #[error("iat is not a number of seconds since 1970")]
    IssuedAt,
    /// `iat` is a number of milliseconds.
    #[error("iat is in milliseconds; it must be in seconds since 1970")]
    IssuedAtInMilliseconds,
    /// `iat` is in the future.
    #[error("iat is in the future; are the clocks right?")]
    IssuedLater,
    /// `jti` names no token: an admin could not revoke it.
    #[error("jti is neither a text of 1 to 256 characters without control characters nor a whole number")]
    TokenId,
    /// `aud` is missing.
    #[error("it has no aud, and JWT_AUDIENCE requires one")]
    NoAudience,
    /// `aud` is not the configured audience.
    #[error("aud is not JWT_AUDIENCE")]
    Audience,
    /// `iss` is missing.
    #[error("it has no iss, and JWT_ISSUER requires one")]
    NoIssuer,
    /// `iss` is not the configured issuer.
    #[error("iss is not JWT_ISSUER")]
    Issuer,
}

impl TokenFlaw {
    /// The part of the token that has the flaw: a claim, a field of the header, or the whole.
    pub fn place(self) -> &'static str {
        match self {
            Self::Missing | Self::NotInFirstFrame | Self::TooLong | Self::Malformed => "token",
            Self::Header | Self::NoAlgorithm | Self::Unsigned | Self::Algorithm => "alg",
            Self::Critical => "crit",
            Self::Signature => "signature",
            Self::UnknownKey | Self::NoKeyId => "kid",
            Self::NoSubject | Self::Subject | Self::Persona => "sub",
            Self::Expired | Self::NoExpiry | Self::Expiry | Self::ExpiryInMilliseconds | Self::TooLongLived => "exp",
            Self::IssuedAt | Self::IssuedAtInMilliseconds | Self::IssuedLater => "iat",
            Self::NotBefore | Self::NotBeforeInMilliseconds | Self::Early => "nbf",
            Self::TokenId => "jti",
            Self::NoAudience | Self::Audience => "aud",
            Self::NoIssuer | Self::Issuer => "iss",
        }
    }

    /// True if a token with this flaw is refused before its signature is checked.
    pub fn precedes_signature(self) -> bool {
        matches!(self.place(), "token" | "alg" | "crit" | "kid")
    }
}

/// The reason for which a command or a connection was refused. `Display` is the text for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// The frame is not valid in this dialect: bad JSON, a missing field, a bad id.
    #[error("{0}")]
    Invalid(String),
    /// The dialect has no such `type`.
    #[error("Unknown message type: {0}")]
    UnknownType(String),
    /// The token is missing, malformed, or has a wrong signature. The client does not learn which.
    #[error("Invalid token")]
    InvalidToken(TokenFlaw),
    /// As [`InvalidToken`](Self::InvalidToken), with the flaw shown to the client; only under `dev`.
    #[error("Invalid token: {0}")]
    InvalidTokenExplained(TokenFlaw),
    /// The token has expired.
    #[error("Token expired")]
    TokenExpired,
    /// An admin revoked the token.
    #[error("Token revoked")]
    TokenRevoked,
    /// An admin blocked the user.
    #[error("Blocked by an administrator")]
    Blocked,
    /// No token arrived in time.
    #[error("Authentication timeout")]
    AuthTimeout,
    /// The user is not a member of that conversation.
    #[error("Not a member of this conversation")]
    NotMember,
    /// The user has no right to do that.
    #[error("{0}")]
    Forbidden(&'static str),
    /// The named thing does not exist.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// The thing exists already.
    #[error("{0}")]
    Conflict(&'static str),
    /// The user has used up a budget.
    #[error("Rate limit exceeded")]
    RateLimited {
        /// Weight of the commands within the window; of messages, their number.
        sent: u32,
        /// Maximum weight within the window.
        limit: u32,
        /// The setting that has the maximum.
        setting: &'static str,
        /// Time until the next command is accepted.
        retry_after: Duration,
    },
    /// The message has as many reactions as it may have.
    #[error("Too many reactions to this message")]
    TooManyReactions,
    /// The user has too many heavy reads (history, search, lists) at a time.
    #[error("Too many reads at a time")]
    TooManyReads {
        /// Time after which a retry may succeed.
        retry_after: Duration,
    },
    /// The node has more calls for the store than it can serve; nothing was stored.
    #[error("Too busy, try again")]
    Overloaded {
        /// Time after which a retry may succeed.
        retry_after: Duration,
    },
    /// A search or list took longer than it may.
    #[error("The read took too long: use longer or rarer words, one conversation, or a smaller page")]
    ReadTooSlow {
        /// Time after which a retry may succeed.
        retry_after: Duration,
    },
    /// The user has reached the limit of connections.
    #[error("Too many connections")]
    TooManyConnections,
    /// As above, but some of the connections may belong to a dead node, so a retry may succeed.
    #[error("Too many connections, try again")]
    TooManyConnectionsMaybe,
    /// The socket has reached the limit of conversations that it listens to.
    #[error("Too many conversations on this connection")]
    TooManyConversations,
    /// The store is unavailable; nothing was stored.
    #[error("Temporarily unavailable, try again")]
    Unavailable,
    /// The change may or may not be stored; a repeat finds out. With the same `client_id`, no entry is stored twice.
    #[error("Outcome unknown, try again (with the same client_id, if it has one)")]
    Unknown,
    /// The message names a persona, and there are none.
    #[error("No persona is configured: set PERSONA_WEBHOOK_URL and PERSONA_IDS")]
    NoPersonas,
    /// This deployment does not support the command.
    #[error("{0}")]
    Unsupported(&'static str),
    /// The message is stored, but the persona did not answer it.
    #[error("The persona did not answer")]
    PersonaFailed,
}

impl Reject {
    /// A short stable code for programs, also used as the label in metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::UnknownType(_) => "unknown_type",
            Self::InvalidToken(_) | Self::InvalidTokenExplained(_) => "invalid_token",
            Self::TokenExpired => "token_expired",
            Self::TokenRevoked => "token_revoked",
            Self::Blocked => "blocked",
            Self::AuthTimeout => "auth_timeout",
            Self::NotMember => "not_member",
            Self::Forbidden(_) => "forbidden",
            Self::NotFound(_) => "not_found",
            Self::Conflict(_) => "conflict",
            Self::RateLimited { .. } | Self::TooManyReads { .. } => "rate_limited",
            Self::TooManyReactions => "too_many_reactions",
            Self::Overloaded { .. } => "overloaded",
            Self::ReadTooSlow { .. } => "too_slow",
            Self::TooManyConnections => "too_many_connections",
            Self::TooManyConnectionsMaybe => "too_many_connections_maybe",
            Self::TooManyConversations => "too_many_conversations",
            Self::Unavailable => "unavailable",
            Self::Unknown => "unknown",
            Self::Unsupported(_) | Self::NoPersonas => "unsupported",
            Self::PersonaFailed => "persona_failed",
        }
    }

    /// The token's flaw, for the log, if that is the reason.
    pub fn token_flaw(&self) -> Option<TokenFlaw> {
        match self {
            Self::InvalidToken(flaw) | Self::InvalidTokenExplained(flaw) => Some(*flaw),
            Self::TokenExpired => Some(TokenFlaw::Expired),
            _ => None,
        }
    }

    /// Time in ms after which a retry may succeed, if it is known.
    pub fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::RateLimited { retry_after, .. }
            | Self::TooManyReads { retry_after }
            | Self::Overloaded { retry_after }
            | Self::ReadTooSlow { retry_after } => u64::try_from(retry_after.as_millis()).ok(),
            _ => None,
        }
    }

    /// True if the same request may succeed later.
    pub fn retryable(&self) -> bool {
        matches!(
            self,
            Self::RateLimited { .. }
                | Self::TooManyReads { .. }
                | Self::Overloaded { .. }
                | Self::ReadTooSlow { .. }
                | Self::TooManyConnectionsMaybe
                | Self::Unavailable
                | Self::Unknown
        )
    }
}

/// The reason for which the server closes a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloseReason {
    /// The client closed the connection, or the connection is lost.
    ClientLeft,
    /// The connection was refused, or may not stay open.
    Refused(Reject),
    /// The token has expired.
    TokenExpired,
    /// An admin ended the user's sockets; the client may come back.
    Disconnected,
    /// The client reads too slowly; it must reconnect and resume.
    TooSlow,
    /// The client did not answer pings, or the socket is half-open.
    Silent,
    /// A frame or message is too large.
    TooLarge,
    /// A message has too many fragments.
    TooManyFragments,
    /// A text frame is not UTF-8.
    NotUtf8,
    /// The client violated RFC 6455.
    Protocol,
    /// The client sent a binary frame; only text frames are supported.
    Binary,
    /// The client sent too many frames per second.
    Flood,
    /// A panic of this program ended the connection; the client may reconnect and resume.
    Internal,
    /// The node restarts; the client must reconnect after this delay.
    Restart(Duration),
}

impl CloseReason {
    /// The token's flaw, for the log, if that is the reason.
    pub fn token_flaw(&self) -> Option<TokenFlaw> {
        match self {
            Self::Refused(reject) => reject.token_flaw(),
            Self::TokenExpired => Some(TokenFlaw::Expired),
            _ => None,
        }
    }

    /// True if the user may get nothing more, not even replies to commands that were accepted before.
    pub fn is_exclusion(&self) -> bool {
        matches!(self, Self::Refused(Reject::TokenRevoked | Reject::Blocked))
    }

    /// The label in metrics and logs.
    pub fn label(&self) -> &'static str {
        match self {
            Self::ClientLeft => "client_left",
            Self::Refused(reject) => reject.code(),
            Self::TokenExpired => "token_expired",
            Self::Disconnected => "disconnected",
            Self::TooSlow => "too_slow",
            Self::Silent => "silent",
            Self::TooLarge => "too_large",
            Self::TooManyFragments => "too_many_fragments",
            Self::NotUtf8 => "not_utf8",
            Self::Protocol => "protocol",
            Self::Binary => "binary",
            Self::Flood => "flood",
            Self::Internal => "internal",
            Self::Restart(_) => "restart",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_explained_reject_shows_the_token_flaw() {
        assert_eq!(Reject::InvalidToken(TokenFlaw::Signature).to_string(), "Invalid token");
        let explained = Reject::InvalidTokenExplained(TokenFlaw::NotInFirstFrame);
        assert!(explained.to_string().contains(r#"{"type":"authenticate""#), "{explained}");
        assert_eq!(explained.code(), Reject::InvalidToken(TokenFlaw::Missing).code());
    }
}
