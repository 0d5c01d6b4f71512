//! Tokens: verifies JWTs and mints them.
//!
//! Each key is pinned to one algorithm. A token's header only selects a key by its `kid`, never an algorithm, a URL or
//! a key of its own. Time comes from the [`Clock`], so that tests control it.

use std::{error::Error, sync::Arc, time::Duration};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::Serialize;

mod checks;
mod claims;
mod flaws;
mod inspect;
mod jwks;
mod remedy;

use checks::Checks;
use claims::{Claims, Rules};
use flaws::MAX_TOKEN_BYTES;
use jwks::{Found, Jwks};

pub use inspect::{Inspection, SHOWN_CLAIMS, SignatureCheck};
pub use jwks::KeyReport;
pub use remedy::remedy;

use crate::{
    config::{AuthConfig, AuthKey, Secret},
    model::{Clock, Identity, Reject, Timestamp, TokenFlaw, TokenId, UserId},
    restrictions::{Restrictions, SessionTicket},
};

/// Error that prevents the verification of any token.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The HTTP client for published keys could not be created.
    #[error("cannot fetch keys: {0}")]
    Client(String),
    /// The shared secret is empty.
    #[error("the shared secret is empty")]
    Secret,
}

/// The user and the claims of a token to be minted.
#[derive(Debug, Clone, Copy)]
pub struct Grant<'a> {
    /// The user's id, the token's `sub`.
    pub user: &'a UserId,
    /// The user's display name; without one the id is shown.
    pub name: Option<&'a str>,
    /// The user's role: `admin`, or a role of the application.
    pub role: Option<&'a str>,
    /// The user's tier, which selects rate limits.
    pub tier: Option<&'a str>,
}

impl<'a> From<&'a Identity> for Grant<'a> {
    fn from(identity: &'a Identity) -> Self {
        Self {
            user: &identity.user,
            name: Some(&identity.name),
            role: identity.admin.then_some(claims::ADMIN),
            tier: identity.tier.as_deref(),
        }
    }
}

/// A token that this program minted.
#[derive(Clone)]
pub struct Minted {
    /// The token.
    pub token: String,
    /// Time of its expiry.
    pub expires_at: Timestamp,
    /// Time from now until its expiry.
    pub expires_in: Duration,
}

/// Verifies tokens, and mints them if a shared secret is configured.
pub struct Auth {
    keys: Keys,
    audience: Option<String>,
    issuer: Option<String>,
    leeway: Duration,
    /// Longest time from a token's issue to its expiry.
    lifetime_max: Duration,
    /// The users and tokens that admins keep out.
    restrictions: Arc<Restrictions>,
    /// True if refusals tell clients the flaw of their token.
    explains: bool,
    /// Ids of personas, which no user may have.
    persona_ids: Arc<[UserId]>,
    clock: Clock,
}

/// Reason why a token has no identity.
enum Refused {
    /// The token has a flaw.
    Flaw(TokenFlaw),
    /// Its key must be fetched first.
    NotFetched,
}

impl From<TokenFlaw> for Refused {
    fn from(flaw: TokenFlaw) -> Self {
        Self::Flaw(flaw)
    }
}

enum Keys {
    /// One key; during the rotation of a shared secret also the previous one. A shared secret can mint tokens too.
    Static { checks: Box<Checks>, previous: Option<Box<Checks>>, signing_key: Option<EncodingKey> },
    /// Keys that are published under a URL.
    Published(Jwks),
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Auth")
    }
}

impl Auth {
    /// Prepares the keys of `config`. [`Auth::keep_fresh`] fetches published keys.
    ///
    /// # Errors
    /// The HTTP client for published keys could not be created.
    pub fn new(config: &AuthConfig, clock: Clock, restrictions: Arc<Restrictions>) -> Result<Self, AuthError> {
        let checks = |key: DecodingKey, algorithm| Box::new(Checks { key, validation: validation(config, algorithm) });
        let keys = match &config.key {
            AuthKey::Secret { secret, previous, algorithm } => {
                let decoding_key = |secret: &Secret| {
                    DecodingKey::from_secret(secret.reveal().as_bytes()).map_err(|_| AuthError::Secret)
                };
                let previous = previous.as_ref().map(decoding_key).transpose()?;
                let signing_key = EncodingKey::from_secret(secret.reveal().as_bytes());
                Keys::Static {
                    checks: checks(decoding_key(secret)?, *algorithm),
                    previous: previous.map(|key| checks(key, *algorithm)),
                    signing_key: Some(signing_key.map_err(|_| AuthError::Secret)?),
                }
            }
            AuthKey::Public { key, algorithm } => {
                Keys::Static { checks: checks(key.clone(), *algorithm), previous: None, signing_key: None }
            }
            AuthKey::Jwks(published) => {
                let config = config.clone();
                let validation = move |algorithm| validation(&config, algorithm);
                let jwks = Jwks::new(published, Box::new(validation));
                Keys::Published(jwks.map_err(|error| AuthError::Client(error.to_string()))?)
            }
        };
        let (audience, issuer) = (config.audience.clone(), config.issuer.clone());
        let AuthConfig { leeway, lifetime_max, explains, .. } = *config;
        let persona_ids = config.persona_ids.clone();
        Ok(Self { keys, audience, issuer, leeway, lifetime_max, restrictions, explains, persona_ids, clock })
    }

    /// Tolerated clock difference: a token is valid until `expires_at` plus this.
    pub fn leeway(&self) -> Duration {
        self.leeway
    }

    /// Verifies a token and returns its identity.
    ///
    /// # Errors
    /// [`Reject::TokenExpired`]; [`Reject::TokenRevoked`] and [`Reject::Blocked`] if an admin keeps it out;
    /// [`Reject::Unavailable`] if the token names a published key that must be fetched first, or until the restrictions
    /// were read; [`Reject::InvalidToken`] for any other flaw.
    pub fn verify(&self, token: &str) -> Result<Identity, Reject> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(self.refusal(TokenFlaw::TooLong));
        }
        let identity = self.identity(token).map_err(|refused| match refused {
            Refused::Flaw(flaw) => self.refusal(flaw),
            Refused::NotFetched => Reject::Unavailable,
        })?;
        self.restrictions.check(&identity)?;
        Ok(identity)
    }

    /// Checks again that no admin keeps out a token that was verified a while ago.
    ///
    /// # Errors
    /// [`Reject::TokenRevoked`] or [`Reject::Blocked`].
    pub fn check_again(&self, identity: &Identity) -> Result<(), Reject> {
        self.restrictions.check(identity)
    }

    /// Lists a socket with a verified token, so that admins can end it.
    ///
    /// # Errors
    /// As [`Auth::check_again`]: the token may have been revoked since its verification.
    pub fn admit(&self, identity: &Identity) -> Result<SessionTicket, Reject> {
        self.restrictions.admit(identity)
    }

    /// The refusal of a token; it names the flaw if `explains` is set.
    pub fn refusal(&self, flaw: TokenFlaw) -> Reject {
        match flaw {
            TokenFlaw::Expired => Reject::TokenExpired,
            flaw if self.explains => Reject::InvalidTokenExplained(flaw),
            flaw => Reject::InvalidToken(flaw),
        }
    }

    fn identity(&self, token: &str) -> Result<Identity, Refused> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| flaws::of_header(token))?;
        // No JWS extension is supported, so a token with `crit` must be refused (RFC 7515, 4.1.11).
        if header.crit.is_some() {
            return Err(TokenFlaw::Critical.into());
        }
        match &self.keys {
            Keys::Static { checks, previous, .. } => match (self.check(token, checks), previous) {
                (Err(TokenFlaw::Signature), Some(previous)) => Ok(self.check(token, previous)?),
                (checked, _) => Ok(checked?),
            },
            Keys::Published(jwks) => match jwks.key(header.kid.as_deref()) {
                Found::Key(checks) => Ok(self.check(token, &checks)?),
                Found::None => Err(TokenFlaw::UnknownKey.into()),
                Found::Ambiguous => Err(TokenFlaw::NoKeyId.into()),
                Found::NotFetched => Err(Refused::NotFetched),
            },
        }
    }

    fn check(&self, token: &str, checks: &Checks) -> Result<Identity, TokenFlaw> {
        let data = jsonwebtoken::decode::<Claims>(token, &checks.key, &checks.validation)
            .map_err(|error| flaws::of_error(token, error.kind()))?;
        let identity = data.claims.into_identity(self.clock.now(), self.leeway, self.lifetime_max)?;
        if self.persona_ids.contains(&identity.user) { Err(TokenFlaw::Persona) } else { Ok(identity) }
    }

    /// Refuses a user id that belongs to a persona.
    ///
    /// # Errors
    /// It does.
    pub fn check_user(&self, user: &UserId) -> Result<(), Reject> {
        if self.persona_ids.contains(user) { Err(self.refusal(TokenFlaw::Persona)) } else { Ok(()) }
    }

    /// Mints a token that expires after `ttl`. One that is derived from another token does not outlive that `parent`, and
    /// has its time of issue and its id, so that a revocation of the parent concerns both.
    ///
    /// # Errors
    /// [`Reject::Unsupported`] if tokens are verified with public keys; [`Reject::InvalidToken`] if the id belongs to a
    /// persona, or if the token would live longer than allowed; [`Reject::TokenExpired`] if the parent has expired.
    pub fn mint(&self, grant: Grant<'_>, ttl: Duration, parent: Option<&Identity>) -> Result<Minted, Reject> {
        let Keys::Static { checks, signing_key: Some(key), .. } = &self.keys else {
            return Err(Reject::Unsupported(
                "Tokens can't be made here: this deployment only checks them (no JWT_SECRET)",
            ));
        };
        self.check_user(grant.user)?;
        let now = self.clock.now().seconds();
        let ttl = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let exp = now.saturating_add(ttl).min(parent.map_or(i64::MAX, |parent| parent.expires_at.seconds()));
        if exp <= now {
            return Err(Reject::TokenExpired);
        }
        let issued_at = parent.map_or(Some(now), |parent| parent.issued_at.map(Timestamp::seconds));
        claims::check_lifetime(exp, issued_at, self.clock.now(), (self.leeway, self.lifetime_max))
            .map_err(|flaw| self.refusal(flaw))?;
        let claims = MintedClaims {
            sub: grant.user.as_str(),
            username: grant.name,
            role: grant.role,
            tier: grant.tier,
            iat: issued_at,
            exp,
            jti: parent.and_then(|parent| parent.token_id.as_ref()).map(TokenId::as_str),
            aud: self.audience.as_deref(),
            iss: self.issuer.as_deref(),
        };
        // `validation` pins exactly one algorithm.
        let algorithm = checks.validation.algorithms.first().copied().unwrap_or_default();
        let token = jsonwebtoken::encode(&Header::new(algorithm), &claims, key)
            .map_err(|_| Reject::Unsupported("Tokens can't be made with this key"))?;
        let expires_in = Duration::from_secs((exp - now).unsigned_abs());
        Ok(Minted { token, expires_at: Timestamp::from_seconds(exp), expires_in })
    }

    /// Refreshes published keys until the task is cancelled, and reports each fetch. With a static key it returns at
    /// once.
    pub async fn keep_fresh(&self, report: impl Fn(KeyReport)) {
        if let Keys::Published(jwks) = &self.keys {
            jwks.keep_fresh(report).await;
        }
    }

    /// Fetches published keys now and returns their number; `None` with a static key.
    ///
    /// # Errors
    /// The reason why they could not be fetched.
    pub async fn fetch_keys(&self) -> Option<Result<usize, Box<dyn Error + Send + Sync>>> {
        match &self.keys {
            Keys::Static { .. } => None,
            Keys::Published(jwks) => Some(jwks.fetch().await.map_err(Box::from)),
        }
    }
}

/// Explains a token. Without keys, `auth` holds the reason, and the signature, `aud` and `iss` are not checked.
/// Published keys must have been fetched.
pub fn inspect(token: &str, auth: Result<&Auth, String>, clock: &Clock) -> Inspection {
    let none = Rules { audience: None, issuer: None, leeway: Duration::ZERO, lifetime_max: Duration::MAX };
    let rules = auth.as_ref().map_or(none, |auth| Rules {
        audience: auth.audience.as_deref(),
        issuer: auth.issuer.as_deref(),
        leeway: auth.leeway,
        lifetime_max: auth.lifetime_max,
    });
    let verified = auth.as_ref().map(|auth| auth.verify(token)).map_err(Clone::clone);
    inspect::explain(token, verified, &rules, clock.now())
}

/// Claims of a minted token.
#[derive(Serialize)]
struct MintedClaims<'a> {
    sub: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<i64>,
    exp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
}

/// Configures the library to check the signature, the algorithm, `aud` and `iss`. [`Claims`] checks the rest.
fn validation(config: &AuthConfig, algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    // The library would use the system's time instead of the `Clock`.
    (validation.validate_exp, validation.validate_nbf) = (false, false);
    // `Claims` requires `exp`, because it can name the flaw.
    let mut required = Vec::new();
    validation.validate_aud = config.audience.is_some();
    if let Some(audience) = &config.audience {
        validation.set_audience(&[audience]);
        required.push("aud");
    }
    if let Some(issuer) = &config.issuer {
        validation.set_issuer(&[issuer]);
        required.push("iss");
    }
    validation.set_required_spec_claims(&required);
    validation
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
