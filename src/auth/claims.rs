//! [`Claims`] of a token, and their conversion to an [`Identity`].

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::model::{Identity, Timestamp, TokenFlaw, TokenId, UserId, is_blank};

/// The role that makes an admin.
pub(super) const ADMIN: &str = "admin";
/// Maximum length of a display name, in characters; longer names are truncated.
const MAX_NAME_CHARS: usize = 128;
/// Maximum length of a tier's name, in bytes; longer names are ignored.
const MAX_TIER_BYTES: usize = 64;
/// Last second of the year 9999; later times are invalid.
const LAST_SECOND: f64 = 253_402_300_799.0;
/// The same in milliseconds. A time beyond the last second and up to this one was meant in milliseconds.
const LAST_MILLISECOND: f64 = LAST_SECOND * 1_000.0;

/// The rules for claims that depend on the configuration.
pub(super) struct Rules<'a> {
    pub(super) audience: Option<&'a str>,
    pub(super) issuer: Option<&'a str>,
    pub(super) leeway: Duration,
    pub(super) lifetime_max: Duration,
}

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
    iat: Option<Value>,
    #[serde(default)]
    jti: Value,
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

impl Claims {
    /// Checks the times and converts the other claims.
    pub(super) fn into_identity(
        self,
        now: Timestamp,
        leeway: Duration,
        lifetime_max: Duration,
    ) -> Result<Identity, TokenFlaw> {
        let user = user(&self.sub)?;
        let exp = expiry(self.exp.as_ref(), now, leeway)?;
        check_not_before(self.nbf.as_ref(), now, leeway)?;
        let issued_at = issued_at(self.iat.as_ref(), now, leeway)?;
        check_lifetime(exp, issued_at, now, (leeway, lifetime_max))?;
        let name = [&self.username, &self.name].into_iter().find_map(|claim| display_name(claim.as_str()?));
        let tier = self.tier.as_str().filter(|tier| (1..=MAX_TIER_BYTES).contains(&tier.len()));
        Ok(Identity {
            name: name.unwrap_or_else(|| user.as_str().into()),
            admin: is_admin(&self.role) || is_admin(&self.roles),
            tier: tier.map(Arc::from),
            expires_at: Timestamp::from_seconds(exp),
            issued_at: issued_at.map(Timestamp::from_seconds),
            token_id: token_id(&self.jti)?,
            user,
        })
    }

    /// Every flaw of these claims, for people; `into_identity` and the library check the same and stop at the first.
    pub(super) fn flaws(claims: &Map<String, Value>, now: Timestamp, rules: &Rules<'_>) -> Vec<TokenFlaw> {
        let Rules { audience, issuer, leeway, lifetime_max } = *rules;
        let (exp, issued_at) = (expiry(claims.get("exp"), now, leeway), issued_at(claims.get("iat"), now, leeway));
        let lifetime = match (&exp, &issued_at) {
            (Ok(exp), Ok(issued_at)) => check_lifetime(*exp, *issued_at, now, (leeway, lifetime_max)),
            _ => Ok(()),
        };
        let found = [
            audience.and_then(|wanted| named(claims.get("aud"), wanted, TokenFlaw::NoAudience, TokenFlaw::Audience)),
            issuer.and_then(|wanted| named(claims.get("iss"), wanted, TokenFlaw::NoIssuer, TokenFlaw::Issuer)),
            user(claims.get("sub").unwrap_or(&Value::Null)).err(),
            exp.err(),
            check_not_before(claims.get("nbf"), now, leeway).err(),
            issued_at.err(),
            lifetime.err(),
            token_id(claims.get("jti").unwrap_or(&Value::Null)).err(),
        ];
        found.into_iter().flatten().collect()
    }
}

/// The user that `sub` names.
fn user(sub: &Value) -> Result<UserId, TokenFlaw> {
    match sub {
        Value::Null => Err(TokenFlaw::NoSubject),
        sub => UserId::deserialize(sub).map_err(|_| TokenFlaw::Subject),
    }
}

/// The seconds of `exp`, which must not have passed.
fn expiry(exp: Option<&Value>, now: Timestamp, leeway: Duration) -> Result<i64, TokenFlaw> {
    let exp = exp.filter(|exp| !exp.is_null()).ok_or(TokenFlaw::NoExpiry)?;
    let exp = seconds(exp).map_err(|unit| unit.flaw(TokenFlaw::Expiry, TokenFlaw::ExpiryInMilliseconds))?;
    if exp.saturating_add(whole_seconds(leeway)) <= now.seconds() { Err(TokenFlaw::Expired) } else { Ok(exp) }
}

/// Refuses an `nbf` in the future.
fn check_not_before(nbf: Option<&Value>, now: Timestamp, leeway: Duration) -> Result<(), TokenFlaw> {
    let Some(nbf) = nbf.filter(|nbf| !nbf.is_null()) else { return Ok(()) };
    let nbf = seconds(nbf).map_err(|unit| unit.flaw(TokenFlaw::NotBefore, TokenFlaw::NotBeforeInMilliseconds))?;
    if nbf > now.seconds().saturating_add(whole_seconds(leeway)) { Err(TokenFlaw::Early) } else { Ok(()) }
}

/// The seconds of `iat`, which must not lie in the future: a revocation up to now would not concern the token.
fn issued_at(iat: Option<&Value>, now: Timestamp, leeway: Duration) -> Result<Option<i64>, TokenFlaw> {
    let Some(iat) = iat.filter(|iat| !iat.is_null()) else { return Ok(None) };
    let iat = seconds(iat).map_err(|unit| unit.flaw(TokenFlaw::IssuedAt, TokenFlaw::IssuedAtInMilliseconds))?;
    if iat > now.seconds().saturating_add(whole_seconds(leeway)) {
        return Err(TokenFlaw::IssuedLater);
    }
    Ok(Some(iat))
}

/// Refuses a token that is valid for longer than `lifetime_max` after its issue. A token that does not say when it was
/// issued may be valid for that time from now.
pub(super) fn check_lifetime(
    exp: i64,
    issued_at: Option<i64>,
    now: Timestamp,
    (leeway, lifetime_max): (Duration, Duration),
) -> Result<(), TokenFlaw> {
    let from = issued_at.unwrap_or_else(|| now.seconds().saturating_add(whole_seconds(leeway)));
    let too_long = exp.saturating_sub(from) > whole_seconds(lifetime_max);
    if too_long { Err(TokenFlaw::TooLongLived) } else { Ok(()) }
}

/// The id of the token, if it has one. Admins must be able to name it.
fn token_id(jti: &Value) -> Result<Option<TokenId>, TokenFlaw> {
    let parsed = match jti {
        Value::Null => return Ok(None),
        Value::String(text) => TokenId::parse(text).ok(),
        Value::Number(number) if !number.is_f64() => TokenId::parse(&number.to_string()).ok(),
        _ => None,
    };
    parsed.map(Some).ok_or(TokenFlaw::TokenId)
}

/// The flaw of a claim that must be `wanted`, or a list that contains it.
fn named(claim: Option<&Value>, wanted: &str, missing: TokenFlaw, other: TokenFlaw) -> Option<TokenFlaw> {
    let fits = match claim {
        None | Some(Value::Null) => return Some(missing),
        Some(Value::Array(list)) => list.iter().any(|item| item == wanted),
        Some(one) => one == wanted,
    };
    (!fits).then_some(other)
}

fn whole_seconds(leeway: Duration) -> i64 {
    i64::try_from(leeway.as_secs()).unwrap_or(i64::MAX)
}

/// Reason why a value is no NumericDate.
enum NoSeconds {
    /// It is no number, or far out of range.
    Invalid,
    /// It is a plausible number of milliseconds.
    Milliseconds,
}

impl NoSeconds {
    fn flaw(self, invalid: TokenFlaw, milliseconds: TokenFlaw) -> TokenFlaw {
        match self {
            Self::Invalid => invalid,
            Self::Milliseconds => milliseconds,
        }
    }
}

/// A NumericDate in whole seconds, rounded down.
fn seconds(number: &Value) -> Result<i64, NoSeconds> {
    let value = number.as_f64().ok_or(NoSeconds::Invalid)?;
    #[expect(clippy::cast_possible_truncation, reason = "the range check keeps it within i64")]
    match value {
        0.0..=LAST_SECOND => Ok(value as i64),
        0.0..=LAST_MILLISECOND => Err(NoSeconds::Milliseconds),
        _ => Err(NoSeconds::Invalid),
    }
}

/// A name without control characters and surrounding blanks; `None` if nothing is left.
fn display_name(text: &str) -> Option<Arc<str>> {
    let clean: String = text.trim().chars().filter(|c| !c.is_control()).take(MAX_NAME_CHARS).collect();
    let clean = clean.trim();
    (!is_blank(clean)).then(|| clean.into())
}

fn is_admin(claim: &Value) -> bool {
    match claim {
        Value::String(role) => role == ADMIN,
        Value::Array(roles) => roles.iter().any(|role| role == ADMIN),
        _ => false,
    }
}
