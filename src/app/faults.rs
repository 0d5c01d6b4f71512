//! Shows the faults of Redis and the store: in the metrics, and in the log with the name in
//! `docs/operations/failure-modes.md` and the server's own words.

use std::time::Duration;

use crate::{
    degrade::{Degrade, Fault, LinkState, Part},
    metrics::Metrics,
};

/// Longest time after which a fault that ended is no longer shown.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The states and faults that were shown last.
#[derive(Debug, Default)]
pub(super) struct Shown {
    links: [Option<LinkState>; 2],
    faults: Vec<Fault>,
}

/// Updates the metrics and logs each change of a part's state, and each fault that begins or ends.
pub(super) async fn watch(degrade: &Degrade, metrics: &Metrics, shown: &mut Shown) {
    let mut changes = degrade.changes();
    loop {
        let began = show_faults(degrade, metrics, &mut shown.faults);
        for (part, before) in [Part::Redis, Part::Store].into_iter().zip(&mut shown.links) {
            show_link(degrade, metrics, part, before);
        }
        for (part, fault, reason) in began {
            tracing::warn!(
                part = part.label(),
                fault = fault.name(),
                reason,
                "a fault began; failure-modes.md explains it"
            );
        }
        // A fault without new evidence ends by time alone.
        if tokio::time::timeout(LOOK_EVERY, changes.changed()).await.is_ok_and(|changed| changed.is_err()) {
            return;
        }
    }
}

fn show_link(degrade: &Degrade, metrics: &Metrics, part: Part, before: &mut Option<LinkState>) {
    let link = degrade.state(part).link;
    if before.replace(link) == Some(link) {
        return;
    }
    metrics.degraded.with_label_values(&[part.label()]).set(i64::from(link == LinkState::Down));
    metrics.degraded_transitions.with_label_values(&[part.label()]).inc();
    tracing::info!(part = part.label(), state = ?link, "part changed");
}

/// Returns the faults that stand and were not shown before.
fn show_faults(degrade: &Degrade, metrics: &Metrics, shown: &mut Vec<Fault>) -> Vec<(Part, Fault, String)> {
    let faults = degrade.faults();
    let stands = |fault: Fault| faults.iter().any(|(_, finding)| finding.fault == fault);
    for ended in shown.iter().filter(|fault| !stands(**fault)) {
        metrics.faults.with_label_values(&[ended.name()]).set(0);
        tracing::info!(fault = ended.name(), "a fault ended");
    }
    let new = faults.iter().filter(|(_, finding)| !shown.contains(&finding.fault));
    let new: Vec<_> = new.map(|(part, finding)| (*part, finding.fault, finding.detail.clone())).collect();
    for (_, fault, _) in &new {
        metrics.faults.with_label_values(&[fault.name()]).set(1);
    }
    *shown = faults.iter().map(|(_, finding)| finding.fault).collect();
    new
}
