//! Diagnoses a Redis Cluster for `switchboard check`.

use std::{collections::HashMap, sync::Arc};

use futures_util::future::{join_all, try_join_all};
use redis::{AsyncConnectionConfig, PushInfo, PushKind, Value};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};
use uuid::Uuid;

use super::{
    channels::Channels,
    checks::{Checked, REPLY_TIMEOUT, ask, check_clocks, check_sharing, check_types, check_writes},
    cluster::{Cluster, Router},
    connection::Connection,
    fault,
    info::Info,
    keys::Keys,
    link::NODE_CONNECTIONS_PER_MASTER,
    link_error::LinkError,
    shards::Layout,
    subscription::Subscription,
};
use crate::{
    config::RedisConfig,
    degrade::{Diagnosis, Fault, Finding},
    model::{Clock, DeploymentTag},
};

/// Maximum number of messages that wait.
const QUEUE: usize = 1_024;

/// Runs every check on each master of a cluster that was asked for them.
pub(super) async fn diagnose(
    config: &RedisConfig,
    cluster: &Arc<Cluster>,
    own: Option<DeploymentTag>,
    clock: &Clock,
) -> Diagnosis {
    let keys = Keys::new(&config.prefix, Layout::Cluster);
    let findings = unreachable_masters(cluster).await;
    if !findings.is_empty() {
        return Diagnosis { state: String::new(), findings };
    }
    let mut connection = match Router::open(cluster, settings(), true).await {
        Ok(router) => Connection::Cluster(router),
        Err(error) => return fault::link_finding(&error).into(),
    };
    let mut findings = Vec::new();
    let mut record = |found: Checked<Option<Finding>>| findings.extend(found.unwrap_or_else(Some));
    // Any deployment will do, unless the Redis user may use only the channels of one.
    let channels = keys.channels_of(own.unwrap_or_default());
    record(check_writes(&keys, channels, &mut connection).await.map(|()| None));
    record(check_pubsub(channels, cluster, &mut connection).await.map(|()| None));
    record(check_types(&keys, &mut connection).await);
    record(check_room(cluster).await.map(|()| None));
    record(Ok(check_coverage(&mut connection).await));
    record(Ok(cluster.outage().or_else(|| cluster.lacking_slots())));
    record(Ok(cluster.bare_masters()));
    record(Ok(dead_addresses(cluster).await));
    let mut version = "answers".to_owned();
    for mut server in connection.servers() {
        record(check_clocks(&mut server, clock).await);
        if let Ok(info) = Info::fetch(&mut server, REPLY_TIMEOUT).await {
            record(Ok(info.eviction()));
            version = info.version();
        }
    }
    let state = format!("{version}; {}", cluster.in_words());
    let state = state + &check_sharing(&keys, &mut connection, own, clock, &mut findings).await;
    // Several checks, and several masters, can fail for one cause; report it once.
    findings.sort_by_key(|finding| finding.fault.name());
    findings.dedup_by_key(|finding| finding.fault);
    Diagnosis { state, findings }
}

/// The masters that can't be reached or refuse the login, each by its address.
async fn unreachable_masters(cluster: &Cluster) -> Vec<Finding> {
    let masters = cluster.masters();
    let settings = settings();
    let tried = masters.iter().map(async |master| {
        let finding = fault::link_finding(&cluster.connect(master, &settings).await.err()?);
        let place = format!("{master}: ");
        let detail = finding.detail.strip_prefix(&place).unwrap_or(&finding.detail);
        Some(Finding::new(finding.fault, format!("{place}{detail}")))
    });
    join_all(tried).await.into_iter().flatten().collect()
}

/// The warning if addresses in REDIS_URL lead to no node that answers. Nodes find the cluster through the others.
async fn dead_addresses(cluster: &Cluster) -> Option<Finding> {
    let settings = settings();
    let tried = cluster.seeds().iter().map(async |seed| {
        let finding = fault::link_finding(&cluster.connect(seed, &settings).await.err()?);
        let place = format!("{seed}: ");
        Some(format!("{place}{}", finding.detail.strip_prefix(&place).unwrap_or(&finding.detail)))
    });
    let dead: Vec<String> = join_all(tried).await.into_iter().flatten().collect();
    let why = || format!("{}; a node that starts while the other addresses are away finds no cluster", dead.join("; "));
    (!dead.is_empty()).then(|| Finding::new(Fault::RedisAddressesAway, why()))
}

fn settings() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_connection_timeout(Some(REPLY_TIMEOUT)).set_response_timeout(Some(REPLY_TIMEOUT))
}

/// The warning if the cluster refuses everything while a master is down. A login that may not ask is told nothing.
async fn check_coverage(connection: &mut Connection) -> Option<Finding> {
    for mut server in connection.servers() {
        let get = redis::cmd("CONFIG").arg("GET").arg("cluster-require-full-coverage").take();
        let settings: HashMap<String, String> = ask(&mut server, get).await.unwrap_or_default();
        if settings.values().any(|value| value == "yes") {
            let why = "cluster-require-full-coverage is yes: while one master is down, the others refuse everything; set it to no";
            return Some(Finding::new(Fault::RedisFullCoverage, why));
        }
    }
    None
}

/// Publishes a message on a channel of each kind, over each master, and waits until it arrives there.
async fn check_pubsub(channels: Channels, cluster: &Arc<Cluster>, connection: &mut Connection) -> Checked<()> {
    let (sender, mut received) = mpsc::channel(QUEUE);
    let push = move |info: PushInfo| {
        if let (PushKind::SMessage, [_, Value::BulkString(payload)]) = (info.kind, &info.data[..]) {
            // Of so few messages none finds the queue full.
            let _ = sender.try_send(payload.clone());
        }
        Ok(())
    };
    for shard in connection.represent() {
        let master = cluster.owner_of(shard.tag().as_bytes());
        let opened = Subscription::to_master(cluster, master.as_ref(), settings(), push.clone()).await;
        let at_master = |error: LinkError| {
            let (finding, place) = (fault::link_finding(&error), master.as_ref().map(ToString::to_string));
            Finding { detail: format!("{} ({})", finding.detail, place.unwrap_or_default()), ..finding }
        };
        let mut subscription = opened.map_err(at_master)?;
        let token = Uuid::new_v4().simple().to_string();
        for channel in channels.checks(shard, &token) {
            let subscribed = subscription.subscribe(vec![channel.clone()]).await;
            subscribed.map_err(at_master)?;
            let mut pipeline = redis::pipe();
            channels.publish(&mut pipeline, &channel).arg(&token);
            let sent = connection.send(&pipeline).await.and_then(|mut replies| replies.take::<i64>(0));
            sent.map_err(|error| fault::link_finding(&error))?;
            let deadline = Instant::now() + REPLY_TIMEOUT;
            match timeout_at(deadline, received.recv()).await {
                Ok(Some(payload)) if payload == token.as_bytes() => {}
                _ => return Err(Finding::new(Fault::RedisDeaf, "a published message did not arrive within 2 s")),
            }
            let ended = subscription.unsubscribe(vec![channel]).await;
            ended.map_err(|error| fault::link_finding(&error))?;
        }
    }
    Ok(())
}

/// Opens as many connections to each master at the same time as a node may need, beside the one of the check.
async fn check_room(cluster: &Arc<Cluster>) -> Checked<()> {
    let (masters, settings) = (cluster.masters(), settings());
    let all = masters.iter().flat_map(|master| [master; NODE_CONNECTIONS_PER_MASTER]);
    let all = all.map(|master| cluster.connect(master, &settings));
    try_join_all(all).await.map(drop).map_err(|error| {
        let Finding { fault, detail } = fault::link_finding(&error);
        let why = format!("{detail}; a node needs up to {NODE_CONNECTIONS_PER_MASTER} connections to each master");
        Finding::new(fault, why)
    })
}
