//! What every session works with.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::{
    auth::Auth,
    broker::Drain,
    chat::Chat,
    config::Config,
    metrics::Metrics,
    model::{Clock, Identity},
};

/// How long a close may take: what is queued is written, and the client's own close is waited for.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a session uses of the node.
pub struct Context {
    /// The node's settings.
    pub config: Arc<Config>,
    /// The node's metrics.
    pub metrics: Arc<Metrics>,
    /// Checks tokens.
    pub auth: Arc<Auth>,
    /// Carries out commands.
    pub chat: Arc<Chat>,
    /// The time.
    pub clock: Clock,
    /// When to leave.
    pub drain: Arc<Drain>,
    /// Where what outlives a turn of the session's loop runs.
    pub tasks: TaskTracker,
}

impl Context {
    /// When a token's time is over, on the clock that timers know; clocks may differ by the leeway.
    pub(super) fn expiry(&self, identity: &Identity) -> Instant {
        Instant::now() + identity.expires_at.since(self.clock.now()) + self.auth.leeway()
    }
}
