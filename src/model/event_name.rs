//! The name of a client's event.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, de};

use super::Reject;

/// Maximum length of a name, in characters.
const MAX_CHARS: usize = 64;

/// The name by which clients tell the kinds of their events apart. The broker doesn't read it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct EventName(Arc<str>);

/// A text is not the name of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("name must be 1 to {MAX_CHARS} of A-Z a-z 0-9 . _ : -")]
pub struct InvalidEventName;

impl From<InvalidEventName> for Reject {
    fn from(error: InvalidEventName) -> Self {
        Self::Invalid(error.to_string())
    }
}

impl EventName {
    /// Checks a name.
    ///
    /// # Errors
    /// The text is empty, too long, or has another character.
    pub fn parse(text: &str) -> Result<Self, InvalidEventName> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
        match (1..=MAX_CHARS).contains(&text.len()) && text.bytes().all(allowed) {
            true => Ok(Self(text.into())),
            false => Err(InvalidEventName),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for EventName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(from)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["a", "call.offer", "cursor:1_2-3", &"x".repeat(64)] {
            assert_eq!(EventName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "a b", "ä", "a/b", "a\0", "a@b", "~", &"x".repeat(65)] {
            assert_eq!(EventName::parse(bad), Err(InvalidEventName), "{bad}");
        }
    }
}
