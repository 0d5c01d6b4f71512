//! Health and metrics: from memory alone, so that asking costs nothing and tells the truth while everything else hangs.

use std::collections::BTreeMap;

use hyper::{
    HeaderMap, Response, StatusCode,
    header::{self, HeaderValue},
};
use serde::Serialize;

use super::problem::Payload;
use crate::{
    broker::Broker,
    degrade::{Feature, LinkState, Part, Verdict},
    metrics::Latency,
    model::Timestamp,
};

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probe {
    /// How the node is, with its parts.
    Health,
    /// Whether the process turns.
    Live,
    /// Whether it should be sent clients.
    Ready,
    /// Its metrics.
    Metrics,
}

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const PROMETHEUS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const HEALTH_JSON: HeaderValue = HeaderValue::from_static("application/health+json");

/// Answers a probe.
pub(super) fn answer(probe: Probe, broker: &Broker, headers: &HeaderMap) -> Response<Payload> {
    let (status, kind, body) = match probe {
        Probe::Live => (StatusCode::OK, TEXT, "ok\n".into()),
        Probe::Ready => match unready(broker) {
            None => (StatusCode::OK, TEXT, "ready\n".into()),
            Some(why) => (StatusCode::SERVICE_UNAVAILABLE, TEXT, why.into()),
        },
        Probe::Metrics => {
            gauge(broker);
            (StatusCode::OK, PROMETHEUS, broker.metrics.render().into())
        }
        Probe::Health => {
            let health = Health::of(broker);
            let status = match health.status {
                "unhealthy" => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::OK,
            };
            let asked = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
            let kind = if asked.contains("application/health+json") { HEALTH_JSON } else { JSON };
            // Text and numbers can always be written as JSON.
            (status, kind, serde_json::to_vec(&health).unwrap_or_default())
        }
    };
    let mut response = Response::new(Payload::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Why no clients should be sent here; `None` where they should.
fn unready(broker: &Broker) -> Option<&'static str> {
    if broker.degrade.draining() {
        Some("draining\n")
    } else if !broker.admission.has_room() {
        Some("full\n")
    } else {
        None
    }
}

/// Sets the gauges of what is known elsewhere anyway: it is enough that they are true when they are asked for.
fn gauge(broker: &Broker) {
    let metrics = &broker.metrics;
    metrics.ready.set(unready(broker).is_none().into());
    metrics.sockets.set(broker.admission.sockets() as i64);
    metrics.delivery_queue.set(broker.chat.undelivered() as i64);
    metrics.users_online.set(broker.backplane.users_here() as i64);
}

/// What a node says of itself.
#[derive(Serialize)]
pub(super) struct Health<'a> {
    pub(super) status: &'static str,
    pub(super) node: &'a str,
    pub(super) version: &'static str,
    pub(super) uptime_seconds: u64,
    pub(super) connections: usize,
    /// Over all nodes; none while Redis is down.
    connections_total: Option<u64>,
    pub(super) components: Components,
    latency: Latencies,
    /// How each thing works now: with all nodes, with what this one knows, or not at all.
    works: BTreeMap<&'static str, &'static str>,
}

/// The parts a node leans on.
#[derive(Serialize)]
pub(super) struct Components {
    pub(super) redis: Component,
    pub(super) store: Component,
}

/// How long messages took within the last minute; none where there were none.
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

/// One of the parts.
#[derive(Serialize)]
pub(super) struct Component {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<f64>,
    since: Timestamp,
}

impl<'a> Health<'a> {
    pub(super) fn of(broker: &'a Broker) -> Self {
        let status = match broker.degrade.verdict() {
            Verdict::Healthy => "healthy",
            Verdict::Degraded => "degraded",
            Verdict::Unhealthy => "unhealthy",
        };
        let now = broker.clock.now();
        Self {
            status,
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
            works: Feature::ALL.map(|feature| (feature.label(), broker.degrade.mode(feature).label())).into(),
        }
    }
}

/// Connections of all nodes, as far as they are known now.
fn connections_total(broker: &Broker) -> Option<u64> {
    let elsewhere = match broker.degrade.state(Part::Redis).link {
        LinkState::Up => broker.backplane.connections_elsewhere(),
        LinkState::Off => 0,
        LinkState::Down => return None,
    };
    Some(elsewhere + broker.admission.websockets() as u64)
}

impl Component {
    fn of(broker: &Broker, part: Part, now: Timestamp) -> Self {
        let state = broker.degrade.state(part);
        let status = match state.link {
            LinkState::Off => "off",
            LinkState::Up => "up",
            LinkState::Down => "down",
        };
        let ago = i64::try_from(state.since.elapsed().as_micros()).unwrap_or(i64::MAX);
        let since = Timestamp::from_micros(now.micros().saturating_sub(ago));
        // Microseconds are as fine as it makes sense.
        let latency_ms = state.latency.map(|latency| (latency.as_secs_f64() * 1e6).round() / 1e3);
        Self { status, latency_ms: latency_ms.filter(|_| state.link == LinkState::Up), since }
    }
}
