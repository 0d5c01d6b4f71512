//! Refused tokens: forged, altered or malformed ones, and the flaw that each refusal names.

use proptest::prelude::*;
use serde_json::json;

use super::*;

#[test]
fn an_expired_token_with_a_wrong_signature_is_invalid() {
    let other = EncodingKey::from_secret(b"another secret, which is also long enough").unwrap();
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
    let other = EncodingKey::from_secret(b"another secret, which is also long enough").unwrap();
    let with = |more| sign(&claims(more));
    let unsigned = |header| signed_with_header(&header, &claims(json!({})));
    for (token, flaw) in [
        ("nonsense".to_owned(), TokenFlaw::Malformed),
        ("a.b.c".to_owned(), TokenFlaw::Malformed),
        (unsigned(json!({"alg": "none"})), TokenFlaw::Unsigned),
        (unsigned(json!({"typ": "JWT"})), TokenFlaw::NoAlgorithm),
        (unsigned(json!({"alg": "HS999"})), TokenFlaw::Header),
        (jsonwebtoken::encode(&Header::default(), &claims(json!({})), &other).unwrap(), TokenFlaw::Signature),
        (
            jsonwebtoken::encode(&Header::new(Algorithm::HS512), &claims(json!({})), &key()).unwrap(),
            TokenFlaw::Algorithm,
        ),
        (unsigned(json!({"alg": "HS256", "crit": []})), TokenFlaw::Critical),
        (unsigned(json!({"alg": "HS256", "crit": ["b64"], "b64": true})), TokenFlaw::Critical),
        (with(json!({"sub": null})), TokenFlaw::NoSubject),
        (with(json!({"sub": "a b"})), TokenFlaw::Subject),
        (with(json!({"sub": "a/b"})), TokenFlaw::Subject),
        (with(json!({"exp": null})), TokenFlaw::NoExpiry),
        (with(json!({"exp": "soon"})), TokenFlaw::Expiry),
        (with(json!({"exp": (NOW + 60) * 1_000})), TokenFlaw::ExpiryInMilliseconds),
        (with(json!({"nbf": "soon"})), TokenFlaw::NotBefore),
        (with(json!({"nbf": NOW * 1_000})), TokenFlaw::NotBeforeInMilliseconds),
        (with(json!({"nbf": NOW + 3_600})), TokenFlaw::Early),
    ] {
        assert_eq!(auth().verify(&token), Err(Reject::InvalidToken(flaw)), "{flaw:?}");
        let explaining = at(&AuthConfig { explains: true, ..secret() }, NOW);
        let reported = explaining.verify(&token).unwrap_err();
        assert_eq!(reported, Reject::InvalidTokenExplained(flaw));
        assert!(reported.to_string().len() <= 123, "it fits into a close frame: {reported}");
        let clock = Clock::from_fn(|| Timestamp::from_seconds(NOW));
        assert_eq!(inspect(&token, Ok(&auth()), &clock).flaws.first(), Some(&flaw), "inspection names the same flaw");
    }
    let expired = auth().verify(&with(json!({"exp": 1}))).unwrap_err();
    assert_eq!((expired.token_flaw(), expired), (Some(TokenFlaw::Expired), Reject::TokenExpired));
    let persona = AuthConfig { persona_ids: [UserId::parse("ada").unwrap()].into(), ..secret() };
    let verified = at(&persona, NOW).verify(&with(json!({"sub": "ada"})));
    assert_eq!(verified, Err(Reject::InvalidToken(TokenFlaw::Persona)));
}

#[test]
fn audience_and_issuer_are_named_and_never_confused() {
    let strict = at(&AuthConfig { audience: Some("chat".into()), issuer: Some("id".into()), ..secret() }, NOW);
    let clock = Clock::from_fn(|| Timestamp::from_seconds(NOW));
    for (more, flaws) in [
        (json!({}), &[TokenFlaw::NoIssuer, TokenFlaw::NoAudience][..]),
        (json!({"aud": "chat"}), &[TokenFlaw::NoIssuer]),
        (json!({"iss": "id"}), &[TokenFlaw::NoAudience]),
        (json!({"aud": "other", "iss": "id"}), &[TokenFlaw::Audience]),
        (json!({"aud": "chat", "iss": "other"}), &[TokenFlaw::Issuer]),
        // The values of one are not taken for the other, nor parts of them.
        (json!({"aud": "id", "iss": "chat"}), &[TokenFlaw::Issuer, TokenFlaw::Audience]),
        (json!({"aud": "cha", "iss": "id"}), &[TokenFlaw::Audience]),
        (json!({"aud": ["chatter", ["chat"]], "iss": "id"}), &[TokenFlaw::Audience]),
        (json!({"aud": {"chat": true}, "iss": "id"}), &[TokenFlaw::Audience]),
        (json!({"aud": [], "iss": "id"}), &[TokenFlaw::Audience]),
        (json!({"aud": 1, "iss": "id"}), &[TokenFlaw::Audience]),
        (json!({"aud": "chat", "iss": 1}), &[TokenFlaw::Issuer]),
        (json!({"aud": "chat", "iss": {"id": 1}}), &[TokenFlaw::Issuer]),
    ] {
        let token = sign(&claims(more.clone()));
        let refused = strict.verify(&token).unwrap_err().token_flaw().unwrap();
        let found = inspect(&token, Ok(&strict), &clock).flaws;
        assert!(flaws.contains(&refused), "{more}: {refused:?}");
        assert!(found[0] == refused && flaws.iter().all(|flaw| found.contains(flaw)), "{more}: {found:?}");
    }
    for good in [json!({"aud": "chat", "iss": "id"}), json!({"aud": ["x", "chat"], "iss": "id"})] {
        let token = sign(&claims(good));
        assert!(strict.verify(&token).is_ok() && inspect(&token, Ok(&strict), &clock).flaws.is_empty());
    }
}

#[test]
fn inspection_explains_tokens_without_keys_too() {
    let clock = Clock::from_fn(|| Timestamp::from_seconds(NOW));
    let token = sign(&claims(json!({"exp": NOW * 1_000, "sub": "a b", "email": "a@b.c"})));
    let found = inspect(&token, Err("no key".into()), &clock);
    assert_eq!(found.signature, SignatureCheck::NotChecked("no key".into()));
    assert_eq!(found.flaws, [TokenFlaw::Subject, TokenFlaw::ExpiryInMilliseconds]);
    assert_eq!((&found.header["alg"], &found.claims["sub"]), (&json!("HS256"), &json!("a b")));
    let good = inspect(&sign(&claims(json!({}))), Ok(&auth()), &clock);
    assert!(good.flaws.is_empty() && good.signature == SignatureCheck::Matches);
    let other = EncodingKey::from_secret(b"another secret, which is also long enough").unwrap();
    let forged = jsonwebtoken::encode(&Header::default(), &claims(json!({"exp": 1})), &other).unwrap();
    let found = inspect(&forged, Ok(&auth()), &clock);
    assert_eq!(found.signature, SignatureCheck::Wrong);
    assert_eq!(found.flaws, [TokenFlaw::Signature, TokenFlaw::Expired]);
    for bad in ["", ".", "a.b.c", "x", &"x".repeat(9_000)] {
        assert_eq!(inspect(bad, Err(String::new()), &clock).flaws.len(), 1, "{bad:.20}");
    }
}
