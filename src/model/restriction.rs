//! Restrictions: what admins do to keep a user out. A change of restrictions ends sockets, revokes tokens, or blocks or
//! unblocks a user; the store holds the changes in order.

use std::{fmt, sync::Arc};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::Serialize;

use super::{Timestamp, UserId};

/// Maximum length of a token's id, in characters.
const MAX_TOKEN_ID_CHARS: usize = 256;

/// The text is not a valid id of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTokenId {
    /// It is empty, too long, or has control characters.
    #[error("a jti has 1 to 256 characters and no control characters")]
    Form,
    /// It is a token itself, which is a secret and names nothing.
    #[error("this is a token, not its id: take the jti claim of the token (switchboard token --inspect shows it)")]
    Token,
}

/// The id of a token: its `jti`.
#[derive(Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct TokenId(Arc<str>);

impl TokenId {
    /// Checks `text` and makes it an id.
    ///
    /// # Errors
    /// It is empty, too long, or has control characters; or it is a whole token.
    pub fn parse(text: &str) -> Result<Self, InvalidTokenId> {
        if is_token(text) {
            return Err(InvalidTokenId::Token);
        }
        let length = text.chars().take(MAX_TOKEN_ID_CHARS + 1).count();
        let valid = (1..=MAX_TOKEN_ID_CHARS).contains(&length) && !text.chars().any(char::is_control);
        if valid { Ok(Self(text.into())) } else { Err(InvalidTokenId::Form) }
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

/// True for the form of a JWT: three parts in base64url, the first of which is a JSON object.
fn is_token(text: &str) -> bool {
    let text = text.split_whitespace().next_back().unwrap_or_default();
    let Some((header, rest)) = text.split_once('.') else { return false };
    let is_base64 = |part: &str| part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_=".contains(&byte));
    let Some((claims, signature)) = rest.split_once('.') else { return false };
    let header = BASE64_URL_SAFE_NO_PAD.decode(header.trim_end_matches('=')).unwrap_or_default();
    let object = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&header);
    object.is_ok() && is_base64(claims) && is_base64(signature)
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
            assert_eq!(TokenId::parse(bad), Err(InvalidTokenId::Form), "{bad:?}");
        }
    }

    #[test]
    fn a_token_is_no_id() {
        let token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl";
        let long = format!("{token}{}", "x".repeat(500));
        for token in [token, &long, &format!("Bearer {token}"), &format!("{token}\n"), "eyJhbGciOiJub25lIn0.e30."] {
            assert_eq!(TokenId::parse(token), Err(InvalidTokenId::Token), "{token}");
        }
        for id in ["a.b.c", "eyJhbGciOiJIUzI1NiJ9", "eyJhbGciOiJIUzI1NiJ9.x", "https://id.example.com/t/1.2.3"] {
            assert!(TokenId::parse(id).is_ok(), "{id}");
        }
    }
}
