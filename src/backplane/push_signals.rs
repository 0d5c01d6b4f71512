//! Signals from the push handler of a subscription to those who use it.

use std::sync::{Mutex, MutexGuard, PoisonError, atomic::AtomicBool};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Signals from the push handler of one subscription.
#[derive(Default)]
pub(super) struct PushSignals {
    /// True if a payload found the queue full.
    pub(super) gap: AtomicBool,
    /// The canary that was published last, and its channel. Another number is a forgery.
    awaited: Mutex<Option<(String, u64)>>,
    /// Wakes when the canary arrives.
    pub(super) canary: Notify,
    /// Cancelled when the connection ends.
    pub(super) broken: CancellationToken,
}

impl PushSignals {
    /// The next canary, on this channel.
    pub(super) fn await_canary(&self, channel: &str) -> u64 {
        let number = rand::random();
        *self.awaited() = Some((channel.to_owned(), number));
        number
    }

    /// Records what arrived on a channel of canaries.
    pub(super) fn note_canary(&self, channel: &[u8], payload: &[u8]) {
        let is_it =
            |(name, number): &mut (String, u64)| channel == name.as_bytes() && payload == number.to_string().as_bytes();
        if self.awaited().take_if(is_it).is_some() {
            self.canary.notify_one();
        }
    }

    fn awaited(&self) -> MutexGuard<'_, Option<(String, u64)>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
