//! Refusals of what other programs wrote into Redis, or a node of another deployment, or somebody wrote again.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::metrics::Metrics;

/// Refusals that are at most this far apart are one burst, with one line in the log.
const BURST_GAP: Duration = Duration::from_secs(60);

/// The place of something that was refused; the label in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedPlace {
    /// A payload on a channel of events.
    Publication,
    /// An element of a list of recent messages.
    Cache,
    /// An ephemeral event that a node signed long ago.
    Late,
    /// A display name in a registry entry.
    Name,
    /// A cached message or a name under a key that was removed: expected after a change of keys.
    Retired,
    /// A key that another deployment left, or a departure of one of its users.
    Foreign,
}

impl RefusedPlace {
    /// Every place.
    pub const ALL: [Self; 6] = [Self::Publication, Self::Cache, Self::Late, Self::Name, Self::Retired, Self::Foreign];

    /// The label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Publication => "publication",
            Self::Cache => "cache",
            Self::Late => "late",
            Self::Name => "name",
            Self::Retired => "retired",
            Self::Foreign => "foreign",
        }
    }

    fn meaning(self) -> &'static str {
        match self {
            Self::Publication | Self::Cache | Self::Name => "no node of this deployment signed it",
            Self::Late => "it was signed too long ago: it was repeated, or clocks differ",
            Self::Retired => "it names a key that was removed since",
            Self::Foreign => "another deployment left it",
        }
    }
}

/// Counts refusals, and logs one line for each burst.
pub(super) struct Refusals {
    metrics: Arc<Metrics>,
    /// Time of the last refusal in each place.
    last: Mutex<[Option<Instant>; RefusedPlace::ALL.len()]>,
}

impl Refusals {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, last: Mutex::default() }
    }

    /// Counts refusals. `name` is the key or the channel.
    pub(super) fn note(&self, place: RefusedPlace, name: &str, count: usize) {
        if count == 0 {
            return;
        }
        self.metrics.redis_refused.with_label_values(&[place.label()]).inc_by(count as u64);
        if self.begins_burst(place, Instant::now()) {
            tracing::warn!(
                place = place.label(),
                name,
                reason = place.meaning(),
                "data in Redis was refused; the store is read instead"
            );
        }
    }

    /// Counts the keys that were removed because another deployment had left them.
    pub(super) fn note_left_keys(&self, count: u64) {
        self.metrics.redis_refused.with_label_values(&[RefusedPlace::Foreign.label()]).inc_by(count);
        tracing::warn!(count, "removed the keys that another deployment had left");
    }

    fn begins_burst(&self, place: RefusedPlace, now: Instant) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let before = last[place as usize].replace(now);
        before.is_none_or(|before| now.saturating_duration_since(before) > BURST_GAP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_has_one_line() {
        let refusals = Refusals::new(Arc::new(Metrics::new().unwrap()));
        let begin = Instant::now();
        let begins = |place, seconds| refusals.begins_burst(place, begin + Duration::from_secs(seconds));
        assert!(begins(RefusedPlace::Cache, 0));
        assert!(!begins(RefusedPlace::Cache, 1) && !begins(RefusedPlace::Cache, 61));
        assert!(begins(RefusedPlace::Late, 1), "each place has its own");
        assert!(begins(RefusedPlace::Cache, 122));
    }
}
