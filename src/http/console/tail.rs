//! The live tail: connects, refusals and closes of this node, as they come, and grouped.

use std::{net::IpAddr, time::Duration};

use hyper::StatusCode;
use serde::Serialize;

use crate::{
    http::{
        HttpResult,
        problem::Problem,
        rest::{Call, ok},
    },
    model::{ConnectionId, GivenNumber, NodeId, PageLimit, Timestamp, UserId},
    tail::{Event, Group},
};

/// Maximum number of groups.
const GROUPS: usize = 100;
/// Longest wait for an event, in seconds. It is shorter than the timeouts of browsers and proxies.
const WAIT_MAX: i64 = 20;

#[derive(Serialize)]
struct Tail<'a> {
    node: &'a NodeId,
    /// Time of the node's start: numbers of another run mean nothing.
    started_at: Timestamp,
    events: Vec<View<'a>>,
    next: u64,
    lost: u64,
    groups: Vec<GroupView<'a>>,
}

#[derive(Serialize)]
struct View<'a> {
    number: u64,
    kind: &'static str,
    reason: &'static str,
    detail: Option<String>,
    origin: Option<&'a str>,
    agent: Option<&'a str>,
    address: Option<IpAddr>,
    dialect: Option<&'static str>,
    user_id: Option<&'a UserId>,
    connection_id: Option<ConnectionId>,
    at: Timestamp,
}

impl<'a> View<'a> {
    fn of((number, event): &'a (u64, Event)) -> Self {
        Self {
            number: *number,
            kind: event.kind.label(),
            reason: event.reason,
            detail: event.flaw.map(|flaw| flaw.to_string()),
            origin: event.client.origin.as_deref(),
            agent: event.client.agent.as_deref(),
            address: event.address,
            dialect: event.dialect,
            user_id: event.user.as_ref(),
            connection_id: event.connection,
            at: event.at,
        }
    }
}

#[derive(Serialize)]
struct GroupView<'a> {
    kind: &'static str,
    reason: &'static str,
    origin: Option<&'a str>,
    count: u64,
    last: Timestamp,
}

impl<'a> GroupView<'a> {
    fn of(group: &'a Group) -> Self {
        let Group { kind, reason, origin, count, last } = group;
        Self { kind: kind.label(), reason, origin: origin.as_deref(), count: *count, last: *last }
    }
}

pub(super) async fn show(call: &Call<'_>) -> HttpResult {
    let broker = call.service.broker();
    let limit = PageLimit::given(call.number("limit"))?.get() as usize;
    let after = number(call, "after", i64::MAX)?;
    let wait = number(call, "wait", WAIT_MAX)?.unwrap_or(0);
    let page = match after {
        Some(after) if wait > 0 => {
            let waited = broker.tail.wait(after, limit, Duration::from_secs(wait)).await;
            waited.map_err(|_| {
                let detail = "As many requests wait for events as may (ADMIN_WATCHERS): ask without wait, or later";
                Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_watchers", detail).after(Duration::from_secs(5))
            })?
        }
        after => broker.tail.page(after, limit),
    };
    let groups = broker.tail.groups(GROUPS);
    ok(&Tail {
        node: &broker.config.node,
        started_at: broker.started_at,
        events: page.events.iter().map(View::of).collect(),
        next: page.next,
        lost: page.lost,
        groups: groups.iter().map(GroupView::of).collect(),
    })
}

/// A number of the query from 0 to `most`.
pub(super) fn number(call: &Call<'_>, name: &'static str, most: i64) -> Result<Option<u64>, Problem> {
    let given: Option<GivenNumber> = call.number(name);
    let number = given.map(|given| given.whole(name)).transpose()?;
    match number {
        Some(number) if !(0..=most).contains(&number) => {
            Err(Problem::invalid(format!("{name} must be a whole number from 0 to {most}")))
        }
        number => Ok(number.map(i64::unsigned_abs)),
    }
}
