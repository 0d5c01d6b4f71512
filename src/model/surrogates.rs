//! Halves of characters: UTF-16 surrogates without their other half, which JSON can escape and no text can hold.

/// What a refusal says of a text with half of a character.
pub const HALF_A_CHARACTER: &str = "half of a character (a lone surrogate) in a text";

/// The text with U+FFFD in place of lone surrogates in `\\u` escapes; `None` if there are none.
pub fn without_lone_surrogates(text: &str) -> Option<String> {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let (mut mended, mut copied, mut at) = (String::new(), 0, 0);
    while let Some(found) = text[at..].find('\\').map(|offset| at + offset) {
        at = match (unit(found), unit(found + 6)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => found + 12,
            (Some(0xD800..=0xDFFF), _) => {
                mended.push_str(&text[copied..found]);
                mended.push_str("\\ufffd");
                copied = found + 6;
                copied
            }
            // Skips the escaped character, which may be a backslash.
            _ => found + 1 + text[found + 1..].chars().next().map_or(0, char::len_utf8),
        };
    }
    (copied > 0).then(|| mended + &text[copied..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lone_surrogates_are_found_and_replaced() {
        for (text, mended) in [
            (r#"{"a":"\ud83d"}"#, Some(r#"{"a":"\ufffd"}"#)),
            (r#"{"a":"x\ude00y\ud83d\ude00"}"#, Some(r#"{"a":"x\ufffdy\ud83d\ude00"}"#)),
            (r#"{"a":"\ud83d\ud83d\ude00"}"#, Some(r#"{"a":"\ufffd\ud83d\ude00"}"#)),
            (r#"{"a":"\ud83d\ude00"}"#, None),
            (r#"{"a":"\\ud83d"}"#, None),
            (r#"{"a":"é\u00e9\"#, None),
        ] {
            assert_eq!(without_lone_surrogates(text).as_deref(), mended, "{text}");
        }
    }
}
