//! Restrictions: what admins do to keep a user out. A change of restrictions ends sockets, revokes tokens, or blocks or
//! unblocks a user; the store holds the changes in order.

use std::{fmt, sync::Arc};

use serde::Serialize;

use super::{Timestamp, UserId};

/// Maximum length of a token's id, in characters.
const MAX_TOKEN_ID_CHARS: usize = 256;

/// The text is not a valid id of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a jti has 1 to 256 characters and no control characters")]
pub struct InvalidTokenId;

/// The id of a token: its `jti`.
#[derive(Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct TokenId(Arc<str>);

impl TokenId {
    /// Checks `text` and makes it an id.
    ///
    /// # Errors
    /// It is empty, too long, or has control characters.
    pub fn parse(text: &str) -> Result<Self, InvalidTokenId> {
        let length = text.chars().take(MAX_TOKEN_ID_CHARS + 1).count();
        let valid = (1..=MAX_TOKEN_ID_CHARS).contains(&length) && !text.chars().any(char::is_control);
        if valid { Ok(Self(text.into())) } else { Err(InvalidTokenId) }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A change that an admin asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestrictionRequest {
    /// End the user's sockets.
    Disconnect,
    /// Revoke the user's tokens that were issued up to this second; `None`: up to now, by the store's clock.
    RevokeIssued(Option<Timestamp>),
    /// Revoke one token of the user.
    RevokeToken(TokenId),
    /// Block the user: no token of theirs is accepted.
    Block,
    /// End the block.
    Unblock,
}

/// The effect of a change on its user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Restriction {
    /// The user's sockets end; nothing else changes.
    Disconnected,
    /// The user's tokens that were issued up to this second are revoked.
    Revoked {
        /// The second.
        issued_until: Timestamp,
    },
    /// This token of the user is revoked.
    TokenRevoked(TokenId),
    /// The user is blocked.
    Blocked,
    /// The user is not blocked any more.
    Unblocked,
}

impl Restriction {
    /// The name in logs.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Disconnected => "disconnect",
            Self::Revoked { .. } => "revoke",
            Self::TokenRevoked(_) => "revoke_token",
            Self::Blocked => "block",
            Self::Unblocked => "unblock",
        }
    }
}

/// A stored change of restrictions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestrictionChange {
    /// Its number. A later change has a higher one.
    pub id: i64,
    /// The user.
    pub user: UserId,
    /// The effect.
    pub restriction: Restriction,
    /// Time at which the store accepted it.
    pub at: Timestamp,
    /// The author: an admin's user id, or `~cli` with an optional name for the command line. No user id has a `~`.
    pub by: Arc<str>,
}

impl RestrictionChange {
    /// The place of this change in the store's order.
    pub fn mark(&self) -> RestrictionMark {
        RestrictionMark { id: self.id, at: self.at }
    }
}

/// A place in the store's order of changes; the default is the one before the first. The time tells apart two changes
/// with the same number, of which one was lost when the database was restored from a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestrictionMark {
    /// The number of the change.
    pub id: i64,
    /// Its time.
    pub at: Timestamp,
}

impl Default for RestrictionMark {
    fn default() -> Self {
        Self { id: 0, at: Timestamp::from_micros(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_ids_are_bounded_and_printable() {
        for good in ["a", "6e6f-4d", "ä b/#", &"ä".repeat(256)] {
            assert!(TokenId::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "a\nb", "\u{0}", &"x".repeat(257)] {
            assert!(TokenId::parse(bad).is_err(), "{bad:?}");
        }
    }
}
