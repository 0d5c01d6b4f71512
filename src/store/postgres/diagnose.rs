//! Examines a PostgreSQL server for the operator: checks that a node can work with it, and names the faults.

use std::time::Duration;

use bb8::ManageConnection;
use futures_util::future::{join_all, try_join_all};
use tokio::time::timeout;
use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};

use super::{
    super::{Cause, LIVING_MAX, LivingNode, Pool, RelaySign, StoreError, migrations},
    deployment,
    errors::{POOLED_REMEDY, describe, fault},
    pooler, schema,
    sessions::{Session, Sessions},
    watches,
};
use crate::{
    config::StoreConfig,
    degrade::{Diagnosis, Fault, Finding},
    model::{Clock, DeploymentId},
};

/// Maximum time for each query.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);
/// Difference between two clocks above which a finding is reported, in seconds.
const MAX_CLOCK_DIFFERENCE: f64 = 1.0;

type Checked<T> = Result<T, Finding>;

/// Examines the PostgreSQL server of `config`. Also returns the deployment, if the database tells it.
pub async fn diagnose(config: &StoreConfig, clock: &Clock) -> (Diagnosis, Option<DeploymentId>) {
    run_checks(config, clock).await.unwrap_or_else(|finding| (finding.into(), None))
}

async fn run_checks(config: &StoreConfig, clock: &Clock) -> Checked<(Diagnosis, Option<DeploymentId>)> {
    let sessions = Sessions::of(config);
    let sessions = sessions.map_err(|error| Finding::new(Fault::StoreUnreachable, error.to_string()))?;
    match timeout(QUERY_TIMEOUT, sessions.open()).await {
        Ok(Ok(connected)) => drop(connected),
        Ok(Err(error)) => {
            let found = Finding { detail: sessions.access.explain(&error).finding().detail, ..finding(&error) };
            return Err(explain_each_host(&sessions, found).await);
        }
        Err(_) => return Err(explain_each_host(&sessions, timed_out()).await),
    }
    let mut session = sessions.connect().await.map_err(|error| error.finding())?;
    sessions.refuse_pooler().await.map_err(|error| error.finding())?;
    let query = fetch(
        &session,
        "SELECT current_setting('server_version'), extract(epoch FROM clock_timestamp())::float8, \
         current_setting('max_connections')",
    );
    let rows = query.await?;
    let mut findings = Vec::new();
    let Some(server) = rows.first() else { return Err(timed_out()) };
    let difference = (server.get::<_, f64>(1) - clock.now().micros() as f64 / 1e6).abs();
    if difference > MAX_CLOCK_DIFFERENCE {
        findings.push(Finding::new(
            Fault::ClocksDiffer,
            format!("this machine's clock and PostgreSQL's differ by {difference:.1} s"),
        ));
    }
    let (pending, mut deployment) = (pending_migrations(&mut session).await?, None);
    let migrating = Sessions::for_migrations(config).map_err(|error| error.finding())?;
    let migrates = pending > 0 && config.migrate;
    let place = schema::check_place(&session.client, migrates && migrating.is_none());
    timeout(QUERY_TIMEOUT, place).await.map_err(|_| timed_out())?.map_err(|error| error.finding())?;
    if pending > 0 {
        let behind = migrating.is_none() && sessions.pooled;
        let remedy = if behind { format!(": {}", migrations::BEHIND_A_POOLER) } else { String::new() };
        findings.push(Finding::new(Fault::StoreNotMigrated, format!("{pending} migrations are pending{remedy}")));
    }
    if let Some(migrating) = &migrating {
        findings.extend(check_migrations(migrating, migrates).await.err());
    }
    if pending == 0 || !config.migrate {
        // A node that does not migrate waits for what it lacks.
        let checked = timeout(QUERY_TIMEOUT, schema::check(&session.client)).await.map_err(|_| timed_out())?;
        findings.extend(checked.err().map(|error| error.finding()));
    }
    if pending == 0 {
        deployment = check_rows(&session, &mut findings).await;
        findings.extend(relaying_nodes(&session).await.unwrap_or_else(Some));
        let additions = timeout(QUERY_TIMEOUT, schema::find_additions(&session.client)).await;
        findings.extend(additions.map_err(|_| timed_out())?.unwrap_or_else(|error| Some(error.finding())));
        // Last, because a failure leaves the session in an aborted transaction.
        findings.extend(try_write(&session).await.err());
        findings.extend(try_commit(&sessions, &session).await.err());
        findings.dedup_by_key(|finding| finding.fault);
    }
    let connections: usize = Pool::ALL.iter().map(|pool| pool.size(config)).sum();
    findings.extend(check_room(&sessions, connections).await.err());
    let state = format!(
        "answers, {}; a node takes at most {connections} of its {} connections{}",
        server.get::<_, &str>(0),
        server.get::<_, &str>(2),
        deployment.map_or_else(String::new, |id| format!("; this is deployment {}", id.tag()))
    );
    Ok((Diagnosis { state, findings }, deployment))
}

/// Checks that the URL for migrations leads to a server, and that its role may make tables if it has to.
async fn check_migrations(sessions: &Sessions, migrates: bool) -> Checked<()> {
    let check = async {
        sessions.refuse_pooler().await?;
        let session = sessions.connect().await?;
        schema::check_place(&session.client, migrates).await
    };
    let checked = timeout(QUERY_TIMEOUT, check).await.map_err(|_| timed_out());
    let checked = checked.and_then(|checked| checked.map_err(|error: StoreError| error.finding()));
    checked.map_err(|Finding { fault, detail }| Finding::new(fault, format!("DATABASE_MIGRATE_URL: {detail}")))
}

/// Opens as many connections at the same time as a node may need, beside the one of the check.
async fn check_room(sessions: &Sessions, connections: usize) -> Checked<()> {
    let all = (0..connections).map(|_| sessions.open());
    match timeout(QUERY_TIMEOUT, try_join_all(all)).await {
        Ok(Ok(all)) if sessions.pooled => {
            let lent = pooler::lent(all).await;
            let detail = || {
                format!(
                    "the pooler runs {lent} transactions at a time, and a node may need {connections}: slow reads can delay \
                     sends; raise its pool (PgBouncer: default_pool_size) to {connections} for each node"
                )
            };
            if lent < connections { Err(Finding::new(Fault::StorePoolSmall, detail())) } else { Ok(()) }
        }
        // A slow server is no fault of its limits.
        Ok(Ok(_)) | Err(_) => Ok(()),
        Ok(Err(error)) => {
            let Finding { fault, detail } = finding(&error);
            Err(Finding::new(fault, format!("{detail}; a node needs up to {connections} connections")))
        }
    }
}

/// Reads the rows that a node needs at its start. Returns the deployment, if they tell it.
async fn check_rows(session: &Session, findings: &mut Vec<Finding>) -> Option<DeploymentId> {
    let failed = |found: Finding| StoreError::Failed(Cause::named(found.fault, found.detail));
    let stored = fetch(session, deployment::STORED).await.map_err(failed);
    let read = deployment::of(stored, fetch(session, deployment::CLUSTER).await.map_err(failed));
    let deployment = read.as_ref().ok().map(|deployment| deployment.id);
    findings.extend(read.err().map(|error| error.finding()));
    match fetch(session, "SELECT FROM node_keys LIMIT 1").await {
        Ok(keys) => findings.extend(keys.is_empty().then(|| StoreError::no_node_keys().finding())),
        Err(found) => findings.push(found),
    }
    deployment
}

/// The finding for a server that can't be reached. The driver's error is that of the last host; of several, each has its own.
async fn explain_each_host(sessions: &Sessions, found: Finding) -> Finding {
    let hosts = sessions.access.hosts();
    if hosts.len() < 2 {
        return found;
    }
    let asked = hosts.into_iter().map(async |(name, host)| {
        let why = match timeout(QUERY_TIMEOUT, host.connect(sessions.tls())).await {
            Ok(Ok(_connected)) => return format!("{name}: answers now"),
            Ok(Err(error)) => sessions.access.explain(&error).finding().detail,
            Err(_) => format!("no answer within {} s", QUERY_TIMEOUT.as_secs()),
        };
        format!("{name}: {why}")
    });
    Finding { detail: join_all(asked).await.join("; "), ..found }
}

fn timed_out() -> Finding {
    Finding::new(Fault::StoreSilent, format!("no answer within {} s", QUERY_TIMEOUT.as_secs()))
}

fn finding(error: &tokio_postgres::Error) -> Finding {
    match fault(error) {
        Some(Fault::StorePooled) => Finding::new(Fault::StorePooled, format!("{}: {POOLED_REMEDY}", describe(error))),
        known => Finding::new(known.unwrap_or(Fault::StoreUnreachable), describe(error)),
    }
}

async fn fetch(session: &Session, sql: &str) -> Checked<Vec<Row>> {
    let rows = timeout(QUERY_TIMEOUT, session.client.query_typed(sql, &[])).await.map_err(|_| timed_out())?;
    rows.map_err(|error| finding(&error))
}

/// Number of migrations that were not applied yet.
async fn pending_migrations(session: &mut Session) -> Checked<usize> {
    let applied = fetch(session, "SELECT to_regclass('refinery_schema_history') IS NOT NULL").await?;
    if !applied.first().is_some_and(|row| row.get(0)) {
        return Ok(migrations::POSTGRES.len());
    }
    let applied = fetch(session, "SELECT count(*) FROM refinery_schema_history").await?;
    let applied = applied.first().map_or(0, |row| row.get::<_, i64>(0));
    Ok(migrations::POSTGRES.len().saturating_sub(usize::try_from(applied).unwrap_or(0)))
}

/// Makes a conversation, stores a message in it and marks it as read, as a node does, under names that no client can use. The
/// transaction is never committed; the last statement checks what a commit would check.
const TRIAL: [&str; 9] = [
    "BEGIN",
    "SELECT FROM log LIMIT 1",
    "SELECT FROM create_conversation('switchboard check ' || pg_backend_pid(), 0::smallint, '', '', false, NULL, 'check', \
     ARRAY['switchboard check ' || pg_backend_pid()])",
    "SELECT CASE WHEN count(*) < 1 THEN refuse_lost_row('members') END FROM members \
     WHERE conversation = 'switchboard check ' || pg_backend_pid()",
    "SELECT FROM append_messages(ARRAY['switchboard check ' || pg_backend_pid()], ARRAY['switchboard check ' || pg_backend_pid()], \
     '{check}', '{check}', '{false}', '{true}', '{trial}', '{NULL}', '{false}', '{NULL}', '{NULL}', false, '{NULL}')",
    "SELECT CASE WHEN count(*) < 1 THEN refuse_lost_row('heads') END FROM heads \
     WHERE log = 'switchboard check ' || pg_backend_pid() AND seq = 1",
    "UPDATE members SET read_no = 7 WHERE conversation = 'switchboard check ' || pg_backend_pid()",
    "SELECT CASE WHEN count(*) < 1 THEN refuse_lost_row('members') END FROM members \
     WHERE conversation = 'switchboard check ' || pg_backend_pid() AND read_no = 7",
    "SET CONSTRAINTS ALL IMMEDIATE",
];

/// Reads and writes as a node does.
async fn try_write(session: &Session) -> Checked<()> {
    for sql in TRIAL {
        let done = timeout(QUERY_TIMEOUT, session.client.batch_execute(sql)).await.map_err(|_| timed_out())?;
        done.map_err(|error| match fault(&error) {
            None | Some(Fault::StoreCallsFail) if error.code().is_some() => {
                Finding::new(Fault::StoreAppendsFail, describe(&error))
            }
            _ => finding(&error),
        })?;
    }
    Ok(())
}

/// Ends the trial, and commits an entry of the server's log that stands for nothing.
const COMMIT: &str = "ROLLBACK; SELECT pg_logical_emit_message(true, 'switchboard check', '')";

/// Checks that the server commits. It says nothing while it waits for a standby that is not there.
async fn try_commit(sessions: &Sessions, session: &Session) -> Checked<()> {
    match timeout(QUERY_TIMEOUT, session.client.batch_execute(COMMIT)).await {
        // A role that may not do this proves nothing.
        Ok(_) => Ok(()),
        Err(_) => {
            // The server goes on waiting otherwise. It ends the wait with a warning.
            let _ = timeout(QUERY_TIMEOUT, session.client.cancel_token().cancel_query(sessions.tls())).await;
            let named = fetch(session, "SELECT current_setting('synchronous_standby_names')").await.unwrap_or_default();
            let names = named.first().map(|row| row.get::<_, String>(0)).filter(|names| !names.is_empty());
            let reason = names.map_or_else(String::new, |names| {
                format!(": it waits for a standby that is not connected (synchronous_standby_names is {names})")
            });
            let detail = format!("no commit within {} s{reason}", QUERY_TIMEOUT.as_secs());
            Err(Finding::new(Fault::StoreSilent, detail))
        }
    }
}

/// The nodes that gave a sign of life within `span`; none if the server does not tell.
pub async fn living(config: &StoreConfig, span: Duration) -> Vec<LivingNode> {
    let read = async {
        let session = Sessions::of(config).ok()?.connect().await.ok()?;
        let parameters: [(&(dyn ToSql + Sync), Type); 2] =
            [(&span.as_secs_f64(), Type::FLOAT8), (&(LIVING_MAX as i64), Type::INT8)];
        let rows = session.client.query_typed(watches::LIVING, &parameters).await.ok()?;
        Some(rows.iter().filter_map(watches::living_node).collect())
    };
    timeout(QUERY_TIMEOUT, read).await.ok().flatten().unwrap_or_default()
}

/// Finds nodes that reach each other only through the store.
async fn relaying_nodes(session: &Session) -> Checked<Option<Finding>> {
    let nodes = fetch(session, "SELECT node FROM alone WHERE until > clock_timestamp() ORDER BY node").await?;
    let (apart, without): (Vec<&str>, Vec<&str>) =
        nodes.iter().map(|row| row.get::<_, &str>(0)).partition(|node| node.ends_with(RelaySign::APART));
    let apart: Vec<&str> = apart.into_iter().filter_map(|node| node.strip_suffix(RelaySign::APART)).collect();
    let named = [("without Redis: ", without), ("others use another Redis: ", apart)];
    let named =
        named.iter().filter(|(_, nodes)| !nodes.is_empty()).map(|(why, nodes)| format!("{why}{}", nodes.join(", ")));
    let named = named.collect::<Vec<_>>().join("; ");
    Ok((!named.is_empty()).then(|| Finding::new(Fault::NodesRelay, named)))
}
