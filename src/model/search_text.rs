//! Texts as a search compares them, and the tokens by which an index finds them.

use unicode_normalization::{IsNormalized, UnicodeNormalization, char::is_combining_mark, is_nfkc_quick};

use super::invisible::is_invisible;

/// Words are cut to this many characters in tokens.
const TOKEN_CHARS: usize = 64;

/// Ranges of letters that are written without spaces between words, or with endings that spaces don't separate, and of
/// pictographs. Each such character may begin or end a match.
const DENSE: [(char, char); 30] = [
    // Thai, Lao; Myanmar; Hangul.
    ('\u{E00}', '\u{EFF}'),
    ('\u{1000}', '\u{109F}'),
    ('\u{1100}', '\u{11FF}'),
    // Khmer; the scripts of the Tai languages and of Java and Bali.
    ('\u{1780}', '\u{17FF}'),
    ('\u{1950}', '\u{19FF}'),
    ('\u{1A20}', '\u{1AAF}'),
    ('\u{1B00}', '\u{1B7F}'),
    // Han, kana and bopomofo, without their punctuation.
    ('\u{3005}', '\u{3007}'),
    ('\u{3021}', '\u{302F}'),
    ('\u{3031}', '\u{3035}'),
    ('\u{303B}', '\u{303C}'),
    ('\u{3041}', '\u{309F}'),
    ('\u{30A1}', '\u{30FA}'),
    ('\u{30FC}', '\u{31BF}'),
    ('\u{31F0}', '\u{31FF}'),
    ('\u{3400}', '\u{4DBF}'),
    ('\u{4E00}', '\u{9FFF}'),
    ('\u{A960}', '\u{A97F}'),
    ('\u{A980}', '\u{A9FF}'),
    ('\u{AA60}', '\u{AADF}'),
    ('\u{AC00}', '\u{D7FF}'),
    ('\u{F900}', '\u{FAFF}'),
    ('\u{1B000}', '\u{1B16F}'),
    ('\u{20000}', '\u{3FFFD}'),
    // Pictographs: arrows, signs, emoji.
    ('\u{2190}', '\u{23FF}'),
    ('\u{2500}', '\u{27BF}'),
    ('\u{2900}', '\u{297F}'),
    ('\u{2B00}', '\u{2BFF}'),
    ('\u{3030}', '\u{3030}'),
    ('\u{1F000}', '\u{1FAFF}'),
];

/// The kind of a character in a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A letter, a digit, or a mark on one: its neighbours of the same kind belong to the same word.
    Word,
    /// A character of [`DENSE`].
    Dense,
    /// A separator, or a symbol that is no pictograph.
    Other,
}

fn kind(c: char) -> Kind {
    if c.is_ascii() {
        return if c.is_ascii_alphanumeric() { Kind::Word } else { Kind::Other };
    }
    if DENSE.iter().any(|(first, last)| (*first..=*last).contains(&c)) {
        Kind::Dense
    } else if c.is_alphanumeric() || is_combining_mark(c) {
        Kind::Word
    } else {
        Kind::Other
    }
}

/// True for a character that may not stand beside a whole word.
pub(super) fn is_of_word(c: char) -> bool {
    kind(c) == Kind::Word
}

/// A text as it is compared: in composed form (NFKC), in lower case, without invisible characters. `ß` becomes `ss`, the
/// final `ς` becomes `σ`, and the Turkish `İ` and `ı` become `i`, so that a word and its capitals are one.
pub(super) fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let mut folded = String::with_capacity(text.len());
    // Most texts are composed already, which is cheap to tell.
    match is_nfkc_quick(text.chars()) {
        IsNormalized::Yes => text.chars().for_each(|c| push_folded(&mut folded, c)),
        IsNormalized::No | IsNormalized::Maybe => text.nfkc().for_each(|c| push_folded(&mut folded, c)),
    }
    folded
}

fn push_folded(folded: &mut String, c: char) {
    match c {
        c if c.is_ascii() => folded.push(c.to_ascii_lowercase()),
        // Han and Hangul.
        '\u{3400}'..='\u{9FFF}' | '\u{AC00}'..='\u{D7A3}' => folded.push(c),
        'ß' | 'ẞ' => folded.push_str("ss"),
        'ς' => folded.push('σ'),
        'İ' | 'ı' => folded.push('i'),
        '\u{2018}' | '\u{2019}' => folded.push('\''),
        c if c.is_whitespace() || !is_invisible(c) => folded.extend(c.to_lowercase()),
        _ => {}
    }
}

/// The runs of word characters and of dense characters of a folded text, with their kind and their end in bytes.
fn runs(folded: &str) -> impl Iterator<Item = (Kind, &str, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < folded.len() {
            let rest = &folded[at..];
            let first = kind(rest.chars().next()?);
            let length = rest.find(|c| kind(c) != first).unwrap_or(rest.len());
            at += length;
            if first != Kind::Other {
                return Some((first, &rest[..length], at));
            }
        }
        None
    })
}

/// True if a text has a character by which an index can find it.
pub(super) fn has_tokens(folded: &str) -> bool {
    folded.chars().any(|c| kind(c) != Kind::Other)
}

/// The tokens of a text: its words, and each dense character with its right neighbour. Every text that a search finds has
/// all tokens of the search.
pub fn search_tokens(text: &str) -> Vec<String> {
    let folded = fold(text);
    let mut tokens = Vec::new();
    for (kind, run, _) in runs(&folded) {
        match kind {
            Kind::Dense => tokens.extend(pairs(run).chain(run.chars().next_back().map(String::from))),
            _ => tokens.push(cut(run)),
        }
    }
    tokens
}

/// A token of a search.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct QueryToken {
    /// The token's text: letters, digits, marks and pictographs only.
    pub text: String,
    /// True if tokens that begin with the text serve as well.
    pub prefix: bool,
}

/// The tokens of a term; `open` if it may be the beginning of a word.
pub(super) fn term_tokens(term: &str, open: bool) -> Vec<QueryToken> {
    let exact = |text| QueryToken { text, prefix: false };
    let mut tokens = Vec::new();
    for (kind, run, end) in runs(term) {
        match kind {
            Kind::Dense if run.chars().nth(1).is_some() => tokens.extend(pairs(run).map(exact)),
            Kind::Dense => tokens.push(QueryToken { text: run.to_owned(), prefix: true }),
            _ => tokens.push(QueryToken { text: cut(run), prefix: open && end == term.len() }),
        }
    }
    tokens
}

fn pairs(run: &str) -> impl Iterator<Item = String> {
    run.chars().zip(run.chars().skip(1)).map(|(left, right)| String::from_iter([left, right]))
}

fn cut(word: &str) -> String {
    word.chars().take(TOKEN_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_and_both_cases_are_one_text() {
        for (one, other) in [
            ("Café", "cafe\u{301}"),
            ("Straße", "STRASSE"),
            ("İSTANBUL", "istanbul"),
            ("ΟΔΟΣ", "οδος"),
            ("ＡＢＣ１", "abc1"),
            ("ｶﾞ", "ガ"),
            ("❤\u{FE0F}", "❤"),
            ("don\u{2019}t", "DON'T"),
            ("co\u{AD}op", "coop"),
        ] {
            assert_eq!(fold(one), fold(other), "{one}");
        }
        assert_ne!(fold("cafe"), fold("café"));
    }

    #[test]
    fn tokens_are_words_and_pairs_of_dense_characters() {
        assert_eq!(search_tokens("Die Grüße, \u{201c}a1\u{201d}!"), ["die", "grüsse", "a1"]);
        assert_eq!(search_tokens("去上海 iPhone手机"), ["去上", "上海", "海", "iphone", "手机", "机"]);
        assert_eq!(search_tokens("👍🏽"), ["👍🏽", "🏽"]);
        assert_eq!(search_tokens(&"x".repeat(100)), ["x".repeat(64)]);
        assert_eq!(search_tokens("?! c++ שלום\u{200F} हिन्दी"), ["c", "שלום", "हिन्दी"]);
        let token = |text: &str, prefix| QueryToken { text: text.into(), prefix };
        assert_eq!(term_tokens("a_b", true), [token("a", false), token("b", true)]);
        assert_eq!(term_tokens("c++", true), [token("c", false)]);
        assert_eq!(term_tokens("上海东", false), [token("上海", false), token("海东", false)]);
        assert_eq!(term_tokens("海", false), [token("海", true)]);
    }

    #[test]
    fn characters_have_kinds() {
        assert!(DENSE.iter().all(|(first, last)| first <= last));
        for dense in ['海', 'が', 'ー', 'ท', '한', '🎉', '🏽', '☀', 'ក', 'မ'] {
            assert_eq!(kind(dense), Kind::Dense, "{dense}");
        }
        for (other, expected) in [('・', Kind::Other), ('。', Kind::Other), ('é', Kind::Word), ('\u{301}', Kind::Word)]
        {
            assert_eq!(kind(other), expected, "{other}");
        }
    }
}
