//! Migrations and the health check.

use std::{cmp::Ordering, time::Duration};

use async_trait::async_trait;
use tokio::sync::watch;
use tokio_postgres::Row;

use super::{
    super::{Cause, Lifecycle, Operation, Pool, Pulse, Started, StoreError, migrations},
    Postgres, deployment,
    errors::{migration_error, prepare_error},
    rows::time,
    schema,
    sessions::Session,
};
use crate::{
    degrade::Fault,
    model::{Deployment, NodeKey, NodeKeys, RestrictionMark},
};

/// The advisory lock that lets one node at a time migrate. The number is arbitrary, but only this program uses it.
const MIGRATION_LOCK: i64 = 0x5157_4249_4F41_5244;
/// Maximum time for the migrations, including the wait for another node's.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(300);
/// Maximum time to read the deployment and the keys at the start.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// The keys of nodes, newest first. One that is younger than a minute is not yet read by every node.
const NODE_KEYS: &str =
    "SELECT id, secret, created_at <= now() - interval '60 seconds' FROM node_keys ORDER BY id DESC LIMIT 8";

/// The time makes it an epoch that no earlier state of this database had, also if a later epoch than that of a restored
/// backup was lost with what came after the backup.
const NEXT_EPOCH: &str = "UPDATE deployment SET epoch = greatest(epoch + 1, $1 + 1, extract(epoch FROM clock_timestamp())::bigint) \
     WHERE epoch <= $1 RETURNING epoch";

fn node_keys(rows: &[Row]) -> Result<NodeKeys, StoreError> {
    let keys = rows.iter().filter_map(|row| Some((NodeKey::new(row.get(0), row.get(1))?, row.get(2))));
    NodeKeys::new(keys).ok_or_else(StoreError::no_node_keys)
}

/// A read at the start. The outer error says that the server is silent, the inner one that it refused.
async fn read_first(session: &Session, sql: &str) -> Result<Result<Vec<Row>, StoreError>, StoreError> {
    match tokio::time::timeout(READ_TIMEOUT, session.client.query_typed(sql, &[])).await {
        Ok(rows) => Ok(rows.map_err(|error| prepare_error(&error))),
        Err(_) => Err(StoreError::Unavailable(Cause::named(Fault::StoreSilent, "no answer within 5 s"))),
    }
}

impl Postgres {
    /// The server answers and takes no writes. Sessions that are open may be of the same server, so none is used again.
    fn refuses_writes(&self, standby: bool) -> StoreError {
        self.liveness.reject_open_sessions();
        let why = if standby { "the server became a standby" } else { "the server's transactions became read-only" };
        StoreError::Unavailable(Cause::named(Fault::StoreRefusesWrites, why))
    }

    /// Refuses a database that lacks a part or a right. Without `migrated`, a part may come with a migration that another
    /// node or an operator applies: until then the store counts as away.
    async fn check_schema(&self, session: &Session, migrated: bool) -> Result<(), StoreError> {
        let late = |_| StoreError::Unavailable(Cause::named(Fault::StoreSilent, "no answer within 5 s"));
        tokio::time::timeout(READ_TIMEOUT, schema::check_place(&session.client, false)).await.map_err(late)??;
        let checked = tokio::time::timeout(READ_TIMEOUT, schema::check(&session.client)).await.map_err(late)?;
        match checked {
            Err(StoreError::Failed(cause))
                if !migrated
                    && cause.fault == Some(Fault::StoreLacksPart)
                    && schema::compare(&session.client).await == Ordering::Less =>
            {
                let detail = format!("{}. A migration is missing: run switchboard migrate", cause.detail);
                Err(StoreError::Unavailable(Cause::named(Fault::StoreNotMigrated, detail)))
            }
            checked => checked,
        }
    }

    /// Applies pending migrations, over sessions of their own if there is a URL for them. With `always`, a role that could
    /// apply none is an error also if none is pending.
    async fn apply_migrations(&self, always: bool) -> Result<usize, StoreError> {
        let sessions = self.migrating.as_ref().unwrap_or(&self.sessions);
        sessions.refuse_pooler().await?;
        let mut session = bb8::ManageConnection::connect(sessions).await?;
        if sessions.pooled {
            return match schema::compare(&session.client).await {
                Ordering::Equal => Ok(0),
                Ordering::Less => {
                    Err(StoreError::Failed(Cause::named(Fault::StoreNotMigrated, migrations::BEHIND_A_POOLER)))
                }
                Ordering::Greater => Err(StoreError::Failed(
                    "a newer version of the program applied more migrations than this one knows".into(),
                )),
            };
        }
        if !always && schema::need_not_migrate(&session.client).await {
            return Ok(0);
        }
        if schema::compare(&session.client).await == Ordering::Less {
            schema::check_place(&session.client, true).await?;
        }
        let migrating = tokio::time::timeout(MIGRATION_TIMEOUT, async {
            // The lock ends with its transaction, so that no pooler can keep it after this session.
            let locking = sessions.open().await.map_err(|error| migration_error(&error))?;
            let lock = format!(
                "BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0; \
                 SET LOCAL idle_in_transaction_session_timeout = 0; SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"
            );
            locking.batch_execute(&lock).await.map_err(|error| migration_error(&error))?;
            let unlimited =
                "SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0";
            session.client.batch_execute(unlimited).await.map_err(|error| migration_error(&error))?;
            let report = migrations::runner(migrations::POSTGRES)?.run_async(&mut session.client).await;
            report.map(|report| report.applied_migrations().len()).map_err(|error| migration_error(&error))
        });
        let late = |_| StoreError::Unavailable("migrations took longer than 300 s".into());
        migrating.await.map_err(late)?
    }
}

#[async_trait]
impl Lifecycle for Postgres {
    async fn start(&self, migrate: bool) -> Result<Started, StoreError> {
        if !migrate || self.migrating.is_some() {
            self.sessions.refuse_pooler().await?;
        }
        let migrations = if migrate { self.apply_migrations(false).await? } else { 0 };
        let session = bb8::ManageConnection::connect(&self.sessions).await?;
        self.check_schema(&session, migrate).await?;
        // Over this session, because a busy server may take long to open one for a pool.
        let keys = read_first(&session, NODE_KEYS).await?.and_then(|rows| node_keys(&rows));
        let deployment = deployment::of(
            read_first(&session, deployment::STORED).await?,
            read_first(&session, deployment::CLUSTER).await?,
        )?;
        self.open_pools();
        Ok(Started { migrations, deployment, keys })
    }

    async fn migrate(&self) -> Result<usize, StoreError> {
        let applied = self.apply_migrations(true).await?;
        self.open_pools();
        Ok(applied)
    }

    async fn ping(&self) -> Result<Pulse, StoreError> {
        let sql = "SELECT EXISTS (SELECT FROM alone WHERE until > clock_timestamp()), clock_timestamp(), r.id, r.made_at, \
             pg_is_in_recovery(), current_setting('transaction_read_only') = 'on', present_epoch() \
             FROM deployment \
             LEFT JOIN LATERAL (SELECT id, made_at FROM restriction_changes ORDER BY id DESC LIMIT 1) r ON true";
        let rows = match self.query(Operation::Ping, sql, &[]).await {
            // A connection that broke is no outage: a new one tells.
            Err(StoreError::Unknown(_)) => self.query(Operation::Ping, sql, &[]).await?,
            result => result?,
        };
        self.try_after_refusal();
        let row = rows.first().ok_or_else(StoreError::no_deployment)?;
        if row.get(4) || row.get(5) {
            return Err(self.refuses_writes(row.get(4)));
        }
        let restrictions = match (row.get(2), row.get(3)) {
            (Some(id), Some(at)) => RestrictionMark { id, at: time(at) },
            _ => RestrictionMark::default(),
        };
        Ok(Pulse { relays: row.get(0), restrictions, at: time(row.get(1)), epoch: row.get(6) })
    }

    async fn node_keys(&self) -> Result<NodeKeys, StoreError> {
        node_keys(&self.query(Operation::Read, NODE_KEYS, &[]).await?)
    }

    async fn deployment(&self) -> Result<Deployment, StoreError> {
        let stored = self.query(Operation::Read, deployment::STORED, &[]).await;
        deployment::of(stored, self.query(Operation::Read, deployment::CLUSTER, &[]).await)
    }

    async fn next_epoch(&self, known: i64) -> Result<i64, StoreError> {
        let rows = self.query(Operation::Write, NEXT_EPOCH, &[&known]).await?;
        match rows.first() {
            Some(row) => Ok(row.get(0)),
            None => Ok(self.deployment().await?.epoch),
        }
    }

    fn reconnects(&self) -> watch::Receiver<u64> {
        self.sessions.reconnects()
    }

    fn refused_heavy_reads(&self, span: Duration) -> bool {
        let refused = |pool| self.pool(pool).is_some_and(|pooled| pooled.turns.refused_within(span));
        refused(Pool::List) || refused(Pool::Search)
    }
}
