//! Search texts from users. They are checked and split into words, so that no user input can become part of a query.

use super::invisible::is_blank;

/// Maximum number of words in a search; further words are ignored.
const TERMS_MAX: usize = 16;

/// The reason for which a search text was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSearch {
    /// The text is empty or only white space.
    #[error("{field} is needed: the words to be found")]
    Blank {
        /// The field's name.
        field: &'static str,
    },
    /// The text is too long, or has control characters.
    #[error("{field} has at most 200 characters, and no control characters")]
    Unfit {
        /// The field's name.
        field: &'static str,
    },
}

impl From<InvalidSearch> for super::Reject {
    fn from(error: InvalidSearch) -> Self {
        Self::Invalid(error.to_string())
    }
}

/// The words of a search: runs of letters and digits, at most 16. A text without any finds nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchTerms(Vec<String>);

impl SearchTerms {
    /// Maximum length of the text, in characters, without leading and trailing white space.
    pub const MAX_CHARS: usize = 200;

    /// Checks the client's text in `field`.
    ///
    /// # Errors
    /// The text is blank, too long, or has control characters.
    pub fn given(field: &'static str, text: &str) -> Result<Self, InvalidSearch> {
        let text = text.trim();
        if is_blank(text) {
            return Err(InvalidSearch::Blank { field });
        }
        if text.chars().count() > Self::MAX_CHARS || text.chars().any(char::is_control) {
            return Err(InvalidSearch::Unfit { field });
        }
        let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
        Ok(Self(words.take(TERMS_MAX).map(ToOwned::to_owned).collect()))
    }

    /// The words. A found message contains all of them; the last one may be the beginning of a word.
    pub fn words(&self) -> &[String] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_letters_and_digits_are_words() {
        let words = |text| SearchTerms::given("q", text).unwrap().0;
        assert_eq!(
            words("  Grüße, \"w\u{f6}rld\"* OR (a:b) 'x' 42 "),
            ["Grüße", "w\u{f6}rld", "OR", "a", "b", "x", "42"]
        );
        assert_eq!(words("* \\ ' \" &|!"), Vec::<String>::new());
        assert_eq!(words(&"w ".repeat(100)).len(), TERMS_MAX);
    }

    #[test]
    fn searches_are_checked() {
        for blank in ["", "  ", "\u{2003}\n"] {
            assert_eq!(SearchTerms::given("q", blank), Err(InvalidSearch::Blank { field: "q" }), "{blank:?}");
        }
        for unfit in ["a\0b", "a\nb", &"x".repeat(201)] {
            assert_eq!(SearchTerms::given("words", unfit), Err(InvalidSearch::Unfit { field: "words" }), "{unfit:?}");
        }
        assert!(SearchTerms::given("q", &format!(" {} ", "ä".repeat(200))).is_ok());
        let message = SearchTerms::given("words", &"x".repeat(201)).unwrap_err().to_string();
        assert!(message.contains(&SearchTerms::MAX_CHARS.to_string()), "{message}");
    }
}
