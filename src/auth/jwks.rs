//! Keys published under a URL (JWKS, RFC 7517). A background task fetches them, so that no verification waits for HTTP.

use std::{collections::HashMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use jsonwebtoken::{
    Algorithm, DecodingKey, Validation,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse},
};
use reqwest::redirect::Policy;
use serde::Deserialize;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};

use super::checks::Checks;

/// Interval between two fetches while they succeed.
const REFRESH: Duration = Duration::from_secs(300);
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
    #[error("the response is larger than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("the response is no JSON Web Key Set: {0}")]
    NotAKeySet(#[from] serde_json::Error),
    #[error("the key set has no usable signature key (RSA, EC P-256 or P-384, Ed25519)")]
    Empty,
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

/// Result of looking up the key that a token names.
pub(super) enum Found {
    /// The key.
    Key(Arc<Checks>),
    /// There is no such key.
    None,
    /// The key is unknown, but may have been published since the last fetch. A fetch is under way; the client must
    /// retry.
    NotFetched,
}

/// The published keys, and the client that fetches them.
pub(super) struct Jwks {
    url: String,
    client: reqwest::Client,
    validation: MakeValidation,
    fetched: ArcSwap<Fetched>,
    /// Wakes `keep_fresh` after a token named an unknown key.
    refetch: Notify,
}

impl Jwks {
    pub(super) fn new(url: &str, validation: MakeValidation) -> reqwest::Result<Self> {
        let client = reqwest::Client::builder().timeout(TIMEOUT).redirect(Policy::none()).build()?;
        Ok(Self { url: url.to_owned(), client, validation, fetched: ArcSwap::default(), refetch: Notify::new() })
    }

    /// Finds the key that a token names; without a `kid`, the only key if there is just one. Answers [`Found::None`]
    /// only if the keys are younger than `MIN_INTERVAL`; older keys are fetched again first.
    pub(super) fn key(&self, kid: Option<&str>) -> Found {
        let fetched = self.fetched.load();
        let key = match kid {
            Some(kid) => fetched.keys.get(kid),
            None if fetched.keys.len() == 1 => fetched.keys.values().next(),
            None => None,
        };
        let fresh = fetched.at.is_some_and(|at| at.elapsed() < MIN_INTERVAL);
        match key {
            Some(key) => Found::Key(Arc::clone(key)),
            None if fresh => Found::None,
            None => {
                self.refetch.notify_one();
                Found::NotFetched
            }
        }
    }

    /// Fetches the keys at once, then at every `REFRESH` and when a token names an unknown key. The last fetched keys
    /// stay valid while the URL can't be reached.
    pub(super) async fn keep_fresh(&self) {
        loop {
            let pause = match self.fetch().await {
                Ok(_) => REFRESH,
                Err(error) => {
                    tracing::warn!(%error, "published keys could not be fetched; the last fetched keys stay in use");
                    MIN_INTERVAL
                }
            };
            sleep(MIN_INTERVAL).await;
            // Fetch again after either the timeout or a notification.
            let _ = timeout(pause - MIN_INTERVAL, self.refetch.notified()).await;
        }
    }

    /// Fetches the keys once and returns their number.
    pub(super) async fn fetch(&self) -> Result<usize, FetchError> {
        // The URL may contain credentials, which must not reach a log.
        let http = |error: reqwest::Error| FetchError::Http(error.without_url());
        let mut answer = self.client.get(&self.url).send().await.and_then(|a| a.error_for_status()).map_err(http)?;
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
        let keys: KeySet = set.keys.into_iter().filter_map(usable).take(MAX_KEYS).collect();
        if keys.is_empty() { Err(FetchError::Empty) } else { Ok(keys) }
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
