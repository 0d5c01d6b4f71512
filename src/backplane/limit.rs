//! The budgets of users: for each, a sliding window over all nodes. Without Redis, only this node's commands count.
//!
//! A window holds the times at which shares of the budget were taken. A share of the send budget is one message, so that
//! limit is exact. The other budgets are larger: a node takes them in shares of a sixtieth and spends each share from its
//! own memory, so most commands need no call to Redis. Within any window, at most one share for each node is
//! spent beyond the budget.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use redis::Pipeline;
use tokio::time::{Instant, timeout};

use super::{lease::Lease, link::Link, link_error::LinkError, ops::Op, scripts::LIMIT, types::RateDecision};
use crate::model::{Budget, Cost, UserId};

/// Maximum time that a command waits for Redis. After it, the local count decides.
const WAIT: Duration = Duration::from_millis(200);
/// Number of new users between two clean-ups of the local windows.
const CLEAN_EVERY: usize = 1_024;
/// Number of shares into which a large budget is divided.
const SHARES: u32 = 60;

/// The division of a budget into shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Division {
    /// Weight of one share.
    share: u32,
    /// Maximum number of shares within the window.
    shares: u32,
}

impl Division {
    /// Divides a budget of `limit` (at least 1). A remainder that makes no whole share is not used.
    fn of(budget: Budget, limit: u32) -> Self {
        let share = match budget {
            Budget::Send => 1,
            Budget::Write | Budget::Read | Budget::Event => (limit / SHARES).max(1),
        };
        Self { share, shares: limit / share }
    }

    /// The number of shares that cover `weight`; never more than the whole budget.
    fn covering(self, weight: u32) -> u32 {
        weight.div_ceil(self.share).clamp(1, self.shares)
    }
}

/// This node's view of one user's window.
#[derive(Debug, Default)]
struct Window {
    /// Times at which shares were taken, oldest first.
    taken: VecDeque<Instant>,
    /// The weight that is taken and not yet spent, and the time until which it may be spent.
    left: u32,
    left_until: Option<Instant>,
    /// The limit that Redis enforced when it last refused a share, and the time until which it will refuse more.
    refused: Option<(u32, Instant)>,
}

impl Window {
    fn forget_old(&mut self, now: Instant, window: Duration) {
        while self.taken.front().is_some_and(|at| now.duration_since(*at) >= window) {
            self.taken.pop_front();
        }
        if self.left_until.is_some_and(|until| until <= now) {
            (self.left, self.left_until) = (0, None);
        }
        self.refused = self.refused.filter(|(_, until)| now < *until);
    }

    fn is_empty(&self) -> bool {
        self.taken.is_empty() && self.left_until.is_none() && self.refused.is_none()
    }
}

#[derive(Debug, Default)]
struct Windows {
    users: HashMap<UserId, Window>,
    /// Number of windows at which the empty ones are removed.
    clean_at: usize,
}

impl Windows {
    fn clean(&mut self, now: Instant, window: Duration) {
        if self.users.len() >= self.clean_at {
            self.users.retain(|_, own| {
                own.forget_old(now, window);
                !own.is_empty()
            });
            self.clean_at = self.users.len() * 2 + CLEAN_EVERY;
        }
    }
}

/// The decision on this node alone.
enum Here {
    /// Paid from shares that were taken before.
    Paid,
    /// No share is free.
    Full(Duration),
    /// These shares are taken here; Redis decides. `spent` is the weight that older shares paid.
    Taken { at: Instant, count: u32, spent: u32 },
}

/// The limiter. It also counts locally: a user who used up a budget on this node alone, or whom Redis refused, costs no
/// Redis command until a share is free, and the count continues when Redis goes down.
pub(super) struct Limiter {
    link: Arc<Link>,
    lease: Arc<Lease>,
    window: Duration,
    windows: [Mutex<Windows>; Budget::ALL.len()],
}

impl Limiter {
    pub(super) fn new(link: Arc<Link>, lease: Arc<Lease>, window: Duration) -> Self {
        Self { link, lease, window, windows: Default::default() }
    }

    /// Decides on one command, with `limit` as the budget per window. An admitted command is counted; a refused one is
    /// not. A command is admitted while any share is free, and then takes all that it needs, at most the whole budget.
    pub(super) async fn admit(&self, user: &UserId, cost: Cost, limit: u32) -> RateDecision {
        if limit == 0 {
            return RateDecision::Admitted;
        }
        let division = Division::of(cost.budget, limit);
        let (at, count, spent) = match self.decide_here(user, cost, limit, division) {
            Here::Paid => return RateDecision::Admitted,
            Here::Full(retry_after) => return RateDecision::Refused { sent: limit, retry_after },
            Here::Taken { at, count, spent } => (at, count, spent),
        };
        let op = if cost.budget == Budget::Send { Op::Admit } else { Op::Budget };
        let mut pipeline = Pipeline::new();
        let window = u64::try_from(self.window.as_micros()).unwrap_or(u64::MAX);
        let key = self.link.keys().window(cost.budget, user);
        LIMIT.call(&mut pipeline, &key).arg(division.shares).arg(window).arg(count);
        if let Some(set_back) = self.lease.set_back() {
            let since = u64::try_from(set_back.age().as_micros()).unwrap_or(u64::MAX);
            pipeline.arg(since).arg(u8::from(set_back.confuses(self.window)));
        }
        let result = timeout(WAIT, self.link.run(op, user.as_str(), &pipeline)).await;
        let result = result.unwrap_or_else(|_| {
            self.link.check_now.notify_one();
            Err(LinkError::Timeout)
        });
        match result.and_then(|mut replies| replies.take::<u64>(0)) {
            Ok(wait @ 1..) => {
                let retry_after = Duration::from_micros(wait);
                self.give_back(user, cost.budget, (at, count, spent), (limit, retry_after));
                RateDecision::Refused { sent: limit, retry_after }
            }
            // If Redis is unavailable, the local count decides.
            Ok(0) | Err(_) => {
                self.keep_rest(user, cost.budget, (division.share * count + spent).saturating_sub(cost.weight));
                RateDecision::Admitted
            }
        }
    }

    /// Takes back the cost of an admitted command of weight 1 that did nothing.
    pub(super) async fn refund(&self, user: &UserId, budget: Budget, limit: u32) {
        if limit == 0 {
            return;
        }
        if Division::of(budget, limit).share > 1 {
            self.keep_rest(user, budget, 1);
            return;
        }
        if let Some(own) = self.windows(budget).users.get_mut(user) {
            own.taken.pop_back();
            own.refused = None;
        }
        let mut pipeline = Pipeline::new();
        // Removes the newest share. It need not be the command's own: only the number of shares counts.
        pipeline.cmd("LTRIM").arg(self.link.keys().window(budget, user)).arg(1).arg(-1);
        // Without Redis, the local count alone is right.
        let _ = self.link.run(Op::Refund, user.as_str(), &pipeline).await;
    }

    fn decide_here(&self, user: &UserId, cost: Cost, limit: u32, division: Division) -> Here {
        let windows = &mut *self.windows(cost.budget);
        let now = Instant::now();
        windows.clean(now, self.window);
        let own = windows.users.entry(user.clone()).or_default();
        own.forget_old(now, self.window);
        if own.left >= cost.weight {
            own.left -= cost.weight;
            return Here::Paid;
        }
        if let Some((_, until)) = own.refused.filter(|(refused, _)| *refused == limit) {
            return Here::Full(until.duration_since(now));
        }
        let last = own.taken.len().checked_sub(division.shares as usize).and_then(|n| own.taken.get(n));
        if let Some(last) = last {
            return Here::Full(self.window.saturating_sub(now.duration_since(*last)));
        }
        let spent = std::mem::take(&mut own.left);
        let count = division.covering(cost.weight - spent);
        own.taken.extend(std::iter::repeat_n(now, count as usize));
        // Older shares than these never decide.
        let surplus = own.taken.len().saturating_sub(division.shares as usize);
        own.taken.drain(..surplus);
        Here::Taken { at: now, count, spent }
    }

    fn give_back(
        &self,
        user: &UserId,
        budget: Budget,
        (at, mut count, spent): (Instant, u32, u32),
        (limit, retry_after): (u32, Duration),
    ) {
        if let Some(own) = self.windows(budget).users.get_mut(user) {
            own.taken.retain(|one| {
                let give = *one == at && count > 0;
                count -= u32::from(give);
                !give
            });
            own.left += spent;
            own.refused = Some((limit, Instant::now() + retry_after));
        }
    }

    /// Adds weight that this node may spend for the user without Redis.
    fn keep_rest(&self, user: &UserId, budget: Budget, rest: u32) {
        if rest > 0 {
            let windows = &mut *self.windows(budget);
            let own = windows.users.entry(user.clone()).or_default();
            own.left = own.left.saturating_add(rest);
            own.left_until = Some(Instant::now() + self.window);
        }
    }

    fn windows(&self, budget: Budget) -> MutexGuard<'_, Windows> {
        self.windows[budget.index()].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        backplane::ops::Ops,
        config::RedisPrefix,
        degrade::Degrade,
        metrics::Metrics,
        model::{Clock, NodeId},
    };

    const WINDOW: Duration = Duration::from_secs(60);

    fn limiter() -> Limiter {
        let ops = Ops::new(&Metrics::new().unwrap());
        let link = Link::new(None, &RedisPrefix::default(), ops, Degrade::unwatched());
        let lease = Lease::new(NodeId::parse("one").unwrap(), WINDOW, Clock::system());
        Limiter::new(Arc::new(link), Arc::new(lease), WINDOW)
    }

    fn read(weight: u32) -> Cost {
        Cost { budget: Budget::Read, weight }
    }

    #[test]
    fn a_budget_is_divided_into_shares_that_it_holds() {
        for limit in [1, 10, 59, 60, 119, 120, 300, 6_000, 1_000_000] {
            assert_eq!(Division::of(Budget::Send, limit), Division { share: 1, shares: limit });
            let Division { share, shares } = Division::of(Budget::Read, limit);
            assert!(share * shares <= limit && limit - share * shares < share && shares < 2 * SHARES, "{limit}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_budget_admits_its_weight_in_a_window_and_no_more() {
        let (limiter, alice) = (limiter(), UserId::parse("alice").unwrap());
        for (limit, weight) in [(6_000, 10), (6_000, 7), (300, 1), (50, 1)] {
            let mut admitted = 0;
            while limiter.admit(&alice, read(weight), limit).await == RateDecision::Admitted {
                admitted += weight;
            }
            assert!(admitted <= limit + weight && admitted + weight > limit, "{admitted} of {limit}");
            let full = limiter.admit(&alice, read(1), limit).await;
            assert!(matches!(full, RateDecision::Refused { .. }) || weight > 1, "{full:?}");
            tokio::time::advance(WINDOW).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_heavier_than_the_budget_takes_all_of_it_once() {
        let (limiter, alice) = (limiter(), UserId::parse("alice").unwrap());
        assert_eq!(limiter.admit(&alice, read(1), 300).await, RateDecision::Admitted);
        assert_eq!(limiter.admit(&alice, read(1_000), 300).await, RateDecision::Admitted);
        let RateDecision::Refused { retry_after, .. } = limiter.admit(&alice, read(1), 300).await else { panic!() };
        assert_eq!(retry_after, WINDOW);
        tokio::time::advance(WINDOW).await;
        assert_eq!(limiter.admit(&alice, read(1_000), 300).await, RateDecision::Admitted);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refund_makes_room_for_one_more() {
        let (limiter, alice) = (limiter(), UserId::parse("alice").unwrap());
        for (cost, limit) in [(Cost::MESSAGE, 2), (read(1), 6_000)] {
            while limiter.admit(&alice, cost, limit).await == RateDecision::Admitted {}
            limiter.refund(&alice, cost.budget, limit).await;
            assert_eq!(limiter.admit(&alice, cost, limit).await, RateDecision::Admitted);
            assert!(matches!(limiter.admit(&alice, cost, limit).await, RateDecision::Refused { .. }));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn windows_of_users_who_are_quiet_are_removed() {
        let limiter = limiter();
        for n in 0..4 * CLEAN_EVERY {
            limiter.admit(&UserId::parse(&format!("user-{n}")).unwrap(), read(1), 6_000).await;
            if n == 2 * CLEAN_EVERY {
                tokio::time::advance(WINDOW).await;
            }
        }
        assert!(limiter.windows(Budget::Read).users.len() < 3 * CLEAN_EVERY);
    }
}
