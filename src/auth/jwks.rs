//! Keys published under a URL (JWKS, RFC 7517), fetched beside the checks that need them.

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

/// Between two fetches, when nothing is amiss.
const REFRESH: Duration = Duration::from_secs(300);
/// Between two fetches at least, whoever asks: random `kid`s must not become requests.
const MIN_INTERVAL: Duration = Duration::from_secs(5);
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

/// The keys as they were fetched last.
#[derive(Default)]
struct Fetched {
    keys: KeySet,
    at: Option<Instant>,
}

/// What there is for a token that names a key.
pub(super) enum Found {
    /// The key.
    Key(Arc<Checks>),
    /// There is no such key.
    None,
    /// A key that isn't known may have been published since the last fetch: that is found out beside, and the client is to
    /// come again.
    PerhapsLater,
}

/// The keys, and how to get them.
pub(super) struct Jwks {
    url: String,
    client: reqwest::Client,
    validation: MakeValidation,
    fetched: ArcSwap<Fetched>,
    /// A token named a key that isn't known.
    wanted: Notify,
}

impl Jwks {
    pub(super) fn new(url: &str, validation: MakeValidation) -> reqwest::Result<Self> {
        let client = reqwest::Client::builder().timeout(TIMEOUT).redirect(Policy::none()).build()?;
        Ok(Self { url: url.to_owned(), client, validation, fetched: ArcSwap::default(), wanted: Notify::new() })
    }

    /// The key a token names; where it names none, the only one there is. That there is no such key is said only where the
    /// keys are fresh.
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
                self.wanted.notify_one();
                Found::PerhapsLater
            }
        }
    }

    /// Fetches the keys at once, then from time to time and when one is wanted. Those fetched last stay good while
    /// the URL can't be reached.
    pub(super) async fn keep_fresh(&self) {
        loop {
            let pause = match self.fetch().await {
                Ok(_) => REFRESH,
                Err(error) => {
                    tracing::warn!(%error, "published keys could not be fetched; those known stay in use");
                    MIN_INTERVAL
                }
            };
            sleep(MIN_INTERVAL).await;
            // It doesn't matter which of the two it was.
            let _ = timeout(pause - MIN_INTERVAL, self.wanted.notified()).await;
        }
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
        self.fetched.store(Arc::new(Fetched { keys, at: Some(Instant::now()) }));
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
