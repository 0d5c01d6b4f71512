//! [`Pending`]: the commands of a session that wait for the store.

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesOrdered};

/// Commands that wait for the store, in order of arrival; their answers keep this order. An idle session has no memory for
/// them.
pub(super) struct Pending<T>(Option<Box<FuturesOrdered<BoxFuture<'static, T>>>>);

impl<T> Default for Pending<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: 'static> Pending<T> {
    /// The number of commands.
    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |waiting| waiting.len())
    }

    pub(super) fn push(&mut self, answer: impl Future<Output = T> + Send + 'static) {
        self.0.get_or_insert_default().push_back(answer.boxed());
    }

    /// The next answer; `None` if no command waits. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<T> {
        let answer = self.0.as_mut()?.next().await;
        if self.len() == 0 {
            self.0 = None;
        }
        answer
    }
}
