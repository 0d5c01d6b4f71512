//! Identifiers. Every id that comes from outside is checked only here.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, de};
use uuid::Uuid;

/// Maximum length of an id, in bytes.
const MAX_ID_BYTES: usize = 128;

/// Position of an entry in its log: 1, 2, 3 … without gaps; 0 is the position before the first.
pub type Seq = i64;

/// The text is not a valid id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id has 1 to 128 of the characters A-Z a-z 0-9 . _ : @ + = | -, and is not . or ..")]
pub struct InvalidId;

/// The characters of ids cover the subjects of common identity providers (`auth0|abc`, `bob+test@example.com`). `~ / #`,
/// braces and white space separate ids from each other and from other parts of keys and paths, so no id has them. `.` and `..` in a
/// path are a place, not a name: browsers and other clients remove them, also if they are encoded.
fn check(text: &str) -> Result<(), InvalidId> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._:@-+=|".contains(&b);
    let is_name = (1..=MAX_ID_BYTES).contains(&text.len()) && text.bytes().all(allowed) && !matches!(text, "." | "..");
    if is_name { Ok(()) } else { Err(InvalidId) }
}

/// Reads an id, which clients of the documented dialects send as text or as a whole number.
struct IdText;

impl de::Visitor<'_> for IdText {
    type Value = Arc<str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id: text or a whole number")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Arc<str>, E> {
        check(text).map_err(E::custom)?;
        Ok(text.into())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Arc<str>, E> {
        Ok(number.to_string().into())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Arc<str>, E> {
        i64::try_from(number).map_err(|_| E::custom("an id is text or a whole number; write a long number as text"))?;
        Ok(number.to_string().into())
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Arc<str>, E> {
        Err(E::custom("an id is text or a whole number, without a decimal point"))
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text` and makes it an id.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                check(text).map(|()| Self(text.into()))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_any(IdText).map(Self)
            }
        }
    };
}

id!(
    /// A user: the `sub` of a token.
    UserId
);
id!(
    /// A conversation (a room in the rooms dialect).
    ConversationId
);
id!(
    /// A node: one running process.
    NodeId
);
id!(
    /// The id that makes a send idempotent: unique forever per conversation and sender.
    ClientId
);

impl ConversationId {
    /// Generates a new id, sortable by time.
    pub fn fresh() -> Self {
        Self(Uuid::now_v7().to_string().into())
    }

    /// The time at which the id was generated, as [`ConversationId::fresh`] and [`ConnectionId::fresh`] write it into their
    /// ids (RFC 9562, version 7); none for an id that a client chose.
    pub fn generated_at(&self) -> Option<GeneratedAt> {
        Uuid::parse_str(&self.0).ok().and_then(|id| GeneratedAt::of(&id))
    }
}

/// The time in a generated id, by the clock of the node that generated it. Milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GeneratedAt(u64);

impl GeneratedAt {
    fn of(id: &Uuid) -> Option<Self> {
        let (seconds, nanoseconds) = id.get_timestamp()?.to_unix();
        Some(Self(seconds * 1_000 + u64::from(nanoseconds) / 1_000_000))
    }
}

impl ClientId {
    /// Generates an id for an entry that came without one.
    pub fn fresh() -> Self {
        Self(Uuid::now_v7().to_string().into())
    }
}

impl NodeId {
    /// Generates an id for a node whose configuration has none.
    pub fn fresh() -> Self {
        Self(format!("node-{}", &Uuid::new_v4().simple().to_string()[..8]).into())
    }
}

/// The id of one WebSocket on one node; unique forever.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConnectionId(Uuid);

impl ConnectionId {
    /// Generates a new id.
    pub fn fresh() -> Self {
        Self(Uuid::now_v7())
    }

    /// The time at which the id was generated.
    pub fn generated_at(&self) -> Option<GeneratedAt> {
        GeneratedAt::of(&self.0)
    }

    /// Parses the output of `Display`.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        Uuid::parse_str(text).map(Self).map_err(|_| InvalidId)
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.simple().fmt(f)
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.simple().fmt(f)
    }
}

/// A log: a conversation's, or a user's inbox. An inbox is written `~user`; no other id contains `~`, so the two never
/// collide.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct LogId(Arc<str>);

/// The owner of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogOf {
    /// A conversation's log.
    Conversation(ConversationId),
    /// A user's inbox.
    Inbox(UserId),
}

const INBOX_MARK: char = '~';

impl LogId {
    /// The log of `user`'s inbox.
    pub fn inbox(user: &UserId) -> Self {
        Self(format!("{INBOX_MARK}{user}").into())
    }

    /// Parses the output of `Display`.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        check(text.strip_prefix(INBOX_MARK).unwrap_or(text)).map(|()| Self(text.into()))
    }

    /// The owner of this log.
    pub fn of(&self) -> LogOf {
        match self.0.strip_prefix(INBOX_MARK) {
            Some(user) => LogOf::Inbox(UserId(user.into())),
            None => LogOf::Conversation(ConversationId(self.0.clone())),
        }
    }

    /// The conversation of this log; `None` if the log is an inbox.
    pub fn conversation(&self) -> Option<ConversationId> {
        match self.of() {
            LogOf::Conversation(id) => Some(id),
            LogOf::Inbox(_) => None,
        }
    }

    /// The log's name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&ConversationId> for LogId {
    fn from(id: &ConversationId) -> Self {
        Self(id.0.clone())
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for LogId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(from)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

/// The public id of an entry: a UUID (version 8, RFC 9562) computed from its log and seq, so that it needs no column
/// and no index. The first 60 free bits are a hash of the log's name, the other 62 are the seq.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct EntryId(Uuid);

/// Namespace of the hash of a log's name.
const ENTRY_SPACE: Uuid = Uuid::from_u128(0x5b0a_7d0c_3f6e_4b0a_9c53_7377_6974_6368);
/// The bits of a UUID's lower half that are free beside its variant.
const SEQ_BITS: u64 = (1 << 62) - 1;

impl EntryId {
    /// The id of entry `seq` of `log`.
    pub fn of(log: &LogId, seq: Seq) -> Self {
        let (hash, _) = Uuid::new_v5(&ENTRY_SPACE, log.as_str().as_bytes()).as_u64_pair();
        let (hash, seq) = (u128::from(hash), u128::from(seq.unsigned_abs()));
        Self(uuid::Builder::from_custom_bytes((hash << 64 | seq).to_be_bytes()).into_uuid())
    }

    /// Parses an id from a client.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        Uuid::parse_str(text).map(Self).map_err(|_| InvalidId)
    }

    /// The seq of this id in `log`; `None` if it is not an id of that log.
    pub fn seq_in(&self, log: &LogId) -> Option<Seq> {
        let seq = Seq::try_from(self.0.as_u64_pair().1 & SEQ_BITS).ok()?;
        (Self::of(log, seq) == *self).then_some(seq)
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl Serialize for EntryId {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_checked() {
        for good in
            ["a", "...", ".a", "user-123", "A.b_c:d@e-f", "auth0|abc", "bob+test@example.com", "a=", &"x".repeat(128)]
        {
            assert!(UserId::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a b",
            "a/b",
            "~a",
            "ä",
            "a\0",
            "{a}",
            "a#b",
            "a\\b",
            "a%7C",
            "a?b",
            "a,b",
            &"x".repeat(129),
        ] {
            assert!(UserId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_become_text() {
        assert_eq!(serde_json::from_str::<UserId>("123").unwrap().as_str(), "123");
        assert_eq!(serde_json::from_str::<UserId>("\"a\\u002db\"").unwrap().as_str(), "a-b");
        for bad in ["1.5", "456.0", "1e3", "true", "[]", "18446744073709551615"] {
            let error = serde_json::from_str::<UserId>(bad).unwrap_err().to_string();
            assert!(error.contains("text or a whole number"), "{bad}: {error}");
        }
        assert!(serde_json::from_str::<UserId>("null").is_err());
    }

    #[test]
    fn an_inbox_is_not_a_conversation() {
        let user = UserId::parse("alice").unwrap();
        assert_eq!(LogId::inbox(&user).of(), LogOf::Inbox(user));
        let room = ConversationId::parse("alice").unwrap();
        assert_eq!(LogId::from(&room).of(), LogOf::Conversation(room));
    }

    #[test]
    fn entry_ids_convert_back_to_their_seq() {
        let (one, other) = (LogId::parse("one").unwrap(), LogId::parse("other").unwrap());
        for seq in [1, 7, i64::from(u32::MAX) + 9, 1 << 61] {
            let id = EntryId::of(&one, seq);
            assert_eq!(EntryId::parse(&id.to_string()), Ok(id));
            assert_eq!(id.seq_in(&one), Some(seq));
            assert_eq!(id.seq_in(&other), None);
        }
    }
}
