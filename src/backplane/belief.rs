//! Which of the addresses that sentinels name is believed.
//!
//! Sentinels agree by epochs: a failover has a higher one than the failover before, and each sentinel takes over the highest
//! that it hears of. So the highest epoch wins at once, also if one sentinel alone names it, and a sentinel that missed a
//! failover moves nobody back. Only sentinels that lost their configuration begin with a lower epoch again.

use std::time::{Duration, Instant};

use crate::config::HostPort;

/// Time for which most sentinels must name another address with no higher epoch until it is believed. A sentinel hears of a
/// failover from the others within some seconds.
const LOWER_AFTER: Duration = Duration::from_secs(15);

/// The last answer of one sentinel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Vote {
    /// It was not heard yet.
    Awaited,
    /// It does not answer, or names no primary.
    None,
    /// It names this address, since the failover with this epoch.
    Address(HostPort, u64),
}

/// The believed address.
#[derive(Debug, Default)]
pub(super) struct Belief {
    believed: Option<(HostPort, u64)>,
    /// The address that most sentinels name with no higher epoch, and since when.
    contradicted: Option<(HostPort, Instant)>,
}

impl Belief {
    /// Takes the votes of all sentinels into account, and returns the address to use; `None` while none is known.
    pub(super) fn weigh(&mut self, votes: &[Vote], now: Instant) -> Option<&HostPort> {
        if let Some((address, epoch, count)) = strongest(votes, self.believed.as_ref().map(|(address, _)| address)) {
            let majority = count > votes.len() / 2;
            let accepted = match &self.believed {
                None => majority || !votes.contains(&Vote::Awaited),
                Some((known, _)) if *known == address => true,
                Some((_, known)) if epoch > *known => true,
                Some(_) => majority && self.has_lasted(&address, now),
            };
            if accepted {
                self.believed = Some((address, epoch));
                self.contradicted = None;
            } else if !majority {
                self.contradicted = None;
            }
        }
        self.believed.as_ref().map(|(address, _)| address)
    }

    /// True if this address contradicts the believed one for long enough.
    fn has_lasted(&mut self, address: &HostPort, now: Instant) -> bool {
        if self.contradicted.as_ref().is_none_or(|(named, _)| named != address) {
            self.contradicted = Some((address.clone(), now));
        }
        self.contradicted.as_ref().is_some_and(|(_, since)| now.duration_since(*since) >= LOWER_AFTER)
    }
}

/// The address with the highest epoch, that epoch, and how many sentinels name both. Of several, the one that most of them
/// name; then the `known` one.
fn strongest(votes: &[Vote], known: Option<&HostPort>) -> Option<(HostPort, u64, usize)> {
    let named = |vote: &Vote| match vote {
        Vote::Address(_, epoch) => Some(*epoch),
        Vote::Awaited | Vote::None => None,
    };
    let highest = votes.iter().filter_map(named).max()?;
    let candidates = votes.iter().filter_map(|vote| match vote {
        Vote::Address(address, epoch) if *epoch == highest => Some(address),
        _ => None,
    });
    let count = |address: &HostPort| candidates.clone().filter(|other| *other == address).count();
    let best = candidates.clone().max_by_key(|address| (count(address), Some(*address) == known))?;
    Some((best.clone(), highest, count(best)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str) -> HostPort {
        HostPort { host: host.into(), port: 1 }
    }

    fn votes<const N: usize>(votes: [Option<(&str, u64)>; N]) -> [Vote; N] {
        votes.map(|vote| vote.map_or(Vote::None, |(host, epoch)| Vote::Address(at(host), epoch)))
    }

    fn believing(host: &str, epoch: u64) -> Belief {
        let mut belief = Belief::default();
        let vote = Some((host, epoch));
        assert_eq!(belief.weigh(&votes([vote; 3]), Instant::now()), Some(&at(host)));
        belief
    }

    #[test]
    fn two_of_three_are_believed_without_the_third() {
        let (mut belief, now) = (Belief::default(), Instant::now());
        let [one, two] = votes([Some(("a", 1)); 2]);
        assert_eq!(belief.weigh(&[one.clone(), Vote::Awaited, Vote::Awaited], now), None);
        assert_eq!(belief.weigh(&[one, two, Vote::Awaited], now), Some(&at("a")));
    }

    #[test]
    fn one_alone_is_believed_once_the_others_are_silent() {
        let (mut belief, now) = (Belief::default(), Instant::now());
        assert_eq!(belief.weigh(&votes([None; 3]), now), None);
        assert_eq!(belief.weigh(&votes([None, Some(("a", 1)), None]), now), Some(&at("a")));
        assert_eq!(belief.weigh(&votes([None; 3]), now), Some(&at("a")), "all of them gone");
    }

    #[test]
    fn a_higher_epoch_wins_at_once_and_a_lower_one_never_alone() {
        let (mut belief, now) = (believing("a", 1), Instant::now());
        let mixed = votes([Some(("a", 1)), Some(("b", 2)), Some(("a", 1))]);
        assert_eq!(belief.weigh(&mixed, now), Some(&at("b")));
        for stale in [votes([Some(("a", 1)), None, None]), votes([Some(("a", 1)), Some(("b", 2)), Some(("a", 1))])] {
            for seconds in [0, 20, 40] {
                assert_eq!(belief.weigh(&stale, now + Duration::from_secs(seconds)), Some(&at("b")), "{stale:?}");
            }
        }
    }

    #[test]
    fn most_sentinels_with_a_lower_epoch_are_believed_after_a_while() {
        let (mut belief, now) = (believing("a", 7), Instant::now());
        let reset = votes([Some(("b", 0)), Some(("b", 0)), None]);
        let after = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(belief.weigh(&reset, now), Some(&at("a")));
        assert_eq!(belief.weigh(&reset, after(14)), Some(&at("a")));
        assert_eq!(belief.weigh(&votes([Some(("b", 0)), Some(("b", 0)), Some(("a", 7))]), after(14)), Some(&at("a")));
        assert_eq!(belief.weigh(&reset, after(15)), Some(&at("a")), "the epoch was heard meanwhile");
        assert_eq!(belief.weigh(&reset, after(30)), Some(&at("b")));
        assert_eq!(belief.weigh(&votes([Some(("a", 1)), None, None]), after(31)), Some(&at("a")), "epochs begin anew");
    }

    #[test]
    fn of_one_epoch_most_votes_count_and_then_what_is_known() {
        let (mut belief, now) = (Belief::default(), Instant::now());
        assert_eq!(belief.weigh(&votes([Some(("b", 1)), Some(("a", 1)), Some(("a", 1))]), now), Some(&at("a")));
        assert_eq!(belief.weigh(&votes([Some(("b", 1)), Some(("a", 1))]), now), Some(&at("a")));
    }
}
