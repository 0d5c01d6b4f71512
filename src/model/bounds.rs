//! Numbers and lists from clients. They are checked only here, so that every dialect and REST refuse the same values
//! with the same text.

use std::{collections::HashSet, fmt, hash::Hash, ops::Deref};

use serde::{Deserialize, Deserializer, Serialize, de};

use super::{Reject, Seq};

/// A value outside its bounds. `Display` names the field and its bounds, for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutOfBounds {
    /// Not a whole number, or outside the bounds.
    #[error("{field} must be a whole number from {least} to {most}")]
    Number {
        /// The field's name.
        field: &'static str,
        /// The lowest allowed number.
        least: i64,
        /// The highest allowed number.
        most: i64,
    },
    /// The list is too long.
    #[error("{field} has at most {most} ids")]
    List {
        /// The field's name.
        field: &'static str,
        /// Maximum number of ids in the list.
        most: usize,
    },
}

impl From<OutOfBounds> for Reject {
    fn from(error: OutOfBounds) -> Self {
        Self::Invalid(error.to_string())
    }
}

/// A client's value for a number field, not checked yet: from JSON or from a query string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GivenNumber(
    /// `None` if the value is not a whole number, or does not fit into an `i64`.
    Option<i64>,
);

impl GivenNumber {
    /// Reads the text of a query parameter.
    pub fn parse(text: &str) -> Self {
        Self(text.parse().ok())
    }

    /// Checks that the value is a whole number.
    ///
    /// # Errors
    /// It is not, or does not fit into an `i64`.
    pub fn whole(self, field: &'static str) -> Result<i64, OutOfBounds> {
        self.within(field, i64::MIN, i64::MAX)
    }

    fn within(self, field: &'static str, least: i64, most: i64) -> Result<i64, OutOfBounds> {
        self.0.filter(|number| (least..=most).contains(number)).ok_or(OutOfBounds::Number { field, least, most })
    }
}

impl<'de> Deserialize<'de> for GivenNumber {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Scalar;

        /// Accepts any scalar, so that the later check can name the field in its refusal; serde's own error would not.
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

            fn visit_unit<E>(self) -> Result<GivenNumber, E> {
                Ok(GivenNumber(None))
            }
        }

        from.deserialize_any(Scalar)
    }
}

/// Maximum number of items on one page of a list: 1 to 100; default 50.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct PageLimit(u32);

impl PageLimit {
    /// The highest limit.
    pub const MAX: u32 = 100;

    /// Clamps a limit that this program chose to the bounds.
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
    /// The value is outside its bounds.
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

/// Number of list items to skip: 0 to 100,000. `before_seq` reaches older messages at no such cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct Offset(u32);

impl Offset {
    /// The highest offset.
    pub const MAX: u32 = 100_000;

    /// Checks a client's `offset`.
    ///
    /// # Errors
    /// The value is outside its bounds.
    pub fn given(offset: Option<GivenNumber>) -> Result<Self, OutOfBounds> {
        let Some(offset) = offset else { return Ok(Self::default()) };
        Ok(Self(narrow(offset.within("offset", 0, i64::from(Self::MAX))?)))
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// Converts a number whose checked bounds are far below `u32::MAX`.
fn narrow(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The part of a list to return.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Page {
    /// Maximum number of items.
    pub limit: PageLimit,
    /// Number of items to skip.
    pub offset: Offset,
}

impl Page {
    /// The first page of a list.
    pub const fn first(limit: PageLimit) -> Self {
        Self { limit, offset: Offset(0) }
    }

    /// Checks a client's `limit` and `offset`.
    ///
    /// # Errors
    /// One of the values is outside its bounds.
    pub fn given(limit: Option<GivenNumber>, offset: Option<GivenNumber>) -> Result<Self, OutOfBounds> {
        Ok(Self { limit: PageLimit::given(limit)?, offset: Offset::given(offset)? })
    }
}

/// A seq from a client that names an entry: at least 1. The store checks that the entry exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntrySeq(Seq);

impl EntrySeq {
    /// Returns `None` if no entry can have this seq.
    pub fn new(seq: Seq) -> Option<Self> {
        (seq >= 1).then_some(Self(seq))
    }

    /// Checks the client's number in `field`.
    ///
    /// # Errors
    /// The value is outside its bounds.
    pub fn given(field: &'static str, seq: Option<GivenNumber>) -> Result<Option<Self>, OutOfBounds> {
        seq.map(|seq| seq.within(field, 1, Seq::MAX).map(Self)).transpose()
    }

    /// Checks the client's seq of a command's target message. An impossible seq gives "not found", as it does in a REST
    /// path.
    ///
    /// # Errors
    /// No message can have this seq.
    pub fn of_message(seq: GivenNumber) -> Result<Self, Reject> {
        seq.0.and_then(Self::new).ok_or(Reject::NotFound("Message"))
    }

    /// The seq.
    pub const fn get(self) -> Seq {
        self.0
    }
}

/// The last seq that a client has of a conversation: at least 0, which is before the first entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SinceSeq(Seq);

impl SinceSeq {
    /// The position before the first entry.
    pub const START: Self = Self(0);

    /// A position that this program computed.
    pub fn known(seq: Seq) -> Self {
        Self(seq.max(0))
    }

    /// Checks the client's number in `field`.
    ///
    /// # Errors
    /// The value is outside its bounds.
    pub fn given(field: &'static str, seq: Option<GivenNumber>) -> Result<Option<Self>, OutOfBounds> {
        seq.map(|seq| seq.within(field, 0, Seq::MAX).map(Self)).transpose()
    }

    /// The seq.
    pub const fn get(self) -> Seq {
        self.0
    }
}

/// A list in a client's request, with at most 1,000 items, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<T>(Vec<T>);

impl<T> Listed<T> {
    /// Maximum number of items.
    pub const MAX: usize = 1_000;

    /// Checks the client's list in `field`, and removes repeated items: each would cost as much as the first one.
    ///
    /// # Errors
    /// The list is too long.
    pub fn given(field: &'static str, mut list: Vec<T>) -> Result<Self, OutOfBounds>
    where
        T: Clone + Eq + Hash,
    {
        if list.len() > Self::MAX {
            return Err(OutOfBounds::List { field, most: Self::MAX });
        }
        let mut known = HashSet::with_capacity(list.len());
        list.retain(|item| known.insert(item.clone()));
        Ok(Self(list))
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
    fn seqs_start_at_one_and_positions_at_zero() {
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
    fn lists_have_a_maximum_length() {
        assert_eq!(Listed::given("ids", (0..1_000).collect()).unwrap().len(), 1_000);
        assert_eq!(*Listed::given("ids", vec![2, 1, 2, 3, 1]).unwrap(), [2, 1, 3]);
        assert_eq!(Listed::given("ids", vec![0; 1_001]).unwrap_err().to_string(), "ids has at most 1000 ids");
    }
}
