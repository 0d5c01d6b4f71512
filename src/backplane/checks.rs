//! The checks of `switchboard check` that are the same for one server and for a cluster.

use std::time::Duration;

use redis::{Cmd, FromRedisValue, Pipeline};
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    channels::Channels,
    connection::Connection,
    fault,
    incarnation::Incarnation,
    keys::Keys,
    link_error::LinkError,
    lossy::Lossy,
    needs,
    neighbours::Listening,
    scripts::{LIMIT, SCRIPTS},
    shards::Shard,
    sharing::{self, Neighbours, Sharing},
};
use crate::{
    degrade::{Fault, Finding},
    model::{Clock, DeploymentTag, NodeId, Timestamp},
};

/// Maximum time for one command.
pub(super) const REPLY_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum difference between two clocks before it is reported.
const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(1);

/// The window of the budget that a check takes a share of.
const WINDOW: Duration = Duration::from_secs(10);

/// Number of SCAN commands that look for values of another type, and of keys that each one looks at.
const SCANS: usize = 10;
const KEYS_PER_SCAN: usize = 1_000;
/// Maximum number of such keys that a finding names.
const KEYS_NAMED: usize = 10;

/// The result of one check: a value, or the finding that explains the failure.
pub(super) type Checked<T> = Result<T, Finding>;

/// Sends a command, and turns an error or a timeout into a finding.
pub(super) async fn ask<T: FromRedisValue>(connection: &mut Connection, command: Cmd) -> Checked<T> {
    match timeout(REPLY_TIMEOUT, connection.ask(command)).await {
        Ok(answer) => answer.map_err(|error| fault::link_finding(&error)),
        Err(_) => Err(silent()),
    }
}

/// The finding for a command without a reply.
pub(super) fn silent() -> Finding {
    Finding::new(Fault::RedisSilent, format!("no reply within {} s", REPLY_TIMEOUT.as_secs()))
}

/// Writes a key through scripts and through plain commands on each server, as a node does. Every script of a node is loaded,
/// because servers that are no Redis may know another Lua.
pub(super) async fn check_writes(keys: &Keys, channels: Channels, connection: &mut Connection) -> Checked<()> {
    needs::check(keys, channels, connection).await.map_err(|error| fault::link_finding(&error))?;
    let (shards, mut script) = (connection.represent(), String::new());
    for mut server in connection.servers() {
        let load = |source: &str| redis::cmd("SCRIPT").arg("LOAD").arg(source).take();
        script = ask(&mut server, load("return redis.call('SET', KEYS[1], '1')")).await?;
        for script in SCRIPTS {
            ask::<String>(&mut server, load(script.source())).await?;
        }
    }
    for shard in shards {
        let [key, budget, ..] = keys.checks(shard, &Uuid::new_v4().simple().to_string());
        let mut share = redis::pipe();
        LIMIT.call(&mut share, &budget).arg(1).arg(u64::try_from(WINDOW.as_micros()).unwrap_or(u64::MAX)).arg(1);
        if let Some(share) = share.cmd_iter().next() {
            ask::<i64>(connection, share.clone()).await?;
            ask::<()>(connection, redis::cmd("DEL").arg(&budget).take()).await?;
        }
        ask::<()>(connection, redis::cmd("EVALSHA").arg(&script).arg(1).arg(&key).take()).await?;
        ask::<()>(connection, redis::cmd("EXPIRE").arg(&key).arg(10).take()).await?;
        ask::<()>(connection, redis::cmd("DEL").arg(&key).take()).await?;
    }
    Ok(())
}

/// Reads each key that all nodes share, and the first ones that are named after users, conversations and nodes, with a command
/// of its type.
pub(super) async fn check_types(keys: &Keys, connection: &mut Connection) -> Checked<Option<Finding>> {
    let mut pipeline = redis::pipe();
    for shard in keys.shards() {
        pipeline.cmd("SCARD").arg(keys.online(shard));
        pipeline.cmd("ZSCORE").arg(keys.nodes(shard)).arg("-");
        pipeline.cmd("ZSCORE").arg(keys.leaving(shard)).arg("-");
    }
    pipeline.cmd("HEXISTS").arg(keys.connections()).arg("-");
    let mut foreign = keys_of_another_type(keys, &pipeline, connection).await?;
    for mut server in connection.servers() {
        let mut cursor = 0_u64;
        for _ in 0..SCANS {
            let scan = redis::cmd("SCAN").arg(cursor).arg("COUNT").arg(KEYS_PER_SCAN).take();
            let (next, found): (u64, Vec<Lossy>) = ask(&mut server, scan).await?;
            let mut pipeline = redis::pipe();
            for read in found.iter().filter_map(|key| keys.typed_read(&key.0)) {
                pipeline.add_command(read);
            }
            foreign.extend(keys_of_another_type(keys, &pipeline, &mut server).await?);
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
    }
    let more = foreign.len().saturating_sub(KEYS_NAMED);
    foreign.truncate(KEYS_NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let detail =
        || format!("values of another type under {}{more}; a node that meets one deletes it", foreign.join(", "));
    Ok((!foreign.is_empty()).then(|| Finding::new(Fault::RedisForeignValues, detail())))
}

async fn keys_of_another_type(keys: &Keys, pipeline: &Pipeline, connection: &mut Connection) -> Checked<Vec<String>> {
    if pipeline.is_empty() {
        return Ok(Vec::new());
    }
    let replies = timeout(REPLY_TIMEOUT, connection.send(pipeline)).await.unwrap_or(Err(LinkError::Timeout));
    Ok(replies.map_err(|error| fault::link_finding(&error))?.keys_of_another_type(keys, pipeline))
}

/// Compares the clock of this machine with that of a server.
pub(super) async fn check_clocks(connection: &mut Connection, clock: &Clock) -> Checked<Option<Finding>> {
    let (seconds, micros): (i64, i64) = ask(connection, redis::cmd("TIME")).await?;
    let (theirs, ours) =
        (Timestamp::from_micros(seconds.saturating_mul(1_000_000).saturating_add(micros)), clock.now());
    let apart = theirs.since(ours).max(ours.since(theirs));
    let differ =
        || Finding::new(Fault::ClocksDiffer, format!("this machine and Redis differ by {:.1} s", apart.as_secs_f64()));
    Ok((apart > MAX_CLOCK_DIFFERENCE).then(differ))
}

/// The leases under the keys of this configuration.
struct LeasesFound {
    /// The deployment to which the keys belong; `None` if Redis is empty, or for one of an earlier version.
    owner: Option<DeploymentTag>,
    held: Vec<Incarnation>,
    expired: Vec<Incarnation>,
}

impl LeasesFound {
    async fn read(keys: &Keys, connection: &mut Connection, clock: &Clock) -> Checked<Self> {
        let range = redis::cmd("ZRANGE").arg(keys.nodes(Shard::HOME)).arg(0).arg(-1).arg("WITHSCORES").take();
        let members: Checked<Vec<(Lossy, f64)>> = ask(connection, range).await;
        // [`check_types`] reports a value of another type.
        let members = members.or_else(|finding| match finding.fault {
            Fault::RedisForeignValues => Ok(Vec::new()),
            _ => Err(finding),
        })?;
        let now = clock.now().micros() as f64 / 1_000.0;
        let mut found = Self { owner: None, held: Vec::new(), expired: Vec::new() };
        for (Lossy(member), until) in members {
            found.owner = sharing::owner(&member).or(found.owner);
            if let Some(lease) = Incarnation::parse(&member) {
                if until > now { &mut found.held } else { &mut found.expired }.push(lease);
            }
        }
        Ok(found)
    }

    /// Tells if another deployment uses the keys now.
    fn sharing(&self, own: Option<DeploymentTag>) -> Option<Finding> {
        let owner = self.owner.filter(|owner| own.is_some_and(|own| own != *owner))?;
        let in_use = Sharing::InUse(Neighbours::holding(Some(owner), self.held.iter()));
        (!self.held.is_empty()).then(|| Finding::new(Fault::RedisShared, in_use.to_string()))
    }

    /// Names nodes with an expired lease. Their users go offline only when another node reaps them.
    fn expired(&self, own: Option<DeploymentTag>) -> Option<Finding> {
        let ours = |lease: &&Incarnation| lease.deployment().is_none_or(|of| own.is_none_or(|own| own == of));
        // A node that lost its lease holds another one.
        let lives = |node: &NodeId| self.held.iter().any(|lease| lease.node().as_ref() == Some(node));
        let nodes = self.expired.iter().filter(ours).filter_map(Incarnation::node).filter(|node| !lives(node));
        let nodes: Vec<_> = nodes.collect();
        let list = || nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        (!nodes.is_empty()).then(|| Finding::new(Fault::NodeDead, format!("expired leases: {}", list())))
    }
}

/// Finds who else uses the keys or listens, and dead nodes. Returns the former in words.
pub(super) async fn check_sharing(
    keys: &Keys,
    connection: &mut Connection,
    own: Option<DeploymentTag>,
    clock: &Clock,
    findings: &mut Vec<Finding>,
) -> String {
    let leases = LeasesFound::read(keys, connection, clock).await;
    for found in [LeasesFound::sharing, LeasesFound::expired] {
        match &leases {
            Ok(leases) => findings.extend(found(leases, own)),
            Err(finding) => findings.push(finding.clone()),
        }
    }
    let Some(own) = own else { return String::new() };
    let listening = Listening::on(connection, keys.layout(), own).await.unwrap_or_default();
    format!("{listening}{}", leases.map(|leases| listening.elsewhere(&leases.held)).unwrap_or_default())
}
