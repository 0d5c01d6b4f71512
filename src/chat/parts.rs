//! The dependencies of [`Chat`](super::Chat).

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::{
    backplane::{Backplane, BackplaneEvent},
    config::Config,
    degrade::Degrade,
    metrics::Metrics,
    model::Clock,
    restrictions::Restrictions,
    store::{Pulse, Store},
    supervise::Supervisor,
    webhook::Webhooks,
};

/// The dependencies of a chat.
pub struct Parts {
    /// The node's settings.
    pub config: Arc<Config>,
    /// The store.
    pub store: Arc<dyn Store>,
    /// The backplane, and the receiver of its notices.
    pub backplane: (Arc<Backplane>, mpsc::Receiver<BackplaneEvent>),
    /// The clients of the persona webhook and of the notification webhook.
    pub webhooks: Webhooks,
    /// The state of Redis and of the store.
    pub degrade: Arc<Degrade>,
    /// The node's metrics.
    pub metrics: Arc<Metrics>,
    /// This node's restrictions, and the receiver of the store's answers, which show new ones.
    pub restrictions: (Arc<Restrictions>, watch::Receiver<Option<Pulse>>),
    /// The clock.
    pub clock: Clock,
    /// Supervises the background tasks.
    pub supervisor: Supervisor,
}
