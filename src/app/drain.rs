//! Going away without a stampede: connections are closed evenly over a window.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio_util::sync::CancellationToken;

/// A client comes back this long after it was sent away, and up to twice as long: other nodes have room by then.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The order in which connections leave.
#[derive(Debug, Default)]
pub struct Drain {
    begun: CancellationToken,
    plan: OnceLock<(u64, Duration)>,
    next: AtomicU64,
}

impl Drain {
    /// Sends `connections` away, evenly over `window`.
    pub fn begin(&self, connections: u64, window: Duration) {
        let _already = self.plan.set((connections.max(1), window));
        self.begun.cancel();
    }

    /// Resolves when it is one's turn to leave, with advice when to come back.
    pub async fn turn(&self) -> Duration {
        self.begun.cancelled().await;
        let (connections, window) = self.plan.get().copied().unwrap_or((1, Duration::ZERO));
        let place = self.next.fetch_add(1, Ordering::Relaxed).min(connections);
        tokio::time::sleep(window.mul_f64(place as f64 / connections as f64)).await;
        RETRY_AFTER.mul_f64(rand::random_range(1.0..2.0))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::Instant;

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
}
