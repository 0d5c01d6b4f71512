//! Start of the store. While PostgreSQL is away, the node waits, not ready.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{
    backplane::Backplane,
    chat::Chat,
    config::StoreConfig,
    degrade::Degrade,
    store::{Store, StoreError},
};

/// First and longest pause between two tries.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// Reason why the store did not start.
#[derive(Debug, thiserror::Error)]
pub enum NotStarted {
    /// The store has a fault that only an operator can end.
    #[error("store: {0}")]
    Fault(StoreError),
    /// The store could not be reached in time.
    #[error(
        "store: PostgreSQL was not usable within DATABASE_START_TIMEOUT ({} s): {why}. Repair what it says, or set a \
         longer DATABASE_START_TIMEOUT",
        .waited.as_secs()
    )]
    Away {
        /// The setting's value.
        waited: Duration,
        /// The last error.
        why: String,
    },
}

/// Starts the store, gives the backplane the keys of the nodes, reads the restrictions, and tries again while the store is
/// away, at most for the configured time. `degrade` awaits the store already.
///
/// # Errors
/// The store has a fault that only an operator can end, or it was away for too long.
pub(super) async fn start_store(
    store: &dyn Store,
    (backplane, chat): (&Backplane, &Chat),
    config: &StoreConfig,
    degrade: &Degrade,
) -> Result<(), NotStarted> {
    let (began, mut pause, mut tries) = (Instant::now(), PAUSE.0, 0_u32);
    loop {
        let started = start_once(store, (backplane, chat), config.migrate).await;
        let error = match started {
            Ok(applied) => {
                degrade.store_started();
                tracing::info!(applied, waited_ms = began.elapsed().as_millis(), "the store has started");
                return Ok(());
            }
            Err(StoreError::Failed(why)) => return Err(NotStarted::Fault(StoreError::Failed(why))),
            Err(error) => error.finding(),
        };
        // One line is enough: readiness shows the newest reason.
        if tries == 0 {
            tracing::warn!(
                error = error.detail,
                fault = error.fault.name(),
                timeout_seconds = config.start_timeout.as_secs(),
                "the store is away; this node waits for it and is not ready"
            );
        } else {
            tracing::debug!(error = error.detail, tries, "the store is still away");
        }
        tries += 1;
        if began.elapsed() + pause >= config.start_timeout {
            return Err(NotStarted::Away { waited: config.start_timeout, why: error.detail });
        }
        degrade.await_store(Some(error));
        sleep(pause.mul_f64(rand::random_range(0.8..1.2))).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// One try. Returns the number of migrations applied.
async fn start_once(
    store: &dyn Store,
    (backplane, chat): (&Backplane, &Chat),
    migrate: bool,
) -> Result<usize, StoreError> {
    let started = store.start(migrate).await?;
    if backplane.needs_keys() {
        backplane.set_keys(&started.keys?);
        backplane.set_deployment(&started.deployment.id).await;
    }
    chat.begin_epoch(started.deployment.epoch);
    chat.read_restrictions().await?;
    chat.begin_watch().await?;
    // Opens the connection of the health check, which may take a busy server longer than a check.
    store.ping().await?;
    Ok(started.migrations)
}
