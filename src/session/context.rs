//! The dependencies of sessions.

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

/// Maximum duration of a close, in which queued frames are written and the client's close is awaited.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum time for which the connection stays open for the client's answer to a close frame.
pub(super) const PEER_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The dependencies of a session.
pub struct Context {
    /// The node's settings.
    pub config: Arc<Config>,
    /// The node's metrics.
    pub metrics: Arc<Metrics>,
    /// Verifies tokens.
    pub auth: Arc<Auth>,
    /// Executes commands.
    pub chat: Arc<Chat>,
    /// The clock.
    pub clock: Clock,
    /// The schedule on which connections close during a drain.
    pub drain: Arc<Drain>,
    /// The tracker of tasks that may outlive a session.
    pub tasks: TaskTracker,
}

impl Context {
    /// The expiry of a token as an instant for timers. The leeway covers differences between clocks.
    pub(super) fn expiry(&self, identity: &Identity) -> Instant {
        Instant::now() + identity.expires_at.since(self.clock.now()) + self.auth.leeway()
    }
}
