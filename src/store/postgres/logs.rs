//! Appends to logs, and reads them.
//!
//! An append is one call of `append_messages` or `append_change` (in `migrations/postgres`), which is one transaction.

use std::time::SystemTime;

use async_trait::async_trait;
use tokio_postgres::{Row, types::ToSql};

use super::{
    super::{
        AppendRefused, Appended, Authority, Ends, Logs, NewEntry, Operation, Outcome, StoreError, StoredCommand,
        codes::{AppendCode, AuthorityCode},
        fingerprint::Fingerprint,
        row::{Columns, ENDS_AT_SPAN, ENTRY_COLUMNS, entry_columns, inbox_entry},
    },
    Postgres,
    rows::{entry, log, system_time, time},
};
use crate::model::{ClientId, Entry, EntryStamp, LogId, Seq, Timestamp, UserId};

/// The columns that [`outcome`] reads.
macro_rules! outcome_columns {
    () => {
        "o_outcome, o_seq, o_message_no, o_at"
    };
}

const APPEND_MESSAGES: &str = concat!(
    "SELECT ",
    outcome_columns!(),
    " FROM append_messages($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"
);
const APPEND_CHANGE: &str = concat!(
    "SELECT ",
    outcome_columns!(),
    ", o_inbox_seq FROM append_change($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)"
);
const NEWEST: &str = concat!(
    "SELECT ",
    entry_columns!("l."),
    " FROM heads h JOIN log l ON l.log = h.log AND l.seq = h.seq WHERE h.log = ANY ($1)"
);
const READ_BACK: &str = concat!(
    "SELECT ",
    entry_columns!("l."),
    " FROM unnest($1::text[], $2::bigint[]) AS s (log, seq) JOIN log l ON l.log = s.log AND l.seq = s.seq \
     ORDER BY l.log, l.seq"
);
const STAMPS: &str = "SELECT s.log, s.seq, l.created_at FROM unnest($1::text[], $2::bigint[]) AS s (log, seq) \
     JOIN log l ON l.log = s.log AND l.seq = s.seq";
const ENDS_AT: &str = "SELECT h.log, coalesce( \
         (SELECT l.seq FROM log l WHERE l.log = h.log AND l.seq > h.seq - $3 AND l.created_at <= s.at \
             ORDER BY l.seq DESC LIMIT 1), \
         CASE WHEN h.seq > $3 THEN h.seq ELSE h.removed_seq END) \
     FROM unnest($1::text[], $2::timestamptz[]) AS s (log, at) JOIN heads h ON h.log = s.log";
const ENTRIES: &str =
    concat!("SELECT ", entry_columns!(), " FROM log WHERE log = $1 AND seq > $2 ORDER BY seq LIMIT $3");
const STORED: &str =
    concat!("SELECT ", entry_columns!(), ", fingerprint FROM log WHERE log = $1 AND sender = $2 AND dedupe = $3");

impl Postgres {
    async fn append_messages(&self, batch: &[NewEntry], retried: bool) -> Result<Vec<Outcome>, StoreError> {
        let columns: Vec<Columns<'_>> = batch.iter().map(|entry| Columns::from(&entry.body)).collect();
        let logs: Vec<&str> = batch.iter().map(|entry| entry.log.as_str()).collect();
        let senders: Vec<&str> = batch.iter().map(|entry| entry.sender.as_str()).collect();
        let names: Vec<&str> = batch.iter().map(|entry| &*entry.sender_name).collect();
        let dedupes: Vec<&str> = batch.iter().map(|entry| entry.dedupe.as_str()).collect();
        let client_gave_ids: Vec<bool> = batch.iter().map(|entry| entry.client_gave_id).collect();
        let must_be_member: Vec<bool> = batch.iter().map(|entry| entry.authority == Authority::Member).collect();
        let contents: Vec<Option<&str>> = columns.iter().map(|columns| columns.content).collect();
        let targets: Vec<Option<Seq>> = columns.iter().map(|columns| columns.target).collect();
        let flags: Vec<bool> = columns.iter().map(|columns| columns.flag).collect();
        let personas: Vec<Option<&str>> = columns.iter().map(|columns| columns.subject).collect();
        let data: Vec<Option<&str>> = columns.iter().map(|columns| columns.data).collect();
        let fingerprints: Vec<Option<i64>> =
            batch.iter().map(|entry| Fingerprint::of(entry).map(Fingerprint::number)).collect();
        let rows = self
            .query(
                Operation::Append,
                APPEND_MESSAGES,
                &[
                    &logs,
                    &senders,
                    &names,
                    &dedupes,
                    &client_gave_ids,
                    &must_be_member,
                    &contents,
                    &targets,
                    &flags,
                    &personas,
                    &data,
                    &retried,
                    &fingerprints,
                ],
            )
            .await?;
        if rows.len() != batch.len() {
            return Err(StoreError::Failed("append_messages did not answer for each entry".into()));
        }
        rows.iter().map(outcome).collect()
    }

    async fn append_change(&self, new: &NewEntry, retried: bool) -> Result<Outcome, StoreError> {
        let Columns { kind, content, data, target, subject, flag } = Columns::from(&new.body);
        let (kind, authority) = (i16::from(kind), i16::from(AuthorityCode::from(new.authority)));
        let (log, sender, dedupe) = (new.log.as_str(), new.sender.as_str(), new.dedupe.as_str());
        let fingerprint = Fingerprint::of(new).map(Fingerprint::number);
        let rows = self
            .query(
                Operation::Append,
                APPEND_CHANGE,
                &[
                    &log,
                    &kind,
                    &sender,
                    &&*new.sender_name,
                    &dedupe,
                    &new.client_gave_id,
                    &authority,
                    &content,
                    &target,
                    &subject,
                    &flag,
                    &data,
                    &retried,
                    &fingerprint,
                ],
            )
            .await?;
        let row = rows.first().ok_or_else(|| StoreError::Failed("append_change did not answer".into()))?;
        let mut outcome = outcome(row)?;
        if let (Ok(appended), Some(seq)) = (&mut outcome, row.get::<_, Option<Seq>>(4)) {
            appended.also = inbox_entry(new, appended, seq).into_iter().collect();
        }
        Ok(outcome)
    }
}

/// Reads the result of an append. A code of a newer version may mean "stored", so its outcome is unknown.
fn outcome(row: &Row) -> Result<Outcome, StoreError> {
    let code = AppendCode::try_from(row.get::<_, i16>(0)).map_err(|error| StoreError::Unknown(error.to_string()))?;
    let appended = |duplicate| Appended {
        seq: row.get(1),
        message_no: row.get(2),
        at: time(row.get(3)),
        duplicate,
        also: Vec::new(),
    };
    Ok(match code {
        AppendCode::Stored => Ok(appended(false)),
        AppendCode::StoredBefore => Ok(appended(true)),
        AppendCode::NotMember => Err(AppendRefused::NotMember),
        AppendCode::NoSuchLog => Err(AppendRefused::NoSuchLog),
        AppendCode::NoSuchTarget => Err(AppendRefused::NoSuchTarget),
        AppendCode::NotYours => Err(AppendRefused::NotYours),
        AppendCode::Unchanged => Err(AppendRefused::Unchanged),
        AppendCode::TooManyReactions => Err(AppendRefused::TooManyReactions),
        AppendCode::Barred => Err(AppendRefused::Barred),
        AppendCode::IdReused => Err(AppendRefused::IdReused),
    })
}

#[async_trait]
impl Logs for Postgres {
    async fn append(&self, batch: &[NewEntry], retried: bool) -> Result<Vec<Outcome>, StoreError> {
        match batch {
            [one] if !one.body.is_message() => Ok(vec![self.append_change(one, retried).await?]),
            _ => self.append_messages(batch, retried).await,
        }
    }

    async fn ends(&self, logs: &[LogId]) -> Result<Vec<(LogId, Ends)>, StoreError> {
        let names: Vec<&str> = logs.iter().map(LogId::as_str).collect();
        let sql = "SELECT log, seq, updated_at, removed_seq FROM heads WHERE log = ANY ($1)";
        let rows = self.query(Operation::Read, sql, &[&names]).await?;
        rows.iter().map(|row| Ok((log(row.get(0))?, Ends::of(row.get(1), time(row.get(2)), row.get(3))))).collect()
    }

    async fn stamps(&self, entries: &[(LogId, Seq)]) -> Result<Vec<(LogId, EntryStamp)>, StoreError> {
        let (logs, seqs): (Vec<&str>, Vec<Seq>) = entries.iter().map(|(log, seq)| (log.as_str(), *seq)).unzip();
        let rows = self.query(Operation::Read, STAMPS, &[&logs, &seqs]).await?;
        let stamp = |row: &Row| EntryStamp { seq: row.get(1), at: time(row.get(2)) };
        rows.iter().map(|row| Ok((log(row.get(0))?, stamp(row)))).collect()
    }

    async fn ends_at(&self, logs: &[(LogId, Timestamp)]) -> Result<Vec<(LogId, Seq)>, StoreError> {
        let (names, times): (Vec<&str>, Vec<SystemTime>) =
            logs.iter().map(|(log, at)| (log.as_str(), system_time(*at))).unzip();
        let rows = self.query(Operation::Read, ENDS_AT, &[&names, &times, &ENDS_AT_SPAN]).await?;
        rows.iter().map(|row| Ok((log(row.get(0))?, row.get(1)))).collect()
    }

    async fn newest(&self, logs: &[LogId]) -> Result<Vec<Entry>, StoreError> {
        let names: Vec<&str> = logs.iter().map(LogId::as_str).collect();
        self.query(Operation::Read, NEWEST, &[&names]).await?.iter().map(entry).collect()
    }

    async fn stored(
        &self,
        log: &LogId,
        sender: &UserId,
        client_id: &ClientId,
    ) -> Result<Option<StoredCommand>, StoreError> {
        let parameters: [&(dyn ToSql + Sync); 3] = [&log.as_str(), &sender.as_str(), &client_id.as_str()];
        let rows = self.query(Operation::Read, STORED, &parameters).await?;
        rows.first().map(|row| Ok(StoredCommand::new(entry(row)?, row.get(ENTRY_COLUMNS)))).transpose()
    }

    async fn entries(&self, log: &LogId, after: Seq, limit: u32) -> Result<Vec<Entry>, StoreError> {
        let (log, limit) = (log.as_str(), i64::from(limit));
        self.query(Operation::Read, ENTRIES, &[&log, &after, &limit]).await?.iter().map(entry).collect()
    }

    async fn read_back(&self, entries: &[(LogId, Seq)]) -> Result<Vec<Entry>, StoreError> {
        let (logs, seqs): (Vec<&str>, Vec<Seq>) = entries.iter().map(|(log, seq)| (log.as_str(), *seq)).unzip();
        self.query(Operation::Append, READ_BACK, &[&logs, &seqs]).await?.iter().map(entry).collect()
    }
}
