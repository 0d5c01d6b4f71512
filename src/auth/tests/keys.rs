//! Keys of the configuration: a shared secret mints tokens, a public key only verifies them.

use serde_json::json;

use super::{super::fixture::Pair, *};

#[test]
fn minted_tokens_are_valid_and_never_outlive_their_source() {
    let auth = auth();
    let bob = UserId::parse("bob").unwrap();
    let ttl = Duration::from_secs(1_800);
    let identity = auth.verify(&auth.mint(grant(&bob), ttl, None).unwrap().token).unwrap();
    assert_eq!((&*identity.name, identity.admin, identity.tier.as_deref()), ("Bob", true, Some("pro")));
    assert_eq!(identity.expires_at, Timestamp::from_seconds(NOW + 1_800));

    let shown = Identity { expires_at: Timestamp::from_seconds(NOW + 10), ..identity.clone() };
    let minted = auth.mint(Grant::from(&identity), ttl, Some(&shown)).unwrap();
    assert_eq!((minted.expires_at, minted.expires_in), (Timestamp::from_seconds(NOW + 10), Duration::from_secs(10)));
    assert_eq!(auth.verify(&minted.token).unwrap().expires_at, Timestamp::from_seconds(NOW + 10));
    // Within the leeway an expired token is still valid, but it can't be exchanged for a new one.
    let over = Identity { expires_at: Timestamp::from_seconds(NOW), ..identity };
    assert_eq!(auth.mint(grant(&bob), ttl, Some(&over)).err(), Some(Reject::TokenExpired));
    assert_eq!(auth.mint(grant(&bob), Duration::ZERO, None).err(), Some(Reject::TokenExpired));
}

#[test]
fn a_derived_token_has_the_time_of_issue_and_the_id_of_its_parent() {
    let (auth, ttl) = (auth(), Duration::from_secs(60));
    for (more, issued_at, id) in [
        (json!({"iat": NOW - 100, "jti": "t-1", "exp": NOW + 3_600}), Some(NOW - 100), Some("t-1")),
        (json!({"exp": NOW + 3_600}), None, None),
    ] {
        let parent = auth.verify(&sign(&claims(more))).unwrap();
        let derived = auth.mint(Grant::from(&parent), ttl, Some(&parent)).unwrap();
        let derived = auth.verify(&derived.token).unwrap();
        assert_eq!(derived.issued_at, issued_at.map(Timestamp::from_seconds));
        assert_eq!(derived.token_id.as_ref().map(TokenId::as_str), id);
        assert_eq!(derived.expires_at, Timestamp::from_seconds(NOW + 60));
    }
    let own = auth.verify(&auth.mint(grant(&UserId::parse("bob").unwrap()), ttl, None).unwrap().token).unwrap();
    assert_eq!(own.issued_at, Some(Timestamp::from_seconds(NOW)));
}

#[test]
fn no_token_is_minted_that_would_be_refused() {
    let (auth, bob) = (auth(), UserId::parse("bob").unwrap());
    let mint = |seconds: i64| auth.mint(grant(&bob), Duration::from_secs(seconds.unsigned_abs()), None);
    assert!(auth.verify(&mint(LIFETIME_MAX).unwrap().token).is_ok());
    assert_eq!(mint(LIFETIME_MAX + 1).err(), Some(Reject::InvalidToken(TokenFlaw::TooLongLived)));
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
fn public_keys_verify_and_never_mint() {
    for (pair, other, algorithm) in [
        (Pair::rsa(), Pair::rsa(), Algorithm::RS256),
        (Pair::ec(), Pair::ec(), Algorithm::ES256),
        (Pair::ed(), Pair::ed(), Algorithm::EdDSA),
    ] {
        let auth = at(&public(&pair, algorithm), NOW);
        let sign = |key: &EncodingKey| jsonwebtoken::encode(&Header::new(algorithm), &claims(json!({})), key).unwrap();
        assert!(auth.verify(&sign(&pair.signing_key(algorithm))).is_ok(), "{algorithm:?}");
        assert!(is_invalid(&auth.verify(&sign(&other.signing_key(algorithm)))), "{algorithm:?}");
        // Anyone knows the public key: it must not be accepted as a shared secret.
        let forged = EncodingKey::from_secret(pair.public.as_bytes()).unwrap();
        let forged = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims(json!({})), &forged).unwrap();
        assert!(is_invalid(&auth.verify(&forged)), "{algorithm:?}");
        let user = UserId::parse("bob").unwrap();
        assert!(matches!(auth.mint(grant(&user), Duration::from_secs(1), None), Err(Reject::Unsupported(_))));
    }
}

#[test]
fn an_rsa_key_is_pinned_to_one_algorithm() {
    let pair = Pair::rsa();
    let auth = at(&public(&pair, Algorithm::RS256), NOW);
    for algorithm in [Algorithm::RS512, Algorithm::PS256] {
        let token =
            jsonwebtoken::encode(&Header::new(algorithm), &claims(json!({})), &pair.signing_key(algorithm)).unwrap();
        assert!(is_invalid(&auth.verify(&token)), "{algorithm:?}");
    }
}

#[test]
fn tokens_of_the_previous_secret_are_valid_and_new_ones_have_the_new_secret() {
    const NEW: &str = "the secret after the rotation of tests";
    let key = |previous: Option<&str>| AuthKey::Secret {
        secret: Secret::new(NEW),
        previous: previous.map(Secret::new),
        algorithm: Algorithm::HS256,
    };
    let (rotating, rotated) = (at(&config(key(Some(SECRET))), NOW), at(&config(key(None)), NOW));
    let old = sign(&claims(json!({})));
    assert!(rotating.verify(&old).is_ok());
    assert_eq!(rotated.verify(&old), Err(Reject::InvalidToken(TokenFlaw::Signature)));
    assert_eq!(rotating.verify(&sign(&claims(json!({"exp": 1})))), Err(Reject::TokenExpired));
    let user = UserId::parse("bob").unwrap();
    let minted = rotating.mint(grant(&user), Duration::from_secs(60), None).unwrap().token;
    assert!(rotated.verify(&minted).is_ok() && auth().verify(&minted).is_err());
    let foreign = EncodingKey::from_secret(b"another secret, which is also long enough").unwrap();
    let foreign = jsonwebtoken::encode(&Header::default(), &claims(json!({})), &foreign).unwrap();
    assert_eq!(rotating.verify(&foreign), Err(Reject::InvalidToken(TokenFlaw::Signature)));
}
