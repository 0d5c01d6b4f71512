//! Going away without a stampede: connections are closed evenly over a window.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A client comes back this long after it was sent away, and up to twice as long: other nodes have room by then.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The order in which connections leave.
#[derive(Debug, Default)]
pub struct Drain {
    begun: CancellationToken,
    plan: OnceLock<Plan>,
    next: AtomicU64,
}

/// How many leave, and when.
#[derive(Debug)]
struct Plan {
    connections: u64,
    from: Instant,
    window: Duration,
}

impl Drain {
    /// Sends `connections` away, evenly over `window`.
    pub fn begin(&self, connections: u64, window: Duration) {
        let _already = self.plan.set(Plan { connections: connections.max(1), from: Instant::now(), window });
        self.begun.cancel();
    }

    /// Resolves when the node sends its connections away, with advice when to come back. Who is not in yet has no
    /// turn to wait for.
    pub async fn begun(&self) -> Duration {
        self.begun.cancelled().await;
        RETRY_AFTER.mul_f64(rand::random_range(1.0..2.0))
    }

    /// Resolves when it is one's turn to leave, with advice when to come back. Who came in after the others were
    /// counted leaves with the last of them.
    pub async fn turn(&self) -> Duration {
        let retry_after = self.begun().await;
        if let Some(Plan { connections, from, window }) = self.plan.get() {
            let place = self.next.fetch_add(1, Ordering::Relaxed).min(*connections);
            tokio::time::sleep_until(*from + window.mul_f64(place as f64 / *connections as f64)).await;
        }
        retry_after
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns_are_spread_evenly() {
        let drain = Arc::new(Drain::default());
        let waiting: Vec<_> = (0..10)
            .map(|_| {
                let drain = drain.clone();
                tokio::spawn(async move {
                    drain.turn().await;
                    Instant::now()
                })
            })
            .collect();
        let begun = Instant::now();
        drain.begin(10, Duration::from_secs(45));
        let mut left = Vec::new();
        for turn in waiting {
            left.push(turn.await.unwrap() - begun);
        }
        left.sort();
        for (place, after) in left.into_iter().enumerate() {
            assert!(after.abs_diff(Duration::from_millis(4_500) * place as u32) < Duration::from_millis(5));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_late_leaves_with_the_last() {
        let drain = Drain::default();
        let begun = Instant::now();
        drain.begin(1, Duration::from_secs(45));
        drain.turn().await;
        tokio::time::sleep(Duration::from_secs(40)).await;
        drain.turn().await;
        assert!(begun.elapsed().abs_diff(Duration::from_secs(45)) < Duration::from_millis(5));
    }
}
