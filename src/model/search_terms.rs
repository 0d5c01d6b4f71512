//! Search texts from users. They are checked and split into terms, and messages are compared with them here, so that every
//! store finds the same. An index only leaves out messages that lack a token.

use super::{
    invisible::is_blank,
    search_text::{QueryToken, fold, has_tokens, is_of_word, term_tokens},
};

/// Maximum number of terms in a search; further ones are ignored.
const TERMS_MAX: usize = 16;

/// Punctuation around a term, which is not searched. Symbols that may belong to a name stay: `C++`, `#tag`, `a_b`.
const AROUND: &str = "\"'\u{201c}\u{201d}\u{201e}`«»‹›()[]{}<>,;:!?*。、「」『』【】《》〈〉・¿¡،؛؟।۔";

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

/// The terms of a search, at most 16: what stands between blanks, without punctuation around it. A term without a letter,
/// digit or pictograph is ignored; a text of only such terms finds nothing.
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
        let folded = fold(text);
        let terms = folded.split_whitespace().map(bare).filter(|term| has_tokens(term));
        Ok(Self(terms.take(TERMS_MAX).map(ToOwned::to_owned).collect()))
    }

    /// True if the search finds nothing, because it has no terms.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True if a message with this text is found: it contains all terms, none of them cut out of a longer word. The last
    /// term may be the beginning of a word.
    pub fn find(&self, text: &str) -> bool {
        if text.is_ascii() && !self.0.iter().all(|term| term.is_ascii()) {
            return false;
        }
        let text = fold(text);
        !self.is_empty() && self.0.iter().enumerate().all(|(at, term)| occurs(term, &text, self.is_last(at)))
    }

    /// Tokens that every message has which is found.
    pub fn tokens(&self) -> Vec<QueryToken> {
        self.0.iter().enumerate().flat_map(|(at, term)| term_tokens(term, self.is_last(at))).collect()
    }

    fn is_last(&self, at: usize) -> bool {
        at + 1 == self.0.len()
    }
}

/// A term without the punctuation around it. Full stops are part of a name only before it: `.NET`.
fn bare(term: &str) -> &str {
    let around = |c: char| AROUND.contains(c);
    term.trim_start_matches(around).trim_end_matches(|c| around(c) || c == '.')
}

/// True if the term occurs in the text between the borders of words; `open` if a word may go on after it.
fn occurs(term: &str, text: &str, open: bool) -> bool {
    let begins_word = term.chars().next().is_some_and(is_of_word);
    let ends_word = !open && term.chars().next_back().is_some_and(is_of_word);
    let step = term.chars().next().map_or(1, char::len_utf8);
    let mut from = 0;
    while let Some(at) = text[from..].find(term).map(|offset| from + offset) {
        let cut_before = begins_word && text[..at].chars().next_back().is_some_and(is_of_word);
        let cut_after = ends_word && text[at + term.len()..].chars().next().is_some_and(is_of_word);
        if !cut_before && !cut_after {
            return true;
        }
        from = at + step;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(text: &str) -> SearchTerms {
        SearchTerms::given("q", text).unwrap()
    }

    #[test]
    fn terms_stand_between_blanks_without_punctuation_around_them() {
        let terms = |text| search(text).0;
        assert_eq!(
            terms("  Grüße, \"w\u{f6}rld\"* OR (a:b) 'x' 42. "),
            ["grüsse", "w\u{f6}rld", "or", "a:b", "x", "42"]
        );
        assert_eq!(terms("C++ #Tag @name .NET a_b 🎉"), ["c++", "#tag", "@name", ".net", "a_b", "🎉"]);
        assert_eq!(terms("* \\ ' \" &|! ++ ..."), Vec::<String>::new());
        assert_eq!(terms(&"w ".repeat(100)).len(), TERMS_MAX);
    }

    #[test]
    fn terms_are_found_between_borders_of_words() {
        for (words, text, found) in [
            ("cat", "a cat.", true),
            ("cat", "category", true),
            ("cat dog", "category dog", false),
            ("cat", "concat", false),
            ("a-a b", "xa-a-a b", true),
            ("c++", "c", false),
            ("c++", "café", false),
            ("c++", "Ich mag C++!", true),
            ("上海", "我家在上海东边", true),
            ("上海", "海上", false),
        ] {
            assert_eq!(search(words).find(text), found, "{words} in {text}");
        }
        assert!(!search("!?").find("!?"));
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
