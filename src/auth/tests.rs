//! Good tokens, and every kind of bad one that we know of.

use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicU64, Ordering},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::Jwk;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{fixture::Pair, *};
use crate::config::Secret;

const NOW: i64 = 1_800_000_000;
const SECRET: &str = "a secret of tests, long enough for HS256";
const LEEWAY: i64 = 5;

fn config(key: AuthKey) -> AuthConfig {
    let leeway = Duration::from_secs(LEEWAY.unsigned_abs());
    AuthConfig { key, audience: None, issuer: None, leeway, token_ttl: Duration::from_secs(1_800), explains: false }
}

fn secret() -> AuthConfig {
    config(AuthKey::Secret { secret: Secret::new(SECRET), algorithm: Algorithm::HS256 })
}

fn at(config: &AuthConfig, seconds: i64) -> Auth {
    Auth::new(config, Clock::from_fn(move || Timestamp::from_seconds(seconds))).unwrap()
}

fn auth() -> Auth {
    at(&secret(), NOW)
}

fn key() -> EncodingKey {
    EncodingKey::from_secret(SECRET.as_bytes())
}

fn sign(claims: &Value) -> String {
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key()).unwrap()
}

/// A good token's claims, with `more` put over them; null takes one away.
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

/// Whether a token was refused as such, for whatever flaw.
fn is_invalid(verified: &Result<Identity, Reject>) -> bool {
    matches!(verified, Err(Reject::InvalidToken(_)))
}

fn verify(more: Value) -> Result<Identity, Reject> {
    auth().verify(&sign(&claims(more)))
}

/// Header and claims of one's own choice, with a signature that is right.
fn signed_with_header(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key(), Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

#[test]
fn a_token_says_who_somebody_is() {
    let identity = verify(json!({"username": "Alice", "name": "other", "role": "admin", "tier": "pro"})).unwrap();
    assert_eq!((identity.user.as_str(), &*identity.name), ("alice", "Alice"));
    assert!(identity.admin);
    assert_eq!(identity.tier.as_deref(), Some("pro"));
    assert_eq!(identity.expires_at, Timestamp::from_seconds(NOW + 60));
}

#[test]
fn names_fall_back() {
    let name = |more| verify(more).unwrap().name.to_string();
    assert_eq!(name(json!({"name": "Alice"})), "Alice");
    assert_eq!(name(json!({"username": "  ", "name": "Alice"})), "Alice");
    assert_eq!(name(json!({"username": 7, "name": ["x"]})), "alice");
    assert_eq!(name(json!({})), "alice");
    assert_eq!(name(json!({"name": " A\u{0}l\nice "})), "Alice");
    assert_eq!(name(json!({"name": "x".repeat(1_000)})).len(), 128);
}

#[test]
fn subjects_may_be_numbers() {
    assert_eq!(verify(json!({"sub": 42})).unwrap().user.as_str(), "42");
}

#[test]
fn admins() {
    for yes in [json!({"role": "admin"}), json!({"roles": ["user", "admin"]}), json!({"roles": "admin"})] {
        assert!(verify(yes.clone()).unwrap().admin, "{yes}");
    }
    for no in [
        json!({}),
        json!({"role": "Admin"}),
        json!({"role": true}),
        json!({"roles": [["admin"]]}),
        json!({"admin": true}),
    ] {
        assert!(!verify(no.clone()).unwrap().admin, "{no}");
    }
}

#[test]
fn bad_claims_are_refused() {
    for bad in [
        json!({"sub": null}),
        json!({"sub": ""}),
        json!({"sub": "a b"}),
        json!({"sub": "~alice"}),
        json!({"sub": ["alice"]}),
        json!({"sub": 1.5}),
        json!({"sub": "x".repeat(129)}),
        json!({"exp": null}),
        json!({"exp": "tomorrow"}),
        json!({"exp": (NOW + 60).to_string()}),
        json!({"exp": 1e300}),
        json!({"exp": -1}),
        json!({"nbf": NOW + 3_600}),
        json!({"nbf": "soon"}),
        json!({"nbf": 1e300}),
    ] {
        assert!(is_invalid(&verify(bad.clone())), "{bad}");
    }
}

#[test]
fn times_are_checked_with_the_leeway_and_no_more() {
    let token = sign(&claims(json!({"nbf": NOW, "exp": NOW + 60})));
    let verify_at = |seconds| at(&secret(), seconds).verify(&token);
    assert!(is_invalid(&verify_at(NOW - LEEWAY - 1)));
    assert!(verify_at(NOW - LEEWAY).is_ok());
    assert!(verify_at(NOW + 60 + LEEWAY - 1).is_ok());
    assert_eq!(verify_at(NOW + 60 + LEEWAY), Err(Reject::TokenExpired));
    assert!(verify(json!({"exp": 1.8e9 + 60.5})).is_ok());
}

#[test]
fn an_expired_token_of_somebody_else_is_only_invalid() {
    let other = EncodingKey::from_secret(b"another secret, which is also long enough");
    let token = jsonwebtoken::encode(&Header::default(), &claims(json!({"exp": 1})), &other).unwrap();
    assert!(is_invalid(&auth().verify(&token)));
    assert_eq!(verify(json!({"exp": 1})), Err(Reject::TokenExpired));
}

#[test]
fn other_algorithms_are_refused() {
    let good = claims(json!({}));
    for algorithm in [Algorithm::HS384, Algorithm::HS512] {
        let token = jsonwebtoken::encode(&Header::new(algorithm), &good, &key()).unwrap();
        assert!(is_invalid(&auth().verify(&token)), "{algorithm:?}");
    }
    for name in ["none", "None", "NONE", "", "hs256", "HS999"] {
        let token = signed_with_header(&json!({"alg": name}), &good);
        assert!(is_invalid(&auth().verify(&token)), "{name}");
        let unsigned = format!("{}.", token.rsplit_once('.').unwrap().0);
        assert!(is_invalid(&auth().verify(&unsigned)), "{name}");
    }
    assert!(auth().verify(&signed_with_header(&json!({"alg": "HS256"}), &good)).is_ok());
}

#[test]
fn what_is_critical_is_refused_and_the_rest_of_the_header_is_not_looked_at() {
    let good = claims(json!({}));
    for crit in [json!(["b64"]), json!(["exp"]), json!([])] {
        let token = signed_with_header(&json!({"alg": "HS256", "crit": crit, "b64": false}), &good);
        assert!(is_invalid(&auth().verify(&token)), "{crit}");
    }
    let header = json!({"alg": "HS256", "kid": "../../etc/passwd", "jku": "http://evil", "x5u": "http://evil"});
    assert!(auth().verify(&signed_with_header(&header, &good)).is_ok());
}

#[test]
fn audience_and_issuer_are_required_where_they_are_configured() {
    let strict = AuthConfig { audience: Some("chat".into()), issuer: Some("id".into()), ..secret() };
    let verify = |more| at(&strict, NOW).verify(&sign(&claims(more)));
    assert!(verify(json!({"aud": "chat", "iss": "id"})).is_ok());
    assert!(verify(json!({"aud": ["other", "chat"], "iss": "id"})).is_ok());
    for bad in [
        json!({}),
        json!({"aud": "chat"}),
        json!({"iss": "id"}),
        json!({"aud": "other", "iss": "id"}),
        json!({"aud": "chat", "iss": "other"}),
        json!({"aud": [], "iss": "id"}),
        json!({"aud": 1, "iss": "id"}),
    ] {
        assert!(is_invalid(&verify(bad.clone())), "{bad}");
    }
    assert!(auth().verify(&sign(&claims(json!({"aud": "any", "iss": "any"})))).is_ok());
    let minted = at(&strict, NOW).mint(grant(&UserId::parse("bob").unwrap()), Duration::from_secs(60), None).unwrap();
    assert!(at(&strict, NOW).verify(&minted.token).is_ok());
}

fn grant(user: &UserId) -> Grant<'_> {
    Grant { user, name: Some("Bob"), role: Some("admin"), tier: Some("pro") }
}

#[test]
fn minted_tokens_are_good_and_never_outlive_what_they_were_made_from() {
    let auth = auth();
    let bob = UserId::parse("bob").unwrap();
    let ttl = Duration::from_secs(1_800);
    let identity = auth.verify(&auth.mint(grant(&bob), ttl, None).unwrap().token).unwrap();
    assert_eq!((&*identity.name, identity.admin, identity.tier.as_deref()), ("Bob", true, Some("pro")));
    assert_eq!(identity.expires_at, Timestamp::from_seconds(NOW + 1_800));

    let shown = Some(Timestamp::from_seconds(NOW + 10));
    let minted = auth.mint(Grant::from(&identity), ttl, shown).unwrap();
    assert_eq!((minted.expires_at, minted.expires_in), (Timestamp::from_seconds(NOW + 10), Duration::from_secs(10)));
    assert_eq!(auth.verify(&minted.token).unwrap().expires_at, Timestamp::from_seconds(NOW + 10));
    // Within the leeway a token still counts, but it can't be made to live on.
    let over = Some(Timestamp::from_seconds(NOW));
    assert_eq!(auth.mint(grant(&bob), ttl, over).err(), Some(Reject::TokenExpired));
    assert_eq!(auth.mint(grant(&bob), Duration::ZERO, None).err(), Some(Reject::TokenExpired));
}

fn public(pair: &Pair, algorithm: Algorithm) -> AuthConfig {
    let pem = pair.public.as_bytes();
    let key = match algorithm {
        Algorithm::ES256 => DecodingKey::from_ec_pem(pem),
        Algorithm::EdDSA => DecodingKey::from_ed_pem(pem),
        _ => DecodingKey::from_rsa_pem(pem),
    };
    config(AuthKey::Public { key: key.unwrap(), algorithm })
}

#[test]
fn public_keys_check_and_never_mint() {
    for (pair, other, algorithm) in [
        (Pair::rsa(), Pair::rsa(), Algorithm::RS256),
        (Pair::ec(), Pair::ec(), Algorithm::ES256),
        (Pair::ed(), Pair::ed(), Algorithm::EdDSA),
    ] {
        let auth = at(&public(&pair, algorithm), NOW);
        let sign = |key: &EncodingKey| jsonwebtoken::encode(&Header::new(algorithm), &claims(json!({})), key).unwrap();
        assert!(auth.verify(&sign(&pair.signs(algorithm))).is_ok(), "{algorithm:?}");
        assert!(is_invalid(&auth.verify(&sign(&other.signs(algorithm)))), "{algorithm:?}");
        // The public key is public: it must not do as a shared secret.
        let forged = EncodingKey::from_secret(pair.public.as_bytes());
        let forged = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims(json!({})), &forged).unwrap();
        assert!(is_invalid(&auth.verify(&forged)), "{algorithm:?}");
        let user = UserId::parse("bob").unwrap();
        assert!(matches!(auth.mint(grant(&user), Duration::from_secs(1), None), Err(Reject::Unsupported(_))));
    }
}

#[test]
fn one_rsa_key_is_one_algorithm() {
    let pair = Pair::rsa();
    let auth = at(&public(&pair, Algorithm::RS256), NOW);
    for algorithm in [Algorithm::RS512, Algorithm::PS256] {
        let token = jsonwebtoken::encode(&Header::new(algorithm), &claims(json!({})), &pair.signs(algorithm)).unwrap();
        assert!(is_invalid(&auth.verify(&token)), "{algorithm:?}");
    }
}

proptest! {
    #[test]
    fn any_text_is_refused(text in ".{0,200}") {
        prop_assert!(is_invalid(&auth().verify(&text)));
    }

    #[test]
    fn any_three_parts_are_refused(one in "[A-Za-z0-9_-]{0,60}", two in "[A-Za-z0-9_-]{0,60}", three in "[A-Za-z0-9_-]{0,60}") {
        let token = format!("{one}.{two}.{three}");
        prop_assert!(is_invalid(&auth().verify(&token)));
    }

    #[test]
    fn one_changed_character_makes_a_token_bad(at in 0usize..1_000, to in "[A-Za-z0-9_-]") {
        let token = sign(&claims(json!({})));
        // The last character of a signature has bits that don't count.
        let at = at % (token.len() - 1);
        let mut changed = token.clone();
        changed.replace_range(at..=at, &to);
        prop_assume!(changed != token);
        prop_assert!(is_invalid(&auth().verify(&changed)));
    }
}

#[test]
fn the_flaw_is_named_and_told_to_clients_under_dev_alone() {
    let strict = at(&AuthConfig { audience: Some("chat".into()), issuer: Some("id".into()), ..secret() }, NOW);
    let other = EncodingKey::from_secret(b"another secret, which is also long enough");
    let with = |more| sign(&claims(more));
    for (token, flaw) in [
        ("nonsense".to_owned(), TokenFlaw::Malformed),
        ("a.b.c".to_owned(), TokenFlaw::Malformed),
        (signed_with_header(&json!({"alg": "none"}), &claims(json!({}))), TokenFlaw::Header),
        (jsonwebtoken::encode(&Header::default(), &claims(json!({})), &other).unwrap(), TokenFlaw::Signature),
        (
            jsonwebtoken::encode(&Header::new(Algorithm::HS512), &claims(json!({})), &key()).unwrap(),
            TokenFlaw::Algorithm,
        ),
        (signed_with_header(&json!({"alg": "HS256", "crit": []}), &claims(json!({}))), TokenFlaw::Critical),
        (with(json!({"sub": null})), TokenFlaw::Subject),
        (with(json!({"sub": "a b"})), TokenFlaw::Subject),
        (with(json!({"exp": null})), TokenFlaw::NoExpiry),
        (with(json!({"exp": "soon"})), TokenFlaw::Expiry),
        (with(json!({"nbf": "soon"})), TokenFlaw::NotBefore),
        (with(json!({"nbf": NOW + 3_600})), TokenFlaw::Early),
    ] {
        assert_eq!(auth().verify(&token), Err(Reject::InvalidToken(flaw)), "{flaw:?}");
        let explaining = at(&AuthConfig { explains: true, ..secret() }, NOW);
        let told = explaining.verify(&token).unwrap_err();
        assert_eq!(told, Reject::InvalidTokenExplained(flaw));
        assert!(told.to_string().len() <= 123, "it fits into a close frame: {told}");
    }
    for (more, flaw) in [
        (json!({"aud": "chat"}), TokenFlaw::Issuer),
        (json!({"aud": "other", "iss": "id"}), TokenFlaw::Audience),
        (json!({"iss": "id"}), TokenFlaw::Audience),
    ] {
        assert_eq!(strict.verify(&with(more)), Err(Reject::InvalidToken(flaw)), "{flaw:?}");
    }
}

#[test]
fn long_tokens_are_not_even_read() {
    let token = sign(&claims(json!({"padding": "x".repeat(MAX_TOKEN_BYTES)})));
    assert!(is_invalid(&auth().verify(&token)));
}

/// Serves `body` over HTTP again and again, and counts how often it was asked.
async fn publish(body: Arc<std::sync::Mutex<String>>) -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let mut request = [0; 4_096];
            let _ = stream.read(&mut request).await;
            let body = body.lock().unwrap().clone();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all((head + &body).as_bytes()).await;
        }
    });
    (url, asked)
}

/// A published key.
fn jwk(pair: &Pair, algorithm: Algorithm, kid: &str) -> Value {
    let mut jwk = Jwk::from_encoding_key(&pair.signs(algorithm), algorithm).unwrap();
    jwk.common.key_id = Some(kid.to_owned());
    serde_json::to_value(jwk).unwrap()
}

fn signed_by(pair: &Pair, algorithm: Algorithm, kid: Option<&str>) -> String {
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) };
    jsonwebtoken::encode(&header, &claims(json!({})), &pair.signs(algorithm)).unwrap()
}

#[tokio::test]
async fn published_keys_are_found_by_their_kid() {
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
    let auth = at(&config(AuthKey::Jwks { url }), NOW);

    let good = signed_by(&rsa, Algorithm::RS256, Some("r"));
    assert_eq!(auth.verify(&good), Err(Reject::Unavailable), "nothing was fetched yet");
    assert_eq!(auth.fetch_keys().await, Some(Ok(2)));
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
async fn a_key_that_was_published_later_is_found() {
    let (old, new) = (Pair::ec(), Pair::ec());
    let set = |pair: &Pair, kid| json!({"keys": [jwk(pair, Algorithm::ES256, kid)]}).to_string();
    let body = Arc::new(std::sync::Mutex::new(set(&old, "old")));
    let (url, asked) = publish(Arc::clone(&body)).await;
    let auth = Arc::new(at(&config(AuthKey::Jwks { url }), NOW));
    assert_eq!(auth.fetch_keys().await, Some(Ok(1)));
    assert!(auth.verify(&signed_by(&old, Algorithm::ES256, None)).is_ok(), "the only key needs no kid");

    *body.lock().unwrap() = set(&new, "new");
    let token = signed_by(&new, Algorithm::ES256, Some("new"));
    assert!(is_invalid(&auth.verify(&token)), "the keys are fresh");
    let refresher = tokio::spawn({
        let auth = Arc::clone(&auth);
        async move { auth.keep_fresh().await }
    });
    let found = async {
        while auth.verify(&token).is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), found).await.expect("the new key is found");
    // However many unknown keys are named, the URL is not asked for each.
    for kid in 0..1_000 {
        let _ = auth.verify(&signed_with_header(&json!({"alg": "ES256", "kid": kid.to_string()}), &claims(json!({}))));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    refresher.abort();
}

#[tokio::test]
async fn bad_key_sets_leave_the_old_keys_in_use() {
    let pair = Pair::ec();
    let body = Arc::new(std::sync::Mutex::new(json!({"keys": [jwk(&pair, Algorithm::ES256, "k")]}).to_string()));
    let (url, _) = publish(Arc::clone(&body)).await;
    let auth = at(&config(AuthKey::Jwks { url }), NOW);
    assert_eq!(auth.fetch_keys().await, Some(Ok(1)));
    for bad in ["{}".to_owned(), "no json".to_owned(), r#"{"keys":[]}"#.to_owned(), " ".repeat(300 * 1_024)] {
        *body.lock().unwrap() = bad;
        assert!(auth.fetch_keys().await.unwrap().is_err());
        assert!(auth.verify(&signed_by(&pair, Algorithm::ES256, Some("k"))).is_ok());
    }
}

#[test]
fn the_clock_is_the_one_given() {
    let seconds = Arc::new(AtomicI64::new(NOW));
    let clock = {
        let seconds = Arc::clone(&seconds);
        Clock::from_fn(move || Timestamp::from_seconds(seconds.load(Ordering::SeqCst)))
    };
    let auth = Auth::new(&secret(), clock).unwrap();
    let token = sign(&claims(json!({})));
    assert!(auth.verify(&token).is_ok());
    seconds.store(NOW + 3_600, Ordering::SeqCst);
    assert_eq!(auth.verify(&token), Err(Reject::TokenExpired));
}
