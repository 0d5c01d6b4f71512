//! Kinds of work that can fail although the part that does them answers its checks.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    fault::Finding,
    feature::{Feature, Mode},
    part::Part,
};

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Receiving what other nodes publish.
    Subscribe,
    /// Publishing to other nodes.
    Publish,
    /// Finding the other nodes in the same Redis.
    Meet,
    /// Counting sends and other commands against their limits.
    Limit,
    /// Other commands of Redis: connections, listeners, departures.
    Register,
    /// Storing messages.
    Append,
    /// Storing the other entries of a log: edits, deletions, reactions, changes of members.
    Change,
    /// Reading what is stored.
    Read,
    /// Storing what is no entry: conversations, read marks, statuses, notifications, restrictions.
    Write,
    /// Telling other nodes through the store what grew.
    Relay,
}

impl Work {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::Subscribe,
        Self::Publish,
        Self::Meet,
        Self::Limit,
        Self::Register,
        Self::Append,
        Self::Change,
        Self::Read,
        Self::Write,
        Self::Relay,
    ];
    /// Without these, nodes don't reach each other through Redis.
    pub(super) const FANOUT: [Self; 2] = [Self::Subscribe, Self::Publish];

    /// The part that does the work.
    pub fn part(self) -> Part {
        match self {
            Self::Subscribe | Self::Publish | Self::Meet | Self::Limit | Self::Register => Part::Redis,
            Self::Append | Self::Change | Self::Read | Self::Write | Self::Relay => Part::Store,
        }
    }

    /// The feature that needs this work and works in this mode, and its mode while the work fails; `None` if the table of
    /// features says it already.
    pub(super) fn shown_as(self) -> Option<((Feature, Mode), Mode)> {
        match self {
            Self::Subscribe | Self::Publish | Self::Meet | Self::Write => None,
            Self::Limit => Some(((Feature::Limits, Mode::Shared), Mode::Local)),
            Self::Register => Some(((Feature::Presence, Mode::Shared), Mode::Local)),
            Self::Append => Some(((Feature::Append, Mode::Shared), Mode::Refused)),
            Self::Change => Some(((Feature::Append, Mode::Shared), Mode::Limited)),
            Self::Read => Some(((Feature::History, Mode::Shared), Mode::Limited)),
            Self::Relay => Some(((Feature::Fanout, Mode::Relayed), Mode::Local)),
        }
    }
}

/// The fault of a kind of work that a test of its own finds and ends, such as the canary of the fan-out.
pub(super) type Tested = Option<Arc<Finding>>;

/// Time for which the refusal of a call is believed without new evidence, since only what clients do tests it: for a reason
/// that lasts until an operator acts, and for one that may pass by itself.
const REMEMBERED: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(10));
/// Time after the last refusal in which a success of the same call ends nothing. A call may succeed and be refused in turn, by
/// what it finds to do.
const QUIET: Duration = Duration::from_secs(5);
/// Time for which a call fails for a reason that may pass by itself, until that counts as a fault: if it never succeeds, and if
/// it succeeds in between, because only what it finds in one conversation makes it fail.
const PASSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(5));

/// The end of the reason for which a call was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ends {
    /// It may pass by itself.
    ByItself,
    /// An operator must act; a new connection that is let in shows that it was done.
    OnceLetIn,
    /// An operator must act; only the same call can show that it was done.
    ByOperator,
}

/// The calls of one kind of work that are refused, each with the newest refusal. Different calls need different tables,
/// rights or commands: one that succeeds says nothing of another.
#[derive(Debug, Default)]
pub(super) struct RefusedCalls(HashMap<&'static str, RefusedCall>);

#[derive(Debug)]
struct RefusedCall {
    finding: Arc<Finding>,
    /// First refusal of a row of them.
    since: Instant,
    last: Instant,
    ends: Ends,
    /// It succeeded since the last refusal.
    succeeded: bool,
    /// It succeeded between two refusals.
    in_turn: bool,
}

impl RefusedCall {
    /// True if the reason lasts until an operator acts.
    fn lasts(&self) -> bool {
        self.ends != Ends::ByItself
    }

    fn is_over(&self, now: Instant) -> bool {
        let ago = now.duration_since(self.last);
        let remembered = if self.lasts() { REMEMBERED.0 } else { REMEMBERED.1 };
        ago >= remembered || self.succeeded && ago >= QUIET
    }

    fn is_fault(&self) -> bool {
        let lasted = self.last.duration_since(self.since);
        match self.in_turn {
            _ if self.lasts() => true,
            true => lasted >= PASSES.1,
            false => lasted >= PASSES.0 && !self.succeeded,
        }
    }
}

impl RefusedCalls {
    /// Records that a call was refused, and when that may end.
    pub(super) fn add(&mut self, call: &'static str, finding: Finding, ends: Ends) {
        let now = Instant::now();
        let before = self.0.get(call).filter(|before| !before.is_over(now));
        let since = before.map_or(now, |before| before.since);
        let ends = before.map_or(ends, |before| before.ends.max(ends));
        let in_turn = before.is_some_and(|before| before.in_turn || before.succeeded);
        let refused = RefusedCall { finding: Arc::new(finding), since, last: now, ends, succeeded: false, in_turn };
        self.0.insert(call, refused);
    }

    /// Records that a call succeeded.
    pub(super) fn succeeded(&mut self, call: &'static str) {
        if let Some(refused) = self.0.get_mut(call) {
            refused.succeeded = true;
        }
        let now = Instant::now();
        self.0.retain(|_, refused| !refused.is_over(now));
    }

    /// Forgets what may have passed by itself.
    pub(super) fn forget_passing(&mut self) {
        self.0.retain(|_, refused| refused.lasts());
    }

    /// True if a call failed because no new connection was let in.
    pub(super) fn keeps_out(&self) -> bool {
        self.0.values().any(|refused| refused.ends == Ends::OnceLetIn)
    }

    /// Forgets the calls that failed because no new connection was let in.
    pub(super) fn forget_kept_out(&mut self) {
        self.0.retain(|_, refused| refused.ends != Ends::OnceLetIn);
    }

    /// The newest fault that stands.
    pub(super) fn fault(&self) -> Option<Arc<Finding>> {
        let now = Instant::now();
        let standing = self.0.values().filter(|refused| !refused.is_over(now) && refused.is_fault());
        standing.max_by_key(|refused| refused.last).map(|refused| refused.finding.clone())
    }

    /// The number of calls that are kept.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::degrade::Fault;

    fn finding() -> Finding {
        Finding::new(Fault::StoreSilent, "canceling statement due to lock timeout")
    }

    /// Lets time pass for all calls.
    fn pass(calls: &mut RefusedCalls, time: Duration) {
        for call in calls.0.values_mut() {
            call.since -= time;
            call.last -= time;
        }
    }

    #[test]
    fn a_refusal_that_lasts_stands_until_the_same_call_succeeds_and_is_refused_no_more() {
        let mut calls = RefusedCalls::default();
        calls.add("history", finding(), Ends::ByOperator);
        calls.succeeded("list");
        assert!(calls.fault().is_some());
        for _ in 0..3 {
            // What the call finds to do decides whether it is refused.
            calls.succeeded("history");
            assert!(calls.fault().is_some());
            calls.add("history", finding(), Ends::ByOperator);
            pass(&mut calls, QUIET / 2);
        }
        pass(&mut calls, QUIET);
        assert!(calls.fault().is_some(), "nothing succeeded since");
        calls.succeeded("history");
        assert!(calls.fault().is_none() && calls.len() == 0);
        calls.add("history", finding(), Ends::ByOperator);
        pass(&mut calls, REMEMBERED.0);
        assert!(calls.fault().is_none());
    }

    #[test]
    fn a_failure_that_may_pass_is_a_fault_once_the_same_call_failed_for_a_while() {
        let mut calls = RefusedCalls::default();
        calls.add("history", finding(), Ends::ByItself);
        assert!(calls.fault().is_none());
        pass(&mut calls, PASSES.0);
        calls.add("history", finding(), Ends::ByItself);
        assert!(calls.fault().is_some());
        calls.succeeded("history");
        assert!(calls.fault().is_none());
        pass(&mut calls, QUIET);
        calls.add("history", finding(), Ends::ByItself);
        assert!(calls.fault().is_none(), "it begins anew");
        pass(&mut calls, PASSES.0);
        calls.add("history", finding(), Ends::ByItself);
        calls.add("list", finding(), Ends::ByOperator);
        calls.forget_passing();
        assert_eq!((calls.len(), calls.fault().is_some()), (1, true));
    }

    #[test]
    fn a_call_that_fails_again_and_again_for_one_conversation_is_a_fault_although_it_succeeds_for_others() {
        let mut calls = RefusedCalls::default();
        for _ in 0..3 {
            calls.add("history", finding(), Ends::ByItself);
            assert!(calls.fault().is_none());
            calls.succeeded("history");
            pass(&mut calls, PASSES.1 / 3);
        }
        calls.add("history", finding(), Ends::ByItself);
        assert!(calls.fault().is_some());
        calls.succeeded("history");
        assert!(calls.fault().is_some(), "another conversation's success");
        pass(&mut calls, QUIET);
        calls.succeeded("history");
        assert!(calls.fault().is_none() && calls.len() == 0);
    }

    #[test]
    fn a_connection_that_is_let_in_ends_what_the_login_caused_and_nothing_else() {
        let mut calls = RefusedCalls::default();
        calls.add("history", finding(), Ends::OnceLetIn);
        calls.add("list", finding(), Ends::OnceLetIn);
        assert!(calls.fault().is_some() && calls.keeps_out());
        calls.forget_passing();
        assert_eq!(calls.len(), 2, "they last until an operator acts");
        calls.add("list", finding(), Ends::ByItself);
        calls.add("search", finding(), Ends::ByOperator);
        calls.forget_kept_out();
        assert!(calls.len() == 1 && calls.fault().is_some() && !calls.keeps_out(), "a right is still missing");
    }
}
