//! The handle to a running node that `http`, `listener` and sessions use. `app` builds it.

use std::sync::Arc;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admission::ConnectionAdmission,
    advice::Advice,
    auth::Auth,
    backplane::Backplane,
    chat::Chat,
    config::Config,
    degrade::Degrade,
    metrics::Metrics,
    model::{Clock, Timestamp},
    outbox::OutboxBudget,
    supervise::Supervisor,
    tail::Tail,
    webhook::{Deliveries, Webhooks},
};

mod drain;

pub use drain::Drain;

/// A running node.
pub struct Broker {
    /// The node's settings.
    pub config: Arc<Config>,
    /// The node's metrics.
    pub metrics: Arc<Metrics>,
    /// The state of Redis and of the store.
    pub degrade: Arc<Degrade>,
    /// Verifies and mints tokens.
    pub auth: Arc<Auth>,
    /// Carries out commands.
    pub chat: Arc<Chat>,
    /// The state that nodes share. Health and metrics read this node and the others from it.
    pub backplane: Arc<Backplane>,
    /// The clock.
    pub clock: Clock,
    /// The time at which the node started.
    pub started_at: Timestamp,
    /// The caps on sockets and handshakes.
    pub admission: Arc<ConnectionAdmission>,
    /// Tells operators and developers which setting a refusal is about.
    pub advice: Arc<Advice>,
    /// The bound on the sum of all outboxes.
    pub outboxes: Arc<OutboxBudget>,
    /// The schedule on which connections close during a drain.
    pub drain: Arc<Drain>,
    /// The newest connects, refusals and closes, for the console.
    pub tail: Arc<Tail>,
    /// The webhooks, whose requests the console may repeat.
    pub webhooks: Webhooks,
    /// The newest finished webhook requests, for the console.
    pub deliveries: Arc<Deliveries>,
    /// Supervises the tasks of the node.
    pub supervisor: Supervisor,
    /// The tasks of the connections.
    pub tasks: TaskTracker,
    /// Cancelled when the listeners must stop accepting connections.
    pub stop_accepting: CancellationToken,
}
