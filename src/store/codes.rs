//! The small numbers in table columns and in the results of SQL functions, as Rust enums.
//!
//! A number is never reused. On PostgreSQL, comments on the columns and functions give the same names
//! (the newest migration that comments on them); a test below compares them with this file. SQLite uses the same
//! numbers in the columns of the same names.

use super::Authority;
use crate::model::ConversationKind;

/// A number without a name: a newer version of this program, or another program, wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{number} is not a known {what}")]
pub(super) struct UnknownCode {
    what: &'static str,
    number: i16,
}

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident, $what:literal: $($(#[$of:meta])* $variant:ident = $number:literal $text:literal,)+) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(i16)]
        pub(super) enum $name {
            $($(#[$of])* $variant = $number,)+
        }

        #[cfg(test)]
        impl $name {
            /// All codes, formatted as in the SQL comments.
            fn legend() -> Vec<&'static str> {
                vec![$(concat!(stringify!($number), " ", $text)),+]
            }
        }

        impl From<$name> for i16 {
            fn from(of: $name) -> Self {
                of as Self
            }
        }

        impl TryFrom<i16> for $name {
            type Error = UnknownCode;

            fn try_from(number: i16) -> Result<Self, UnknownCode> {
                match number {
                    $($number => Ok(Self::$variant),)+
                    _ => Err(UnknownCode { what: $what, number }),
                }
            }
        }
    };
}

codes! {
    /// The kind of an entry: `log.kind`.
    EntryKind, "kind of entry":
    Message = 0 "message",
    Edited = 1 "edited",
    Deleted = 2 "deleted",
    Reacted = 3 "reacted",
    MemberAdded = 4 "member added",
    MemberRemoved = 5 "member removed",
    ConversationAdded = 6 "conversation added",
    ConversationRemoved = 7 "conversation removed",
    Notified = 8 "notified",
}

codes! {
    /// The result of an append: `o_outcome` of the functions that append.
    AppendCode, "outcome of an append":
    Stored = 0 "stored",
    NotMember = 1 "not a member",
    NoSuchLog = 2 "no such log",
    NoSuchTarget = 3 "no such target",
    StoredBefore = 4 "stored before",
    NotYours = 5 "not the sender's own",
    Unchanged = 6 "nothing to change",
    TooManyReactions = 7 "too many reactions",
    Barred = 8 "may not be added or reached",
    IdReused = 9 "id used for another command",
}

codes! {
    /// The right under which a change is appended: `p_authority`.
    AuthorityCode, "authority":
    Member = 0 "member",
    Admin = 1 "admin",
    System = 2 "system",
}

codes! {
    /// The kind of a conversation: `conversations.kind`.
    ConversationCode, "kind of conversation":
    Group = 0 "group",
    Direct = 1 "direct",
}

codes! {
    /// How a membership ended: `former_members.ending`.
    FormerCode, "end of a membership":
    Left = 0 "left",
    Removed = 1 "removed",
}

codes! {
    /// The kind of a change of restrictions: `restriction_changes.kind`.
    RestrictionCode, "kind of restriction":
    Disconnected = 0 "disconnected",
    Revoked = 1 "revoked",
    TokenRevoked = 2 "token revoked",
    Blocked = 3 "blocked",
    Unblocked = 4 "unblocked",
}

codes! {
    /// The result of a change of restrictions: `o_outcome` of `restrict_user`.
    RestrictCode, "outcome of a restriction":
    Changed = 0 "changed",
    Unchanged = 1 "unchanged",
    TooMany = 2 "too many",
}

impl From<Authority> for AuthorityCode {
    fn from(authority: Authority) -> Self {
        match authority {
            Authority::Member => Self::Member,
            Authority::Admin => Self::Admin,
            Authority::System => Self::System,
        }
    }
}

impl From<ConversationCode> for ConversationKind {
    fn from(code: ConversationCode) -> Self {
        match code {
            ConversationCode::Group => Self::Group,
            ConversationCode::Direct => Self::Direct,
        }
    }
}

/// Returns the kind for a new conversation: direct if it has a direct key.
pub(super) fn kind_of(direct_key: Option<&str>) -> ConversationCode {
    if direct_key.is_some() { ConversationCode::Direct } else { ConversationCode::Group }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Status;

    #[test]
    fn sql_comments_name_the_same_codes() {
        let sql = [
            include_str!("../../migrations/postgres/V5__names_of_codes.sql"),
            include_str!("../../migrations/postgres/V7__bounds_of_reactions.sql"),
            include_str!("../../migrations/postgres/V8__blocks_and_former_members.sql"),
            include_str!("../../migrations/postgres/V9__fingerprints.sql"),
            include_str!("../../migrations/postgres/V13__data.sql"),
            include_str!("../../migrations/postgres/V14__restrictions.sql"),
        ];
        let sql = sql.concat().replace("''", "'");
        let statuses = Status::ALL.map(|status| {
            let name = serde_json::to_value(status).unwrap();
            format!("{} {}", status.code(), name.as_str().unwrap())
        });
        let statuses = statuses.iter().map(String::as_str).collect();
        for legend in [
            EntryKind::legend(),
            AppendCode::legend(),
            AuthorityCode::legend(),
            ConversationCode::legend(),
            FormerCode::legend(),
            RestrictionCode::legend(),
            RestrictCode::legend(),
            statuses,
        ] {
            // One comment has all of them, in this order.
            let named = |line: &str| {
                let places: Option<Vec<usize>> = legend.iter().map(|code| line.find(code)).collect();
                places.is_some_and(|places| places.is_sorted())
            };
            assert!(sql.lines().any(named), "{legend:?}");
        }
    }

    #[test]
    fn codes_convert_to_names_and_back() {
        for number in 0..9 {
            assert_eq!(i16::from(EntryKind::try_from(number).unwrap()), number);
        }
        assert_eq!(AppendCode::try_from(4), Ok(AppendCode::StoredBefore));
        let unknown = AppendCode::try_from(99).unwrap_err();
        assert_eq!(unknown.to_string(), "99 is not a known outcome of an append");
        assert!(ConversationCode::try_from(-1).is_err());
    }
}
