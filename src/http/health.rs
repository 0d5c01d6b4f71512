//! Health and metrics. They read memory only, so that probes are cheap and still answer while Redis or the store hangs.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use hyper::{
    HeaderMap, Response, StatusCode,
    header::{self, HeaderValue},
};
use serde::Serialize;

use super::{
    check, client,
    problem::Payload,
    service::{HttpService, Kind, Peer},
};
use crate::{
    backplane::RedisStatus,
    broker::Broker,
    config::HealthDetails,
    degrade::{Degrade, Feature, Finding, LinkState, Part, Reason, Verdict},
    metrics::Latency,
    model::Timestamp,
    supervise::TaskName,
};

/// A probe endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probe {
    /// State of the node and of its parts.
    Health,
    /// Liveness: the process answers.
    Live,
    /// Readiness: the node accepts new clients.
    Ready,
    /// Tells whether a page may open a WebSocket here, and which setting decides it.
    Check,
    /// Metrics in the Prometheus text format.
    Metrics,
}

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const PROMETHEUS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const HEALTH_JSON: HeaderValue = HeaderValue::from_static("application/health+json");

/// Answers a probe.
pub(super) fn answer(probe: Probe, service: &HttpService, peer: &Peer, headers: &HeaderMap) -> Response<Payload> {
    let broker = &**service.broker();
    let (status, kind, body) = match probe {
        Probe::Live => (StatusCode::OK, TEXT, "ok\n".into()),
        Probe::Ready => match not_ready_reason(broker) {
            None => (StatusCode::OK, TEXT, "ready\n".into()),
            Some(why) => (StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{why}\n").into()),
        },
        Probe::Check => return check::answer(service, peer, headers),
        Probe::Metrics => {
            set_gauges(broker);
            (StatusCode::OK, PROMETHEUS, broker.metrics.render().into())
        }
        Probe::Health => {
            let (details, admin) = details(service, headers);
            let health = consistent(broker, || {
                let mut health = Health::read(broker);
                if admin {
                    health.redis = RedisPlace::now(broker);
                    health.faults = Some(broker.degrade.faults().into_iter().map(StandingFault::from).collect());
                }
                if service.kind() == Kind::Admin {
                    let failing = broker.supervisor.failing();
                    health.failing_tasks = Some(failing.into_iter().map(TaskName::label).collect());
                }
                health
            });
            let status = match health.status {
                "unhealthy" => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::OK,
            };
            let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
            let kind = if accept.contains("application/health+json") { HEALTH_JSON } else { JSON };
            // Text and numbers can always be written as JSON.
            let body = match details {
                HealthDetails::All => serde_json::to_vec(&health),
                HealthDetails::Components => serde_json::to_vec(&health.reduced(true)),
                HealthDetails::Status => serde_json::to_vec(&health.reduced(false)),
            };
            (status, kind, body.unwrap_or_default())
        }
    };
    let mut response = Response::new(Payload::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Number of tries to read the state of the node while it doesn't change.
const READS: usize = 3;

/// Reads the state of the node, again if it changed meanwhile: else the report would contradict itself, such as `healthy`
/// beside a fault.
fn consistent<'a>(broker: &Broker, read: impl Fn() -> Health<'a>) -> Health<'a> {
    let mut health = read();
    for _ in 1..READS {
        if broker.degrade.reasons().map(Reason::label).eq(health.reasons.iter().copied()) {
            break;
        }
        health = read();
    }
    health
}

/// The details that this caller of `/api/health` may see, and whether it is an admin. A bad token is treated as none, so
/// that the endpoint stays open.
fn details(service: &HttpService, headers: &HeaderMap) -> (HealthDetails, bool) {
    let has_token = || {
        client::bearer(headers)
            .is_some_and(|token| service.broker().auth.verify(token).is_ok_and(|caller| caller.admin))
    };
    let admin = service.kind() == Kind::Admin || has_token();
    (if admin { HealthDetails::All } else { service.broker().config.health_details }, admin)
}

/// The reason why the node is not ready for new clients; `None` if it is ready.
fn not_ready_reason(broker: &Broker) -> Option<String> {
    if broker.degrade.draining() {
        Some("draining".to_owned())
    } else if let Some(why) = broker.degrade.awaited_store() {
        Some(format!("waiting for the store: {why}"))
    } else if !broker.admission.has_room() {
        Some("full".to_owned())
    } else {
        None
    }
}

/// Sets the gauges whose values other parts keep. They only need to be right when they are scraped.
fn set_gauges(broker: &Broker) {
    let metrics = &broker.metrics;
    metrics.ready.set(not_ready_reason(broker).is_none().into());
    metrics.sockets.set(broker.admission.sockets() as i64);
    metrics.unauthenticated.set(broker.admission.strangers() as i64);
    metrics.delivery_queue.set(broker.chat.undelivered() as i64);
    metrics.users_online.set(broker.backplane.users_here() as i64);
    metrics.tasks.set(tokio::runtime::Handle::current().metrics().num_alive_tasks() as i64);
}

/// The body of `/api/health`.
#[derive(Serialize)]
pub(super) struct Health<'a> {
    pub(super) status: &'static str,
    /// Why the node is not healthy; empty if it is.
    reasons: Vec<&'static str>,
    pub(super) node: &'a str,
    pub(super) version: &'static str,
    pub(super) uptime_seconds: u64,
    pub(super) connections: usize,
    /// Connections of all nodes; none while Redis is down.
    connections_total: Option<u64>,
    pub(super) components: Components,
    latency: Latencies,
    /// Where Redis is; only for admins, and only if it is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    redis: Option<RedisPlace>,
    /// Faults of Redis and the store that stand now; only for admins.
    #[serde(skip_serializing_if = "Option::is_none")]
    faults: Option<Vec<StandingFault>>,
    /// Tasks that panic again and again; only for admins.
    #[serde(skip_serializing_if = "Option::is_none")]
    failing_tasks: Option<Vec<&'static str>>,
    /// Mode of each feature now: over all nodes, with this node's knowledge only, or not at all.
    works: BTreeMap<&'static str, &'static str>,
}

/// The part of [`Health`] that strangers see.
#[derive(Serialize)]
struct ReducedHealth<'a> {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasons: Option<&'a [&'static str]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    components: Option<&'a Components>,
    #[serde(skip_serializing_if = "Option::is_none")]
    works: Option<&'a BTreeMap<&'static str, &'static str>>,
}

/// The parts that a node depends on.
#[derive(Serialize)]
pub(super) struct Components {
    pub(super) redis: Component,
    pub(super) store: Component,
}

/// Latencies of the messages of the last minute; none without messages.
#[derive(Serialize)]
struct Latencies {
    /// From a send's arrival to its ack.
    send_ack_ms: Option<Percentiles>,
    /// From the store's commit to this node's sockets.
    delivery_ms: Option<Percentiles>,
}

#[derive(Serialize)]
struct Percentiles {
    p50: f64,
    p99: f64,
}

impl Percentiles {
    fn of(latency: &Latency) -> Option<Self> {
        latency.recent().map(|recent| Self { p50: recent.p50, p99: recent.p99 })
    }
}

/// A fault, as `docs/operations/failure-modes.md` names it.
#[derive(Serialize)]
struct StandingFault {
    part: &'static str,
    name: &'static str,
    /// The server's own words.
    reason: String,
}

impl From<(Part, Arc<Finding>)> for StandingFault {
    fn from((part, finding): (Part, Arc<Finding>)) -> Self {
        Self { part: part.label(), name: finding.fault.name(), reason: finding.detail.clone() }
    }
}

/// Where Redis is.
#[derive(Serialize)]
struct RedisPlace {
    /// The address of the server that is used; none while sentinels name none.
    primary: Option<String>,
    since: Option<Timestamp>,
    /// Number of changes of the address since the start of the node.
    changes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    sentinels: Option<SentinelCount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    masters: Option<Vec<RedisMaster>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shards: Option<ShardCount>,
}

/// A master of a Redis Cluster.
#[derive(Serialize)]
struct RedisMaster {
    address: String,
    up: bool,
}

/// Numbers of shards of a Redis Cluster.
#[derive(Serialize)]
struct ShardCount {
    total: usize,
    down: usize,
}

/// Numbers of sentinels.
#[derive(Serialize)]
struct SentinelCount {
    answering: usize,
    listed: usize,
}

impl RedisPlace {
    fn now(broker: &Broker) -> Option<Self> {
        broker.backplane.redis_status().map(|status| Self::of(status, &broker.degrade, broker.clock.now()))
    }

    fn of(status: RedisStatus, degrade: &Degrade, now: Timestamp) -> Self {
        let RedisStatus { primary, since, changes, sentinels, cluster } = status;
        let sentinels = sentinels.map(|(answering, listed)| SentinelCount { answering, listed });
        // The same source as that of the reasons.
        let down = |seen: usize| match degrade.state(Part::Redis).link {
            LinkState::Up => degrade.shards_down(),
            _ => seen,
        };
        let shards = cluster.as_ref().map(|of| ShardCount { total: of.shards, down: down(of.shards_down) });
        let masters =
            cluster.map(|of| of.masters.into_iter().map(|(address, up)| RedisMaster { address, up }).collect());
        Self { primary, since: since.map(|since| time_of(since, now)), changes, sentinels, masters, shards }
    }
}

/// The time of day of an instant in the past.
pub(super) fn time_of(instant: Instant, now: Timestamp) -> Timestamp {
    let ago = i64::try_from(instant.elapsed().as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_micros(now.micros().saturating_sub(ago))
}

/// State of one part.
#[derive(Serialize)]
pub(super) struct Component {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<f64>,
    since: Timestamp,
}

impl<'a> Health<'a> {
    /// The status, and with `components` what operators of a load balancer need to understand it.
    fn reduced(&self, components: bool) -> ReducedHealth<'_> {
        ReducedHealth {
            status: self.status,
            reasons: components.then_some(&self.reasons),
            node: components.then_some(self.node),
            components: components.then_some(&self.components),
            works: components.then_some(&self.works),
        }
    }

    pub(super) fn of(broker: &'a Broker) -> Self {
        consistent(broker, || Self::read(broker))
    }

    fn read(broker: &'a Broker) -> Self {
        let status = match broker.degrade.verdict() {
            Verdict::Healthy if !broker.supervisor.failing().is_empty() => "degraded",
            Verdict::Healthy => "healthy",
            Verdict::Degraded => "degraded",
            Verdict::Unhealthy => "unhealthy",
        };
        let now = broker.clock.now();
        Self {
            status,
            reasons: broker.degrade.reasons().map(Reason::label).collect(),
            node: broker.config.node.as_str(),
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: now.since(broker.started_at).as_secs(),
            connections: broker.admission.websockets(),
            connections_total: connections_total(broker),
            components: Components {
                redis: Component::of(broker, Part::Redis, now),
                store: Component::of(broker, Part::Store, now),
            },
            latency: Latencies {
                send_ack_ms: Percentiles::of(&broker.metrics.send_seconds),
                delivery_ms: Percentiles::of(&broker.metrics.delivery_seconds),
            },
            redis: None,
            faults: None,
            failing_tasks: None,
            works: Feature::ALL.map(|feature| (feature.label(), broker.degrade.shown_mode(feature).label())).into(),
        }
    }
}

/// Connections of all nodes; `None` while Redis is down, or the first shard of a cluster, because the other nodes' counts are then unknown.
fn connections_total(broker: &Broker) -> Option<u64> {
    let elsewhere = match broker.degrade.state(Part::Redis).link {
        LinkState::Up if !broker.degrade.has_first_shard() => return None,
        LinkState::Up => broker.backplane.connections_elsewhere(),
        LinkState::Off => 0,
        LinkState::Down => return None,
    };
    Some(elsewhere.saturating_add(broker.admission.websockets() as u64))
}

impl Component {
    fn of(broker: &Broker, part: Part, now: Timestamp) -> Self {
        let state = broker.degrade.state(part);
        let status = match state.link {
            LinkState::Off => "off",
            LinkState::Up => "up",
            LinkState::Down => "down",
        };
        let since = time_of(state.since, now);
        // Rounded to microseconds: finer digits are noise.
        let latency_ms = state.latency.map(|latency| (latency.as_secs_f64() * 1e6).round() / 1e3);
        Self { status, latency_ms: latency_ms.filter(|_| state.link == LinkState::Up), since }
    }
}
