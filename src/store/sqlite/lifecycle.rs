//! Migrations and the health check.

use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row};
use tokio::sync::{oneshot, watch};

use super::{
    super::{Lifecycle, Operation, Pool, Pulse, Started, StoreError, migrations},
    Job, Sqlite, now,
    rows::time,
};
use crate::model::{Deployment, DeploymentId, NodeKey, NodeKeys, RestrictionMark, Timestamp};

/// As on PostgreSQL.
const NODE_KEYS: &str =
    "SELECT id, secret, created_at <= (unixepoch('subsec') - 60) * 1000000 FROM node_keys ORDER BY id DESC LIMIT 8";

/// As on PostgreSQL.
const NEXT_EPOCH: &str = "UPDATE deployment SET epoch = max(epoch + 1, ?1 + 1, unixepoch()) WHERE epoch <= ?1";

#[async_trait]
impl Lifecycle for Sqlite {
    async fn start(&self, migrate: bool) -> Result<Started, StoreError> {
        let migrations = if migrate { self.migrate().await? } else { 0 };
        Ok(Started { migrations, deployment: self.deployment().await?, keys: self.node_keys().await })
    }

    async fn migrate(&self) -> Result<usize, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |connection: &mut Connection| {
            let failed = |error: refinery_core::Error| StoreError::Failed(error.to_string().into());
            let report = migrations::runner(migrations::SQLITE).and_then(|all| all.run(connection).map_err(failed));
            let _gone = answer.send(report.map(|report| report.applied_migrations().len()));
        });
        let failed = |_| StoreError::Failed("the SQLite thread ended".into());
        self.writer.send(job).await.map_err(|_| StoreError::Failed("the SQLite thread ended".into()))?;
        answered.await.map_err(failed)?
    }

    async fn ping(&self) -> Result<Pulse, StoreError> {
        self.read(Operation::Ping, |connection| {
            let sql = "SELECT id, made_at FROM restriction_changes ORDER BY id DESC LIMIT 1";
            let read = |row: &Row<'_>| Ok(RestrictionMark { id: row.get(0)?, at: time(row, 1)? });
            let restrictions = connection.prepare_cached(sql)?.query_row([], read).optional()?.unwrap_or_default();
            let epoch = connection.prepare_cached("SELECT epoch FROM deployment")?.query_row([], |row| row.get(0))?;
            Ok(Pulse { relays: false, restrictions, at: Timestamp::from_micros(now()), epoch })
        })
        .await
    }

    async fn node_keys(&self) -> Result<NodeKeys, StoreError> {
        let read = |connection: &Connection| {
            let mut statement = connection.prepare(NODE_KEYS)?;
            let keys = statement.query_map([], |row| {
                let secret: Vec<u8> = row.get(1)?;
                Ok(NodeKey::new(row.get(0)?, &secret).zip(row.get(2)?))
            })?;
            keys.collect::<Result<Vec<_>, _>>()
        };
        let keys = self.read(Operation::Read, read).await?;
        NodeKeys::new(keys.into_iter().flatten()).ok_or_else(StoreError::no_node_keys)
    }

    async fn deployment(&self) -> Result<Deployment, StoreError> {
        let read = |connection: &Connection| {
            let read = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get(1)?));
            connection.query_row("SELECT id, epoch FROM deployment", [], read).optional()
        };
        let row = self.read(Operation::Read, read).await?;
        row.and_then(|(id, epoch)| Some(Deployment { id: DeploymentId::parse(&id).ok()?, epoch }))
            .ok_or_else(StoreError::no_deployment)
    }

    async fn next_epoch(&self, known: i64) -> Result<i64, StoreError> {
        self.write(Operation::Write, move |db| {
            db.prepare_cached(NEXT_EPOCH)?.execute([known])?;
            db.query_row("SELECT epoch FROM deployment", [], |row| row.get(0))
        })
        .await
    }

    fn reconnects(&self) -> watch::Receiver<u64> {
        // The file stays open.
        watch::channel(0).1
    }

    fn refused_heavy_reads(&self, span: Duration) -> bool {
        [Pool::List, Pool::Search].into_iter().any(|pool| self.turns(pool).refused_within(span))
    }
}
