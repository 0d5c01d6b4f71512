//! What a chat is built from.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    backplane::{Backplane, BackplaneEvent},
    config::Config,
    degrade::Degrade,
    metrics::Metrics,
    model::Clock,
    store::Store,
    webhook::Webhooks,
};

/// What a chat is built from.
pub struct Parts {
    /// The node's settings.
    pub config: Arc<Config>,
    /// What lasts.
    pub store: Arc<dyn Store>,
    /// What the nodes share, and what it tells.
    pub backplane: (Arc<Backplane>, mpsc::Receiver<BackplaneEvent>),
    /// Where personas answer, and where notifications go.
    pub webhooks: Webhooks,
    /// The node's state.
    pub degrade: Arc<Degrade>,
    /// The node's metrics.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Clock,
    /// Where its tasks run.
    pub tasks: TaskTracker,
    /// Ends them.
    pub stop: CancellationToken,
}
