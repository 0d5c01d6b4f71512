//! What people search for, as words: whatever else they type can't become part of a query.

/// Words of a search; what goes beyond is not looked for.
const WORDS_MAX: usize = 16;

/// The words of a text: runs of letters and digits.
pub(super) fn words(text: &str) -> Vec<&str> {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.take(WORDS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_letters_and_digits_are_words() {
        assert_eq!(
            words("  Grüße, \"w\u{f6}rld\"* OR (a:b) 'x' 42 "),
            ["Grüße", "w\u{f6}rld", "OR", "a", "b", "x", "42"]
        );
        assert_eq!(words("* \\ ' \" &|!"), Vec::<&str>::new());
        assert_eq!(words(&"w ".repeat(100)).len(), WORDS_MAX);
    }
}
