//! The result of a run, as text and as JSON.

use std::time::Duration;

use serde::Serialize;

use super::{
    plan::Plan,
    tally::{Counts, Quantiles, Reasons},
    user::Listener,
};

/// The result of a run. Rates are per second, and times in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    target: String,
    dialect: &'static str,
    users: u32,
    rooms: u32,
    rate: u32,
    seconds: u32,
    connects: Connects,
    sends: Sends,
    deliveries: Deliveries,
}

/// The connections.
#[derive(Debug, Clone, Serialize)]
struct Connects {
    opened: u64,
    not_opened: Reasons,
    lost: Reasons,
    per_second: f64,
    /// Time from the begin of a connect until the room is joined.
    ms: Quantiles,
}

/// The messages. Those of the warm-up count too, except in `per_second` and `ack_ms`.
#[derive(Debug, Clone, Serialize)]
struct Sends {
    due: u64,
    /// Due while the sender was not connected, or could not send fast enough.
    unsent: u64,
    stored: u64,
    refused: Reasons,
    /// Sent, and neither stored nor refused so far.
    unanswered: u64,
    per_second: f64,
    /// Time from when a message was due until its ack.
    ack_ms: Quantiles,
}

/// The messages at their listeners. Those of the warm-up count too, except in `per_second` and `ms`.
#[derive(Debug, Clone, Serialize)]
struct Deliveries {
    received: u64,
    /// Stored messages that a listener, whose connection lasted, did not receive.
    missing: u64,
    repeated: u64,
    resyncs: u64,
    per_second: f64,
    /// Time from when a message was due until it reached a listener.
    ms: Quantiles,
}

impl Report {
    /// The result of these counts.
    pub(super) fn of(plan: &Plan, counts: &Counts, listeners: &[Listener], connecting: Duration) -> Self {
        let missing = |listener: &Listener| {
            let stored = counts.stored.get(listener.room as usize).copied().unwrap_or_default();
            let own = if plan.speech.echoes() { 0 } else { listener.own };
            stored.saturating_sub(own).saturating_sub(listener.received)
        };
        let (stored, seconds) = (counts.stored.iter().sum(), f64::from(plan.seconds));
        Self {
            target: plan.target.socket(""),
            dialect: plan.speech.name(),
            users: plan.users,
            rooms: plan.rooms,
            rate: plan.rate,
            seconds: plan.seconds,
            connects: Connects {
                opened: counts.opened,
                not_opened: counts.not_opened.clone(),
                lost: counts.lost.clone(),
                per_second: counts.opened as f64 / connecting.as_secs_f64(),
                ms: counts.connect.quantiles(),
            },
            sends: Sends {
                due: plan.messages(),
                unsent: counts.unsent,
                stored,
                refused: counts.refused.clone(),
                unanswered: counts.sent.saturating_sub(stored + counts.refused.sum()),
                per_second: counts.measured_acks as f64 / seconds,
                ack_ms: counts.ack.quantiles(),
            },
            deliveries: Deliveries {
                received: counts.received,
                missing: listeners.iter().filter(|listener| listener.lasted).map(missing).sum(),
                repeated: counts.repeated,
                resyncs: counts.resyncs,
                per_second: counts.measured_deliveries as f64 / seconds,
                ms: counts.delivery.quantiles(),
            },
        }
    }

    /// True if every connection was opened and lasted, and every stored message reached every listener exactly once.
    pub(super) fn is_clean(&self) -> bool {
        let Self { connects, deliveries, .. } = self;
        connects.not_opened.sum() + connects.lost.sum() + deliveries.missing + deliveries.repeated == 0
    }

    /// The result as one JSON object.
    pub(super) fn json(&self) -> String {
        // Numbers, texts and maps with texts as keys always have a JSON form.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// The result for a person.
    pub(super) fn text(&self) -> String {
        let Self { target, dialect, users, rooms, rate, seconds, connects, sends, deliveries } = self;
        let mut lines = vec![
            format!("{target}: {users} users in {rooms} rooms, {rate} messages/s for {seconds} s, {dialect} dialect"),
            String::new(),
            "                    per second       p50       p90       p99     p99.9       max   (ms)".to_owned(),
            row("connects", connects.per_second, connects.ms),
        ];
        if *rate > 0 {
            lines.push(row("acks", sends.per_second, sends.ack_ms));
            lines.push(row("deliveries", deliveries.per_second, deliveries.ms));
            lines.push(String::new());
            lines.push(format!(
                "messages    {} due, {} stored, {} refused, {} unanswered, {} not sent",
                sends.due,
                sends.stored,
                sends.refused.sum(),
                sends.unanswered,
                sends.unsent
            ));
            lines.push(format!(
                "deliveries  {} received, {} missing, {} repeated, {} resyncs",
                deliveries.received, deliveries.missing, deliveries.repeated, deliveries.resyncs
            ));
        }
        for (title, reasons) in
            [("not opened", &connects.not_opened), ("lost", &connects.lost), ("refused", &sends.refused)]
        {
            lines.extend(reasons.lines().into_iter().map(|line| format!("{title:<11} {line}")));
        }
        if sends.refused.has("rate_limited") {
            lines.push(
                "            a user's rate is limited (MESSAGE_RATE_LIMIT): use more users, a lower rate, or a higher limit"
                    .to_owned(),
            );
        }
        lines.join("\n") + "\n"
    }
}

fn row(name: &str, rate: f64, Quantiles { p50, p90, p99, p999, max }: Quantiles) -> String {
    format!("{name:<18} {rate:>11.1} {p50:>9.2} {p90:>9.2} {p99:>9.2} {p999:>9.2} {max:>9.2}")
}
