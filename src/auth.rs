//! Tokens: verifies JWTs and mints them.
//!
//! Each key is pinned to one algorithm. A token's header only selects a key by its `kid`, never an algorithm, a URL or
//! a key of its own. Time comes from the [`Clock`], so that tests control it.

use std::{error::Error, time::Duration};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, errors::ErrorKind};
use serde::Serialize;

mod checks;
mod claims;
mod jwks;

use checks::Checks;
use claims::{Claims, ClaimsError};
use jwks::{Found, Jwks};

use crate::{
    config::{AuthConfig, AuthKey},
    model::{Clock, Identity, Reject, Timestamp, TokenFlaw, UserId},
};

/// Maximum length of a token, in bytes. Longer tokens are refused without being parsed.
const MAX_TOKEN_BYTES: usize = 8 * 1_024;

/// Error that prevents the verification of any token.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The HTTP client for published keys could not be created.
    #[error("cannot fetch keys: {0}")]
    Client(String),
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
    /// True if refusals tell clients the flaw of their token.
    explains: bool,
    clock: Clock,
}

enum Keys {
    /// One key. A shared secret can mint tokens too.
    Static { checks: Box<Checks>, signing_key: Option<EncodingKey> },
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
    pub fn new(config: &AuthConfig, clock: Clock) -> Result<Self, AuthError> {
        let checks = |key: DecodingKey, algorithm| Box::new(Checks { key, validation: validation(config, algorithm) });
        let keys = match &config.key {
            AuthKey::Secret { secret, algorithm } => {
                let secret = secret.reveal().as_bytes();
                let key = DecodingKey::from_secret(secret);
                Keys::Static { checks: checks(key, *algorithm), signing_key: Some(EncodingKey::from_secret(secret)) }
            }
            AuthKey::Public { key, algorithm } => {
                Keys::Static { checks: checks(key.clone(), *algorithm), signing_key: None }
            }
            AuthKey::Jwks { url } => {
                let config = config.clone();
                let validation = move |algorithm| validation(&config, algorithm);
                Keys::Published(Jwks::new(url, Box::new(validation)).map_err(|e| AuthError::Client(e.to_string()))?)
            }
        };
        let (audience, issuer) = (config.audience.clone(), config.issuer.clone());
        Ok(Self { keys, audience, issuer, leeway: config.leeway, explains: config.explains, clock })
    }

    /// Tolerated clock difference: a token is valid until `expires_at` plus this.
    pub fn leeway(&self) -> Duration {
        self.leeway
    }

    /// Verifies a token and returns its identity.
    ///
    /// # Errors
    /// [`Reject::TokenExpired`]; [`Reject::Unavailable`] if the token names a published key that must be fetched first;
    /// [`Reject::InvalidToken`] for any other flaw.
    pub fn verify(&self, token: &str) -> Result<Identity, Reject> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(self.refusal(TokenFlaw::TooLong));
        }
        let header = jsonwebtoken::decode_header(token).map_err(|error| self.refusal(header_flaw(error.kind())))?;
        match &self.keys {
            Keys::Static { checks, .. } => self.check(token, checks),
            Keys::Published(jwks) => match jwks.key(header.kid.as_deref()) {
                Found::Key(checks) => self.check(token, &checks),
                Found::None => Err(self.refusal(TokenFlaw::UnknownKey)),
                Found::NotFetched => Err(Reject::Unavailable),
            },
        }
    }

    /// The refusal of a token; it names the flaw if `explains` is set.
    pub fn refusal(&self, flaw: TokenFlaw) -> Reject {
        if self.explains { Reject::InvalidTokenExplained(flaw) } else { Reject::InvalidToken(flaw) }
    }

    fn check(&self, token: &str, checks: &Checks) -> Result<Identity, Reject> {
        let data = jsonwebtoken::decode::<Claims>(token, &checks.key, &checks.validation)
            .map_err(|error| self.refusal(flaw(error.kind())))?;
        // No JWS extension is supported, so a token with `crit` must be refused (RFC 7515, 4.1.11).
        if data.header.crit.is_some() {
            return Err(self.refusal(TokenFlaw::Critical));
        }
        data.claims.into_identity(self.clock.now(), self.leeway).map_err(|error| match error {
            ClaimsError::Expired => Reject::TokenExpired,
            ClaimsError::Flawed(flaw) => self.refusal(flaw),
        })
    }

    /// Mints a token that expires after `ttl`, or at `not_after` if that is sooner.
    ///
    /// # Errors
    /// [`Reject::Unsupported`] if tokens are verified with public keys; [`Reject::TokenExpired`] if `not_after` has
    /// passed.
    pub fn mint(&self, grant: Grant<'_>, ttl: Duration, not_after: Option<Timestamp>) -> Result<Minted, Reject> {
        let Keys::Static { checks, signing_key: Some(key) } = &self.keys else {
            return Err(Reject::Unsupported(
                "Tokens can't be made here: this deployment only checks them (no JWT_SECRET)",
            ));
        };
        let now = self.clock.now().seconds();
        let ttl = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let exp = now.saturating_add(ttl).min(not_after.map_or(i64::MAX, Timestamp::seconds));
        if exp <= now {
            return Err(Reject::TokenExpired);
        }
        let claims = MintedClaims {
            sub: grant.user.as_str(),
            username: grant.name,
            role: grant.role,
            tier: grant.tier,
            iat: now,
            exp,
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

    /// Refreshes published keys until the task is cancelled. With a static key it returns at once.
    pub async fn keep_fresh(&self) {
        if let Keys::Published(jwks) = &self.keys {
            jwks.keep_fresh().await;
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
    iat: i64,
    exp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
}

/// The flaw of a token whose header can't be decoded.
fn header_flaw(kind: &ErrorKind) -> TokenFlaw {
    match kind {
        // The library reports an unknown algorithm in a JSON header as a JSON error.
        ErrorKind::Json(_) => TokenFlaw::Header,
        _ => TokenFlaw::Malformed,
    }
}

/// The flaw of a token that the library refuses.
fn flaw(kind: &ErrorKind) -> TokenFlaw {
    match kind {
        ErrorKind::InvalidSignature => TokenFlaw::Signature,
        ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm | ErrorKind::MissingAlgorithm => {
            TokenFlaw::Algorithm
        }
        ErrorKind::InvalidAudience => TokenFlaw::Audience,
        ErrorKind::InvalidIssuer => TokenFlaw::Issuer,
        ErrorKind::MissingRequiredClaim(claim) | ErrorKind::InvalidClaimFormat(claim) => match claim.as_str() {
            "exp" => TokenFlaw::NoExpiry,
            "aud" => TokenFlaw::Audience,
            "iss" => TokenFlaw::Issuer,
            _ => TokenFlaw::Malformed,
        },
        _ => TokenFlaw::Malformed,
    }
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
