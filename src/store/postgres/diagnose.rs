//! Looks at a PostgreSQL as an operator would: whether a node can do on it what nodes do, and if not, what is wrong.

use std::{sync::Arc, time::Duration};

use bb8::ManageConnection;
use tokio::time::timeout;
use tokio_postgres::{Row, error::SqlState};

use super::{super::migrations, Postgres, Session, describe};
use crate::{
    config::StoreConfig,
    degrade::{Diagnosis, Fault, Finding},
    metrics::Metrics,
    model::Clock,
};

/// How long each question may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How far two clocks may differ before it is said, in seconds.
const CLOCKS_APART: f64 = 1.0;

type Asked<T> = Result<T, Finding>;

/// Examines the PostgreSQL of `config`.
pub async fn diagnose(config: &StoreConfig, metrics: Arc<Metrics>, clock: &Clock) -> Diagnosis {
    match look(config, metrics, clock).await {
        Ok(diagnosis) => diagnosis,
        Err(finding) => finding.into(),
    }
}

async fn look(config: &StoreConfig, metrics: Arc<Metrics>, clock: &Clock) -> Asked<Diagnosis> {
    let store = Postgres::unconnected(config, metrics);
    let store = store.map_err(|error| Finding::new(Fault::StoreUnreachable, error.to_string()))?;
    let connecting = timeout(PATIENCE, store.sessions.config.connect(store.sessions.tls.clone())).await;
    let connected = connecting.map_err(|_| silent())?.map_err(|error| finding(&error))?;
    drop(connected);
    let mut session =
        store.sessions.connect().await.map_err(|error| Finding::new(Fault::StoreSilent, error.to_string()))?;
    let said = ask(
        &session,
        "SELECT current_setting('server_version'), pg_is_in_recovery(), \
         current_setting('default_transaction_read_only'), extract(epoch FROM clock_timestamp())::float8",
    );
    let said = said.await?;
    let mut findings = Vec::new();
    let Some(said) = said.first() else { return Err(silent()) };
    let (standby, read_only): (bool, &str) = (said.get(1), said.get(2));
    if standby || read_only == "on" {
        let why = if standby { "it is a standby" } else { "default_transaction_read_only is on" };
        findings.push(Finding::new(Fault::StoreRefusesWrites, why));
    }
    let apart = (said.get::<_, f64>(3) - clock.now().micros() as f64 / 1e6).abs();
    if apart > CLOCKS_APART {
        findings.push(Finding::new(Fault::ClocksDiffer, format!("this machine's and PostgreSQL's by {apart:.1} s")));
    }
    let pending = pending(&mut session).await?;
    if pending > 0 {
        findings.push(Finding::new(Fault::StoreNotMigrated, format!("{pending} migrations are pending")));
    } else {
        findings.extend(alone(&session).await.unwrap_or_else(Some));
        findings.extend(uses(&session).await.err());
        findings.dedup_by_key(|finding| finding.fault);
    }
    let state = format!("answers, {}", said.get::<_, &str>(0));
    Ok(Diagnosis { state, findings })
}

fn silent() -> Finding {
    Finding::new(Fault::StoreSilent, format!("no answer within {} s", PATIENCE.as_secs()))
}

fn finding(error: &tokio_postgres::Error) -> Finding {
    let denied =
        [SqlState::INVALID_PASSWORD, SqlState::INVALID_AUTHORIZATION_SPECIFICATION, SqlState::INSUFFICIENT_PRIVILEGE];
    let fault = match error.code() {
        Some(code) if denied.contains(code) => Fault::StoreDeniesAccess,
        Some(code) if *code == SqlState::READ_ONLY_SQL_TRANSACTION => Fault::StoreRefusesWrites,
        _ => Fault::StoreUnreachable,
    };
    Finding::new(fault, describe(error))
}

async fn ask(session: &Session, sql: &str) -> Asked<Vec<Row>> {
    let rows = timeout(PATIENCE, session.client.query(sql, &[])).await.map_err(|_| silent())?;
    rows.map_err(|error| finding(&error))
}

/// Migrations that were not applied.
async fn pending(session: &mut Session) -> Asked<usize> {
    let applied = ask(session, "SELECT to_regclass('refinery_schema_history') IS NOT NULL").await?;
    if !applied.first().is_some_and(|row| row.get(0)) {
        return Ok(migrations::POSTGRES.len());
    }
    let applied = ask(session, "SELECT count(*) FROM refinery_schema_history").await?;
    let applied = applied.first().map_or(0, |row| row.get::<_, i64>(0));
    Ok(migrations::POSTGRES.len().saturating_sub(usize::try_from(applied).unwrap_or(0)))
}

/// Reads and writes as a node does. Nothing is committed.
async fn uses(session: &Session) -> Asked<()> {
    for sql in ["BEGIN", "SELECT FROM log LIMIT 1", "UPDATE heads SET updated_at = now() WHERE log = ''"] {
        let done = timeout(PATIENCE, session.client.batch_execute(sql)).await.map_err(|_| silent())?;
        done.map_err(|error| finding(&error))?;
    }
    Ok(())
}

/// Nodes that reach each other through the store alone.
async fn alone(session: &Session) -> Asked<Option<Finding>> {
    let nodes = ask(session, "SELECT node FROM alone WHERE until > clock_timestamp() ORDER BY node").await?;
    let nodes: Vec<&str> = nodes.iter().map(|row| row.get(0)).collect();
    Ok((!nodes.is_empty()).then(|| Finding::new(Fault::NodesRelay, format!("without Redis: {}", nodes.join(", ")))))
}
