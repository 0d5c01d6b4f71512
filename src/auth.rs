//! Tokens: JWT to identity, and back.

/// Checks tokens, and mints them where a secret is configured.
#[derive(Debug)]
pub struct Auth {}
