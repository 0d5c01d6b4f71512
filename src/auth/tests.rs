//! Valid tokens, and every known kind of invalid token. This file has what the tests share.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::*;
use crate::{config::Secret, model::TokenId};

mod claims;
mod keys;
mod published_keys;
mod refusals;

const NOW: i64 = 1_800_000_000;
const SECRET: &str = "a secret of tests, long enough for HS256";
const LEEWAY: i64 = 5;
const LIFETIME_MAX: i64 = 86_400;

fn config(key: AuthKey) -> AuthConfig {
    let leeway = Duration::from_secs(LEEWAY.unsigned_abs());
    let (token_ttl, lifetime_max) = (Duration::from_secs(1_800), Duration::from_secs(LIFETIME_MAX.unsigned_abs()));
    let (audience, issuer, persona_ids) = (None, None, Arc::default());
    AuthConfig { key, audience, issuer, leeway, token_ttl, lifetime_max, explains: false, persona_ids }
}

fn secret() -> AuthConfig {
    config(AuthKey::Secret { secret: Secret::new(SECRET), previous: None, algorithm: Algorithm::HS256 })
}

fn at(config: &AuthConfig, seconds: i64) -> Auth {
    Auth::new(config, Clock::from_fn(move || Timestamp::from_seconds(seconds)), Restrictions::none()).unwrap()
}

fn auth() -> Auth {
    at(&secret(), NOW)
}

fn key() -> EncodingKey {
    EncodingKey::from_secret(SECRET.as_bytes()).unwrap()
}

fn sign(claims: &Value) -> String {
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key()).unwrap()
}

/// Claims of a valid token, overridden by `more`; null removes a claim.
fn claims(more: Value) -> Value {
    let mut claims = json!({"sub": "alice", "exp": NOW + 60});
    for (name, value) in more.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

/// True if a token was refused as invalid, for any flaw.
fn is_invalid(verified: &Result<Identity, Reject>) -> bool {
    matches!(verified, Err(Reject::InvalidToken(_)))
}

fn verify(more: Value) -> Result<Identity, Reject> {
    auth().verify(&sign(&claims(more)))
}

/// A token with any header and claims, and a correct signature.
fn signed_with_header(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key(), Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

fn grant(user: &UserId) -> Grant<'_> {
    Grant { user, name: Some("Bob"), role: Some("admin"), tier: Some("pro") }
}
