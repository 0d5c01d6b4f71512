//! Since when faults and reasons stand.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Time without a fault after which it counts as a new one when it comes back. It is longer than the interval between two
/// looks.
const FORGET_AFTER: Duration = Duration::from_secs(10);

/// The faults that stand, each by its name, with the times of the first and of the last look that found it.
#[derive(Debug, Default)]
pub(super) struct Standing(Mutex<Vec<(&'static str, Instant, Instant)>>);

impl Standing {
    /// Records a look that found all of `names`. Returns since when each stands.
    pub(super) fn look(&self, names: impl Iterator<Item = &'static str>, now: Instant) -> Vec<Instant> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(_, _, last)| now.saturating_duration_since(*last) < FORGET_AFTER);
        let mut since = |name| match known.iter_mut().find(|(known, ..)| *known == name) {
            Some((_, first, last)) => {
                *last = now;
                *first
            }
            None => {
                known.push((name, now, now));
                now
            }
        };
        names.map(&mut since).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_that_comes_back_soon_stands_since_its_beginning() {
        let (standing, began) = (Standing::default(), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        assert_eq!(standing.look(["a"].into_iter(), began), [began]);
        assert_eq!(standing.look(["b", "a"].into_iter(), at(5)), [at(5), began]);
        assert_eq!(standing.look(["b"].into_iter(), at(9)), [at(5)]);
        assert_eq!(standing.look(["a", "b"].into_iter(), at(14)), [began, at(5)]);
        assert!(standing.look([].into_iter(), at(30)).is_empty());
        assert_eq!(standing.look(["a"].into_iter(), at(31)), [at(31)]);
    }
}
