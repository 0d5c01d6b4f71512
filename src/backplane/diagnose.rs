//! Diagnoses a Redis server for `switchboard check`: runs the operations that a node needs and reports those that fail.

use futures_util::StreamExt;
use redis::{AsyncConnectionConfig, Client, RedisError};
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    channels::Channels,
    checks::{Checked, REPLY_TIMEOUT, ask, check_clocks, check_sharing, check_types, check_writes, silent},
    connection::Connection,
    diagnose_cluster, fault,
    info::Info,
    keys::Keys,
    link::NODE_CONNECTIONS,
    server_mode::ServerMode,
    shards::{Layout, Shard},
    target::Target,
    tracking,
};
use crate::{
    config::RedisConfig,
    degrade::{Diagnosis, Fault, Finding},
    model::{Clock, DeploymentId},
};

/// Runs every check on the Redis of `config` and returns its version, who else uses it, and the findings. Without a
/// `deployment`, because the store does not tell it, nothing is said of others.
pub async fn diagnose(config: &RedisConfig, deployment: Option<DeploymentId>, clock: &Clock) -> Diagnosis {
    let own = deployment.map(|id| id.tag());
    let target = match Target::new(config) {
        Ok(target) => target,
        Err(error) => return Finding::new(Fault::RedisUnreachable, error.to_string()).into(),
    };
    target.look_once(false).await;
    if let Some(misfit) = target.misfit() {
        return misfit.into();
    }
    if let Some(found) = target.cluster() {
        let mut diagnosis = diagnose_cluster::diagnose(config, found, own, clock).await;
        diagnosis.findings.extend(tracking::check(&target, &Keys::new(&config.prefix, Layout::Cluster)).await);
        return diagnosis;
    }
    let keys = Keys::new(&config.prefix, Layout::Single);
    // The client has the login that the server took.
    let config = AsyncConnectionConfig::new();
    let connecting = async { Ok((target.connect(&config).await?.0, target.client().await?)) };
    let (mut connection, client) = match connecting.await {
        Ok(connected) => connected,
        Err(error) => {
            let finding = of_primary(&target, fault::link_finding(&error));
            let findings = std::iter::once(finding).chain(target.warning()).collect();
            return Diagnosis { state: String::new(), findings };
        }
    };
    if let Some(mode) = timeout(REPLY_TIMEOUT, ServerMode::unfit(&mut connection)).await.unwrap_or_default() {
        return mode.finding().into();
    }
    if let Err(error) = target.check_role(&mut connection).await {
        return fault::link_finding(&error).into();
    }
    let mut connection = Connection::from(connection);
    let mut findings = Vec::from_iter(target.warning());
    let mut record = |found: Checked<Option<Finding>>| findings.extend(found.unwrap_or_else(Some));
    // Any deployment will do, unless the Redis user may use only the channels of one.
    let channels = keys.channels_of(own.unwrap_or_default());
    record(check_writes(&keys, channels, &mut connection).await.map(|()| None));
    record(check_pubsub(channels, &client, &mut connection).await.map(|()| None));
    record(check_types(&keys, &mut connection).await);
    record(check_clocks(&mut connection, clock).await);
    record(check_room(&client).await.map(|()| None));
    record(Ok(tracking::check(&target, &keys).await));
    let info = Info::fetch(&mut connection, REPLY_TIMEOUT).await.ok();
    record(Ok(info.as_ref().and_then(Info::eviction)));
    let state = info.as_ref().map_or_else(|| "answers".to_owned(), Info::version) + &target.in_words();
    let state = state + &check_sharing(&keys, &mut connection, own, clock, &mut findings).await;
    // Several checks can fail for one cause; report it once.
    findings.dedup_by_key(|finding| finding.fault);
    Diagnosis { state, findings }
}

/// Names the primary, so that its refusal is not taken for one of the sentinels.
fn of_primary(target: &Target, finding: Finding) -> Finding {
    let status = target.status();
    match status.primary.filter(|_| status.sentinels.is_some()) {
        Some(primary) => Finding::new(finding.fault, format!("the primary {primary}: {}", finding.detail)),
        None => finding,
    }
}

/// Awaits a command's reply for at most [`REPLY_TIMEOUT`] and turns an error or a timeout into a finding.
async fn await_reply<T>(command: impl Future<Output = Result<T, RedisError>>) -> Checked<T> {
    match timeout(REPLY_TIMEOUT, command).await {
        Ok(answer) => answer.map_err(|error| fault::finding(&error)),
        Err(_) => Err(silent()),
    }
}

/// Publishes a message on a channel of each kind and waits until it arrives there.
async fn check_pubsub(channels: Channels, client: &Client, connection: &mut Connection) -> Checked<()> {
    let token = Uuid::new_v4().simple().to_string();
    let mut subscription = await_reply(client.get_async_pubsub()).await?;
    for channel in channels.checks(Shard::HOME, &token) {
        await_reply(subscription.subscribe(&channel)).await?;
        ask::<()>(connection, redis::cmd("PUBLISH").arg(&channel).arg(&token).take()).await?;
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
    let count = u32::try_from(NODE_CONNECTIONS).unwrap_or(u32::MAX);
    let pool = bb8::Pool::builder().max_size(count).min_idle(count).retry_connection(false);
    await_reply(pool.build(client.clone())).await.map(drop).map_err(|finding| Finding {
        detail: format!("{}; a node needs up to {NODE_CONNECTIONS} connections", finding.detail),
        ..finding
    })
}
