//! Users: identity from the token, pairs and status.

use std::{cmp::Ordering, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{Timestamp, TokenId, UserId};

/// The identity that a token proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The token's `sub`.
    pub user: UserId,
    /// The display name: claim `username`, else `name`, else `sub`.
    pub name: Arc<str>,
    /// True if claim `role` (or `roles`) contains admin.
    pub admin: bool,
    /// The class for rate limits: claim `tier`.
    pub tier: Option<Arc<str>>,
    /// Expiry of the token; the socket is closed then.
    pub expires_at: Timestamp,
    /// Time at which the token was issued (`iat`), in whole seconds; `None` if it does not say.
    pub issued_at: Option<Timestamp>,
    /// The token's id (`jti`), if it has one.
    pub token_id: Option<TokenId>,
}

impl Identity {
    /// True if this token takes the place of `other` on a socket: it was issued later, or in the same second and does not
    /// expire sooner. If one of them does not say when it was issued, the expiry decides.
    pub fn replaces(&self, other: &Self) -> bool {
        let issued = self.issued_at.zip(other.issued_at).map(|(new, old)| new.seconds().cmp(&old.seconds()));
        issued.unwrap_or(Ordering::Equal).then(self.expires_at.cmp(&other.expires_at)).is_ge()
    }
}

/// The two members of a direct conversation, unordered; both may be the same user.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pair(UserId, UserId);

impl Pair {
    /// Builds the pair in a fixed order.
    pub fn of(one: &UserId, other: &UserId) -> Self {
        Self(one.min(other).clone(), one.max(other).clone())
    }

    /// Both members; the same user twice if they write to themselves.
    pub fn users(&self) -> [&UserId; 2] {
        [&self.0, &self.1]
    }

    /// The member who is not `user`.
    pub fn other(&self, user: &UserId) -> &UserId {
        if self.0 == *user { &self.1 } else { &self.0 }
    }
}

/// The status that a user shows to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Online and available.
    #[default]
    #[serde(alias = "active")]
    Online,
    /// Away from the keyboard.
    Away,
    /// Do not disturb.
    #[serde(alias = "do_not_disturb")]
    Dnd,
    /// Online, but shown to others as offline.
    Invisible,
}

impl Status {
    /// Every status, in the order of the numbers that the store keeps.
    pub const ALL: [Self; 4] = [Self::Online, Self::Away, Self::Dnd, Self::Invisible];

    /// The number that the store keeps.
    pub fn code(self) -> i16 {
        self as i16
    }

    /// The status for a stored number; an unknown number gives `Online`.
    pub fn from_code(code: i16) -> Self {
        Self::ALL.into_iter().find(|status| status.code() == code).unwrap_or_default()
    }
}
