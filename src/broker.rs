//! A running node, as it is offered to sockets and requests: what `http` and `listener` ask, and nothing of how it is
//! built. `app` builds it.

use std::sync::Arc;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admission::ConnectionAdmission,
    auth::Auth,
    backplane::Backplane,
    chat::Chat,
    config::Config,
    degrade::Degrade,
    metrics::Metrics,
    model::{Clock, Timestamp},
};

mod drain;

pub use drain::Drain;

/// A running node.
pub struct Broker {
    /// Its settings.
    pub config: Arc<Config>,
    /// Its metrics.
    pub metrics: Arc<Metrics>,
    /// The state of Redis and store.
    pub degrade: Arc<Degrade>,
    /// Checks and mints tokens.
    pub auth: Arc<Auth>,
    /// Carries out commands.
    pub chat: Arc<Chat>,
    /// What the nodes share: health and metrics ask it about this node and the others.
    pub backplane: Arc<Backplane>,
    /// The time.
    pub clock: Clock,
    /// When it was started.
    pub started_at: Timestamp,
    /// Which connections and handshakes may come in.
    pub admission: Arc<ConnectionAdmission>,
    /// The order in which connections leave when the node goes away.
    pub drain: Arc<Drain>,
    /// The tasks of connections.
    pub tasks: TaskTracker,
    /// Cancelled when no more connections are to be accepted.
    pub stop_accepting: CancellationToken,
}
