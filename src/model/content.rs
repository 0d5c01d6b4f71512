//! Texts that users write: message contents and reactions, checked when they are built.

use std::sync::Arc;

use serde::Serialize;

use super::{Data, Reject, invisible::is_blank};

/// Maximum length of a message, in Unicode scalar values (from the protocol document of the personas dialect).
pub const MAX_CONTENT_CHARS: usize = 5_000;
/// Maximum length of a reaction, in bytes. The longest emoji sequences are shorter.
const MAX_EMOJI_BYTES: usize = 64;

/// The reason for which a text is not valid as message content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidContent {
    /// The text is empty, or has only characters that nobody sees.
    #[error("Message content cannot be empty")]
    Empty,
    /// The text is longer than [`MAX_CONTENT_CHARS`].
    #[error("Message too long: at most 5000 characters")]
    TooLong,
    /// The text has a control character other than tab and line ends.
    #[error("Message content has a control character")]
    Control,
}

/// A message's text: 1 to 5,000 characters, at least one of them visible, no control characters except tab and line ends.
/// It is stored as sent. Beside data it may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Content(Arc<str>);

impl Content {
    /// Checks `text`.
    pub fn parse(text: &str) -> Result<Self, InvalidContent> {
        if is_blank(text) {
            return Err(InvalidContent::Empty);
        }
        if text.len() > MAX_CONTENT_CHARS && text.chars().count() > MAX_CONTENT_CHARS {
            return Err(InvalidContent::TooLong);
        }
        if text.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r')) {
            return Err(InvalidContent::Control);
        }
        Ok(Self(text.into()))
    }

    /// Checks the text of a message, which may be empty beside `data`.
    pub fn beside(data: Option<&Data>, text: &str) -> Result<Self, InvalidContent> {
        if text.is_empty() && data.is_some() { Ok(Self(text.into())) } else { Self::parse(text) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Content> for Arc<str> {
    fn from(content: Content) -> Self {
        content.0
    }
}

/// The variation selector that asks for a coloured emoji. Keyboards send it or leave it out.
const COLOURED: char = '\u{FE0F}';

/// A reaction: a short text without white space or control characters, usually one emoji. It has no variation selectors
/// U+FE0F, so that an emoji with and without them is one reaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Emoji(Arc<str>);

/// The text is not valid as a reaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("A reaction has 1 to 64 bytes of UTF-8, without blanks or control characters")]
pub struct InvalidEmoji;

impl From<InvalidEmoji> for Reject {
    fn from(error: InvalidEmoji) -> Self {
        Self::Invalid(error.to_string())
    }
}

impl Emoji {
    /// Checks `text`.
    pub fn parse(text: &str) -> Result<Self, InvalidEmoji> {
        let fits = (1..=MAX_EMOJI_BYTES).contains(&text.len());
        let fits = fits && !is_blank(text) && !text.chars().any(|c| c.is_control() || c.is_whitespace());
        if fits { Ok(Self(Self::normalized(text))) } else { Err(InvalidEmoji) }
    }

    /// The text of a stored reaction. Versions before this one stored it as it was sent.
    pub fn normalized(text: &str) -> Arc<str> {
        if text.contains(COLOURED) { text.replace(COLOURED, "").into() } else { text.into() }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_checked() {
        assert!(Content::parse("hi\r\n\tthere <b>").is_ok());
        assert!(Content::parse(&"ä".repeat(5_000)).is_ok());
        assert_eq!(Content::parse(&"ä".repeat(5_001)), Err(InvalidContent::TooLong));
        assert_eq!(Content::parse(" \u{2003}\n"), Err(InvalidContent::Empty));
        for blank in ["", "\u{200B}", "\u{2800}", "\u{3164}\u{AD}", "\u{FE0F}", "\u{E0041}"] {
            assert_eq!(Content::parse(blank), Err(InvalidContent::Empty), "{blank:?}");
            assert_eq!(Emoji::parse(blank), Err(InvalidEmoji), "{blank:?}");
        }
        assert!(Content::parse("\u{200B}x").is_ok() && Emoji::parse("❤\u{FE0F}").is_ok());
        assert_eq!(Content::parse("a\0b"), Err(InvalidContent::Control));
        let data = Data::stored("{}".to_owned()).unwrap();
        assert_eq!(Content::beside(Some(&data), "").unwrap().as_str(), "");
        assert_eq!(Content::beside(Some(&data), " "), Err(InvalidContent::Empty));
        assert_eq!(Content::beside(None, ""), Err(InvalidContent::Empty));
    }

    #[test]
    fn an_emoji_with_and_without_variation_selectors_is_one_reaction() {
        for (one, other) in
            [("❤\u{FE0F}", "❤"), ("1\u{FE0F}\u{20E3}", "1\u{20E3}"), ("👁\u{FE0F}\u{200D}🗨\u{FE0F}", "👁\u{200D}🗨")]
        {
            assert_eq!(Emoji::parse(one), Emoji::parse(other));
            assert_eq!(Emoji::parse(one).unwrap().as_str(), other);
        }
    }
}
