//! Finished webhook requests of this node, which can be repeated.

use std::time::Duration;

use hyper::StatusCode;
use serde::Serialize;

use super::tail::number;
use crate::{
    http::{
        HttpResult,
        problem::Problem,
        rest::{Call, ok},
    },
    model::{NodeId, PageLimit, Timestamp},
    webhook::Delivery,
};

/// Maximum duration of a repeated request.
const REPLAY_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Serialize)]
struct List<'a> {
    node: &'a NodeId,
    deliveries: Vec<View<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_before: Option<u64>,
}

#[derive(Serialize)]
struct View<'a> {
    delivery: u64,
    hook: &'static str,
    at: Timestamp,
    result: &'static str,
    error: Option<&'a str>,
    tries: u32,
    took_ms: u64,
    repeats: Option<u64>,
    bytes: usize,
    /// False if the body was too long to keep.
    replayable: bool,
}

impl<'a> View<'a> {
    fn of(delivery: &'a Delivery) -> Self {
        Self {
            delivery: delivery.number,
            hook: delivery.hook.label(),
            at: Timestamp::from_micros(delivery.at_micros),
            result: delivery.result,
            error: delivery.error.as_deref(),
            tries: delivery.tries,
            took_ms: u64::try_from(delivery.took.as_millis()).unwrap_or(u64::MAX),
            repeats: delivery.repeats,
            bytes: delivery.bytes,
            replayable: delivery.body.is_some(),
        }
    }
}

pub(super) fn list(call: &Call<'_>) -> HttpResult {
    let broker = call.service.broker();
    let (before, failed) = (number(call, "before", i64::MAX)?, call.flag("failed")?);
    let limit = PageLimit::given(call.number("limit"))?;
    let (found, more) = broker.deliveries.page(before, failed, limit.get() as usize);
    let next_before = found.last().map(|last| last.number).filter(|_| more);
    ok(&List { node: &broker.config.node, deliveries: found.iter().map(View::of).collect(), next_before })
}

#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    delivery: View<'a>,
    body: Option<std::borrow::Cow<'a, str>>,
}

pub(super) fn show(call: &Call<'_>) -> HttpResult {
    let delivery = find(call)?;
    let body = delivery.body.as_ref().map(|body| String::from_utf8_lossy(body));
    ok(&Shown { delivery: View::of(&delivery), body })
}

#[derive(Serialize)]
struct Replayed {
    delivery: u64,
    repeats: u64,
    result: &'static str,
    error: Option<String>,
    answer_bytes: Option<usize>,
}

pub(super) async fn replay(call: &Call<'_>) -> HttpResult {
    let (broker, delivery) = (call.service.broker(), find(call)?);
    let gone = |detail| Problem::new(StatusCode::CONFLICT, "conflict", detail);
    let body = delivery.body.ok_or_else(|| gone("This request can't be repeated: its body was too long to keep"))?;
    let webhook = broker.webhooks.of(delivery.hook).ok_or_else(|| gone("This webhook is not configured any more"))?;
    let replays = &call.service.console().ok_or_else(Problem::internal)?.replays;
    let Ok(_place) = replays.try_acquire() else {
        let detail = "Other requests are being repeated: wait for them";
        return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail).after(Duration::from_secs(1)));
    };
    let (again, answer) = webhook.repeat(delivery.number, body, REPLAY_TIMEOUT).await;
    let result = broker.deliveries.get(again).map_or("ok", |again| again.result);
    let answer_bytes = answer.as_ref().ok().map(bytes::Bytes::len);
    let error = answer.err().map(|error| error.to_string());
    ok(&Replayed { delivery: again, repeats: delivery.number, result, error, answer_bytes })
}

fn find(call: &Call<'_>) -> Result<Delivery, Problem> {
    let number = call.segment("delivery").and_then(|text| text.parse().ok());
    let found = number.and_then(|number| call.service.broker().deliveries.get(number));
    found.ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, "not_found", "This node keeps no request with this number (any more)")
    })
}
