//! Builds the parts of a node and holds them together.

use std::sync::{Arc, atomic::AtomicBool};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    auth::Auth,
    chat::Chat,
    config::{Config, StoreConfig},
    degrade::Degrade,
    http::Gate,
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
    /// What may come in.
    pub gate: Arc<Gate>,
    /// Set once the node takes clients: until then it is not ready.
    pub ready: AtomicBool,
    /// Every task that must end before the process may.
    pub tasks: TaskTracker,
    /// Cancelled when no more connections are to be accepted.
    pub stop_accepting: CancellationToken,
    /// Cancelled when everything is to end.
    pub stop: CancellationToken,
}

/// Why a node could not start, or had to end.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RunError(pub String);

/// Runs a node until it is told to end.
///
/// # Errors
/// It could not start, or had to end.
pub async fn run(config: Config) -> Result<(), RunError> {
    let _ = config;
    Err(RunError("nothing to run yet".into()))
}

/// Applies pending migrations, and says how many there were.
///
/// # Errors
/// The store can't be reached, or a migration failed.
pub async fn migrate(store: StoreConfig) -> Result<usize, RunError> {
    let _ = store;
    Err(RunError("nothing to migrate yet".into()))
}
