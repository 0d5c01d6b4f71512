//! One key, and what tokens signed with it must fulfil.

use jsonwebtoken::{DecodingKey, Validation};

/// A key, and all that a token signed with it must fulfil.
pub(super) struct Checks {
    pub(super) key: DecodingKey,
    pub(super) validation: Validation,
}
