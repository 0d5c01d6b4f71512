//! Explains a token: its header and claims, whether its signature matches, and every flaw.

use serde_json::{Map, Value};

use super::{Auth, MAX_TOKEN_BYTES, claims::Claims, flaws};
use crate::model::{Clock, Reject, TokenFlaw};

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

/// Explains a token. Without keys, `auth` holds the reason, and the signature, `aud` and `iss` are not checked.
/// Published keys must have been fetched.
pub fn inspect(token: &str, auth: Result<&Auth, String>, clock: &Clock) -> Inspection {
    let mut parts = token.split('.');
    let mut next = || parts.next().filter(|_| token.len() <= MAX_TOKEN_BYTES).and_then(flaws::object);
    let (header, claims) = (next(), next());
    let verified = match &auth {
        Ok(auth) => auth.verify(token),
        Err(_) if token.len() > MAX_TOKEN_BYTES => Err(Reject::InvalidToken(TokenFlaw::TooLong)),
        Err(_) if header.is_none() || claims.is_none() => Err(Reject::InvalidToken(TokenFlaw::Malformed)),
        Err(_) => Err(Reject::Unavailable),
    };
    let first = verified.as_ref().err().and_then(Reject::token_flaw);
    let signature = match (&auth, &verified, first) {
        (Err(why), ..) => SignatureCheck::NotChecked(why.clone()),
        (_, Ok(_), _) => SignatureCheck::Matches,
        (_, _, Some(TokenFlaw::Signature)) => SignatureCheck::Wrong,
        (_, _, Some(flaw)) if flaw.precedes_signature() => {
            SignatureCheck::NotChecked("no key of this server fits the token".to_owned())
        }
        (_, _, Some(_)) => SignatureCheck::Matches,
        (_, Err(_), None) => SignatureCheck::NotChecked("the published keys could not be fetched".to_owned()),
    };
    let mut flaws: Vec<TokenFlaw> = first.into_iter().collect();
    if let Some(claims) = &claims {
        let (audience, issuer, leeway) = match &auth {
            Ok(auth) => (auth.audience.as_deref(), auth.issuer.as_deref(), auth.leeway),
            Err(_) => (None, None, std::time::Duration::ZERO),
        };
        let found = Claims::flaws(claims, clock.now(), leeway, audience, issuer);
        let new: Vec<TokenFlaw> = found.into_iter().filter(|flaw| !flaws.contains(flaw)).collect();
        flaws.extend(new);
    }
    Inspection { header: header.unwrap_or_default(), claims: claims.unwrap_or_default(), signature, flaws }
}
