//! Calls through a pooler that lends the server's connections by the transaction. Each call is a transaction of its own, sent
//! in one go: its settings, the statement without a name, and the commit. Nothing stays on the server's connection, which
//! another session gets next.

use std::{
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use tokio_postgres::{
    Client, Error, Row, SimpleQueryMessage,
    error::SqlState,
    types::{ToSql, Type},
};

use super::{
    super::{Pool, StoreError},
    errors::{describe, is_of_pooler, prepare_error, query_error},
    session_settings::{first_row, fit},
    sessions::{Served, Session, Sessions},
};

/// Number of tries to prepare a statement under a name that no other program left on the server's connection.
const NAMES: usize = 3;

/// Runs a statement in a transaction. Returns also a time since which the server has not crashed, if it is a read of notices.
pub(super) async fn run(
    session: &Session,
    sessions: &Sessions,
    pool: Pool,
    (sql, parameters): (&'static str, &[&(dyn ToSql + Sync)]),
    unfit: impl Fn(&Error),
) -> Result<(Vec<Row>, Instant), StoreError> {
    let types = parameter_types(session, sessions, sql).await.inspect_err(&unfit);
    let types = types.map_err(|error| map(pool, &error, prepare_error))?;
    session.note_served(Served::Nobody);
    let typed: Vec<_> = parameters.iter().copied().zip(types.iter().cloned()).collect();
    let begin = sessions.settings.of_transaction(pool == Pool::Relay);
    let client = &session.client;
    // The answer tells the process while the statement runs, so that it can be looked up on the server.
    let beginning = async {
        let answers = client.simple_query(&begin).await?;
        Ok::<_, Error>((fit(&answers).inspect(|(pid, _)| session.note_served(Served::By(*pid))), age(&answers)))
    };
    // Each is sent when it is polled first, in this order, and none is dropped before all were sent.
    let (began, rows, committed) =
        tokio::join!(biased; beginning, client.query_typed(sql, &typed), client.batch_execute("COMMIT"));
    // Without a transaction the statement was refused.
    let (fit, age) = began.inspect_err(&unfit).map_err(|error| map(pool, &error, prepare_error))?;
    let ran = |error: Error| map(pool, &error, |error| query_error(pool, error));
    let rows = rows.inspect_err(&unfit).map_err(ran)?;
    committed.inspect_err(&unfit).map_err(ran)?;
    // A standby runs reads too, and what it says may be old.
    let (_, server) = fit?;
    sessions.note_server(&server);
    Ok((rows, age.and_then(|age| Instant::now().checked_sub(age)).unwrap_or_else(Instant::now)))
}

/// The age of the process, if the answers have it.
fn age(answers: &[SimpleQueryMessage]) -> Option<Duration> {
    let seconds = first_row(answers)?.try_get(6).ok()??.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// Maps an error. The pooler ends a session without saying whether the server did what it was told.
fn map(pool: Pool, error: &Error, of_server: impl Fn(&Error) -> StoreError) -> StoreError {
    match of_server(error) {
        StoreError::Failed(cause) if cause.fault.is_some() => StoreError::Failed(cause),
        _ if is_of_pooler(error) => StoreError::Unknown(describe(error)),
        // Everything was sent at once: a broken connection tells nothing of any part of it.
        StoreError::Unavailable(_) if error.as_db_error().is_none() => query_error(pool, error),
        other => other,
    }
}

/// The types of a statement's parameters. To learn them, it is prepared once, in a transaction that keeps the connection until
/// the name is free again.
async fn parameter_types(session: &Session, sessions: &Sessions, sql: &'static str) -> Result<Arc<[Type]>, Error> {
    let known = || sessions.types.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(types) = known().get(sql) {
        return Ok(types.clone());
    }
    // Between its statements, the process waits for this node.
    session.note_served(Served::Untold);
    let mut names = NAMES;
    let types: Arc<[Type]> = loop {
        // If this is dropped halfway, the transaction must end with the session.
        let unfinished = Unfinished(Some(session));
        session.client.batch_execute("BEGIN").await?;
        let prepared = prepare(&session.client, sql).await;
        session.client.batch_execute("ROLLBACK").await?;
        unfinished.finish();
        names -= 1;
        match prepared {
            Err(error) if names > 0 && error.code() == Some(&SqlState::DUPLICATE_PSTATEMENT) => {}
            prepared => break prepared?.into(),
        }
    };
    known().insert(sql, types.clone());
    Ok(types)
}

/// The types that the server finds for a statement's parameters. The name is freed when the statement is dropped.
async fn prepare(client: &Client, sql: &str) -> Result<Vec<Type>, Error> {
    Ok(client.prepare(sql).await?.params().to_vec())
}

/// Discards a session in whose transaction something is left undone.
struct Unfinished<'a>(Option<&'a Session>);

impl Unfinished<'_> {
    fn finish(mut self) {
        self.0 = None;
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.0 {
            session.discard();
        }
    }
}
