//! Shows the faults of Redis and the store: in the metrics, and in the log with the name in
//! `docs/operations/failure-modes.md` and the server's own words.

use std::time::{Duration, Instant};

use crate::{
    degrade::{Degrade, Fault, LinkState, Part},
    metrics::Metrics,
};

/// Interval between two looks without a change, and time without a fault after which it is shown no more.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The states and faults that were shown last.
#[derive(Debug, Default)]
pub(super) struct Shown {
    links: [Option<LinkState>; 2],
    /// Each with the time since which it stands no more.
    faults: Vec<(Fault, Option<Instant>)>,
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

/// Returns the faults that stand and were not shown before. One ends once it has not stood for [`LOOK_EVERY`]: a server that
/// fails in two ways in turn has two faults, and each is told once.
fn show_faults(
    degrade: &Degrade,
    metrics: &Metrics,
    shown: &mut Vec<(Fault, Option<Instant>)>,
) -> Vec<(Part, Fault, String)> {
    // This look and the next also tell since when a reason stands.
    let _reasons = degrade.standing_reasons();
    let (faults, now) = (degrade.standing_faults(), Instant::now());
    let stands = |fault: Fault| faults.iter().any(|(_, finding, _)| finding.fault == fault);
    for (fault, absent) in &mut *shown {
        *absent = if stands(*fault) { None } else { absent.or(Some(now)) };
    }
    let is_over = |absent: &Option<Instant>| absent.is_some_and(|since| now.duration_since(since) >= LOOK_EVERY);
    for (ended, _) in shown.extract_if(.., |(_, absent)| is_over(absent)) {
        metrics.faults.with_label_values(&[ended.name()]).set(0);
        tracing::info!(fault = ended.name(), "a fault ended");
    }
    let is_new = |fault: Fault| shown.iter().all(|(known, _)| *known != fault);
    let new = faults.iter().filter(|(_, finding, _)| is_new(finding.fault));
    let new: Vec<_> = new.map(|(part, finding, _)| (*part, finding.fault, finding.detail.clone())).collect();
    for (_, fault, _) in &new {
        metrics.faults.with_label_values(&[fault.name()]).set(1);
        shown.push((*fault, None));
    }
    new
}
