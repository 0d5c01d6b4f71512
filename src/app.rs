//! Builds the parts of a node and holds them together.

use std::sync::Arc;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    auth::Auth,
    chat::Chat,
    config::Config,
    degrade::Degrade,
    metrics::Metrics,
    model::{Clock, Timestamp},
};

/// A running node.
pub struct Broker {
    /// Its settings.
    pub config: Arc<Config>,
    /// Its metrics.
    pub metrics: Arc<Metrics>,
    /// Its state.
    pub degrade: Arc<Degrade>,
    /// Tokens.
    pub auth: Auth,
    /// Commands.
    pub chat: Arc<Chat>,
    /// The time.
    pub clock: Clock,
    /// When it was started.
    pub started_at: Timestamp,
    /// Every task that must end before the process may.
    pub tasks: TaskTracker,
    /// Cancelled when no more connections are to be accepted.
    pub stop_accepting: CancellationToken,
    /// Cancelled when everything is to end.
    pub stop: CancellationToken,
}
