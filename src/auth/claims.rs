//! [`Claims`] of a token, and their conversion to an [`Identity`].

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use serde_json::Value;

use crate::model::{Identity, Timestamp, TokenFlaw, UserId};

/// The role that makes an admin.
pub(super) const ADMIN: &str = "admin";
/// Maximum length of a display name, in characters; longer names are truncated.
const MAX_NAME_CHARS: usize = 128;
/// Maximum length of a tier's name, in bytes; longer names are ignored.
const MAX_TIER_BYTES: usize = 64;
/// Last second of the year 9999; later times are invalid.
const LAST_SECOND: f64 = 253_402_300_799.0;

/// The claims that are used, as raw JSON. Each is checked on its own, so that the refusal can name the bad one. `sub`
/// may be a number; its digits are then the user id.
#[derive(Deserialize)]
pub(super) struct Claims {
    #[serde(default)]
    sub: Value,
    #[serde(default)]
    exp: Option<Value>,
    #[serde(default)]
    nbf: Option<Value>,
    #[serde(default)]
    username: Value,
    #[serde(default)]
    name: Value,
    #[serde(default)]
    role: Value,
    #[serde(default)]
    roles: Value,
    #[serde(default)]
    tier: Value,
}

/// Reason why claims are refused.
pub(super) enum ClaimsError {
    /// They have expired.
    Expired,
    /// One of them is invalid.
    Flawed(TokenFlaw),
}

impl From<TokenFlaw> for ClaimsError {
    fn from(flaw: TokenFlaw) -> Self {
        Self::Flawed(flaw)
    }
}

impl Claims {
    /// Checks the times and converts the other claims.
    pub(super) fn into_identity(self, now: Timestamp, leeway: Duration) -> Result<Identity, ClaimsError> {
        let user: UserId = serde_json::from_value(self.sub).map_err(|_| TokenFlaw::Subject)?;
        let leeway = i64::try_from(leeway.as_secs()).unwrap_or(i64::MAX);
        let now = now.seconds();
        let exp = seconds(&self.exp.ok_or(TokenFlaw::NoExpiry)?).ok_or(TokenFlaw::Expiry)?;
        if exp.saturating_add(leeway) <= now {
            return Err(ClaimsError::Expired);
        }
        if let Some(nbf) = &self.nbf {
            let nbf = seconds(nbf).ok_or(TokenFlaw::NotBefore)?;
            if nbf > now.saturating_add(leeway) {
                return Err(TokenFlaw::Early.into());
            }
        }
        let name = [&self.username, &self.name].into_iter().find_map(|claim| display_name(claim.as_str()?));
        let tier = self.tier.as_str().filter(|tier| (1..=MAX_TIER_BYTES).contains(&tier.len()));
        Ok(Identity {
            name: name.unwrap_or_else(|| user.as_str().into()),
            admin: is_admin(&self.role) || is_admin(&self.roles),
            tier: tier.map(Arc::from),
            expires_at: Timestamp::from_seconds(exp),
            user,
        })
    }
}

/// A NumericDate in whole seconds, rounded down.
fn seconds(number: &Value) -> Option<i64> {
    let value = number.as_f64()?;
    let sane = (0.0..=LAST_SECOND).contains(&value);
    #[expect(clippy::cast_possible_truncation, reason = "the range check above keeps it within i64")]
    sane.then_some(value as i64)
}

/// A name without control characters and surrounding blanks; `None` if nothing is left.
fn display_name(text: &str) -> Option<Arc<str>> {
    let clean: String = text.trim().chars().filter(|c| !c.is_control()).take(MAX_NAME_CHARS).collect();
    let clean = clean.trim();
    (!clean.is_empty()).then(|| clean.into())
}

fn is_admin(claim: &Value) -> bool {
    match claim {
        Value::String(role) => role == ADMIN,
        Value::Array(roles) => roles.iter().any(|role| role == ADMIN),
        _ => false,
    }
}
