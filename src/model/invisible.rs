//! Characters that readers can't see.

/// Ranges of characters without a glyph of their own, beside white space and control characters: those that Unicode
/// ignores by default (`Default_Ignorable_Code_Point`), and some that fonts draw as nothing.
const INVISIBLE: [(char, char); 19] = [
    ('\u{AD}', '\u{AD}'),
    ('\u{34F}', '\u{34F}'),
    ('\u{61C}', '\u{61C}'),
    ('\u{115F}', '\u{1160}'),
    ('\u{17B4}', '\u{17B5}'),
    ('\u{180B}', '\u{180F}'),
    ('\u{200B}', '\u{200F}'),
    ('\u{202A}', '\u{202E}'),
    ('\u{2060}', '\u{206F}'),
    // BRAILLE PATTERN BLANK is a letter of a script and is not white space for Unicode.
    ('\u{2800}', '\u{2800}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{FE00}', '\u{FE0F}'),
    ('\u{FEFF}', '\u{FEFF}'),
    ('\u{FFA0}', '\u{FFA0}'),
    ('\u{FFF0}', '\u{FFFB}'),
    ('\u{1BCA0}', '\u{1BCA3}'),
    ('\u{1D159}', '\u{1D159}'),
    ('\u{1D173}', '\u{1D17A}'),
    // Tags and further variation selectors.
    ('\u{E0000}', '\u{E0FFF}'),
];

/// True for white space, control characters and characters without a glyph.
pub fn is_invisible(c: char) -> bool {
    c.is_whitespace() || c.is_control() || INVISIBLE.iter().any(|(first, last)| (*first..=*last).contains(&c))
}

/// True if a reader sees nothing of the text.
pub fn is_blank(text: &str) -> bool {
    text.chars().all(is_invisible)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_without_a_visible_character_are_blank() {
        for blank in [
            "",
            " \u{2003}\n",
            "\u{200B}",
            "\u{2800}\u{2800}",
            "\u{3164}",
            "\u{AD}",
            "\u{2060}\u{FEFF}",
            "\u{FE0F}",
            "\u{E0061}\u{E007F}",
            "\u{E0100}",
            "\u{200D} \u{202E}\u{115F}\u{FFA0}",
        ] {
            assert!(is_blank(blank), "{blank:?}");
        }
        for seen in [".", "\u{200B}a", "❤\u{FE0F}", "👩\u{200D}🚀", "مرحبا", "ㅤ가", "\u{2801}", "é", "\u{301}"]
        {
            assert!(!is_blank(seen), "{seen:?}");
        }
    }
}
