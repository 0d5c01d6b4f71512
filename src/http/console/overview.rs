//! The overview: nodes, load, latencies, and what is degraded since when.

use hyper::StatusCode;
use serde::Serialize;

use super::rates::PerSecond;
use crate::{
    broker::Broker,
    degrade::LinkState,
    http::{
        HttpResult,
        health::{Health, time_of},
        problem::Problem,
        rest::{Call, ok},
    },
    model::{Command, NodeId, Reply, Stats, Timestamp},
    supervise::TaskName,
};

/// The page that explains faults, also for a node that can't reach the internet.
const FAILURE_MODES: &str = include_str!("../../../docs/operations/failure-modes.md");
#[derive(Serialize)]
struct Overview<'a> {
    #[serde(flatten)]
    health: Health<'a>,
    at: Timestamp,
    nodes: Vec<Node<'a>>,
    /// False if the other nodes are unknown, because Redis is away: `nodes` then has this one only.
    nodes_complete: bool,
    users_online: Option<u64>,
    per_second: PerSecond,
    followed: i64,
    outbox_bytes: i64,
    delivery_queue: usize,
    degraded: Vec<Standing>,
    failing_tasks: Vec<&'static str>,
    /// The fields that this answer can't fill now, with the reasons.
    unknown: Vec<Unknown>,
}

#[derive(Serialize)]
struct Node<'a> {
    node: &'a NodeId,
    alive: bool,
    users: u64,
    connections: u64,
}

/// Something that does not work as it should.
#[derive(Serialize)]
struct Standing {
    /// A reason of health, or a fault with a section in failure-modes.md.
    name: &'static str,
    kind: &'static str,
    part: Option<&'static str>,
    since: Timestamp,
    detail: Option<String>,
    section: Option<String>,
}

/// Something that can't be known now.
#[derive(Serialize)]
pub(super) struct Unknown {
    pub(super) what: &'static str,
    pub(super) why: String,
}

impl Unknown {
    /// The field that needs Redis, while Redis is away.
    pub(super) fn without_redis(what: &'static str) -> Self {
        Self { what, why: "Redis is away: this node knows only what is on itself".to_owned() }
    }
}

/// True if what Redis tells covers all nodes: it works, or there is none and so no other node.
pub(super) fn knows_other_nodes(broker: &Broker) -> bool {
    broker.degrade.state(crate::degrade::Part::Redis).link != LinkState::Down
}

pub(super) async fn show(call: &Call<'_>) -> HttpResult {
    let broker = &**call.service.broker();
    let rates = &call.service.console().ok_or_else(Problem::internal)?.rates;
    let (per_second, stats) = tokio::join!(rates.measure(&broker.metrics), call.execute(Command::Stats));
    let mut unknown = Vec::new();
    let nodes_complete = knows_other_nodes(broker);
    if !nodes_complete {
        unknown.push(Unknown::without_redis("nodes"));
        unknown.push(Unknown::without_redis("users_online"));
    }
    let stats: Option<Stats> = match stats {
        Ok(Reply::Stats(stats)) => Some(stats),
        Ok(_) => return Err(Problem::internal()),
        Err(reject) => {
            unknown.push(Unknown { what: "users_online", why: reject.to_string() });
            None
        }
    };
    let node = |node: &'_ crate::model::NodeStats| (node.alive, node.users, node.connections);
    let nodes = stats.iter().flat_map(|stats| &stats.nodes).map(|one| {
        let (alive, users, connections) = node(one);
        Node { node: &one.node, alive, users, connections }
    });
    ok(&Overview {
        health: Health::of(broker),
        at: broker.clock.now(),
        nodes: nodes.collect(),
        nodes_complete,
        users_online: stats.as_ref().filter(|_| nodes_complete).map(|stats| stats.users_online),
        per_second,
        followed: broker.metrics.followed.get(),
        outbox_bytes: broker.metrics.outbox_bytes.get(),
        delivery_queue: broker.chat.undelivered(),
        degraded: standing(broker),
        failing_tasks: broker.supervisor.failing().into_iter().map(TaskName::label).collect(),
        unknown,
    })
}

fn standing(broker: &Broker) -> Vec<Standing> {
    let now = broker.clock.now();
    let faults = broker.degrade.standing_faults().into_iter().map(|(part, finding, since)| Standing {
        name: finding.fault.name(),
        kind: "fault",
        part: Some(part.label()),
        since: time_of(since, now),
        detail: Some(finding.detail.clone()),
        section: Some(format!("docs/operations/failure-modes.md#{}", finding.fault.name())),
    });
    let reasons = broker.degrade.standing_reasons().into_iter().map(|(reason, since)| Standing {
        name: reason.label(),
        kind: "reason",
        part: None,
        since: time_of(since, now),
        detail: None,
        section: None,
    });
    faults.chain(reasons).collect()
}

#[derive(Serialize)]
struct Section<'a> {
    name: &'a str,
    /// Markdown.
    text: &'a str,
}

/// The section on a fault in failure-modes.md.
pub(super) fn explain(call: &Call<'_>) -> HttpResult {
    let name = call.segment("fault").unwrap_or_default();
    let text = section(&name).ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, "not_found", "failure-modes.md has no section with this name")
    })?;
    ok(&Section { name: &name, text })
}

fn section(name: &str) -> Option<&'static str> {
    FAILURE_MODES.split("\n### ").skip(1).find_map(|section| {
        let (heading, text) = section.split_once('\n')?;
        let end = text.find("\n## ").unwrap_or(text.len());
        (heading.trim() == name).then(|| text[..end].trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::degrade::Fault;

    #[test]
    fn every_fault_has_its_section() {
        for fault in Fault::ALL {
            let text = section(fault.name()).unwrap_or_else(|| panic!("{}", fault.name()));
            assert!(text.len() > 50 && !text.contains("\n#"), "{text}");
        }
        assert!(section("").is_none() && section("Named by").is_none());
    }
}
