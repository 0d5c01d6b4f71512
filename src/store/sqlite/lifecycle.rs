//! Migrations, and a sign of life.

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::{
    super::{Lifecycle, Operation, StoreError},
    Job, Sqlite,
};

mod embedded {
    refinery::embed_migrations!("migrations/sqlite");
}

#[async_trait]
impl Lifecycle for Sqlite {
    async fn migrate(&self) -> Result<usize, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let report = embedded::migrations::runner().run(connection);
            let report = report.map(|report| report.applied_migrations().len());
            let _gone = answer.send(report.map_err(|error| StoreError::Failed(error.to_string())));
        });
        let failed = |_| StoreError::Failed("the store's thread ended".into());
        self.writer.send(job).await.map_err(|_| StoreError::Failed("the store's thread ended".into()))?;
        answered.await.map_err(failed)?
    }

    async fn ping(&self) -> Result<bool, StoreError> {
        self.call(Operation::Ping, |connection| connection.query_row("SELECT false", [], |row| row.get(0))).await
    }
}
