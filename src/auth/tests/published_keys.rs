//! Keys that are published under a URL.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::Jwk;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{super::fixture::Pair, *};
use crate::config::JwksConfig;

fn published(url: &str) -> AuthKey {
    let (refresh, max_age) = (Duration::from_secs(300), Duration::from_secs(3_600));
    AuthKey::Jwks(JwksConfig { url: Secret::new(url), refresh, max_age })
}

/// Serves `body` over HTTP and counts the requests. A body that begins with `HTTP/` is the whole response.
async fn publish(body: Arc<std::sync::Mutex<String>>) -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&requests);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let mut request = [0; 4_096];
            let _ = stream.read(&mut request).await;
            let body = body.lock().unwrap().clone();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let answer = if body.starts_with("HTTP/") { body } else { head + &body };
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (url, requests)
}

/// A published key.
fn jwk(pair: &Pair, algorithm: Algorithm, kid: &str) -> Value {
    let mut jwk = Jwk::from_encoding_key(&pair.signing_key(algorithm), algorithm).unwrap();
    jwk.common.key_id = Some(kid.to_owned());
    serde_json::to_value(jwk).unwrap()
}

fn signed_by(pair: &Pair, algorithm: Algorithm, kid: Option<&str>) -> String {
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) };
    jsonwebtoken::encode(&header, &claims(json!({})), &pair.signing_key(algorithm)).unwrap()
}

#[tokio::test]
async fn published_keys_are_found_by_kid() {
    let (rsa, ec) = (Pair::rsa(), Pair::ec());
    let shared = json!({"kty": "oct", "kid": "shared", "alg": "HS256", "k": URL_SAFE_NO_PAD.encode(SECRET)});
    let encryption = {
        let mut key = jwk(&ec, Algorithm::ES256, "enc");
        key["use"] = json!("enc");
        key
    };
    let keys =
        [jwk(&rsa, Algorithm::RS256, "r"), jwk(&ec, Algorithm::ES256, "e"), shared, encryption, json!({"kty": "new"})];
    let body = Arc::new(std::sync::Mutex::new(json!({ "keys": keys }).to_string()));
    let (url, _) = publish(body).await;
    let auth = at(&config(published(&url)), NOW);

    let good = signed_by(&rsa, Algorithm::RS256, Some("r"));
    assert_eq!(auth.verify(&good), Err(Reject::Unavailable), "the keys were not fetched yet");
    assert_eq!(auth.fetch_keys().await.unwrap().unwrap(), 2);
    assert!(auth.verify(&good).is_ok());
    assert!(auth.verify(&signed_by(&ec, Algorithm::ES256, Some("e"))).is_ok());
    for bad in [
        signed_by(&rsa, Algorithm::RS256, Some("e")),
        signed_by(&rsa, Algorithm::RS256, None),
        signed_by(&rsa, Algorithm::RS512, Some("r")),
        signed_by(&ec, Algorithm::ES256, Some("enc")),
        signed_by(&ec, Algorithm::ES256, Some("unknown")),
    ] {
        assert!(is_invalid(&auth.verify(&bad)));
    }
    let header = Header { kid: Some("shared".into()), ..Header::new(Algorithm::HS256) };
    let forged = jsonwebtoken::encode(&header, &claims(json!({})), &key()).unwrap();
    assert!(is_invalid(&auth.verify(&forged)));
}

#[tokio::test]
async fn a_key_published_later_is_found() {
    let (old, new) = (Pair::ec(), Pair::ec());
    let set = |pair: &Pair, kid| json!({"keys": [jwk(pair, Algorithm::ES256, kid)]}).to_string();
    let body = Arc::new(std::sync::Mutex::new(set(&old, "old")));
    let (url, requests) = publish(Arc::clone(&body)).await;
    let auth = Arc::new(at(&config(published(&url)), NOW));
    assert_eq!(auth.fetch_keys().await.unwrap().unwrap(), 1);
    assert!(auth.verify(&signed_by(&old, Algorithm::ES256, None)).is_ok(), "the only key needs no kid");

    *body.lock().unwrap() = set(&new, "new");
    let token = signed_by(&new, Algorithm::ES256, Some("new"));
    assert!(is_invalid(&auth.verify(&token)), "the keys are fresh");
    let refresher = tokio::spawn({
        let auth = Arc::clone(&auth);
        async move { auth.keep_fresh(|_| {}).await }
    });
    let found = async {
        while auth.verify(&token).is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), found).await.expect("the new key is found");
    // Tokens that name unknown keys don't cause one request each.
    for kid in 0..1_000 {
        let _ = auth.verify(&signed_with_header(&json!({"alg": "ES256", "kid": kid.to_string()}), &claims(json!({}))));
    }
    assert_eq!(requests.load(Ordering::SeqCst), 2);
    refresher.abort();
}

/// The answers of a server that no longer publishes a key set.
fn no_key_sets(elsewhere: &str) -> Vec<String> {
    let status = |line: &str| format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let redirect = format!("302 Found\r\nLocation: {elsewhere}");
    let mut answers = vec!["{}".to_owned(), "no json".to_owned(), " ".repeat(300 * 1_024)];
    answers.extend(["404 Not Found", "500 Internal Server Error", "204 No Content", &redirect].map(status));
    answers
}

#[tokio::test]
async fn keys_that_cannot_be_fetched_again_stay_in_use_only_for_their_greatest_age() {
    let pair = Pair::ec();
    let set = json!({"keys": [jwk(&pair, Algorithm::ES256, "k")]}).to_string();
    let (elsewhere, followed) = publish(Arc::new(std::sync::Mutex::new(set.clone()))).await;
    let body = Arc::new(std::sync::Mutex::new(set.clone()));
    let (url, _) = publish(Arc::clone(&body)).await;
    let max_age = Duration::from_millis(1_500);
    let key = JwksConfig { url: Secret::new(&url), refresh: Duration::from_secs(300), max_age };
    let auth = at(&config(AuthKey::Jwks(key)), NOW);
    let token = signed_by(&pair, Algorithm::ES256, Some("k"));
    for bad in no_key_sets(&elsewhere) {
        body.lock().unwrap().clone_from(&set);
        assert_eq!(auth.fetch_keys().await.unwrap().unwrap(), 1);
        *body.lock().unwrap() = bad;
        assert!(auth.fetch_keys().await.unwrap().is_err());
        assert!(auth.verify(&token).is_ok());
    }
    assert_eq!(followed.load(Ordering::SeqCst), 0, "redirects are not followed");
    let ended = async {
        while auth.verify(&token) != Err(Reject::Unavailable) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ended).await.expect("old keys end");
    *body.lock().unwrap() = set;
    assert_eq!(auth.fetch_keys().await.unwrap().unwrap(), 1);
    assert!(auth.verify(&token).is_ok());
}

#[tokio::test]
async fn a_withdrawn_key_ends_with_the_next_fetch_also_if_none_is_left() {
    let (old, new) = (Pair::ec(), Pair::ec());
    let set = |keys: &[(&Pair, &str)]| {
        let keys: Vec<Value> = keys.iter().map(|(pair, kid)| jwk(pair, Algorithm::ES256, kid)).collect();
        json!({ "keys": keys }).to_string()
    };
    let body = Arc::new(std::sync::Mutex::new(set(&[(&old, "old"), (&new, "new")])));
    let (url, _) = publish(Arc::clone(&body)).await;
    let auth = at(&config(published(&url)), NOW);
    assert_eq!(auth.fetch_keys().await.unwrap().unwrap(), 2);
    let token = signed_by(&old, Algorithm::ES256, Some("old"));
    assert!(auth.verify(&token).is_ok());
    let unnamed = auth.verify(&signed_by(&old, Algorithm::ES256, None));
    assert_eq!(unnamed, Err(Reject::InvalidToken(TokenFlaw::NoKeyId)));
    *body.lock().unwrap() = set(&[(&new, "new")]);
    assert_eq!(auth.fetch_keys().await.unwrap().unwrap(), 1);
    assert_eq!(auth.verify(&token), Err(Reject::InvalidToken(TokenFlaw::UnknownKey)));
    *body.lock().unwrap() = r#"{"keys":[]}"#.to_owned();
    assert_eq!(auth.fetch_keys().await.unwrap().unwrap(), 0);
    assert!(is_invalid(&auth.verify(&signed_by(&new, Algorithm::ES256, Some("new")))));
}
