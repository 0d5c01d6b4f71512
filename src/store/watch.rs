//! Watches whether the store answers.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{Lifecycle, Pulse};
use crate::{
    degrade::{Degrade, Fault, Finding, LinkState, Part},
    metrics::Metrics,
    supervise::{TaskName, checkpoint},
};

/// Pings the store twice a second, and reports the result, whether any node gives notices, and whether heavy reads are
/// refused. A failed ping is repeated at once over another connection, so that a silent store is noticed within 3 s.
/// `pulses` gets each answer.
pub async fn watch(
    store: Arc<dyn Lifecycle>,
    degrade: Arc<Degrade>,
    metrics: Arc<Metrics>,
    pulses: watch::Sender<Option<Pulse>>,
) {
    const PING_PERIOD: Duration = Duration::from_millis(500);
    const PING_TIMEOUT: Duration = Duration::from_millis(1_200);
    const REPEAT_AFTER: Duration = Duration::from_millis(50);
    /// Time for which reads count as slow after one was refused.
    const SLOW_READS_SPAN: Duration = Duration::from_secs(5);
    loop {
        checkpoint(TaskName::StoreWatch, || "");
        let started = Instant::now();
        let result = match timeout(PING_TIMEOUT, store.ping()).await {
            Ok(Ok(pulse)) => {
                degrade.note_relay(pulse.relays);
                pulses.send_replace(Some(pulse));
                Ok(started.elapsed())
            }
            Ok(Err(error)) => Err(error.finding()),
            Err(_) => Err(Finding::new(Fault::StoreSilent, "no answer to the health check within 1.2 s")),
        };
        let failed = result.is_err();
        degrade.report(Part::Store, result);
        let slow_reads = store.refused_heavy_reads(SLOW_READS_SPAN);
        metrics.slow_reads.set(slow_reads.into());
        degrade.note_slow_reads(slow_reads);
        let doubted = failed && degrade.state(Part::Store).link == LinkState::Up;
        sleep(if doubted { REPEAT_AFTER } else { PING_PERIOD }).await;
    }
}
