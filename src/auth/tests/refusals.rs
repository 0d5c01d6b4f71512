//! Refused tokens: forged, altered or malformed ones, and the flaw that each refusal names.

use proptest::prelude::*;
use serde_json::json;

use super::*;

#[test]
fn an_expired_token_with_a_wrong_signature_is_invalid() {
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
fn critical_extensions_are_refused_and_other_header_fields_are_ignored() {
    let good = claims(json!({}));
    for crit in [json!(["b64"]), json!(["exp"]), json!([])] {
        let token = signed_with_header(&json!({"alg": "HS256", "crit": crit, "b64": false}), &good);
        assert!(is_invalid(&auth().verify(&token)), "{crit}");
    }
    let header = json!({"alg": "HS256", "kid": "../../etc/passwd", "jku": "http://evil", "x5u": "http://evil"});
    assert!(auth().verify(&signed_with_header(&header, &good)).is_ok());
}

#[test]
fn too_long_tokens_are_refused() {
    let token = sign(&claims(json!({"padding": "x".repeat(MAX_TOKEN_BYTES)})));
    assert!(is_invalid(&auth().verify(&token)));
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
    fn one_changed_character_makes_a_token_invalid(at in 0usize..1_000, to in "[A-Za-z0-9_-]") {
        let token = sign(&claims(json!({})));
        // The last base64 character of a signature has unused bits; changing them changes nothing.
        let at = at % (token.len() - 1);
        let mut changed = token.clone();
        changed.replace_range(at..=at, &to);
        prop_assume!(changed != token);
        prop_assert!(is_invalid(&auth().verify(&changed)));
    }
}

#[test]
fn the_flaw_is_named_and_reported_to_clients_only_if_configured() {
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
        let reported = explaining.verify(&token).unwrap_err();
        assert_eq!(reported, Reject::InvalidTokenExplained(flaw));
        assert!(reported.to_string().len() <= 123, "it fits into a close frame: {reported}");
    }
    for (more, flaw) in [
        (json!({"aud": "chat"}), TokenFlaw::Issuer),
        (json!({"aud": "other", "iss": "id"}), TokenFlaw::Audience),
        (json!({"iss": "id"}), TokenFlaw::Audience),
    ] {
        assert_eq!(strict.verify(&with(more)), Err(Reject::InvalidToken(flaw)), "{flaw:?}");
    }
}
