//! Pauses between tries: each twice as long as the one before, up to a maximum, with jitter.

use std::time::Duration;

/// The pauses of one sequence of tries.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    /// Pauses that start at `first` and double up to `longest`, before jitter.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { next: first.min(longest), longest }
    }

    /// The next pause, with jitter: from half of its length to all of it.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = pause.saturating_mul(2).min(self.longest);
        pause.mul_f64(rand::random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(350));
        for expected in [100, 200, 350, 350] {
            let pause = backoff.pause();
            let expected = Duration::from_millis(expected);
            assert!((expected / 2..=expected).contains(&pause), "{pause:?} for {expected:?}");
        }
    }
}
