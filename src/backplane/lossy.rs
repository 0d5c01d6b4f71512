//! [`Lossy`]: text in a reply of Redis, which holds what anybody wrote.

use redis::{FromRedisValue, ParsingError, Value};

/// Text whose bytes need not be UTF-8. What is not contains U+FFFD, which no id contains, so one foreign value spoils no
/// reply.
#[derive(Debug, Default, Clone, PartialEq, Eq, Hash)]
pub(super) struct Lossy(pub(super) String);

impl FromRedisValue for Lossy {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        Vec::<u8>::from_redis_value(value).map(|bytes| Self(String::from_utf8_lossy(&bytes).into_owned()))
    }
}
