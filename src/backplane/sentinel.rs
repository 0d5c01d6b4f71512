//! One sentinel: a connection to it, and what it answers.

use std::collections::HashMap;

use redis::{AsyncConnectionConfig, Pipeline, PushInfo, PushKind, Value, aio::MultiplexedConnection};
use tokio::{
    sync::watch,
    time::{Duration, timeout},
};

use super::{
    connector::{Connector, Place},
    fault,
    link_error::{LinkError, Refusal},
};
use crate::{
    config::HostPort,
    degrade::{Fault, Finding},
};

/// Maximum wait for a connection to a sentinel, and for an answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// The channel on which a sentinel tells that a primary changed.
const CHANGED: &str = "+switch-master";
/// Maximum number of names in a message, and of characters of each.
const NAMES: usize = 10;
const NAME_CHARS: usize = 64;

/// The answer of one sentinel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// The address of the primary, and the epoch of the failover by which it became that.
    Primary(HostPort, u64),
    /// It does not know the name of the primary, and knows these.
    UnknownName(Vec<String>),
    /// The server is no sentinel.
    NoSentinel,
    /// There is no answer.
    Failed(Finding),
}

/// Connects to a sentinel. `changes` is raised when it tells that a primary changed; without the right to listen to that, it
/// is only asked.
pub(super) async fn connect(
    connector: &Connector,
    place: &Place,
    changes: watch::Sender<u64>,
) -> Result<MultiplexedConnection, LinkError> {
    let push = move |info: PushInfo| -> Result<(), redis::aio::SendError> {
        if info.kind == PushKind::Message {
            changes.send_modify(|count| *count += 1);
        }
        Ok(())
    };
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(ANSWER_TIMEOUT))
        .set_push_sender(push);
    let mut connection = connector.connect(place, &config).await?;
    // A server that is no sentinel would take the subscription.
    if let Err(error) = connection.subscribe(CHANGED).await {
        tracing::debug!(%place, %error, "a sentinel lets nobody listen for changes; it is only asked");
    }
    Ok(connection)
}

/// Asks a sentinel for the primary.
///
/// # Errors
/// The connection is of no more use.
pub(super) async fn ask(connection: &mut MultiplexedConnection, master: &str) -> Result<Answer, LinkError> {
    let mut pipeline = Pipeline::new();
    pipeline.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(master);
    pipeline.cmd("SENTINEL").arg("MASTER").arg(master);
    let sent = timeout(ANSWER_TIMEOUT, connection.send_packed_commands(&pipeline, 0, 2)).await;
    let mut replies = sent.map_err(|_| LinkError::Timeout)??.into_iter();
    let (Some(address), Some(details)) = (replies.next(), replies.next()) else { return Err(LinkError::Unexpected) };
    match address {
        Value::ServerError(error) => Ok(refused(&Refusal::from(&error))),
        Value::Nil => Ok(Answer::UnknownName(names(connection).await)),
        address => {
            let (host, port): (String, u16) = redis::from_redis_value(address).map_err(|_| LinkError::Unexpected)?;
            Ok(Answer::Primary(HostPort { host, port }, epoch(details)))
        }
    }
}

/// The answer behind an error reply.
fn refused(refusal: &Refusal) -> Answer {
    let finding = fault::refused(refusal);
    match finding.fault {
        Fault::RedisLacksCommand => Answer::NoSentinel,
        _ => Answer::Failed(finding),
    }
}

/// The epoch in the reply to SENTINEL MASTER; 0 if the login may not call it: then most sentinels decide.
fn epoch(details: Value) -> u64 {
    let details: HashMap<String, String> = redis::from_redis_value(details).unwrap_or_default();
    details.get("config-epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or_default()
}

/// The names that a sentinel knows; none if it does not tell.
async fn names(connection: &mut MultiplexedConnection) -> Vec<String> {
    let mut command = redis::cmd("SENTINEL");
    let told = timeout(ANSWER_TIMEOUT, command.arg("MASTERS").query_async(connection)).await;
    let all: Vec<HashMap<String, String>> = told.ok().and_then(Result::ok).unwrap_or_default();
    let shown = |name: String| name.chars().filter(char::is_ascii_graphic).take(NAME_CHARS).collect();
    all.into_iter().take(NAMES).filter_map(|mut one| one.remove("name")).map(shown).collect()
}
