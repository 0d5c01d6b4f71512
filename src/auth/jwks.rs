//! Keys published under a URL (JWKS, RFC 7517). A background task fetches them, so that no verification waits for HTTP.

use std::{collections::HashMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use jsonwebtoken::{
    Algorithm, DecodingKey, Validation,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse},
};
use reqwest::{StatusCode, redirect::Policy};
use serde::Deserialize;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};

use super::checks::Checks;
use crate::config::JwksConfig;

/// Minimum interval between two fetches, so that tokens with random `kid`s don't cause requests.
const MIN_INTERVAL: Duration = Duration::from_secs(5);
/// Maximum time of one fetch.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum size of a response, in bytes.
const MAX_BYTES: usize = 256 * 1_024;
/// Maximum number of keys that are kept.
const MAX_KEYS: usize = 100;

/// Error of a fetch.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("{0}")]
    Http(#[source] reqwest::Error),
    #[error("the server answers {0}")]
    Status(StatusCode),
    #[error("the server redirects ({0}), which is not followed: set JWT_JWKS_URL to the final address")]
    Redirect(StatusCode),
    #[error("the response is larger than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("the response is no JSON Web Key Set: {0}")]
    NotAKeySet(#[from] serde_json::Error),
}

/// Creates the validation rules for an algorithm.
pub(super) type MakeValidation = Box<dyn Fn(Algorithm) -> Validation + Send + Sync>;

/// Keys by their `kid`; a key without one has the empty name.
type KeySet = HashMap<String, Arc<Checks>>;

/// The keys of the last successful fetch.
#[derive(Default)]
struct Fetched {
    keys: KeySet,
    at: Option<Instant>,
}

/// Result of a fetch, and the state after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyReport {
    /// True if the fetch succeeded.
    pub fetched: bool,
    /// Number of the keys that verify tokens now: 0 once the last fetched ones are too old.
    pub usable: usize,
}

/// Result of looking up the key that a token names.
pub(super) enum Found {
    /// The key.
    Key(Arc<Checks>),
    /// The token names no key, and there are several.
    Ambiguous,
    /// There is no such key.
    None,
    /// The key is unknown, but may have been published since the last fetch. A fetch is under way; the client must
    /// retry.
    NotFetched,
}

/// The published keys, and the client that fetches them.
pub(super) struct Jwks {
    config: JwksConfig,
    client: reqwest::Client,
    validation: MakeValidation,
    fetched: ArcSwap<Fetched>,
    /// Wakes `keep_fresh` after a token named an unknown key.
    refetch: Notify,
}

impl Jwks {
    pub(super) fn new(config: &JwksConfig, validation: MakeValidation) -> reqwest::Result<Self> {
        // A redirect could lead to a server that the operator did not choose.
        let client = reqwest::Client::builder().timeout(TIMEOUT).redirect(Policy::none()).build()?;
        Ok(Self { config: config.clone(), client, validation, fetched: ArcSwap::default(), refetch: Notify::new() })
    }

    /// Finds the key that a token names; without a `kid`, the only key if there is just one. Answers [`Found::None`]
    /// only if the keys are younger than `MIN_INTERVAL`; older keys are fetched again first. Keys older than
    /// JWT_JWKS_MAX_AGE are not used.
    pub(super) fn key(&self, kid: Option<&str>) -> Found {
        let fetched = self.fetched.load();
        let age = fetched.at.map(|at| at.elapsed());
        let valid = age.is_some_and(|age| age < self.config.max_age);
        let key = match kid {
            _ if !valid => None,
            Some(kid) => fetched.keys.get(kid),
            None if fetched.keys.len() > 1 => return Found::Ambiguous,
            None => fetched.keys.values().next(),
        };
        match key {
            Some(key) => Found::Key(Arc::clone(key)),
            None if valid && age.is_some_and(|age| age < MIN_INTERVAL) => Found::None,
            None => {
                self.refetch.notify_one();
                Found::NotFetched
            }
        }
    }

    /// Number of keys that verify tokens now.
    fn usable(&self) -> usize {
        let fetched = self.fetched.load();
        let valid = fetched.at.is_some_and(|at| at.elapsed() < self.config.max_age);
        if valid { fetched.keys.len() } else { 0 }
    }

    /// Fetches the keys at once, then at every JWT_JWKS_REFRESH and when a token names an unknown key. The last fetched
    /// keys stay valid for JWT_JWKS_MAX_AGE while the URL does not answer with a key set.
    pub(super) async fn keep_fresh(&self, report: impl Fn(KeyReport)) {
        let mut before = None;
        loop {
            let fetched = self.fetch().await;
            let usable = self.usable();
            let pause = match &fetched {
                Ok(_) => self.config.refresh,
                Err(error) => {
                    let max_age_seconds = self.config.max_age.as_secs();
                    tracing::warn!(%error, usable, max_age_seconds, "published keys could not be fetched");
                    MIN_INTERVAL
                }
            };
            if before.replace(usable) != Some(usable) {
                match (usable, fetched.is_ok()) {
                    (0, true) => tracing::error!("no usable key is published: every token is refused"),
                    (0, false) => tracing::error!(
                        "no published key can be used: none was fetched within JWT_JWKS_MAX_AGE, so every token is refused"
                    ),
                    _ => tracing::info!(usable, "published keys in use"),
                }
            }
            report(KeyReport { fetched: fetched.is_ok(), usable });
            sleep(MIN_INTERVAL).await;
            // Fetch again after either the timeout or a notification.
            let _ = timeout(pause - MIN_INTERVAL, self.refetch.notified()).await;
        }
    }

    /// Fetches the keys once and returns the number of usable ones. A key set without any withdraws all earlier keys.
    pub(super) async fn fetch(&self) -> Result<usize, FetchError> {
        // The URL may contain credentials, which must not reach a log.
        let http = |error: reqwest::Error| FetchError::Http(error.without_url());
        let mut answer = self.client.get(self.config.url.reveal()).send().await.map_err(http)?;
        match answer.status() {
            StatusCode::OK => {}
            status if status.is_redirection() => return Err(FetchError::Redirect(status)),
            status => return Err(FetchError::Status(status)),
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(http)? {
            if body.len() + chunk.len() > MAX_BYTES {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        let keys = self.read(&body)?;
        let count = keys.len();
        self.fetched.store(Arc::new(Fetched { keys, at: Some(Instant::now()) }));
        Ok(count)
    }

    /// Parses a key set. Keys of unknown kinds are ignored, as RFC 7517 requires.
    fn read(&self, body: &[u8]) -> Result<KeySet, FetchError> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<serde_json::Value>,
        }
        let set: Set = serde_json::from_slice(body)?;
        let usable = |value| {
            let jwk: Jwk = serde_json::from_value(value).ok()?;
            let algorithm = pinned_algorithm(&jwk)?;
            let key = DecodingKey::from_jwk(&jwk).ok()?;
            let checks = Checks { key, validation: (self.validation)(algorithm) };
            Some((jwk.common.key_id.unwrap_or_default(), Arc::new(checks)))
        };
        Ok(set.keys.into_iter().filter_map(usable).take(MAX_KEYS).collect())
    }
}

/// The algorithm that a key is pinned to: the one that it names if that fits its kind, otherwise the default of its
/// kind. `None` for shared secrets and encryption keys, which must not verify tokens.
fn pinned_algorithm(jwk: &Jwk) -> Option<Algorithm> {
    if matches!(&jwk.common.public_key_use, Some(usage) if *usage != PublicKeyUse::Signature) {
        return None;
    }
    let usual = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => Algorithm::ES256,
            EllipticCurve::P384 => Algorithm::ES384,
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
        _ => return None,
    };
    let Some(named) = &jwk.common.key_algorithm else { return Some(usual) };
    let named: Algorithm = named.to_string().parse().ok()?;
    // An RSA key fits several algorithms of its family; an elliptic curve fits one.
    let fits = named == usual || (usual == Algorithm::RS256 && named.family() == usual.family());
    fits.then_some(named)
}
