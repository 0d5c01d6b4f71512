//! Tokens as an application mints them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

/// Secret with which every test node verifies tokens.
pub const SECRET: &str = "only-for-tests-and-long-enough-for-HS256";

/// Token of the admin console of test nodes.
pub const ADMIN_TOKEN: &str = "only-for-tests-the-admin-token-of-the-console";

/// Mints a token for `user` that is valid for an hour. The display name is the id with a capital: `alice` is Alice.
pub fn token(user: &str) -> String {
    token_with(user, json!({}))
}

/// Mints a token for `user` with added or replaced claims: `json!({"role": "admin", "exp": 0})`.
pub fn token_with(user: &str, claims: Value) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    let mut name = user.to_owned();
    name[..1].make_ascii_uppercase();
    let mut all = json!({ "sub": user, "name": name, "iat": now.as_secs(),
        "exp": (now + Duration::from_secs(3_600)).as_secs() });
    for (claim, value) in claims.as_object().expect("claims are an object") {
        all[claim] = value.clone();
    }
    // Fails if a provider is installed already, which is as good.
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    jsonwebtoken::encode(
        &Header::default(),
        &all,
        &EncodingKey::from_secret(SECRET.as_bytes()).expect("the secret is not empty"),
    )
    .expect("claims encode")
}
