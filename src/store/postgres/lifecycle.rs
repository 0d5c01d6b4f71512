//! Migrations and the health check.

use std::time::Duration;

use async_trait::async_trait;

use super::{
    super::{Lifecycle, Operation, StoreError, migrations},
    Postgres, describe,
    rows::unreadable,
};

/// The advisory lock that lets one node at a time migrate. The number is arbitrary, but only this program uses it.
const MIGRATION_LOCK: i64 = 0x5157_4249_4F41_5244;
/// Maximum time for the migrations, including the wait for another node's.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(300);

#[async_trait]
impl Lifecycle for Postgres {
    async fn migrate(&self) -> Result<usize, StoreError> {
        let mut session = bb8::ManageConnection::connect(&self.sessions).await?;
        let failed = |error: tokio_postgres::Error| StoreError::Failed(describe(&error));
        let migrating = tokio::time::timeout(MIGRATION_TIMEOUT, async {
            // The lock ends with the session, which is dropped at the end of this function.
            let lock =
                format!("SET statement_timeout = 0; SET lock_timeout = 0; SELECT pg_advisory_lock({MIGRATION_LOCK})");
            session.client.batch_execute(&lock).await.map_err(failed)?;
            let report = migrations::runner(migrations::POSTGRES)?.run_async(&mut session.client).await;
            report.map(|report| report.applied_migrations().len()).map_err(|error| unreadable(&error))
        });
        migrating.await.unwrap_or_else(|_| Err(StoreError::Unavailable("migrations took longer than 300 s".into())))
    }

    async fn ping(&self) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT FROM alone WHERE until > clock_timestamp())";
        let rows = self.query(Operation::Ping, sql, &[]).await?;
        Ok(rows.first().is_some_and(|row| row.get(0)))
    }
}
