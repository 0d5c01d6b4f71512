//! Every metric, as a typed field. Label values come from enums of the program, never from free text; only the address of the
//! primary of Redis is one, in a single series.

mod latency;

pub use latency::{Latency, Percentiles};

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// Buckets for latencies, in seconds.
const LATENCY: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Buckets for the duration of connections, in seconds.
const DURATION: &[f64] = &[1.0, 10.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0];
/// Buckets for the number of entries per group commit.
const BATCH: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0];

/// The commit that this binary was built from, found by `build.rs`; "unknown" if there was none.
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
            /// Makes and registers all metrics.
            ///
            /// # Errors
            /// Two metrics have the same name: a fault of this file, which its test finds.
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

/// One constructor per kind of metric, with the name of the kind.
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
    /// 1 if the node accepts new clients; 0 while it drains or is full.
    ready: IntGauge("ready");
    /// 1 from the signal to stop until the node ends, else 0.
    draining: IntGauge("draining");
    /// Latest end of the drain, in seconds since 1970; 0 while the node does not drain.
    drain_deadline: IntGauge("drain_deadline_timestamp_seconds");
    /// Open WebSockets.
    connections: IntGaugeVec("connections", &["dialect"]);
    /// Users online on this node; a user who is online on two nodes counts on both.
    users_online: IntGauge("users_online");
    /// Open client sockets with a valid token, including HTTP ones; they count against switchboard_connections_limit.
    sockets: IntGauge("sockets");
    /// Open client sockets that showed no valid token so far.
    unauthenticated: IntGauge("unauthenticated_sockets");
    /// Maximum number of client sockets with a valid token on this node.
    connections_limit: IntGauge("connections_limit");
    /// WebSockets opened.
    opens: IntCounterVec("opens_total", &["dialect"]);
    /// WebSockets closed, by reason.
    closes: IntCounterVec("closes_total", &["reason"]);
    /// Duration of connections, in seconds.
    connection_duration: Histogram("connection_duration_seconds", DURATION);
    /// Silent connections that gave way to a new one of their user, because the user was at a cap.
    gave_way: IntCounter("connections_gave_way_total");
    /// Connections refused before or while they opened, by reason.
    refusals: IntCounterVec("handshake_refusals_total", &["reason"]);
    /// Commands, by type and result ("ok" or the code of the refusal).
    commands: IntCounterVec("commands_total", &["command", "result"]);
    /// Messages stored and acked.
    messages: IntCounter("messages_accepted_total");
    /// Bytes of data (the JSON beside texts) in stored messages and edits.
    data_bytes: IntCounter("message_data_bytes_total");
    /// Frames given to sockets for delivery.
    deliveries: IntCounter("deliveries_total");
    /// Time from the arrival of a send to its ack, in seconds.
    send_seconds: Latency("send_ack_seconds");
    /// Time from the store's commit to delivery on this node, in seconds; for sends of other nodes it includes the
    /// clock difference.
    delivery_seconds: Latency("delivery_seconds");
    /// Operations waiting for delivery shards.
    delivery_queue: IntGauge("delivery_queue");
    /// Ephemeral events (typing, presence, events of clients) dropped because the queue of delivery shards was full.
    ephemeral_dropped: IntCounter("ephemeral_dropped_total");
    /// Dead nodes whose unfinished notifications and questions this node took over.
    watches_taken: IntCounter("watches_taken_total");
    /// Events of clients refused because too many went to one conversation or user (MAX_EVENTS_PER_RECEIVER).
    events_refused: IntCounter("events_refused_total");
    /// Roster updates for which there was no room in the queue: only the newest one of each conversation is sent.
    audiences_dropped: IntCounter("audiences_dropped_total");
    /// Users shown as present to this node's listeners, counted for each conversation.
    presence_shown: IntGauge("presence_shown");
    /// Users whose presence was lately told to sockets of this node, counted for each socket, so that it is told once.
    presence_told: IntGauge("presence_told");
    /// Events of presence that a comparison with the registry found missing, and told to this node's listeners.
    presence_corrected: IntCounter("presence_corrected_total");
    /// Bytes waiting in outboxes.
    outbox_bytes: IntGauge("outbox_bytes");
    /// Maximum number of bytes waiting in all outboxes together.
    outbox_limit: IntGauge("outbox_limit_bytes");
    /// Slow readers closed because all outboxes together held too much.
    outbox_shed: IntCounter("outbox_shed_total");
    /// Sockets with answers that wait for room in their outbox.
    answers_waiting: IntGauge("answers_waiting");
    /// Frames dropped for slow readers, by class.
    outbox_drops: IntCounterVec("outbox_drops_total", &["class"]);
    /// Commands refused because a budget of their user was used up, by budget; typing indicators that were dropped for
    /// it included.
    rate_limited: IntCounterVec("rate_limit_refusals_total", &["budget"]);
    /// Repeats of stored commands that were answered from the store after a rate limit refused them.
    repeats_recalled: IntCounter("repeats_recalled_total");
    /// Conversations and inboxes that this node follows.
    followed: IntGauge("followed_logs");
    /// Automatic joins that sockets gave up, because they had the maximum number of them.
    joins_dropped: IntCounter("joins_dropped_total");
    /// Sockets of this node that get hints of new messages in conversations to which they don't listen.
    hinted_sockets: IntGauge("hinted_sockets");
    /// Hints of new messages given to sockets of this node.
    hints: IntCounter("hints_total");
    /// Users of this node who wait for a hint, counted for each conversation.
    hints_waiting: IntGauge("hints_waiting");
    /// Hints dropped because too many waited: of a whole conversation, or of one user of this node.
    hints_dropped: IntCounter("hints_dropped_total");
    /// Users who were looked up and known, so that Redis was not asked where they are connected.
    presence_known: IntCounter("presence_known_total");
    /// Users who were looked up in Redis, because they were not known or had changed.
    presence_asked: IntCounter("presence_asked_total");
    /// Users of whom this node knows where they are connected.
    presence_known_users: IntGauge("presence_known_users");
    /// Servers of Redis that tell this node of changes: 1, or the masters of a cluster; 0 if Redis is asked each time.
    presence_tracked: IntGauge("presence_tracked_servers");
    /// Resumes served from the recent-message cache.
    cache_hits: IntCounter("recent_cache_hits_total");
    /// Resumes that had to read from the store.
    cache_misses: IntCounter("recent_cache_misses_total");
    /// 1 for the address that the sentinels name as the primary of Redis; the series of a former one ends.
    redis_primary: IntGaugeVec("redis_primary", &["address"]);
    /// Times that the address of the primary of Redis changed, or the masters of a Redis Cluster.
    redis_primary_changes: IntCounter("redis_primary_changes_total");
    /// 1 for a master of a Redis Cluster that answers this node, 0 for one that does not; the series of a former one ends.
    redis_master_up: IntGaugeVec("redis_master_up", &["address"]);
    /// Shards of a Redis Cluster, of 64, whose master does not answer this node, or that have none.
    redis_shards_down: IntGauge("redis_shards_down");
    /// Times that a shard of a Redis Cluster, of 64, got another master.
    redis_shard_moves: IntCounter("redis_shard_moves_total");
    /// Sentinels in REDIS_URL.
    redis_sentinels: IntGauge("redis_sentinels");
    /// Sentinels that answer and know the primary.
    redis_sentinels_answering: IntGauge("redis_sentinels_answering");
    /// Duration of Redis calls in seconds, by operation.
    redis_seconds: HistogramVec("redis_call_seconds", LATENCY, &["operation"]);
    /// Redis calls that failed, by operation.
    redis_errors: IntCounterVec("redis_errors_total", &["operation"]);
    /// Duration of store calls in seconds, by operation.
    store_seconds: HistogramVec("store_call_seconds", LATENCY, &["operation"]);
    /// Store calls that failed, by operation.
    store_errors: IntCounterVec("store_errors_total", &["operation"]);
    /// Maximum number of store calls that run at a time, by pool; for PostgreSQL, its connections.
    store_pool_size: IntGaugeVec("store_pool_size", &["pool"]);
    /// Store calls that run now, by pool.
    store_pool_in_use: IntGaugeVec("store_pool_in_use", &["pool"]);
    /// Store calls that wait for their turn, by pool.
    store_pool_waiting: IntGaugeVec("store_pool_waiting", &["pool"]);
    /// Store calls refused because the queue was full or the wait too long, by pool.
    store_pool_refused: IntCounterVec("store_pool_refused_total", &["pool"]);
    /// Time that store calls waited for their turn, in seconds, by pool.
    store_pool_wait: HistogramVec("store_pool_wait_seconds", LATENCY, &["pool"]);
    /// 1 while this node refuses heavy reads because too many wait, although the store works.
    slow_reads: IntGauge("slow_reads");
    /// Heavy reads (history, search, lists) that run now.
    heavy_reads: IntGauge("heavy_reads");
    /// Heavy reads that wait for earlier ones of the same user.
    heavy_reads_waiting: IntGauge("heavy_reads_waiting");
    /// Heavy reads refused because their user had too many.
    heavy_reads_refused: IntCounter("heavy_read_refusals_total");
    /// Bytes of answers over REST that wait until their clients read them, without those of short answers.
    unread_answer_bytes: IntGauge("unread_answer_bytes");
    /// Reads over REST refused because earlier answers were not read.
    unread_answers_refused: IntCounter("unread_answer_refusals_total");
    /// Segments added to the search index.
    search_segments: IntCounter("search_segments_total");
    /// Logs that wait until new messages are added to the search index.
    search_queue: IntGauge("search_index_queue");
    /// Entries that this node removed because they were older than they are kept.
    retention_removed: IntCounter("retention_removed_entries_total");
    /// Age in seconds of the oldest stored entry of the logs with a rule, after the last pass of this node; 0 if it made none.
    retention_oldest: IntGauge("retention_oldest_entry_seconds");
    /// Time in seconds by which the oldest entry that a pass of this node is removing is older than it is kept; 0 between passes.
    retention_overdue: IntGauge("retention_overdue_seconds");
    /// Time of the last pass that removed all old entries, of any node, in seconds since 1970; before the first one, the start of
    /// this node.
    retention_done_at: IntGauge("retention_done_timestamp_seconds");
    /// Users whose data this node erased.
    erasures: IntCounter("erasures_total");
    /// 1 while the erasure of a user is requested and not done.
    erasures_pending: IntGauge("erasures_pending");
    /// Entries per group commit.
    batch_entries: Histogram("store_batch_entries", BATCH);
    /// Event batches waiting to be published through Redis.
    bus_out_queue: IntGauge("bus_publish_queue");
    /// Events not published because the queue was full or Redis was down; other nodes backfill the entries among them.
    bus_out_dropped: IntCounter("bus_publish_dropped_total");
    /// Payloads received from Redis and waiting to be parsed.
    bus_in_queue: IntGauge("bus_receive_queue");
    /// Payloads received from Redis that could not be parsed.
    bus_in_unreadable: IntCounter("bus_unreadable_total");
    /// Data from Redis that was refused and read from the store instead, by place: no node of this deployment signed it
    /// ("publication", "cache"), or it was signed too long ago ("late").
    redis_refused: IntCounterVec("redis_refused_total", &["place"]);
    /// Times that events may have been missed, so that all followed logs were compared with the store.
    bus_missed: IntCounter("bus_missed_total");
    /// 1 while this node or another one reaches other nodes through the store only.
    relaying: IntGauge("relaying");
    /// Logs announced as grown to other nodes through the store, because Redis was down.
    notices_given: IntCounter("notices_given_total");
    /// Gaps found in logs.
    gaps_found: IntCounter("gaps_found_total");
    /// Gaps closed by backfilling.
    gaps_healed: IntCounter("gaps_healed_total");
    /// Gaps being backfilled now.
    gaps_open: IntGauge("gaps_open");
    /// Gaps that are still open after several tries to backfill them.
    gaps_stuck: IntGauge("gaps_stuck");
    /// Holes of logs that listeners passed over, because the store lacks entries between two others.
    log_holes: IntCounter("log_holes_total");
    /// Acks whose outcome was told as unknown, because earlier entries did not reach the socket in time.
    acks_given_up: IntCounter("acks_given_up_total");
    /// Logs whose newest entry was not sent again after an append with a lost answer, because too many waited.
    doubtful_logs_dropped: IntCounter("doubtful_logs_dropped_total");
    /// Times that this node found the store set back to an earlier state.
    store_set_backs: IntCounter("store_set_backs_total");
    /// Clients told to resync.
    resyncs: IntCounter("resyncs_total");
    /// 1 while degraded, by part.
    degraded: IntGaugeVec("degraded", &["part"]);
    /// Times that the subscription to Redis broke or its canary did not arrive.
    subscriptions_broken: IntCounter("redis_subscriptions_broken_total");
    /// Changes between healthy and degraded, by part.
    degraded_transitions: IntCounterVec("degraded_transitions_total", &["part"]);
    /// 1 while a fault of Redis or the store stands, by its name in `docs/operations/failure-modes.md`.
    faults: IntGaugeVec("fault", &["fault"]);
    /// Successful renewals of this node's lease.
    lease_renewals: IntCounter("lease_renewals_total");
    /// Times that this node found its lease lost and acquired a new one.
    lease_losses: IntCounter("lease_losses_total");
    /// Connections of dead nodes that this node removed.
    reaped: IntCounter("reaped_connections_total");
    /// Requests to webhooks, by hook and result; each try counts.
    webhook_requests: IntCounterVec("webhook_requests_total", &["hook", "result"]);
    /// Duration of webhook requests in seconds, by hook; each try counts.
    webhook_seconds: HistogramVec("webhook_request_seconds", LATENCY, &["hook"]);
    /// Jobs waiting for a webhook, by hook. Those of notifications wait in the store, and are the same for all nodes.
    webhook_queue: IntGaugeVec("webhook_queue", &["hook"]);
    /// Jobs dropped because the queue of a webhook was full, by hook; and notifications that the webhook never accepted.
    webhook_dropped: IntCounterVec("webhook_dropped_total", &["hook"]);
    /// Messages to personas, by result.
    persona_messages: IntCounterVec("persona_messages_total", &["result"]);
    /// Notifications opened: the first unread message of a conversation came while the user was away.
    notifications: IntCounter("notifications_total");
    /// Age in seconds of the oldest notification that waits for the webhook; 0 if none waits.
    notification_oldest: IntGauge("notification_oldest_seconds");
    /// Conversations with new messages, waiting until their away members are determined.
    notification_queue: IntGauge("notification_queue");
    /// Conversations whose away members were not recorded, because too many waited or the store was down too long.
    notifications_dropped: IntCounter("notifications_dropped_total");
    /// Fetches of the published keys (JWT_JWKS_URL), by result.
    key_fetches: IntCounterVec("key_fetches_total", &["result"]);
    /// Time of the last successful fetch of the published keys, in seconds since 1970; 0 if there was none.
    keys_fetched_at: IntGauge("keys_fetched_timestamp_seconds");
    /// Published keys that verify tokens now; 0 without JWT_JWKS_URL, and once the last fetched ones are too old.
    published_keys: IntGauge("published_keys");
    /// Blocks and revocations by admins that stand.
    restrictions: IntGauge("restrictions");
    /// Maximum number of blocks and revocations by admins.
    restrictions_limit: IntGauge("restrictions_limit");
    /// Requests to the admin console's API, by action and result ("ok" or the code of the refusal).
    console_requests: IntCounterVec("console_requests_total", &["action", "result"]);
    /// Requests to the console that wait for the next connect, refusal or close.
    console_watchers: IntGauge("console_watchers");
    /// Connects, refusals and closes that are kept for the console.
    console_events: IntGauge("console_events");
    /// Finished webhook requests that are kept for the console.
    console_deliveries: IntGauge("console_deliveries");
    /// Tasks that the node runs now: several for each connection and request, and those of the node itself.
    tasks: IntGauge("tasks");
    /// Panics of tasks, by task. The task is started again, or only what it worked on is lost.
    task_panics: IntCounterVec("task_panics_total", &["task"]);
    /// Tasks that panic again and again.
    tasks_failing: IntGauge("tasks_failing");
    /// Always 1, labelled with version and commit of the build.
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
