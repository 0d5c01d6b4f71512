//! Timestamps in the form used on the wire and in the store.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A UTC time with microseconds, written as RFC 3339 with `Z`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Builds a time from microseconds since 1970.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Builds a time from seconds since 1970, the unit in tokens.
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000_000))
    }

    /// Microseconds since 1970.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// This time plus `span`.
    pub fn plus(self, span: std::time::Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_micros()).unwrap_or(i64::MAX)))
    }

    /// Time elapsed since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> std::time::Duration {
        std::time::Duration::from_micros(self.0.saturating_sub(earlier.0).max(0).unsigned_abs())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(at) => write!(f, "{at:.6}"),
            Err(_) => f.write_str("9999-12-31T23:59:59.999999Z"),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(from)?;
        match text.parse::<jiff::Timestamp>() {
            Ok(at) => Ok(Self(at.as_microsecond())),
            // The last two days of the year 9999 are valid times, but beyond what the library holds.
            Err(_)
                if jiff::fmt::temporal::Pieces::parse(&*text)
                    .is_ok_and(|pieces| pieces.date().year() == 9999 && pieces.to_numeric_offset().is_some()) =>
            {
                Ok(Self(jiff::Timestamp::MAX.as_microsecond()))
            }
            Err(error) => Err(de::Error::custom(error)),
        }
    }
}

/// The source of the current time: the system's clock, or a test's.
#[derive(Clone)]
pub struct Clock(std::sync::Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self::from_fn(|| Timestamp(jiff::Timestamp::now().as_microsecond()))
    }

    /// A clock that calls `now`.
    pub fn from_fn(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(std::sync::Arc::new(now))
    }

    /// The current time.
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_with_z() {
        let at = Timestamp::from_micros(1_736_937_000_123_456);
        assert_eq!(at.to_string(), "2025-01-15T10:30:00.123456Z");
        assert_eq!(serde_json::from_str::<Timestamp>("\"2025-01-15T10:30:00.123456Z\"").unwrap(), at);
        let last = serde_json::from_str::<Timestamp>("\"9999-12-31T23:59:59Z\"").unwrap();
        assert!(last > at, "later than the library holds");
        for bad in ["9999-12-31", "9999-13-31T23:59:59Z", "10000-01-01T00:00:00Z", "9999"] {
            assert!(serde_json::from_str::<Timestamp>(&format!("\"{bad}\"")).is_err(), "{bad}");
        }
        assert_eq!(Timestamp::from_seconds(1_736_937_000).to_string(), "2025-01-15T10:30:00.000000Z");
    }
}
