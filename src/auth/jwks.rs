//! Keys published under a URL (JWKS, RFC 7517): fetched in the background, and when a token names an unknown one.

use std::{collections::HashMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use jsonwebtoken::{
    Algorithm, DecodingKey, Validation,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse},
};
use serde::Deserialize;
use tokio::{sync::Mutex, time::Instant};

use super::Checks;
use crate::model::Reject;

/// Between two fetches in the background.
const REFRESH: Duration = Duration::from_secs(300);
/// Between two in the background while none succeeds.
const RETRY: Duration = Duration::from_secs(5);
/// Between two fetches for unknown keys, whoever asks: random `kid`s must not become requests.
const MIN_INTERVAL: Duration = Duration::from_secs(10);
/// How long one fetch may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The largest answer that is read, in bytes.
const MAX_BYTES: usize = 256 * 1_024;
/// The most keys that are kept.
const MAX_KEYS: usize = 100;

/// Why keys could not be fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("{0}")]
    Http(reqwest::Error),
    #[error("the answer is larger than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("the answer is no key set: {0}")]
    NotAKeySet(#[from] serde_json::Error),
    #[error("the key set has no key that can be used")]
    Empty,
}

/// Makes the checks that go with an algorithm.
pub(super) type MakeValidation = Box<dyn Fn(Algorithm) -> Validation + Send + Sync>;

/// Keys by their `kid`; those without one under the empty name.
type KeySet = HashMap<String, Arc<Checks>>;

/// The keys, and how to get them.
pub(super) struct Jwks {
    url: String,
    client: reqwest::Client,
    validation: MakeValidation,
    keys: ArcSwap<KeySet>,
    /// When the last fetch began. Its lock is held during a fetch, so that there is one at a time.
    last_fetch: Mutex<Option<Instant>>,
}

impl Jwks {
    pub(super) fn new(url: &str, validation: MakeValidation) -> reqwest::Result<Self> {
        let client = reqwest::Client::builder().timeout(TIMEOUT).redirect(reqwest::redirect::Policy::none()).build()?;
        let (keys, last_fetch) = (ArcSwap::default(), Mutex::new(None));
        Ok(Self { url: url.to_owned(), client, validation, keys, last_fetch })
    }

    /// The key a token names; one that isn't known is looked for anew, but not more often than [`MIN_INTERVAL`].
    pub(super) async fn key(&self, kid: Option<&str>) -> Result<Arc<Checks>, Reject> {
        if let Some(key) = self.known(kid) {
            return Ok(key);
        }
        let mut last = self.last_fetch.lock().await;
        // Whoever held the lock may just have fetched it.
        if let Some(key) = self.known(kid) {
            return Ok(key);
        }
        if last.is_none_or(|at| at.elapsed() >= MIN_INTERVAL) {
            *last = Some(Instant::now());
            self.fetch_and_log().await;
        }
        match self.known(kid) {
            Some(key) => Ok(key),
            None if self.keys.load().is_empty() => Err(Reject::Unavailable),
            None => Err(Reject::InvalidToken),
        }
    }

    /// A key that was fetched before. A token that names none means the only one there is.
    fn known(&self, kid: Option<&str>) -> Option<Arc<Checks>> {
        let keys = self.keys.load();
        match kid {
            Some(kid) => keys.get(kid).cloned(),
            None if keys.len() == 1 => keys.values().next().cloned(),
            None => None,
        }
    }

    /// Fetches the keys again and again. Those fetched last stay good while the URL can't be reached.
    pub(super) async fn keep_fresh(&self) {
        loop {
            let fetched = {
                let mut last = self.last_fetch.lock().await;
                *last = Some(Instant::now());
                self.fetch_and_log().await
            };
            tokio::time::sleep(if fetched { REFRESH } else { RETRY }).await;
        }
    }

    async fn fetch_and_log(&self) -> bool {
        let result = self.fetch().await;
        if let Err(error) = &result {
            tracing::warn!(%error, "published keys could not be fetched; those known stay in use");
        }
        result.is_ok()
    }

    /// Fetches the keys once, and says how many there are.
    pub(super) async fn fetch(&self) -> Result<usize, FetchError> {
        // A URL may hold what must not reach a log.
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
        self.keys.store(Arc::new(keys));
        Ok(count)
    }

    /// Reads a key set; keys of a kind that isn't known are passed over, as RFC 7517 asks.
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

/// The one algorithm a key is used with: the one it names where that fits its kind, else its kind's usual one.
/// Shared secrets and keys for encryption are none of ours.
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
    // An RSA key may be used with several; a curve decides.
    let fits = named == usual || (usual == Algorithm::RS256 && named.family() == usual.family());
    fits.then_some(named)
}
