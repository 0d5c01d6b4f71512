//! Who somebody is, and how they wish to be seen.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Timestamp, UserId};

/// Who a token says somebody is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The token's `sub`.
    pub user: UserId,
    /// The display name: claim `username`, else `name`, else `sub`.
    pub name: Arc<str>,
    /// Whether `role` (or `roles`) says admin.
    pub admin: bool,
    /// The class for limits: claim `tier`.
    pub tier: Option<Arc<str>>,
    /// When the token expires, and with it the socket.
    pub expires_at: Timestamp,
}

/// The two members of a direct conversation, in either order; they may be one and the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pair(UserId, UserId);

impl Pair {
    /// These two, whoever comes first.
    pub fn of(one: &UserId, other: &UserId) -> Self {
        Self(one.min(other).clone(), one.max(other).clone())
    }

    /// The one who is not `user`.
    pub fn other(&self, user: &UserId) -> &UserId {
        if self.0 == *user { &self.1 } else { &self.0 }
    }
}

/// How a user wishes to be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// There, and to be disturbed.
    #[default]
    #[serde(alias = "active")]
    Online,
    /// Not at the keyboard.
    Away,
    /// Do not disturb.
    #[serde(alias = "do_not_disturb")]
    Dnd,
    /// There, but shown to others as offline.
    Invisible,
}

impl Status {
    /// Every status, with the number the store keeps for it.
    pub const ALL: [Self; 4] = [Self::Online, Self::Away, Self::Dnd, Self::Invisible];

    /// The number the store keeps.
    pub fn code(self) -> i16 {
        self as i16
    }

    /// The status the store's number means; what is unknown reads as online.
    pub fn from_code(code: i16) -> Self {
        Self::ALL.into_iter().find(|status| status.code() == code).unwrap_or_default()
    }
}
