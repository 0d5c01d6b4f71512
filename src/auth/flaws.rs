//! Names the flaw of a token that the library refuses.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::errors::ErrorKind;
use serde_json::{Map, Value};

use crate::model::TokenFlaw;

/// Maximum length of a token, in bytes. Longer tokens are refused without being parsed.
pub(super) const MAX_TOKEN_BYTES: usize = 8 * 1_024;

/// Decodes one of the first two parts of a token, which are JSON objects.
pub(super) fn object(part: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

/// The flaw of a token whose header the library can't decode.
pub(super) fn of_header(token: &str) -> TokenFlaw {
    let parts: Vec<&str> = token.split('.').collect();
    let [header, _, _] = parts[..] else { return TokenFlaw::Malformed };
    match URL_SAFE_NO_PAD.decode(header) {
        Err(_) => TokenFlaw::Malformed,
        Ok(bytes) => match serde_json::from_slice::<Map<String, Value>>(&bytes) {
            Ok(header) => match header.get("alg") {
                None | Some(Value::Null) => TokenFlaw::NoAlgorithm,
                Some(Value::String(name)) if name.eq_ignore_ascii_case("none") => TokenFlaw::Unsigned,
                Some(_) => TokenFlaw::Header,
            },
            // Text that only looks like base64 is no JWT at all.
            Err(_) if !bytes.starts_with(b"{") => TokenFlaw::Malformed,
            Err(_) => TokenFlaw::Header,
        },
    }
}

/// The flaw of a token whose header is sound.
pub(super) fn of_error(token: &str, kind: &ErrorKind) -> TokenFlaw {
    // The library counts a claim that it can't read as missing.
    let has = |claim: &str| {
        let claims = token.split('.').nth(1).and_then(object).unwrap_or_default();
        claims.get(claim).is_some_and(|value| !value.is_null())
    };
    match kind {
        ErrorKind::InvalidSignature => TokenFlaw::Signature,
        ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm | ErrorKind::MissingAlgorithm => {
            TokenFlaw::Algorithm
        }
        ErrorKind::InvalidAudience => TokenFlaw::Audience,
        ErrorKind::InvalidIssuer => TokenFlaw::Issuer,
        ErrorKind::MissingRequiredClaim(claim) => match claim.as_str() {
            "aud" if has("aud") => TokenFlaw::Audience,
            "iss" if has("iss") => TokenFlaw::Issuer,
            "aud" => TokenFlaw::NoAudience,
            "iss" => TokenFlaw::NoIssuer,
            _ => TokenFlaw::Malformed,
        },
        ErrorKind::InvalidClaimFormat(claim) => match claim.as_str() {
            "aud" => TokenFlaw::Audience,
            "iss" => TokenFlaw::Issuer,
            _ => TokenFlaw::Malformed,
        },
        _ => TokenFlaw::Malformed,
    }
}
