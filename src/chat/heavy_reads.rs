//! The limit on heavy reads (history, search, lists) of one user at a time, on this node.
//!
//! A user's further reads wait here, not in the queue of the store, so one user has at most a few places there and the
//! reads of others take their turns between them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::{
    config::Config,
    metrics::Metrics,
    model::{Reject, UserId},
};

/// Retry delay for a refused read.
const RETRY: Duration = Duration::from_secs(1);

/// Limits the heavy reads of each user.
pub(super) struct HeavyReads {
    /// Reads of one user that run.
    per_user: usize,
    /// Further reads of one user that wait.
    queue: usize,
    /// Maximum time that a read waits.
    wait: Duration,
    users: Mutex<HashMap<UserId, Reads>>,
    metrics: Arc<Metrics>,
}

/// The reads of one user.
struct Reads {
    free: Arc<Semaphore>,
    /// Reads that run or wait.
    count: usize,
}

/// A place among the reads of a user, which waits or runs.
struct Place<'a> {
    reads: &'a HeavyReads,
    user: &'a UserId,
}

/// The right to run one heavy read; dropping it lets the user's next read run.
pub(super) struct HeavyRead<'a> {
    // Declared before the place: the place may remove the semaphore.
    _permit: OwnedSemaphorePermit,
    place: Place<'a>,
}

impl HeavyReads {
    pub(super) fn new(config: &Config, metrics: Arc<Metrics>) -> Self {
        Self {
            per_user: config.limits.heavy_reads_per_user,
            queue: config.limits.heavy_read_queue_per_user,
            wait: config.store.heavy_read_wait,
            users: Mutex::default(),
            metrics,
        }
    }

    /// Waits until the user may run one more heavy read.
    ///
    /// # Errors
    /// [`Reject::TooManyReads`]: too many of the user's reads wait, or this one waited too long.
    pub(super) async fn begin<'a>(&'a self, user: &'a UserId) -> Result<HeavyRead<'a>, Reject> {
        let Some((place, free)) = self.enter(user) else { return Err(self.refuse()) };
        let permit = match free.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let _waiting = Waiting::new(&self.metrics);
                match timeout(self.wait, free.acquire_owned()).await {
                    Ok(Ok(permit)) => permit,
                    Ok(Err(_)) | Err(_) => return Err(self.refuse()),
                }
            }
        };
        self.metrics.heavy_reads.inc();
        Ok(HeavyRead { _permit: permit, place })
    }

    fn enter<'a>(&'a self, user: &'a UserId) -> Option<(Place<'a>, Arc<Semaphore>)> {
        let mut users = self.lock();
        let fresh = || Reads { free: Arc::new(Semaphore::new(self.per_user)), count: 0 };
        let reads = users.entry(user.clone()).or_insert_with(fresh);
        if reads.count >= self.per_user + self.queue {
            return None;
        }
        reads.count += 1;
        Some((Place { reads: self, user }, reads.free.clone()))
    }

    fn refuse(&self) -> Reject {
        self.metrics.heavy_reads_refused.inc();
        Reject::TooManyReads { retry_after: RETRY }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UserId, Reads>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut users = self.reads.lock();
        if let Some(reads) = users.get_mut(self.user) {
            reads.count -= 1;
            if reads.count == 0 {
                users.remove(self.user);
            }
        }
    }
}

impl Drop for HeavyRead<'_> {
    fn drop(&mut self) {
        self.place.reads.metrics.heavy_reads.dec();
    }
}

/// Counts a read that waits, also if its caller gives up.
struct Waiting<'a>(&'a Metrics);

impl<'a> Waiting<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.heavy_reads_waiting.inc();
        Self(metrics)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.heavy_reads_waiting.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(per_user: usize, queue: usize) -> HeavyReads {
        let metrics = Arc::new(Metrics::new().unwrap());
        HeavyReads { per_user, queue, wait: Duration::from_secs(2), users: Mutex::default(), metrics }
    }

    #[tokio::test(start_paused = true)]
    async fn one_users_reads_wait_and_are_refused_and_others_are_not() {
        let reads = reads(2, 1);
        let (alice, bob) = (UserId::parse("alice").unwrap(), UserId::parse("bob").unwrap());
        let first = reads.begin(&alice).await.unwrap();
        let _second = reads.begin(&alice).await.unwrap();
        let (waiting, refused) = tokio::join!(reads.begin(&alice), reads.begin(&alice));
        assert!(waiting.is_err(), "no read ended within two seconds");
        assert_eq!(refused.err(), Some(Reject::TooManyReads { retry_after: RETRY }));
        let of_bob = reads.begin(&bob).await.unwrap();
        let next = tokio::join!(reads.begin(&alice), async { drop(first) }).0.unwrap();
        assert_eq!(reads.metrics.heavy_reads.get(), 3);
        assert_eq!((reads.metrics.heavy_reads_waiting.get(), reads.metrics.heavy_reads_refused.get()), (0, 2));
        drop((next, of_bob, _second));
        assert!(reads.lock().is_empty());
        assert_eq!(reads.metrics.heavy_reads.get(), 0);
    }
}
