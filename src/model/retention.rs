//! [`Retention`]: the time for which the entries of a conversation are kept.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, de::Error};

use super::{ConversationId, Timestamp};

/// A number of days for which entries are kept; 0: for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
pub struct RetentionDays(u32);

impl RetentionDays {
    /// The largest number of days: a century.
    pub const MAX: u32 = 36_500;
    /// Entries are kept for ever.
    pub const FOR_EVER: Self = Self(0);

    /// Checks a number of days; `None` above [`Self::MAX`].
    pub const fn new(days: u32) -> Option<Self> {
        if days <= Self::MAX { Some(Self(days)) } else { None }
    }

    /// The number of days; 0: for ever.
    pub fn get(self) -> u32 {
        self.0
    }

    /// The time before which entries are too old at this time; `None` if they are kept for ever.
    pub fn cutoff(self, at: Timestamp) -> Option<Timestamp> {
        let span = Duration::from_secs(u64::from(self.0) * 86_400);
        (self.0 > 0).then(|| Timestamp::from_micros(at.micros().saturating_sub(span.as_micros() as i64)))
    }
}

impl<'de> Deserialize<'de> for RetentionDays {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let invalid = || D::Error::custom(format!("days must be a whole number from 0 (for ever) to {}", Self::MAX));
        u32::deserialize(from).ok().and_then(Self::new).ok_or_else(invalid)
    }
}

/// The time for which a conversation's entries are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Retention {
    /// The conversation.
    pub conversation_id: ConversationId,
    /// The conversation's own rule; none: the deployment's holds.
    pub days: Option<RetentionDays>,
    /// The rule of the deployment (RETENTION_DAYS).
    pub default_days: RetentionDays,
    /// The first seq that is still stored; past the head if none is.
    pub first_seq: super::Seq,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_bounded_and_zero_keeps_for_ever() {
        let days = |json: &str| serde_json::from_str::<RetentionDays>(json).ok();
        assert_eq!(days("30").map(RetentionDays::get), Some(30));
        for bad in ["-1", "1.5", "36501", "\"30\"", "99999999999999999999"] {
            assert_eq!(days(bad), None, "{bad}");
        }
        let at = Timestamp::from_seconds(10 * 86_400);
        assert_eq!(days("3").unwrap().cutoff(at), Some(Timestamp::from_seconds(7 * 86_400)));
        assert_eq!(RetentionDays::FOR_EVER.cutoff(at), None);
    }
}
