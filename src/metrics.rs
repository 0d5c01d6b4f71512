//! Every metric, as a typed field. Label values come from enums in the model, never from call sites.

mod latency;

pub use latency::{Latency, Percentiles};

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// Latency buckets, seconds.
const LATENCY: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Buckets for how long connections last, seconds.
const DURATION: &[f64] = &[1.0, 10.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0];
/// Buckets for how many entries one group commit holds.
const BATCH: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0];

/// The commit this was built from, as `build.rs` found it; else `unknown`.
pub const COMMIT: &str = env!("SWITCHBOARD_COMMIT");

macro_rules! metrics {
    ($($(#[doc = $doc:literal])+ $field:ident: $kind:ident($name:literal $(, $arg:expr)*);)*) => {
        /// All metrics of a node, registered in a registry of its own.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            $($(#[doc = $doc])+ pub $field: $kind,)*
        }

        impl Metrics {
            /// Makes and registers them all.
            ///
            /// # Errors
            /// Two metrics of one name: a fault of this file, found by its test.
            pub fn new() -> prometheus::Result<Self> {
                let registry = Registry::new();
                $(
                    let $field = make::$kind(concat!("switchboard_", $name), concat!($($doc),+).trim() $(, $arg)*)?;
                    registry.register(Box::new($field.clone()))?;
                )*
                #[cfg(target_os = "linux")]
                registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
                let metrics = Self { registry, $($field,)* };
                metrics.build_info.with_label_values(&[env!("CARGO_PKG_VERSION"), COMMIT]).set(1);
                Ok(metrics)
            }
        }
    };
}

/// One constructor per kind of metric, named for the kind.
#[allow(non_snake_case)]
mod make {
    use super::*;

    pub(super) fn IntCounter(name: &str, help: &str) -> prometheus::Result<IntCounter> {
        IntCounter::new(name, help)
    }
    pub(super) fn IntGauge(name: &str, help: &str) -> prometheus::Result<IntGauge> {
        IntGauge::new(name, help)
    }
    pub(super) fn IntCounterVec(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        IntCounterVec::new(Opts::new(name, help), labels)
    }
    pub(super) fn IntGaugeVec(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        IntGaugeVec::new(Opts::new(name, help), labels)
    }
    pub(super) fn Histogram(name: &str, help: &str, buckets: &[f64]) -> prometheus::Result<Histogram> {
        Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))
    }
    pub(super) fn Latency(name: &str, help: &str) -> prometheus::Result<Latency> {
        Histogram(name, help, LATENCY).map(Latency::new)
    }
    pub(super) fn HistogramVec(
        name: &str,
        help: &str,
        buckets: &[f64],
        labels: &[&str],
    ) -> prometheus::Result<HistogramVec> {
        HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)
    }
}

metrics! {
    /// 1 where the node takes new clients; 0 while it drains or is full.
    ready: IntGauge("ready");
    /// 1 from the signal to go away to the end.
    draining: IntGauge("draining");
    /// When the drain is to be over at the latest, in seconds since 1970; 0 while the node stays.
    drain_deadline: IntGauge("drain_deadline_timestamp_seconds");
    /// Open WebSockets.
    connections: IntGaugeVec("connections", &["dialect"]);
    /// Users who are online on this node; one who is on two nodes counts on both.
    users_online: IntGauge("users_online");
    /// Clients' sockets, HTTP ones included: what counts against the limit.
    sockets: IntGauge("sockets");
    /// The most sockets this node takes.
    connections_limit: IntGauge("connections_limit");
    /// WebSockets opened.
    opens: IntCounterVec("opens_total", &["dialect"]);
    /// WebSockets closed, by reason.
    closes: IntCounterVec("closes_total", &["reason"]);
    /// How long connections lasted.
    connection_duration: Histogram("connection_duration_seconds", DURATION);
    /// Connections refused before or while they opened, by reason.
    refusals: IntCounterVec("handshake_refusals_total", &["reason"]);
    /// Commands, by type and result ("ok" or the refusal's code).
    commands: IntCounterVec("commands_total", &["command", "result"]);
    /// Messages stored and acked.
    messages: IntCounter("messages_accepted_total");
    /// Frames handed to sockets.
    deliveries: IntCounter("deliveries_total");
    /// From a send's arrival to its ack.
    send_seconds: Latency("send_ack_seconds");
    /// From the store's commit to delivery on this node; over nodes it includes the difference of their clocks.
    delivery_seconds: Latency("delivery_seconds");
    /// Operations that wait for delivery shards.
    delivery_queue: IntGauge("delivery_queue");
    /// Typing, presence and the like dropped because too much waited for delivery shards.
    ephemeral_dropped: IntCounter("ephemeral_dropped_total");
    /// Comings and goings that were not told with all who are there, because too many waited.
    audiences_dropped: IntCounter("audiences_dropped_total");
    /// Bytes that wait in outboxes.
    outbox_bytes: IntGauge("outbox_bytes");
    /// Frames dropped for slow readers, by class.
    outbox_drops: IntCounterVec("outbox_drops_total", &["class"]);
    /// Sends refused by the rate limit.
    rate_limited: IntCounter("rate_limit_refusals_total");
    /// Conversations and inboxes this node follows.
    followed: IntGauge("followed_logs");
    /// Resumes served from the recent-message cache.
    cache_hits: IntCounter("recent_cache_hits_total");
    /// Resumes that had to ask the store.
    cache_misses: IntCounter("recent_cache_misses_total");
    /// How long Redis took, by operation.
    redis_seconds: HistogramVec("redis_call_seconds", LATENCY, &["operation"]);
    /// Redis calls that failed, by operation.
    redis_errors: IntCounterVec("redis_errors_total", &["operation"]);
    /// How long the store took, by operation.
    store_seconds: HistogramVec("store_call_seconds", LATENCY, &["operation"]);
    /// Store calls that failed, by operation.
    store_errors: IntCounterVec("store_errors_total", &["operation"]);
    /// Entries per group commit.
    batch_entries: Histogram("store_batch_entries", BATCH);
    /// Publications that wait for Redis.
    bus_out_queue: IntGauge("bus_publish_queue");
    /// Publications dropped because the queue was full or Redis was down; readers heal by seq.
    bus_out_dropped: IntCounter("bus_publish_dropped_total");
    /// Messages from Redis that wait for the hub.
    bus_in_queue: IntGauge("bus_receive_queue");
    /// Messages from Redis that could not be read.
    bus_in_unreadable: IntCounter("bus_unreadable_total");
    /// Times anything may have been missed, so that all followed logs were compared with the store.
    bus_missed: IntCounter("bus_missed_total");
    /// 1 while a node, this one or another, reaches others through the store alone.
    relaying: IntGauge("relaying");
    /// Logs of which this node gave notice in the store, because Redis was down.
    notices_given: IntCounter("notices_given_total");
    /// Gaps seen in logs.
    gaps_found: IntCounter("gaps_found_total");
    /// Gaps closed by fetching.
    gaps_healed: IntCounter("gaps_healed_total");
    /// Gaps that are being fetched now.
    gaps_open: IntGauge("gaps_open");
    /// Gaps that several tries to fetch did not close.
    gaps_stuck: IntGauge("gaps_stuck");
    /// Clients told to read anew.
    resyncs: IntCounter("resyncs_total");
    /// 1 while degraded, by part.
    degraded: IntGaugeVec("degraded", &["part"]);
    /// Changes between healthy and degraded, by part.
    degraded_transitions: IntCounterVec("degraded_transitions_total", &["part"]);
    /// Leases of this node: renewals that succeeded.
    lease_renewals: IntCounter("lease_renewals_total");
    /// Times this node found its lease gone and registered anew.
    lease_losses: IntCounter("lease_losses_total");
    /// Connections of dead nodes that this node removed.
    reaped: IntCounter("reaped_connections_total");
    /// Requests to webhooks, by hook and result; each try counts.
    webhook_requests: IntCounterVec("webhook_requests_total", &["hook", "result"]);
    /// How long webhooks took to answer, by hook; each try counts.
    webhook_seconds: HistogramVec("webhook_request_seconds", LATENCY, &["hook"]);
    /// What waits for a webhook, by hook.
    webhook_queue: IntGaugeVec("webhook_queue", &["hook"]);
    /// What was dropped because too much waited for a webhook, by hook.
    webhook_dropped: IntCounterVec("webhook_dropped_total", &["hook"]);
    /// Messages to personas, by what became of them.
    persona_messages: IntCounterVec("persona_messages_total", &["result"]);
    /// Notifications opened: a user was away when the first unread message came.
    notifications: IntCounter("notifications_total");
    /// Conversations with new messages whose away members are still to be noted.
    notification_queue: IntGauge("notification_queue");
    /// Conversations whose away members were not noted: too many waited, or the store was away too long.
    notifications_dropped: IntCounter("notifications_dropped_total");
    /// 1, labelled with what was built.
    build_info: IntGaugeVec("build_info", &["version", "commit"]);
}

impl Metrics {
    /// All metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_a_name_of_its_own() {
        let metrics = Metrics::new().unwrap();
        metrics.messages.inc();
        assert!(metrics.render().contains("switchboard_messages_accepted_total 1"));
    }
}
