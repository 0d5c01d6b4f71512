//! [`Rules`]: the standing restrictions, by user.

use std::{collections::HashMap, time::Duration};

use crate::model::{Identity, Reject, Restriction, RestrictionChange, Timestamp, TokenId, UserId};

/// The claims of a token by which a revocation concerns it.
#[derive(Debug, Clone)]
pub(super) struct TokenClaims {
    issued_at: Option<Timestamp>,
    id: Option<TokenId>,
    expires_at: Timestamp,
}

impl From<&Identity> for TokenClaims {
    fn from(identity: &Identity) -> Self {
        let Identity { issued_at, token_id, expires_at, .. } = identity;
        Self { issued_at: *issued_at, id: token_id.clone(), expires_at: *expires_at }
    }
}

/// The standing restrictions.
#[derive(Debug)]
pub(super) struct Rules {
    /// Time from a token's issue after which it is not valid.
    longest_validity: Duration,
    users: HashMap<UserId, OfUser>,
    /// The number of standing restrictions.
    count: usize,
}

/// The standing restrictions of one user.
#[derive(Debug, Default)]
struct OfUser {
    blocked: bool,
    /// The revocation by time.
    by_time: Option<ByTime>,
    /// Revoked tokens, each with the time of its revocation.
    tokens: HashMap<TokenId, Timestamp>,
}

/// A revocation of the tokens that were issued up to a second.
#[derive(Debug, Clone, Copy)]
struct ByTime {
    issued_until: Timestamp,
    made_at: Timestamp,
}

impl ByTime {
    /// True if this concerns the token. The issue of a token without `iat` is unknown: it may have been issued before the
    /// revocation, unless it expires so late that no node accepted it at that time.
    fn concerns(self, token: &TokenClaims, longest_validity: Duration) -> bool {
        match token.issued_at {
            Some(at) => at.seconds() <= self.issued_until.seconds(),
            None => token.expires_at <= self.made_at.plus(longest_validity),
        }
    }
}

impl OfUser {
    fn count(&self) -> usize {
        usize::from(self.blocked) + usize::from(self.by_time.is_some()) + self.tokens.len()
    }
}

impl Rules {
    /// No rules. No token is valid for longer than `longest_validity` after its issue.
    pub(super) fn new(longest_validity: Duration) -> Self {
        Self { longest_validity, users: HashMap::new(), count: 0 }
    }

    /// Removes all rules.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.longest_validity);
    }

    /// Checks a token of this user.
    pub(super) fn check(&self, user: &UserId, token: &TokenClaims) -> Result<(), Reject> {
        let Some(rules) = self.users.get(user) else { return Ok(()) };
        if rules.blocked {
            return Err(Reject::Blocked);
        }
        let by_id = token.id.as_ref().is_some_and(|id| rules.tokens.contains_key(id));
        let by_time = rules.by_time.is_some_and(|revoked| revoked.concerns(token, self.longest_validity));
        if by_id || by_time { Err(Reject::TokenRevoked) } else { Ok(()) }
    }

    pub(super) fn apply(&mut self, change: &RestrictionChange) {
        let rules = self.users.entry(change.user.clone()).or_default();
        let before = rules.count();
        match &change.restriction {
            Restriction::Disconnected => {}
            Restriction::Revoked { issued_until } => {
                let before = rules.by_time.unwrap_or(ByTime { issued_until: *issued_until, made_at: change.at });
                let (issued_until, made_at) = (before.issued_until.max(*issued_until), before.made_at.max(change.at));
                rules.by_time = Some(ByTime { issued_until, made_at });
            }
            Restriction::TokenRevoked(token) => {
                let made_at = rules.tokens.entry(token.clone()).or_insert(change.at);
                *made_at = change.at.max(*made_at);
            }
            Restriction::Blocked => rules.blocked = true,
            Restriction::Unblocked => rules.blocked = false,
        }
        let after = rules.count();
        self.count = self.count + after - before;
        if after == 0 {
            self.users.remove(&change.user);
        }
    }

    /// Forgets revocations that were made before this time.
    pub(super) fn forget_made_before(&mut self, time: Timestamp) {
        self.count = 0;
        self.users.retain(|_, rules| {
            rules.by_time = rules.by_time.filter(|revoked| revoked.made_at >= time);
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
