//! Claims of a token, and the identity that they become.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use serde_json::json;

use super::*;

#[test]
fn claims_become_the_identity() {
    let identity = verify(json!({"username": "Alice", "name": "other", "role": "admin", "tier": "pro"})).unwrap();
    assert_eq!((identity.user.as_str(), &*identity.name), ("alice", "Alice"));
    assert!(identity.admin);
    assert_eq!(identity.tier.as_deref(), Some("pro"));
    assert_eq!(identity.expires_at, Timestamp::from_seconds(NOW + 60));
}

#[test]
fn display_names_fall_back_to_name_and_id() {
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
fn only_the_admin_role_makes_an_admin() {
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
        json!({"iat": NOW + LEEWAY + 1}),
        json!({"iat": "now"}),
        json!({"iat": NOW * 1_000}),
    ] {
        assert!(is_invalid(&verify(bad.clone())), "{bad}");
    }
}

#[test]
fn times_are_checked_with_exactly_the_leeway() {
    let token = sign(&claims(json!({"nbf": NOW, "exp": NOW + 60})));
    let verify_at = |seconds| at(&secret(), seconds).verify(&token);
    assert!(is_invalid(&verify_at(NOW - LEEWAY - 1)));
    assert!(verify_at(NOW - LEEWAY).is_ok());
    assert!(verify_at(NOW + 60 + LEEWAY - 1).is_ok());
    assert_eq!(verify_at(NOW + 60 + LEEWAY), Err(Reject::TokenExpired));
    assert!(verify(json!({"exp": 1.8e9 + 60.5})).is_ok());
}

#[test]
fn the_lifetime_is_bounded_from_the_issue_or_from_now() {
    for (issued_at, expires_at, flaw) in [
        (Some(NOW), NOW + LIFETIME_MAX, None),
        (Some(NOW), NOW + LIFETIME_MAX + 1, Some(TokenFlaw::TooLongLived)),
        (Some(NOW - 100), NOW + LIFETIME_MAX - 99, Some(TokenFlaw::TooLongLived)),
        (None, NOW + LIFETIME_MAX + LEEWAY, None),
        (None, NOW + LIFETIME_MAX + LEEWAY + 1, Some(TokenFlaw::TooLongLived)),
        (Some(NOW + LEEWAY), NOW + 60, None),
        (Some(NOW + LEEWAY + 1), NOW + 60, Some(TokenFlaw::IssuedLater)),
    ] {
        let verified = verify(json!({"iat": issued_at, "exp": expires_at}));
        assert_eq!(verified.as_ref().err().and_then(Reject::token_flaw), flaw, "{issued_at:?} {expires_at}");
        assert_eq!(verified.is_ok(), flaw.is_none());
    }
}

#[test]
fn ids_of_tokens_may_be_text_or_numbers() {
    for (jti, id) in
        [(json!("t-1"), Some("t-1")), (json!(42), Some("42")), (json!(-7), Some("-7")), (json!(null), None)]
    {
        let found = verify(json!({"jti": jti})).unwrap().token_id;
        assert_eq!(found.as_ref().map(TokenId::as_str), id, "{jti}");
    }
    let token = "eyJhbGciOiJub25lIn0.e30.";
    for bad in [json!(""), json!(["t"]), json!("x".repeat(257)), json!("a\nb"), json!(true), json!(5.0), json!(token)] {
        let flaw = verify(json!({"jti": bad})).err().and_then(|reject| reject.token_flaw());
        assert_eq!(flaw, Some(TokenFlaw::TokenId), "{bad}: no admin could revoke it");
    }
}

#[test]
fn configured_audience_and_issuer_are_required() {
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

#[test]
fn time_comes_from_the_given_clock() {
    let seconds = Arc::new(AtomicI64::new(NOW));
    let clock = {
        let seconds = Arc::clone(&seconds);
        Clock::from_fn(move || Timestamp::from_seconds(seconds.load(Ordering::SeqCst)))
    };
    let auth = Auth::new(&secret(), clock, Restrictions::none()).unwrap();
    let token = sign(&claims(json!({})));
    assert!(auth.verify(&token).is_ok());
    seconds.store(NOW + 3_600, Ordering::SeqCst);
    assert_eq!(auth.verify(&token), Err(Reject::TokenExpired));
}

#[test]
fn subjects_of_identity_providers_are_user_ids() {
    for subject in ["auth0|abc", "google-oauth2|123", "bob+test@example.com", "samlp|acme|x@y.z", "f:1:bob", "aGk="] {
        assert_eq!(verify(json!({"sub": subject})).unwrap().user.as_str(), subject);
    }
}
