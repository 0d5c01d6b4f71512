//! The dependencies of sessions.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::heartbeat::Pace;
use crate::{
    advice::Advice,
    auth::Auth,
    broker::Drain,
    chat::{Chat, Connection},
    config::Config,
    dialect::Dialect,
    metrics::Metrics,
    model::{Clock, Identity},
    outbox::{OutboxBudget, OutboxLimits},
    supervise::{Supervisor, TaskName},
    tail::Tail,
};

/// Maximum duration of a close, in which queued frames are written and the client's close is awaited.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum time for which the connection stays open for the client's answer to a close frame.
pub(super) const PEER_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest time until a connection ends because its token expires; the client then reconnects. Tokens come from outside
/// and may be valid for thousands of years, which a timer need not count.
const EXPIRY_MAX: Duration = Duration::from_secs(365 * 24 * 3_600);

/// The dependencies of a session.
pub struct Context {
    /// The node's settings.
    pub config: Arc<Config>,
    /// The node's metrics.
    pub metrics: Arc<Metrics>,
    /// Verifies tokens.
    pub auth: Arc<Auth>,
    /// Tells which setting a refusal is about.
    pub advice: Arc<Advice>,
    /// Executes commands.
    pub chat: Arc<Chat>,
    /// The clock.
    pub clock: Clock,
    /// The bound on the sum of all outboxes.
    pub outboxes: Arc<OutboxBudget>,
    /// The schedule on which connections close during a drain.
    pub drain: Arc<Drain>,
    /// The newest connects, refusals and closes, for the console.
    pub tail: Arc<Tail>,
    /// Catches panics.
    pub supervisor: Supervisor,
    /// The tracker of tasks that may outlive a session.
    pub tasks: TaskTracker,
    /// The settings that sockets share.
    pub shared: Shared,
}

/// Settings that all sockets of a node share, so that none has a copy.
pub struct Shared {
    pub(super) pace: Arc<Pace>,
    outbox_limits: [Arc<OutboxLimits>; Dialect::COUNT],
}

impl Shared {
    /// The settings in `config`.
    pub fn new(config: &Config) -> Self {
        let (limits, timing) = (&config.limits, &config.timing);
        let (interval, pong_timeout) = (timing.ping_interval, timing.pong_timeout);
        let outbox_limits = |dialect: Dialect| OutboxLimits {
            bytes: limits.outbox_bytes,
            stalled_after: timing.slow_reader_timeout,
            too_slow: dialect.too_slow(),
        };
        Self {
            pace: Arc::new(Pace { interval, pong_timeout, silent_after: timing.silent_after() }),
            outbox_limits: Dialect::ALL.map(outbox_limits).map(Arc::new),
        }
    }

    /// The limits of the outboxes of a dialect.
    pub(super) fn outbox_limits(&self, dialect: Dialect) -> Arc<OutboxLimits> {
        self.outbox_limits[dialect.index()].clone()
    }
}

impl Context {
    /// Unregisters a connection, at least from the registry of all nodes if the rest panics.
    pub(super) async fn disconnect(&self, identity: &Identity, connection: &Connection) {
        let disconnected = self.chat.disconnect(identity, connection);
        if self.supervisor.guard(TaskName::Session, disconnected).await.is_none() {
            self.chat.forget(connection).await;
        }
    }

    /// Starts a task that may outlive its session.
    pub(super) fn spawn(&self, name: TaskName, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(self.supervisor.guard(name, task));
    }

    /// The expiry of a token as an instant for timers, at most [`EXPIRY_MAX`] from now. The leeway covers differences
    /// between clocks.
    pub(super) fn expiry(&self, identity: &Identity) -> Instant {
        let left = identity.expires_at.since(self.clock.now()).saturating_add(self.auth.leeway());
        Instant::now() + left.min(EXPIRY_MAX)
    }
}
