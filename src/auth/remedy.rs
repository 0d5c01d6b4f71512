//! The remedy for each flaw of a token.

use crate::model::TokenFlaw;

/// The remedy for a flaw.
pub fn remedy(flaw: TokenFlaw) -> &'static str {
    use TokenFlaw as F;
    match flaw {
        F::Missing | F::NotInFirstFrame => "Send a token",
        F::TooLong => "A token has at most 8 KiB: leave out claims that chat does not need",
        F::Malformed => {
            "Pass the whole token, without quotes or line breaks; an opaque access token can't be used, ask the issuer for a JWT"
        }
        F::Header | F::NoAlgorithm => {
            "Sign it with one of the algorithms in docs/operations/configuration.md (JWT_ALGORITHM)"
        }
        F::Unsigned => "Sign it: alg none is never accepted",
        F::Critical => "Sign it without crit",
        F::Algorithm => {
            "Sign it with the algorithm of JWT_ALGORITHM (HS256 unless it is set), or set JWT_ALGORITHM to the token's alg"
        }
        F::Signature => {
            "Sign it with the key that the nodes have, and check that JWT_SECRET is the same text there, without base64 and quotes"
        }
        F::UnknownKey => {
            "Sign it with a key that JWT_JWKS_URL publishes, or wait until the new key is published; check that the URL is that of the issuer"
        }
        F::NoKeyId => "Sign it with a kid in the header",
        F::NoSubject | F::Subject => "Put the user's id into sub; docs/protocol/native.md lists the characters",
        F::Persona => "Give the user another id, or take the id out of PERSONA_IDS",
        F::Expired => "Get a new token; if it is new, compare the clocks of its issuer and of this machine",
        F::NoExpiry => "Add exp: seconds since 1970",
        F::Expiry => "Write exp as a number: seconds since 1970",
        F::ExpiryInMilliseconds => "Divide exp by 1,000",
        F::NotBefore => "Write nbf as a number: seconds since 1970",
        F::NotBeforeInMilliseconds => "Divide nbf by 1,000",
        F::Early => "Wait, or compare the clocks of its issuer and of this machine (JWT_LEEWAY)",
        F::TooLongLived => {
            "Let it expire earlier, or set a longer TOKEN_LIFETIME_MAX; without iat, its validity counts from now"
        }
        F::IssuedAt => "Write iat as a number: seconds since 1970",
        F::IssuedAtInMilliseconds => "Divide iat by 1,000",
        F::IssuedLater => "Compare the clocks of its issuer and of this machine (JWT_LEEWAY)",
        F::TokenId => "Write jti as a text of 1 to 256 characters, or leave it out",
        F::NoAudience | F::Audience => "Ask the issuer for a token for JWT_AUDIENCE, or correct JWT_AUDIENCE",
        F::NoIssuer | F::Issuer => {
            "Use a token of JWT_ISSUER, or correct JWT_ISSUER: it must match to the last character, also a slash"
        }
    }
}
