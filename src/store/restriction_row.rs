//! The table columns of a change of restrictions, which are the same in both backends.

use super::{
    codes::{RestrictionCode, UnknownCode},
    values::RestrictionRow,
};
use crate::model::{
    InvalidId, InvalidTokenId, Restriction, RestrictionChange, RestrictionMark, RestrictionRequest, Timestamp, TokenId,
    UserId,
};

/// The columns of a [`Columns`], in the order of its fields.
macro_rules! restriction_columns {
    () => {
        "id, kind, user_id, token, issued_until, made_at, made_by"
    };
}
pub(super) use restriction_columns;

/// One row of the table.
pub(super) struct Columns {
    pub(super) id: i64,
    pub(super) kind: i16,
    pub(super) user: String,
    pub(super) token: Option<String>,
    pub(super) issued_until: Option<i64>,
    pub(super) at: Timestamp,
    pub(super) by: String,
}

/// Reason why a row can't be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error(transparent)]
    Kind(#[from] UnknownCode),
    #[error("{0}")]
    User(#[from] InvalidId),
    #[error("{0}")]
    Token(#[from] InvalidTokenId),
}

impl TryFrom<Columns> for RestrictionChange {
    type Error = Unreadable;

    fn try_from(row: Columns) -> Result<Self, Unreadable> {
        let issued_until = Timestamp::from_seconds(row.issued_until.unwrap_or_default());
        let restriction = match RestrictionCode::try_from(row.kind)? {
            RestrictionCode::Disconnected => Restriction::Disconnected,
            RestrictionCode::Revoked => Restriction::Revoked { issued_until },
            RestrictionCode::TokenRevoked => {
                Restriction::TokenRevoked(TokenId::parse(row.token.as_deref().unwrap_or_default())?)
            }
            RestrictionCode::Blocked => Restriction::Blocked,
            RestrictionCode::Unblocked => Restriction::Unblocked,
        };
        Ok(Self { id: row.id, user: UserId::parse(&row.user)?, restriction, at: row.at, by: row.by.into() })
    }
}

impl From<Columns> for RestrictionRow {
    /// A row that this version can't read is logged and has no change: one bad row must not keep a node from the others.
    fn from(row: Columns) -> Self {
        let mark = RestrictionMark { id: row.id, at: row.at };
        let change = RestrictionChange::try_from(row);
        let change = change.inspect_err(|error| tracing::error!(id = mark.id, %error, "unreadable restriction"));
        Self { mark, change: change.ok() }
    }
}

/// The columns that a request writes: kind, token and second.
pub(super) fn parts(request: &RestrictionRequest) -> (RestrictionCode, Option<&str>, Option<i64>) {
    match request {
        RestrictionRequest::Disconnect => (RestrictionCode::Disconnected, None, None),
        RestrictionRequest::RevokeIssued(until) => (RestrictionCode::Revoked, None, until.map(Timestamp::seconds)),
        RestrictionRequest::RevokeToken(token) => (RestrictionCode::TokenRevoked, Some(token.as_str()), None),
        RestrictionRequest::Block => (RestrictionCode::Blocked, None, None),
        RestrictionRequest::Unblock => (RestrictionCode::Unblocked, None, None),
    }
}
