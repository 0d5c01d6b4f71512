//! Finds a pooler that lends its server connections by the transaction or by the statement although none is configured, such as
//! PgBouncer in another mode than that for sessions. Statements prepared on one connection and the settings of a session are
//! then lost, and an advisory lock outlives its owner.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::{
    super::{Cause, StoreError},
    errors::{POOLED_REMEDY, connect_error},
};
use crate::degrade::Fault;

/// Maximum time for each question.
const TIMEOUT: Duration = Duration::from_secs(3);

/// A connection that opens.
pub(super) trait Opening: Future<Output = Result<Client, tokio_postgres::Error>> {}

impl<F: Future<Output = Result<Client, tokio_postgres::Error>>> Opening for F {}

/// Opens two connections and asks which process of the server serves each. With a server connection of its own, a session
/// keeps its process, and no other session gets it while a transaction runs.
///
/// # Errors
/// `Failed` if the connections are lent by the transaction or by the statement.
pub(super) async fn refuse(one: impl Opening, other: impl Opening) -> Result<(), StoreError> {
    let (one, other) = (answered(one).await?, answered(other).await?);
    let first = process(&one, "SELECT pg_backend_pid()").await?;
    let second = process(&other, "BEGIN; SELECT pg_backend_pid()").await?;
    if first != second && process(&one, "SELECT pg_backend_pid()").await? == first {
        return Ok(());
    }
    Err(StoreError::Failed(Cause::named(Fault::StorePooled, POOLED_REMEDY)))
}

/// Number of these connections on which a transaction runs at the same time: a pooler lends no more connections of the server.
pub(super) async fn lent(all: Vec<Client>) -> usize {
    let begin = async |client: &Client| timeout(TIMEOUT, client.batch_execute("BEGIN; SELECT")).await;
    let began = join_all(all.iter().map(begin)).await;
    let running: Vec<_> = all.iter().zip(began).filter(|(_, began)| matches!(began, Ok(Ok(())))).collect();
    // Otherwise the pooler would close the server's connections.
    join_all(running.iter().map(async |(client, _)| timeout(TIMEOUT, client.batch_execute("ROLLBACK")).await)).await;
    running.len()
}

async fn answered<T>(call: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, StoreError> {
    let silent = |_| StoreError::Unavailable(Cause::named(Fault::StoreSilent, "no answer within 3 s"));
    timeout(TIMEOUT, call).await.map_err(silent)?.map_err(|error| connect_error(&error))
}

async fn process(client: &Client, sql: &str) -> Result<i32, StoreError> {
    let answers = answered(client.simple_query(sql)).await?;
    let pid = answers.iter().find_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
        _ => None,
    });
    pid.ok_or_else(|| StoreError::Unavailable("the server did not tell its process id".into()))
}
