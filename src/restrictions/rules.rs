//! [`Rules`]: the standing restrictions, by user.

use std::collections::HashMap;

use crate::model::{Reject, Restriction, RestrictionChange, Timestamp, TokenId, UserId};

/// The standing restrictions.
#[derive(Debug, Default)]
pub(super) struct Rules {
    users: HashMap<UserId, OfUser>,
    /// The number of standing restrictions.
    count: usize,
}

/// The standing restrictions of one user.
#[derive(Debug, Default)]
struct OfUser {
    blocked: bool,
    /// Tokens that were issued up to this second are revoked.
    issued_until: Option<Timestamp>,
    /// Revoked tokens, each with the time of its revocation.
    tokens: HashMap<TokenId, Timestamp>,
}

impl OfUser {
    fn count(&self) -> usize {
        usize::from(self.blocked) + usize::from(self.issued_until.is_some()) + self.tokens.len()
    }
}

impl Rules {
    /// Checks a token of this user. A token that does not say when it was issued counts as issued before any
    /// revocation.
    pub(super) fn check(
        &self,
        user: &UserId,
        issued_at: Option<Timestamp>,
        token: Option<&TokenId>,
    ) -> Result<(), Reject> {
        let Some(rules) = self.users.get(user) else { return Ok(()) };
        if rules.blocked {
            return Err(Reject::Blocked);
        }
        let too_old = |until: Timestamp| issued_at.is_none_or(|at| at.seconds() <= until.seconds());
        let revoked = token.is_some_and(|token| rules.tokens.contains_key(token));
        if revoked || rules.issued_until.is_some_and(too_old) { Err(Reject::TokenRevoked) } else { Ok(()) }
    }

    pub(super) fn apply(&mut self, change: &RestrictionChange) {
        let rules = self.users.entry(change.user.clone()).or_default();
        let before = rules.count();
        match &change.restriction {
            Restriction::Disconnected => {}
            Restriction::Revoked { issued_until } => rules.issued_until = rules.issued_until.max(Some(*issued_until)),
            Restriction::TokenRevoked(token) => drop(rules.tokens.insert(token.clone(), change.at)),
            Restriction::Blocked => rules.blocked = true,
            Restriction::Unblocked => rules.blocked = false,
        }
        let after = rules.count();
        self.count = self.count + after - before;
        if after == 0 {
            self.users.remove(&change.user);
        }
    }

    /// Forgets revocations of tokens that were issued before this time.
    pub(super) fn forget_before(&mut self, time: Timestamp) {
        self.count = 0;
        self.users.retain(|_, rules| {
            rules.issued_until = rules.issued_until.filter(|until| *until >= time);
            rules.tokens.retain(|_, at| *at >= time);
            self.count += rules.count();
            rules.count() > 0
        });
    }

    /// The number of standing restrictions.
    pub(super) fn count(&self) -> i64 {
        i64::try_from(self.count).unwrap_or(i64::MAX)
    }
}
