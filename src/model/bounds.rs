//! Numbers and lists that clients give. They are checked here, once, so that every dialect and REST refuse the same values
//! with the same words.

use std::{fmt, ops::Deref};

use serde::{Deserialize, Deserializer, Serialize, de};

use super::{Reject, Seq};

/// A value out of its bounds. `Display` names the field and its bounds, for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutOfBounds {
    /// Not a whole number, or not one of these.
    #[error("{field} must be a whole number from {least} to {most}")]
    Number {
        /// The field's name.
        field: &'static str,
        /// The lowest number it may have.
        least: i64,
        /// The highest one.
        most: i64,
    },
    /// Too long a list.
    #[error("{field} has at most {most} ids")]
    List {
        /// The field's name.
        field: &'static str,
        /// How many it may have.
        most: usize,
    },
}

impl From<OutOfBounds> for Reject {
    fn from(error: OutOfBounds) -> Self {
        Self::Invalid(error.to_string())
    }
}

/// What a client gave where a number is due, not checked yet: in JSON, or as the text of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GivenNumber(
    /// `None` for what is no whole number, or one that no field could hold.
    Option<i64>,
);

impl GivenNumber {
    /// Reads the text of a query.
    pub fn parse(text: &str) -> Self {
        Self(text.parse().ok())
    }

    fn within(self, field: &'static str, least: i64, most: i64) -> Result<i64, OutOfBounds> {
        self.0.filter(|number| (least..=most).contains(number)).ok_or(OutOfBounds::Number { field, least, most })
    }
}

impl<'de> Deserialize<'de> for GivenNumber {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Scalar;

        /// Any scalar is read, so that the refusal can name the field: serde's own would not.
        impl de::Visitor<'_> for Scalar {
            type Value = GivenNumber;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_i64<E>(self, number: i64) -> Result<GivenNumber, E> {
                Ok(GivenNumber(Some(number)))
            }

            fn visit_u64<E>(self, number: u64) -> Result<GivenNumber, E> {
                Ok(GivenNumber(i64::try_from(number).ok()))
            }

            fn visit_f64<E>(self, _: f64) -> Result<GivenNumber, E> {
                Ok(GivenNumber(None))
            }

            fn visit_bool<E>(self, _: bool) -> Result<GivenNumber, E> {
                Ok(GivenNumber(None))
            }

            fn visit_str<E>(self, _: &str) -> Result<GivenNumber, E> {
                Ok(GivenNumber(None))
            }
        }

        from.deserialize_any(Scalar)
    }
}

/// How many of a list one page holds: 1 to 100, and 50 where the client doesn't say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct PageLimit(u32);

impl PageLimit {
    /// The highest limit.
    pub const MAX: u32 = 100;

    /// A limit that this program chose, brought within the bounds.
    pub const fn at_most(limit: u32) -> Self {
        Self(if limit == 0 {
            1
        } else if limit > Self::MAX {
            Self::MAX
        } else {
            limit
        })
    }

    /// Checks a client's `limit`.
    ///
    /// # Errors
    /// It is out of its bounds.
    pub fn given(limit: Option<GivenNumber>) -> Result<Self, OutOfBounds> {
        let Some(limit) = limit else { return Ok(Self::default()) };
        Ok(Self(narrow(limit.within("limit", 1, i64::from(Self::MAX))?)))
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl Default for PageLimit {
    fn default() -> Self {
        Self(50)
    }
}

/// How many of a list are passed over: 0 to 100,000. Deeper pages of messages are reached with `before_seq`, at no cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct Offset(u32);

impl Offset {
    /// The highest offset.
    pub const MAX: u32 = 100_000;

    /// Checks a client's `offset`.
    ///
    /// # Errors
    /// It is out of its bounds.
    pub fn given(offset: Option<GivenNumber>) -> Result<Self, OutOfBounds> {
        let Some(offset) = offset else { return Ok(Self::default()) };
        Ok(Self(narrow(offset.within("offset", 0, i64::from(Self::MAX))?)))
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// A number that was found to lie within bounds far below `u32`'s.
fn narrow(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Which part of a list is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Page {
    /// How many at most.
    pub limit: PageLimit,
    /// How many to pass over.
    pub offset: Offset,
}

impl Page {
    /// The first so many.
    pub const fn first(limit: PageLimit) -> Self {
        Self { limit, offset: Offset(0) }
    }

    /// Checks a client's `limit` and `offset`.
    ///
    /// # Errors
    /// One of them is out of its bounds.
    pub fn given(limit: Option<GivenNumber>, offset: Option<GivenNumber>) -> Result<Self, OutOfBounds> {
        Ok(Self { limit: PageLimit::given(limit)?, offset: Offset::given(offset)? })
    }
}

/// A client's word for an entry: its seq, at least 1. Whether there is such an entry is the store's to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntrySeq(Seq);

impl EntrySeq {
    /// A seq that may be an entry's; `None` for those that can't.
    pub fn new(seq: Seq) -> Option<Self> {
        (seq >= 1).then_some(Self(seq))
    }

    /// Checks a client's number in `field`.
    ///
    /// # Errors
    /// It is out of its bounds.
    pub fn given(field: &'static str, seq: Option<GivenNumber>) -> Result<Option<Self>, OutOfBounds> {
        seq.map(|seq| seq.within(field, 1, Seq::MAX).map(Self)).transpose()
    }

    /// Checks a client's number for the message that a command is about. As in a path of REST, one that can't be a
    /// message's is a message that is not found.
    ///
    /// # Errors
    /// There can't be such a message.
    pub fn of_message(seq: GivenNumber) -> Result<Self, Reject> {
        seq.0.and_then(Self::new).ok_or(Reject::NotFound("Message"))
    }

    /// The seq.
    pub const fn get(self) -> Seq {
        self.0
    }
}

/// The last seq that a client has of a conversation: at least 0, which stands before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SinceSeq(Seq);

impl SinceSeq {
    /// Before the first entry.
    pub const START: Self = Self(0);

    /// A position that this program knows.
    pub fn known(seq: Seq) -> Self {
        Self(seq.max(0))
    }

    /// Checks a client's number in `field`.
    ///
    /// # Errors
    /// It is out of its bounds.
    pub fn given(field: &'static str, seq: Option<GivenNumber>) -> Result<Option<Self>, OutOfBounds> {
        seq.map(|seq| seq.within(field, 0, Seq::MAX).map(Self)).transpose()
    }

    /// The seq.
    pub const fn get(self) -> Seq {
        self.0
    }
}

/// What one request names, at most 1,000 of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<T>(Vec<T>);

impl<T> Listed<T> {
    /// How many one request may name.
    pub const MAX: usize = 1_000;

    /// Checks a client's list in `field`.
    ///
    /// # Errors
    /// It is too long.
    pub fn given(field: &'static str, list: Vec<T>) -> Result<Self, OutOfBounds> {
        if list.len() > Self::MAX { Err(OutOfBounds::List { field, most: Self::MAX }) } else { Ok(Self(list)) }
    }
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Deref for Listed<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> IntoIterator for Listed<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<T> From<Listed<T>> for Vec<T> {
    fn from(list: Listed<T>) -> Self {
        list.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> GivenNumber {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn limits_and_offsets_have_bounds() {
        let limit = |text| PageLimit::given(Some(json(text))).map(PageLimit::get);
        assert_eq!((limit("1"), limit("100")), (Ok(1), Ok(100)));
        for bad in ["0", "101", "-1", "1.0", "1e300", "\"5\"", "true", "18446744073709551615"] {
            let error = limit(bad).unwrap_err().to_string();
            assert_eq!(error, "limit must be a whole number from 1 to 100", "{bad}");
            assert!(PageLimit::given(Some(GivenNumber::parse(bad))).is_err(), "{bad}");
        }
        assert_eq!(PageLimit::given(None).unwrap().get(), 50);
        let offset = |text| Offset::given(Some(GivenNumber::parse(text))).map(Offset::get);
        assert_eq!((offset("0"), offset("100000")), (Ok(0), Ok(100_000)));
        for bad in ["-1", "100001", "", " 1", "x", "99999999999999999999"] {
            let error = offset(bad).unwrap_err().to_string();
            assert_eq!(error, "offset must be a whole number from 0 to 100000", "{bad}");
        }
        assert_eq!([0, 7, 900].map(|limit| PageLimit::at_most(limit).get()), [1, 7, 100]);
    }

    #[test]
    fn seqs_begin_with_one_and_positions_with_none() {
        for (bad, since) in [("0", Ok(0)), ("-1", Err(())), ("0.5", Err(())), ("9223372036854775808", Err(()))] {
            let error = EntrySeq::given("before_seq", Some(json(bad))).unwrap_err().to_string();
            assert_eq!(error, "before_seq must be a whole number from 1 to 9223372036854775807", "{bad}");
            assert_eq!(EntrySeq::of_message(json(bad)), Err(Reject::NotFound("Message")), "{bad}");
            let given = SinceSeq::given("since_seq", Some(json(bad))).map(|seq| seq.unwrap().get());
            assert_eq!(given.map_err(drop), since, "{bad}");
        }
        assert_eq!(EntrySeq::given("seq", Some(json("7"))).unwrap().unwrap().get(), 7);
        assert_eq!(EntrySeq::given("seq", None), Ok(None));
    }

    #[test]
    fn lists_have_an_end() {
        assert_eq!(Listed::given("ids", vec![0; 1_000]).unwrap().len(), 1_000);
        assert_eq!(Listed::given("ids", vec![0; 1_001]).unwrap_err().to_string(), "ids has at most 1000 ids");
    }
}
