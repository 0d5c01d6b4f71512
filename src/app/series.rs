//! Metric series that must exist before their first event. Prometheus' `rate` misses the event with which a counter
//! first appears, and a ratio over absent series yields no value instead of 0.

use std::time::Duration;

use crate::{
    admission::Refusal,
    backplane::RefusedPlace,
    degrade::Fault,
    dialect::Dialect,
    metrics::Metrics,
    model::{CloseReason, Reject, TokenFlaw},
    outbox::Class,
    store::Operation,
    supervise::TaskName,
    webhook::Hook,
};

/// Creates the series that alerts and dashboards read.
pub(super) fn create(metrics: &Metrics) {
    for dialect in Dialect::ALL {
        let label = [dialect.label()];
        metrics.connections.with_label_values(&label);
        metrics.opens.with_label_values(&label);
    }
    let ended = [CloseReason::ClientLeft, CloseReason::Silent, CloseReason::TooSlow, CloseReason::TokenExpired];
    let refused =
        [Reject::TokenRevoked, Reject::Blocked, Reject::InvalidToken(TokenFlaw::Missing), Reject::AuthTimeout]
            .map(CloseReason::Refused);
    for reason in
        ended.into_iter().chain([CloseReason::Disconnected, CloseReason::Restart(Duration::ZERO)]).chain(refused)
    {
        metrics.closes.with_label_values(&[reason.label()]);
    }
    let places = [Refusal::Full, Refusal::Crowded, Refusal::Displaced, Refusal::Silent];
    for refusal in places.into_iter().chain([Refusal::HandshakeRate, Refusal::Draining]) {
        metrics.refusals.with_label_values(&[refusal.label()]);
    }
    let tokens = [Reject::InvalidToken(TokenFlaw::Missing), Reject::TokenExpired, Reject::AuthTimeout];
    for reject in tokens.into_iter().chain([Reject::TokenRevoked, Reject::Blocked]) {
        metrics.refusals.with_label_values(&[reject.code()]);
    }
    for result in ["ok", Reject::Unavailable.code(), Reject::Unknown.code()] {
        metrics.commands.with_label_values(&["send", result]);
    }
    for result in ["ok", "failed"] {
        metrics.key_fetches.with_label_values(&[result]);
    }
    for class in [Class::Durable, Class::Typing, Class::Event, Class::State(0)] {
        metrics.outbox_drops.with_label_values(&[class.label()]);
    }
    for place in RefusedPlace::ALL {
        metrics.redis_refused.with_label_values(&[place.label()]);
    }
    for fault in Fault::ALL {
        metrics.faults.with_label_values(&[fault.name()]);
    }
    for operation in Operation::ALL {
        metrics.store_errors.with_label_values(&[operation.label()]);
        metrics.store_seconds.with_label_values(&[operation.label()]);
    }
    for task in TaskName::ALL {
        metrics.task_panics.with_label_values(&[task.label()]);
    }
    for hook in [Hook::Persona, Hook::Notification] {
        metrics.webhook_queue.with_label_values(&[hook.label()]);
        metrics.webhook_dropped.with_label_values(&[hook.label()]);
    }
}
