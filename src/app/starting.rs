//! Start of the store. While PostgreSQL is away, the node waits, not ready.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::RunError;
use crate::{
    config::StoreConfig,
    degrade::Degrade,
    store::{Store, StoreError},
};

/// First and longest pause between two tries.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// Starts the store, and tries again while it is away, at most for the configured time.
///
/// # Errors
/// The store has a fault that only an operator can end, or it was away for too long.
pub(super) async fn start_store(store: &dyn Store, config: &StoreConfig, degrade: &Degrade) -> Result<(), RunError> {
    let (began, mut pause, mut tries) = (Instant::now(), PAUSE.0, 0_u32);
    degrade.await_store("connecting, and applying migrations".to_owned());
    loop {
        let error = match store.start(config.migrate).await {
            Ok(applied) => {
                degrade.store_started();
                tracing::info!(applied, waited_ms = began.elapsed().as_millis(), "the store has started");
                return Ok(());
            }
            Err(StoreError::Failed(why)) => return Err(StoreError::Failed(why).into()),
            Err(StoreError::Unavailable(why) | StoreError::Unknown(why)) => why,
        };
        // One line is enough: readiness shows the newest reason.
        if tries == 0 {
            tracing::warn!(
                error,
                timeout_seconds = config.start_timeout.as_secs(),
                "the store is away; this node waits for it and is not ready"
            );
        } else {
            tracing::debug!(error, tries, "the store is still away");
        }
        tries += 1;
        if began.elapsed() + pause >= config.start_timeout {
            return Err(RunError::StoreAway { waited: config.start_timeout, why: error });
        }
        degrade.await_store(error);
        sleep(pause.mul_f64(rand::random_range(0.8..1.2))).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}
