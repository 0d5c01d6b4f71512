//! The send limit: never more than so many within any window, over all nodes; with what this node knows while alone.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use redis::Pipeline;
use tokio::time::Instant;

use super::{keys, link::Link, ops::Op, scripts::LIMIT, types::RateDecision};
use crate::model::UserId;

/// Users between two clean-ups of the local windows.
const CLEAN_EVERY: usize = 1_024;

#[derive(Debug, Default)]
struct Windows {
    sends: HashMap<UserId, VecDeque<Instant>>,
    /// The size at which windows that have emptied are looked for.
    clean_at: usize,
}

/// The limiter. Each send is counted here as well: a user who has used up the limit on this node alone costs no Redis
/// command, and the limit goes on without a jump when Redis goes.
pub(super) struct Limiter {
    link: Arc<Link>,
    window: Duration,
    windows: Mutex<Windows>,
}

impl Limiter {
    pub(super) fn new(link: Arc<Link>, window: Duration) -> Self {
        Self { link, window, windows: Mutex::default() }
    }

    /// Asks whether a user may send; what is admitted is counted, what is refused is not.
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
        let asked = self.link.run(Op::Admit, user.as_str(), &pipeline).await;
        match asked.and_then(|mut replies| replies.take::<u64>(0)) {
            Ok(wait @ 1..) => {
                self.uncount(user, counted);
                RateDecision::Refused { sent: limit, retry_after: Duration::from_micros(wait) }
            }
            // Not to be asked: counted here is counted.
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
