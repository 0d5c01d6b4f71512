//! Start of the store. While PostgreSQL is away, a node waits, not ready, and so does `switchboard migrate`.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{
    backplane::Backplane,
    chat::Chat,
    config::StoreConfig,
    degrade::{Degrade, Finding},
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
    let began = Instant::now();
    let away = |finding: Finding, tries: u32| {
        // One line is enough: readiness shows the newest reason.
        if tries == 0 {
            tracing::warn!(
                error = finding.detail,
                fault = finding.fault.name(),
                timeout_seconds = config.start_timeout.as_secs(),
                "the store is away; this node waits for it and is not ready"
            );
        }
        degrade.await_store(Some(finding));
    };
    let start = async || start_once(store, (backplane, chat), config.migrate).await;
    let applied = wait_for_store(config.start_timeout, start, away).await?;
    degrade.store_started();
    tracing::info!(applied, waited_ms = began.elapsed().as_millis(), "the store has started");
    Ok(())
}

/// Applies pending migrations, and tries again while the store is away, at most for the configured time. Returns their
/// number.
///
/// # Errors
/// The store has a fault that only an operator can end, or it was away for too long.
pub(super) async fn migrate_store(store: &dyn Store, config: &StoreConfig) -> Result<usize, NotStarted> {
    let away = |finding: Finding, tries: u32| {
        if tries == 0 {
            tracing::warn!(
                error = finding.detail,
                fault = finding.fault.name(),
                timeout_seconds = config.start_timeout.as_secs(),
                "the store is away; the migrations wait for it"
            );
        }
    };
    wait_for_store(config.start_timeout, async || store.migrate().await, away).await
}

/// Tries until the store answers, at most for `longest`. `away` gets the reason of each failed try and the number of those
/// before it.
async fn wait_for_store<T>(
    longest: Duration,
    mut tried: impl AsyncFnMut() -> Result<T, StoreError>,
    mut away: impl FnMut(Finding, u32),
) -> Result<T, NotStarted> {
    let (began, mut pause, mut tries) = (Instant::now(), PAUSE.0, 0_u32);
    loop {
        let finding = match tried().await {
            Ok(done) => return Ok(done),
            Err(StoreError::Failed(why)) => return Err(NotStarted::Fault(StoreError::Failed(why))),
            Err(error) => error.finding(),
        };
        tracing::debug!(error = finding.detail, tries, "the store is away");
        if began.elapsed() + pause >= longest {
            return Err(NotStarted::Away { waited: longest, why: finding.detail });
        }
        away(finding, tries);
        tries += 1;
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
