//! Tokens: JWT to identity, and back.
//!
//! Each key goes with one pinned algorithm; what a token's header says only picks a key by its `kid`, never an
//! algorithm, a URL or a key of its own. Time comes from the [`Clock`], so that tests own it.

use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, errors::ErrorKind};
use serde::Serialize;

mod checks;
mod claims;
mod jwks;

use checks::Checks;
use claims::{Claims, Unfit};
use jwks::{Found, Jwks};

use crate::{
    config::{AuthConfig, AuthKey},
    model::{Clock, Identity, Reject, Timestamp, TokenFlaw, UserId},
};

/// The longest token that is looked at, in bytes.
const MAX_TOKEN_BYTES: usize = 8 * 1_024;

/// Why tokens can't be checked at all.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The client that fetches keys could not be made.
    #[error("cannot fetch keys: {0}")]
    Client(String),
}

/// Whom a minted token is for.
#[derive(Debug, Clone, Copy)]
pub struct Grant<'a> {
    /// Who.
    pub user: &'a UserId,
    /// Their display name; without one it is the id.
    pub name: Option<&'a str>,
    /// Their role: `admin`, or another of the application's.
    pub role: Option<&'a str>,
    /// Their class for limits.
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

/// A token that was made here.
#[derive(Clone)]
pub struct Minted {
    /// The token.
    pub token: String,
    /// When it expires.
    pub expires_at: Timestamp,
    /// How long that is from now.
    pub expires_in: Duration,
}

/// Checks tokens, and mints them where a secret is configured.
pub struct Auth {
    keys: Keys,
    audience: Option<String>,
    issuer: Option<String>,
    leeway: Duration,
    /// Clients are told what is wrong with their tokens.
    explains: bool,
    clock: Clock,
}

enum Keys {
    /// One key; with a shared secret tokens can be made as well.
    Static { checks: Box<Checks>, mints: Option<EncodingKey> },
    /// Keys under a URL.
    Published(Jwks),
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Auth")
    }
}

impl Auth {
    /// Takes the keys of `config`. Published keys are fetched by [`Auth::keep_fresh`].
    ///
    /// # Errors
    /// The client that fetches keys could not be made.
    pub fn new(config: &AuthConfig, clock: Clock) -> Result<Self, AuthError> {
        let checks = |key: DecodingKey, algorithm| Box::new(Checks { key, validation: validation(config, algorithm) });
        let keys = match &config.key {
            AuthKey::Secret { secret, algorithm } => {
                let secret = secret.reveal().as_bytes();
                let key = DecodingKey::from_secret(secret);
                Keys::Static { checks: checks(key, *algorithm), mints: Some(EncodingKey::from_secret(secret)) }
            }
            AuthKey::Public { key, algorithm } => Keys::Static { checks: checks(key.clone(), *algorithm), mints: None },
            AuthKey::Jwks { url } => {
                let config = config.clone();
                let validation = move |algorithm| validation(&config, algorithm);
                Keys::Published(Jwks::new(url, Box::new(validation)).map_err(|e| AuthError::Client(e.to_string()))?)
            }
        };
        let (audience, issuer) = (config.audience.clone(), config.issuer.clone());
        Ok(Self { keys, audience, issuer, leeway: config.leeway, explains: config.explains, clock })
    }

    /// How far clocks may differ: a token counts until `expires_at` plus this.
    pub fn leeway(&self) -> Duration {
        self.leeway
    }

    /// Says who a token stands for.
    ///
    /// # Errors
    /// [`Reject::TokenExpired`]; [`Reject::Unavailable`] where it names a published key that has to be fetched first;
    /// for everything else [`Reject::InvalidToken`].
    pub fn verify(&self, token: &str) -> Result<Identity, Reject> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(self.refusal(TokenFlaw::TooLong));
        }
        let header = jsonwebtoken::decode_header(token).map_err(|error| self.refusal(flaw_of_header(error.kind())))?;
        match &self.keys {
            Keys::Static { checks, .. } => self.check(token, checks),
            Keys::Published(jwks) => match jwks.key(header.kid.as_deref()) {
                Found::Key(checks) => self.check(token, &checks),
                Found::None => Err(self.refusal(TokenFlaw::UnknownKey)),
                Found::PerhapsLater => Err(Reject::Unavailable),
            },
        }
    }

    /// The refusal of a token, as its client is to be told it.
    pub fn refusal(&self, flaw: TokenFlaw) -> Reject {
        if self.explains { Reject::InvalidTokenExplained(flaw) } else { Reject::InvalidToken(flaw) }
    }

    fn check(&self, token: &str, checks: &Checks) -> Result<Identity, Reject> {
        let data = jsonwebtoken::decode::<Claims>(token, &checks.key, &checks.validation)
            .map_err(|error| self.refusal(flaw(error.kind())))?;
        // No extension is understood here, so none may be critical (RFC 7515, 4.1.11).
        if data.header.crit.is_some() {
            return Err(self.refusal(TokenFlaw::Critical));
        }
        data.claims.into_identity(self.clock.now(), self.leeway).map_err(|unfit| match unfit {
            Unfit::Expired => Reject::TokenExpired,
            Unfit::Flawed(flaw) => self.refusal(flaw),
        })
    }

    /// Makes a token that lives for `ttl`, or until `not_after` where that is sooner.
    ///
    /// # Errors
    /// [`Reject::Unsupported`] where tokens are checked with public keys; [`Reject::TokenExpired`] where `not_after`
    /// is over.
    pub fn mint(&self, grant: Grant<'_>, ttl: Duration, not_after: Option<Timestamp>) -> Result<Minted, Reject> {
        let Keys::Static { checks, mints: Some(key) } = &self.keys else {
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
        // One algorithm is pinned, always.
        let algorithm = checks.validation.algorithms.first().copied().unwrap_or_default();
        let token = jsonwebtoken::encode(&Header::new(algorithm), &claims, key)
            .map_err(|_| Reject::Unsupported("Tokens can't be made with this key"))?;
        let expires_in = Duration::from_secs((exp - now).unsigned_abs());
        Ok(Minted { token, expires_at: Timestamp::from_seconds(exp), expires_in })
    }

    /// Keeps published keys fresh, for ever; with a key of its own there is nothing to do, and it returns at once.
    pub async fn keep_fresh(&self) {
        if let Keys::Published(jwks) = &self.keys {
            jwks.keep_fresh().await;
        }
    }

    /// Fetches published keys now and says how many there are; `None` where keys are not published.
    ///
    /// # Errors
    /// Why they could not be fetched.
    pub async fn fetch_keys(&self) -> Option<Result<usize, String>> {
        match &self.keys {
            Keys::Static { .. } => None,
            Keys::Published(jwks) => Some(jwks.fetch().await.map_err(|error| error.to_string())),
        }
    }
}

/// What a minted token says.
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

/// What is wrong with a header that can't be read.
fn flaw_of_header(kind: &ErrorKind) -> TokenFlaw {
    match kind {
        // In a header that is JSON, the library doesn't know the algorithm.
        ErrorKind::Json(_) => TokenFlaw::Header,
        _ => TokenFlaw::Malformed,
    }
}

/// What is wrong with a token that the library doesn't take.
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

/// What the library checks: the signature, the algorithm, `aud` and `iss`. The claims themselves do the rest.
fn validation(config: &AuthConfig, algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    // It would ask the system for the time.
    (validation.validate_exp, validation.validate_nbf) = (false, false);
    // `exp` is required by the claims themselves, which can say what is wrong with it.
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
