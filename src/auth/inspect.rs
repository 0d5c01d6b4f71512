//! Explains a token: its header and claims, whether its signature matches, and every flaw.

use serde_json::{Map, Value};

use super::{
    claims::{Claims, Rules},
    flaws::{self, MAX_TOKEN_BYTES},
};
use crate::model::{Identity, Reject, Timestamp, TokenFlaw};

/// The claims whose values are shown to operators. Others may hold personal data, so only their names are.
pub const SHOWN_CLAIMS: [&str; 12] =
    ["sub", "username", "name", "role", "roles", "tier", "aud", "iss", "iat", "nbf", "exp", "jti"];

/// The parts of a token that are not secret, and its flaws.
#[derive(Debug)]
pub struct Inspection {
    /// The header's fields; empty if it can't be read.
    pub header: Map<String, Value>,
    /// The claims; empty if they can't be read.
    pub claims: Map<String, Value>,
    /// Result of the check of the signature.
    pub signature: SignatureCheck,
    /// Every flaw that was found; the first is the one for which a node refuses the token.
    pub flaws: Vec<TokenFlaw>,
    /// The refusal of a sound token by an admin: it was revoked, or its user is blocked.
    pub kept_out: Option<Reject>,
}

/// Result of the check of a token's signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignatureCheck {
    /// It matches a configured key.
    Matches,
    /// It does not match.
    Wrong,
    /// It was not checked, for this reason.
    NotChecked(String),
}

/// Explains a token. `verified` is the result of its verification, or the reason why there are no keys for it.
pub(super) fn explain(
    token: &str,
    verified: Result<Result<Identity, Reject>, String>,
    rules: &Rules<'_>,
    now: Timestamp,
) -> Inspection {
    let mut parts = token.split('.');
    let mut next = || parts.next().filter(|_| token.len() <= MAX_TOKEN_BYTES).and_then(flaws::object);
    let (header, claims) = (next(), next());
    let first = match &verified {
        Ok(verified) => verified.as_ref().err().and_then(Reject::token_flaw),
        Err(_) if token.len() > MAX_TOKEN_BYTES => Some(TokenFlaw::TooLong),
        Err(_) => (header.is_none() || claims.is_none()).then_some(TokenFlaw::Malformed),
    };
    let kept_out = match &verified {
        Ok(Err(reject @ (Reject::TokenRevoked | Reject::Blocked))) => Some(reject.clone()),
        _ => None,
    };
    let signature = match (verified, first) {
        _ if kept_out.is_some() => SignatureCheck::Matches,
        (Err(why), _) => SignatureCheck::NotChecked(why),
        (Ok(Ok(_)), _) => SignatureCheck::Matches,
        (_, Some(TokenFlaw::Signature)) => SignatureCheck::Wrong,
        (_, Some(flaw)) if flaw.precedes_signature() => {
            SignatureCheck::NotChecked("no key of this server fits the token".to_owned())
        }
        (_, Some(_)) => SignatureCheck::Matches,
        (_, None) => SignatureCheck::NotChecked("the published keys could not be fetched".to_owned()),
    };
    let mut flaws: Vec<TokenFlaw> = first.into_iter().collect();
    if let Some(claims) = &claims {
        let found = Claims::flaws(claims, now, rules);
        let new: Vec<TokenFlaw> = found.into_iter().filter(|flaw| !flaws.contains(flaw)).collect();
        flaws.extend(new);
    }
    Inspection { header: header.unwrap_or_default(), claims: claims.unwrap_or_default(), signature, flaws, kept_out }
}
