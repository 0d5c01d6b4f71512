//! Diagnoses a Redis server for `switchboard check`: runs the operations that a node needs and reports those that fail.

use std::time::Duration;

use futures_util::{StreamExt, future::try_join_all};
use redis::{Client, Pipeline, RedisError, aio::MultiplexedConnection};
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    fault,
    incarnation::Incarnation,
    info::Info,
    keys::{Channels, Keys},
    link::{self, NODE_CONNECTIONS},
    link_error::LinkError,
    lossy::Lossy,
    needs,
    neighbours::Listening,
    plain_text,
    server_mode::ServerMode,
    sharing::{self, Neighbours, Sharing},
    target::Target,
};
use crate::{
    config::RedisConfig,
    degrade::{Diagnosis, Fault, Finding},
    model::{Clock, DeploymentId, DeploymentTag, NodeId, Timestamp},
};

/// Maximum time for one command.
const REPLY_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum difference between two clocks before it is reported.
const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(1);

/// Number of SCAN commands that look for values of another type, and of keys that each one looks at.
const SCANS: usize = 10;
const KEYS_PER_SCAN: usize = 1_000;
/// Maximum number of such keys that a finding names.
const KEYS_NAMED: usize = 10;

/// The result of one check: a value, or the finding that explains the failure.
type Checked<T> = Result<T, Finding>;

/// Runs every check on the Redis of `config` and returns its version, who else uses it, and the findings. Without a
/// `deployment`, because the store does not tell it, nothing is said of others.
pub async fn diagnose(config: &RedisConfig, deployment: Option<DeploymentId>, clock: &Clock) -> Diagnosis {
    let (keys, own) = (Keys::new(&config.prefix), deployment.map(|id| id.tag()));
    let target = match Target::new(config) {
        Ok(target) => target,
        Err(error) => return Finding::new(Fault::RedisUnreachable, error.to_string()).into(),
    };
    target.look_once(false).await;
    if let Some(misfit) = target.misfit() {
        return misfit.into();
    }
    let client = match target.client().await {
        Ok((client, _)) => client,
        Err(error) => {
            let findings = std::iter::once(fault::link_finding(&error)).chain(target.warning()).collect();
            return Diagnosis { state: String::new(), findings };
        }
    };
    let connected = timeout(REPLY_TIMEOUT, client.get_multiplexed_async_connection()).await;
    let mut connection =
        match connected.map_err(|_| LinkError::Timeout).and_then(|tried| tried.map_err(LinkError::from)) {
            Ok(connection) => connection,
            Err(error) => return fault::link_finding(&plain_text::explain(&client, error).await).into(),
        };
    if let Some(mode) = timeout(REPLY_TIMEOUT, ServerMode::unfit(&mut connection)).await.unwrap_or_default() {
        return mode.finding().into();
    }
    if let Err(error) = target.check_role(&mut connection).await {
        return fault::link_finding(&error).into();
    }
    let mut findings = Vec::from_iter(target.warning());
    let mut record = |found: Checked<Option<Finding>>| findings.extend(found.unwrap_or_else(Some));
    // Any deployment will do, unless the Redis user may use only the channels of one.
    let channels = Channels(own.unwrap_or_default());
    record(check_writes(&keys, channels, &mut connection).await.map(|()| None));
    record(check_pubsub(channels, &client, &mut connection).await.map(|()| None));
    record(check_types(&keys, &mut connection).await);
    record(check_clocks(&mut connection, clock).await);
    record(check_room(&client).await.map(|()| None));
    let info = Info::fetch(&mut connection, REPLY_TIMEOUT).await.ok();
    record(Ok(info.as_ref().and_then(Info::eviction)));
    let leases = LeasesFound::read(&keys, &mut connection, clock).await;
    record(leases.as_ref().map(|leases| leases.sharing(own)).map_err(Clone::clone));
    record(leases.as_ref().map(|leases| leases.expired(own)).map_err(Clone::clone));
    let mut state = info.as_ref().map_or_else(|| "answers".to_owned(), Info::version) + &target.in_words();
    if let Some(own) = own {
        let listening = Listening::on(&mut connection, own).await.unwrap_or_default();
        state += &format!("{listening}{}", leases.map(|leases| listening.elsewhere(&leases.held)).unwrap_or_default());
    }
    // Several checks can fail for one cause; report it once.
    findings.dedup_by_key(|finding| finding.fault);
    Diagnosis { state, findings }
}

/// Awaits a command's reply for at most [`REPLY_TIMEOUT`] and turns an error or a timeout into a finding.
async fn await_reply<T>(command: impl Future<Output = Result<T, RedisError>>) -> Checked<T> {
    match timeout(REPLY_TIMEOUT, command).await {
        Ok(answer) => answer.map_err(|error| fault::finding(&error)),
        Err(_) => Err(Finding::new(Fault::RedisSilent, format!("no reply within {} s", REPLY_TIMEOUT.as_secs()))),
    }
}

/// Writes a key through a script and through plain commands, as a node does.
async fn check_writes(keys: &Keys, channels: Channels, connection: &mut MultiplexedConnection) -> Checked<()> {
    needs::check(keys, channels, connection).await.map_err(|error| fault::link_finding(&error))?;
    let [key, ..] = keys.checks(&Uuid::new_v4().simple().to_string());
    let mut load = redis::cmd("SCRIPT");
    load.arg("LOAD").arg("return redis.call('SET', KEYS[1], '1')");
    let script: String = await_reply(load.query_async(connection)).await?;
    await_reply(redis::cmd("EVALSHA").arg(script).arg(1).arg(&key).query_async::<()>(connection)).await?;
    await_reply(redis::cmd("EXPIRE").arg(&key).arg(10).query_async::<()>(connection)).await?;
    await_reply(redis::cmd("DEL").arg(&key).query_async::<()>(connection)).await
}

/// Publishes a message on a channel of each kind and waits until it arrives there.
async fn check_pubsub(channels: Channels, client: &Client, connection: &mut MultiplexedConnection) -> Checked<()> {
    let token = Uuid::new_v4().simple().to_string();
    let mut subscription = await_reply(client.get_async_pubsub()).await?;
    for channel in channels.checks(&token) {
        await_reply(subscription.subscribe(&channel)).await?;
        await_reply(redis::cmd("PUBLISH").arg(&channel).arg(&token).query_async::<()>(connection)).await?;
        let received = timeout(REPLY_TIMEOUT, subscription.on_message().next()).await;
        let received = received.ok().flatten().and_then(|message| message.get_payload::<String>().ok());
        if received.as_ref() != Some(&token) {
            return Err(Finding::new(Fault::RedisDeaf, "a published message did not arrive within 2 s"));
        }
    }
    Ok(())
}

/// Opens as many connections at the same time as a node may need, beside the one of the check.
async fn check_room(client: &Client) -> Checked<()> {
    let all = (0..NODE_CONNECTIONS).map(|_| client.get_multiplexed_async_connection());
    await_reply(try_join_all(all)).await.map(drop).map_err(|finding| Finding {
        detail: format!("{}; a node needs up to {NODE_CONNECTIONS} connections", finding.detail),
        ..finding
    })
}

/// Reads each key that all nodes share, and the first ones that are named after users, conversations and nodes, with a command
/// of its type.
async fn check_types(keys: &Keys, connection: &mut MultiplexedConnection) -> Checked<Option<Finding>> {
    let mut pipeline = redis::pipe();
    pipeline
        .cmd("SCARD")
        .arg(keys.online())
        .cmd("ZSCORE")
        .arg(keys.nodes())
        .arg("-")
        .cmd("ZSCORE")
        .arg(keys.leaving())
        .arg("-");
    pipeline.cmd("HEXISTS").arg(keys.connections()).arg("-");
    let (mut foreign, mut cursor) = (keys_of_another_type(keys, &pipeline, connection).await?, 0_u64);
    for _ in 0..SCANS {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("COUNT").arg(KEYS_PER_SCAN);
        let (next, found): (u64, Vec<Lossy>) = await_reply(scan.query_async(connection)).await?;
        let mut pipeline = redis::pipe();
        for read in found.iter().filter_map(|key| keys.typed_read(&key.0)) {
            pipeline.add_command(read);
        }
        foreign.extend(keys_of_another_type(keys, &pipeline, connection).await?);
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    let more = foreign.len().saturating_sub(KEYS_NAMED);
    foreign.truncate(KEYS_NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let detail =
        || format!("values of another type under {}{more}; a node that meets one deletes it", foreign.join(", "));
    Ok((!foreign.is_empty()).then(|| Finding::new(Fault::RedisForeignValues, detail())))
}

async fn keys_of_another_type(
    keys: &Keys,
    pipeline: &Pipeline,
    connection: &mut MultiplexedConnection,
) -> Checked<Vec<String>> {
    if pipeline.is_empty() {
        return Ok(Vec::new());
    }
    let replies = timeout(REPLY_TIMEOUT, link::send(connection, pipeline)).await.unwrap_or(Err(LinkError::Timeout));
    Ok(replies.map_err(|error| fault::link_finding(&error))?.keys_of_another_type(keys, pipeline))
}

async fn check_clocks(connection: &mut MultiplexedConnection, clock: &Clock) -> Checked<Option<Finding>> {
    let (seconds, micros): (i64, i64) = await_reply(redis::cmd("TIME").query_async(connection)).await?;
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
    async fn read(keys: &Keys, connection: &mut MultiplexedConnection, clock: &Clock) -> Checked<Self> {
        let range = redis::cmd("ZRANGE").arg(keys.nodes()).arg(0).arg(-1).arg("WITHSCORES").take();
        let members: Checked<Vec<(Lossy, f64)>> = await_reply(range.query_async(connection)).await;
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
