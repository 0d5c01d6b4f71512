//! [`RedisPrefix`]: what stands before every key in Redis.

/// Longest name. Keys are short, since Redis holds many of them.
const MAX_BYTES: usize = 32;
/// First words of the keys of a deployment without a prefix.
const FIRST_WORDS: [&str; 3] = ["ws", "rate_limit", "room_messages"];

/// The name of a deployment in front of its keys in Redis; by default none. The keys of two prefixes have none in common.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RedisPrefix(String);

impl RedisPrefix {
    /// Checks a name; the empty one stands for no prefix.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.ends_with(':') {
            return Err("is a name without the colon, which is added: REDIS_PREFIX=staging".to_owned());
        }
        if text.len() > MAX_BYTES || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
            return Err(format!("is a name of at most {MAX_BYTES} of the characters A-Z a-z 0-9 . _ -"));
        }
        if FIRST_WORDS.contains(&text) {
            return Err("is the first word of keys without a prefix; choose another name".to_owned());
        }
        Ok(Self(text.to_owned()))
    }

    /// The beginning of every key: the name and a colon, or nothing.
    pub fn before_keys(&self) -> String {
        if self.0.is_empty() { String::new() } else { format!("{}:", self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_a_short_name() {
        assert_eq!(RedisPrefix::parse("").unwrap().before_keys(), "");
        assert_eq!(RedisPrefix::parse("staging-2.eu_A").unwrap().before_keys(), "staging-2.eu_A:");
        for (wrong, why) in [
            ("staging:", "without the colon"),
            ("a:b", "characters"),
            ("a b", "characters"),
            ("{a}", "characters"),
            ("a*", "characters"),
            (&"x".repeat(33), "at most 32"),
            ("ws", "another name"),
            ("room_messages", "another name"),
        ] {
            let error = RedisPrefix::parse(wrong).unwrap_err();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }
}
