//! [`Checks`]: one key with its validation rules.

use jsonwebtoken::{DecodingKey, Validation};

/// A key, and the validation rules for the tokens that it signed.
pub(super) struct Checks {
    pub(super) key: DecodingKey,
    pub(super) validation: Validation,
}
