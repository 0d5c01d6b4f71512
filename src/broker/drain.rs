//! The drain: connections close evenly over a window, so that clients do not all reconnect at once.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Minimum delay before a closed client reconnects; the maximum is twice this. It gives other nodes time to make room.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The schedule on which connections close.
#[derive(Debug, Default)]
pub struct Drain {
    begun: CancellationToken,
    plan: OnceLock<Plan>,
    next: AtomicU64,
}

/// The number of connections to close, and the time to close them in.
#[derive(Debug)]
struct Plan {
    connections: u64,
    from: Instant,
    window: Duration,
}

impl Drain {
    /// Starts to close `connections` connections, evenly over `window`.
    pub fn begin(&self, connections: u64, window: Duration) {
        let _already = self.plan.set(Plan { connections: connections.max(1), from: Instant::now(), window });
        self.begun.cancel();
    }

    /// Resolves when the drain begins, with the delay after which the client should reconnect. A connection that is not
    /// open yet uses this instead of [`Drain::turn`].
    pub async fn begun(&self) -> Duration {
        self.begun.cancelled().await;
        retry_after()
    }

    /// Resolves when the caller's connection must close, with the delay after which the client should reconnect. A
    /// connection that opened after the count closes at the end of the window.
    pub async fn turn(&self) -> Duration {
        self.begun.cancelled().await;
        let retry_after = retry_after();
        if let Some(Plan { connections, from, window }) = self.plan.get() {
            let place = self.next.fetch_add(1, Ordering::Relaxed).min(*connections);
            // Boxed, because each open connection has a future of this function, and the drain comes once.
            let turn = *from + window.mul_f64(place as f64 / *connections as f64);
            Box::pin(tokio::time::sleep_until(turn)).await;
        }
        retry_after
    }
}

/// A random delay after which a client should reconnect.
fn retry_after() -> Duration {
    RETRY_AFTER.mul_f64(rand::random_range(1.0..2.0))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn closes_are_spread_evenly() {
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
    async fn a_late_connection_closes_with_the_last() {
        let drain = Drain::default();
        let begun = Instant::now();
        drain.begin(1, Duration::from_secs(45));
        drain.turn().await;
        tokio::time::sleep(Duration::from_secs(40)).await;
        drain.turn().await;
        assert!(begun.elapsed().abs_diff(Duration::from_secs(45)) < Duration::from_millis(5));
    }
}
