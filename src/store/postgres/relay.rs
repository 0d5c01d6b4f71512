//! Notices through which nodes relay new entries while Redis is away.

use std::time::Duration;

use async_trait::async_trait;

use super::{
    super::{Notices, Operation, Relay, RelaySign, StoreError},
    Postgres,
    rows::log,
};
use crate::model::{LogId, Seq};

#[async_trait]
impl Relay for Postgres {
    async fn give_notice(&self, sign: &RelaySign, valid: Duration, grown: &[(LogId, Seq)]) -> Result<(), StoreError> {
        let (logs, seqs): (Vec<&str>, Vec<Seq>) = grown.iter().map(|(log, seq)| (log.as_str(), *seq)).unzip();
        let sql = "SELECT give_notice($1, $2, $3, $4)";
        self.query(Operation::Relay, sql, &[&sign.to_string(), &valid.as_secs_f64(), &logs, &seqs]).await.map(drop)
    }

    async fn withdraw_notice(&self, sign: &RelaySign) -> Result<(), StoreError> {
        self.query(Operation::Relay, "SELECT withdraw_notice($1)", &[&sign.to_string()]).await.map(drop)
    }

    async fn notices(&self, span: Duration) -> Result<Notices, StoreError> {
        let sql = "SELECT log, seq FROM notices WHERE at > clock_timestamp() - make_interval(secs => $1)";
        let (rows, complete_since) = self.query_and_age(Operation::Relay, sql, &[&span.as_secs_f64()]).await?;
        let heads: Result<_, _> = rows.iter().map(|row| Ok::<_, StoreError>((log(row.get(0))?, row.get(1)))).collect();
        Ok(Notices { heads: heads?, complete_since })
    }
}
