//! Text that must not reach a log.

/// Minimum length of a shared secret in bytes, as long as its hash (RFC 7518, section 3.2).
pub(super) const MIN_SECRET_BYTES: usize = 32;

/// A text that must not reach a log; its `Debug` output hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Refuses a shared secret that is too short.
pub(super) fn check_secret_length(secret: &str) -> Result<String, String> {
    if secret.len() >= MIN_SECRET_BYTES {
        Ok(secret.to_owned())
    } else {
        Err(format!("must have at least {MIN_SECRET_BYTES} bytes"))
    }
}
