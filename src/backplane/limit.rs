//! The send limit: a sliding window per user over all nodes. Without Redis, only this node's sends count.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use redis::Pipeline;
use tokio::time::{Instant, timeout};

use super::{
    keys,
    link::{Link, LinkError},
    ops::Op,
    scripts::LIMIT,
    types::RateDecision,
};
use crate::model::UserId;

/// Maximum time that a send waits for Redis. After it, the local count decides.
const WAIT: Duration = Duration::from_millis(200);
/// Number of new users between two clean-ups of the local windows.
const CLEAN_EVERY: usize = 1_024;

#[derive(Debug, Default)]
struct Windows {
    sends: HashMap<UserId, VecDeque<Instant>>,
    /// Number of windows at which the empty ones are removed.
    clean_at: usize,
}

/// The limiter. It also counts each send locally: a user who reaches the limit on this node alone costs no Redis
/// command, and the count continues when Redis goes down.
pub(super) struct Limiter {
    link: Arc<Link>,
    window: Duration,
    windows: Mutex<Windows>,
}

impl Limiter {
    pub(super) fn new(link: Arc<Link>, window: Duration) -> Self {
        Self { link, window, windows: Mutex::default() }
    }

    /// Decides on one send. An admitted send is counted; a refused one is not.
    pub(super) async fn admit(&self, user: &UserId, limit: u32) -> RateDecision {
        if limit == 0 {
            return RateDecision::Admitted;
        }
        let counted = match self.count(user, limit) {
            Ok(counted) => counted,
            Err(retry_after) => return RateDecision::Refused { sent: limit, retry_after },
        };
        let mut pipeline = Pipeline::new();
        let window = u64::try_from(self.window.as_micros()).unwrap_or(u64::MAX);
        LIMIT.call(&mut pipeline, &keys::window(user)).arg(limit).arg(window);
        let result = timeout(WAIT, self.link.run(Op::Admit, user.as_str(), &pipeline)).await;
        let result = result.unwrap_or_else(|_| {
            self.link.check_now.notify_one();
            Err(LinkError::Timeout)
        });
        match result.and_then(|mut replies| replies.take::<u64>(0)) {
            Ok(wait @ 1..) => {
                self.uncount(user, counted);
                RateDecision::Refused { sent: limit, retry_after: Duration::from_micros(wait) }
            }
            // Redis is unavailable: the local count decides.
            Ok(0) | Err(_) => RateDecision::Admitted,
        }
    }

    fn count(&self, user: &UserId, limit: u32) -> Result<Instant, Duration> {
        let windows = &mut *self.windows();
        let now = Instant::now();
        if windows.sends.len() >= windows.clean_at {
            let gone = |at: &Instant| now.duration_since(*at) >= self.window;
            windows.sends.retain(|_, sends| sends.back().is_some_and(|at| !gone(at)));
            windows.clean_at = windows.sends.len() * 2 + CLEAN_EVERY;
        }
        let sends = windows.sends.entry(user.clone()).or_default();
        while sends.front().is_some_and(|at| now.duration_since(*at) >= self.window) {
            sends.pop_front();
        }
        let nth = sends.len().checked_sub(limit as usize).and_then(|n| sends.get(n));
        if let Some(nth) = nth {
            return Err(self.window.saturating_sub(now.duration_since(*nth)));
        }
        sends.push_back(now);
        Ok(now)
    }

    fn uncount(&self, user: &UserId, at: Instant) {
        if let Some(sends) = self.windows().sends.get_mut(user)
            && let Some(index) = sends.iter().rposition(|one| *one == at)
        {
            sends.remove(index);
        }
    }

    fn windows(&self) -> MutexGuard<'_, Windows> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
