//! Appends to logs, and reads them. Each append runs in its caller's transaction on the only thread that writes, so it
//! needs no locks.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Result, params};

use super::{
    super::{
        AppendRefused, Appended, Authority, Ends, Logs, NewEntry, Operation, Outcome, StoreError, StoredCommand,
        codes::EntryKind,
        fingerprint::Fingerprint,
        row::{Columns, ENDS_AT_SPAN, ENTRY_COLUMNS, entry_columns, inbox_entry},
        values::{REACTIONS_DIFFERENT, REACTIONS_IN_ALL, REACTIONS_OF_USER},
    },
    Sqlite, now,
    rights::{is_blocked_in_direct, may_add, record_former_member},
    rows::{entry, time},
};
use crate::model::{Body, ClientId, Data, Entry, EntryStamp, LogId, Seq, Timestamp, UserId};

const NEWEST: &str = concat!(
    "SELECT ",
    entry_columns!("l."),
    " FROM heads h JOIN log l ON l.log = h.log AND l.seq = h.seq WHERE h.log = ?1"
);
const ENTRIES: &str =
    concat!("SELECT ", entry_columns!(), " FROM log WHERE log = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3");
const STORED: &str =
    concat!("SELECT ", entry_columns!(), ", fingerprint FROM log WHERE log = ?1 AND sender = ?2 AND dedupe = ?3");

#[async_trait]
impl Logs for Sqlite {
    async fn append(&self, batch: &[NewEntry], retried: bool) -> Result<Vec<Outcome>, StoreError> {
        let batch = batch.to_vec();
        self.write(Operation::Append, move |db| batch.iter().map(|new| append_one(db, new, retried)).collect()).await
    }

    async fn ends(&self, logs: &[LogId]) -> Result<Vec<(LogId, Ends)>, StoreError> {
        let logs = logs.to_vec();
        self.read(Operation::Read, move |db| ends(db, logs)).await
    }

    async fn stamps(&self, entries: &[(LogId, Seq)]) -> Result<Vec<(LogId, EntryStamp)>, StoreError> {
        let entries = entries.to_vec();
        self.read(Operation::Read, move |db| stamps(db, entries)).await
    }

    async fn ends_at(&self, logs: &[(LogId, Timestamp)]) -> Result<Vec<(LogId, Seq)>, StoreError> {
        let logs = logs.to_vec();
        self.read(Operation::Read, move |db| ends_at(db, logs)).await
    }

    async fn newest(&self, logs: &[LogId]) -> Result<Vec<Entry>, StoreError> {
        let logs = logs.to_vec();
        self.read(Operation::Read, move |db| {
            let mut statement = db.prepare_cached(NEWEST)?;
            let newest = logs.iter().map(|log| statement.query_row([log.as_str()], entry).optional());
            newest.filter_map(Result::transpose).collect()
        })
        .await
    }

    async fn stored(
        &self,
        log: &LogId,
        sender: &UserId,
        client_id: &ClientId,
    ) -> Result<Option<StoredCommand>, StoreError> {
        let (log, sender, id) = (log.clone(), sender.clone(), client_id.clone());
        self.read(Operation::Read, move |db| {
            let stored = |row: &rusqlite::Row<'_>| Ok(StoredCommand::new(entry(row)?, row.get(ENTRY_COLUMNS)?));
            db.prepare_cached(STORED)?.query_row((log.as_str(), sender.as_str(), id.as_str()), stored).optional()
        })
        .await
    }

    async fn entries(&self, log: &LogId, after: Seq, limit: u32) -> Result<Vec<Entry>, StoreError> {
        let log = log.clone();
        self.read(Operation::Read, move |db| entries(db, &log, after, limit)).await
    }

    async fn read_back(&self, wanted: &[(LogId, Seq)]) -> Result<Vec<Entry>, StoreError> {
        let wanted = wanted.to_vec();
        let read = move |db: &mut Connection| {
            wanted.iter().map(|(log, seq)| entries(db, log, seq - 1, 1)).collect::<Result<Vec<_>>>()
        };
        Ok(self.call(Operation::Append, read).await?.concat())
    }
}

/// The head of a log.
pub(super) struct Head {
    pub(super) seq: Seq,
    pub(super) message_no: i64,
    /// The entries up to this seq were removed.
    pub(super) removed: Seq,
}

pub(super) fn head(db: &Connection, log: &LogId) -> Result<Option<Head>> {
    let sql = "SELECT seq, message_no, removed_seq FROM heads WHERE log = ?1";
    let read = |row: &rusqlite::Row<'_>| Ok(Head { seq: row.get(0)?, message_no: row.get(1)?, removed: row.get(2)? });
    db.prepare_cached(sql)?.query_row([log.as_str()], read).optional()
}

/// Judges the rights of the sender; none if the entry may be appended.
fn check_rights(db: &Connection, new: &NewEntry) -> Result<Option<AppendRefused>> {
    let (log, sender) = (&new.log, &new.sender);
    if new.authority == Authority::Member {
        if !is_member(db, log, sender)? {
            return Ok(Some(AppendRefused::NotMember));
        }
        let reaches_others = matches!(&new.body, Body::Message { .. } | Body::Edited { .. } | Body::Reacted { .. });
        if reaches_others && is_blocked_in_direct(db, log, sender)? {
            return Ok(Some(AppendRefused::Barred));
        }
    }
    match &new.body {
        Body::MemberAdded { user } if !may_add(db, new, user)? => Ok(Some(AppendRefused::Barred)),
        _ => Ok(None),
    }
}

fn is_member(db: &Connection, log: &LogId, user: &UserId) -> Result<bool> {
    db.prepare_cached("SELECT 1 FROM members WHERE conversation = ?1 AND user_id = ?2")?
        .exists((log.as_str(), user.as_str()))
}

/// Appends one entry: checks the sender's rights and earlier appends, then numbers it. A refusal changes nothing.
fn append_one(db: &Connection, new: &NewEntry, retried: bool) -> Result<Outcome> {
    let Some(head) = head(db, &new.log)? else { return Ok(Err(AppendRefused::NoSuchLog)) };
    let stored = find_stored(db, new)?;
    if let (None, _) | (_, false) = (&stored, retried)
        && let Some(refused) = check_rights(db, new)?
    {
        return Ok(Err(refused));
    }
    if let Some(stored) = stored {
        return Ok(stored);
    }
    if let Err(refused) = check_target(db, new)? {
        return Ok(Err(refused));
    }
    if reactions_full(db, new)? {
        return Ok(Err(AppendRefused::TooManyReactions));
    }
    let at = now();
    if !apply_change(db, new, &head, at)? {
        return Ok(Err(AppendRefused::Unchanged));
    }
    record_former_member(db, new, at)?;
    let (seq, message_no) = insert(db, &new.log, new, at)?;
    if new.body.is_message() {
        mark_read_by_sender(db, new, (seq, message_no), at)?;
    }
    let at = Timestamp::from_micros(at);
    let mut appended = Appended { seq, message_no, at, duplicate: false, also: Vec::new() };
    if let Some(entry) = inbox_entry(new, &appended, 0) {
        appended.also.push(append_to_inbox(db, entry)?);
    }
    Ok(Ok(appended))
}

/// The outcome of an append whose id is stored already; none if it is not.
fn find_stored(db: &Connection, new: &NewEntry) -> Result<Option<Outcome>> {
    let sql = "SELECT seq, message_no, created_at, kind, fingerprint FROM log \
         WHERE log = ?1 AND sender = ?2 AND dedupe = ?3";
    let read = |row: &rusqlite::Row<'_>| {
        let appended = Appended {
            seq: row.get(0)?,
            message_no: row.get(1)?,
            at: Timestamp::from_micros(row.get(2)?),
            duplicate: true,
            also: Vec::new(),
        };
        Ok((appended, row.get::<_, i16>(3)?, row.get::<_, Option<i64>>(4)?))
    };
    let stored = db
        .prepare_cached(sql)?
        .query_row((new.log.as_str(), new.sender.as_str(), new.dedupe.as_str()), read)
        .optional()?;
    let (kind, fingerprint) = (i16::from(Columns::from(&new.body).kind), Fingerprint::of(new).map(Fingerprint::number));
    Ok(stored.map(|(appended, stored_kind, known)| {
        let differs = known.zip(fingerprint).is_some_and(|(known, new)| known != new);
        if stored_kind != kind || differs { Err(AppendRefused::IdReused) } else { Ok(appended) }
    }))
}

/// Checks that the target message of an entry exists, and that the sender may change it.
fn check_target(db: &Connection, new: &NewEntry) -> Result<std::result::Result<(), AppendRefused>> {
    let (target, own) = match &new.body {
        Body::Message { reply_to: Some(target), .. } | Body::Reacted { target, .. } => (*target, false),
        Body::Edited { target, .. } => (*target, true),
        Body::Deleted { target } => (*target, new.authority == Authority::Member),
        _ => return Ok(Ok(())),
    };
    let sql = "SELECT sender, deleted FROM log WHERE log = ?1 AND seq = ?2 AND kind = 0";
    let found: Option<(String, bool)> = db
        .prepare_cached(sql)?
        .query_row((new.log.as_str(), target), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(match found {
        None => Err(AppendRefused::NoSuchTarget),
        Some((_, true)) if !new.body.is_message() => Err(AppendRefused::NoSuchTarget),
        Some((sender, _)) if own && sender != new.sender.as_str() => Err(AppendRefused::NotYours),
        Some(_) => Ok(()),
    })
}

/// True if an entry adds a reaction that a bound of its message does not allow.
fn reactions_full(db: &Connection, new: &NewEntry) -> Result<bool> {
    let Body::Reacted { target, emoji, active: true } = &new.body else { return Ok(false) };
    let (log, user) = (new.log.as_str(), new.sender.as_str());
    let sql =
        "SELECT count(*), coalesce(max(emoji = ?4), 0) FROM reactions WHERE log = ?1 AND seq = ?2 AND user_id = ?3";
    let of_user = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?));
    let (count, known) = db.prepare_cached(sql)?.query_row(params![log, target, user, &**emoji], of_user)?;
    if known || count >= REACTIONS_OF_USER {
        return Ok(!known);
    }
    let sql = "SELECT count(*), coalesce(max(emoji = ?3), 0), count(DISTINCT emoji) FROM reactions \
         WHERE log = ?1 AND seq = ?2";
    let of_message =
        |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?, row.get::<_, i64>(2)?));
    let (count, known, different) = db.prepare_cached(sql)?.query_row(params![log, target, &**emoji], of_message)?;
    Ok(count >= REACTIONS_IN_ALL || (!known && different >= REACTIONS_DIFFERENT))
}

/// Applies an entry's changes outside the log's own rows; false if there is nothing to change.
fn apply_change(db: &Connection, new: &NewEntry, head: &Head, at: i64) -> Result<bool> {
    let log = new.log.as_str();
    let changed = match &new.body {
        Body::Edited { target, content, data } => {
            if !data.is_kept() {
                let sql = "UPDATE log SET data = ?3 WHERE log = ?1 AND seq = ?2";
                db.execute(sql, params![log, target, data.data().map(Data::as_str)])?;
            }
            let sql = "UPDATE log SET content = ?3, edited_at = ?4 WHERE log = ?1 AND seq = ?2";
            db.execute(sql, params![log, target, &**content, at])?
        }
        Body::Deleted { target } => {
            db.execute("DELETE FROM reactions WHERE log = ?1 AND seq = ?2", params![log, target])?;
            // The texts and data of earlier edits must not be readable either, nor what they could be guessed from.
            let edits = "UPDATE log SET content = '', data = NULL, fingerprint = NULL \
                 WHERE log = ?1 AND seq > ?2 AND kind = 1 AND target = ?2";
            db.execute(edits, params![log, target])?;
            let sql = "UPDATE log SET content = '', data = NULL, deleted = 1, fingerprint = NULL \
                 WHERE log = ?1 AND seq = ?2";
            db.execute(sql, params![log, target])?
        }
        Body::Reacted { target, emoji, active } => {
            let sql = if *active {
                "INSERT INTO reactions (log, seq, user_id, emoji) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING"
            } else {
                "DELETE FROM reactions WHERE log = ?1 AND seq = ?2 AND user_id = ?3 AND emoji = ?4"
            };
            db.execute(sql, params![log, target, new.sender.as_str(), &**emoji])?
        }
        Body::MemberAdded { user } => {
            add_user(db, user)?;
            db.execute(
                "INSERT INTO members (conversation, user_id, joined_at, delivered_seq, read_seq, read_no) \
                 VALUES (?1, ?2, ?3, ?4, ?4, ?5) ON CONFLICT DO NOTHING",
                params![log, user.as_str(), at, head.seq, head.message_no],
            )?
        }
        Body::MemberRemoved { user } => {
            db.execute("DELETE FROM members WHERE conversation = ?1 AND user_id = ?2", (log, user.as_str()))?
        }
        _ => 1,
    };
    Ok(changed > 0)
}

fn insert(db: &Connection, log: &LogId, new: &NewEntry, at: i64) -> Result<(Seq, i64)> {
    let Columns { kind, content, data, target, subject, flag } = Columns::from(&new.body);
    let sql = "UPDATE heads SET seq = seq + 1, message_no = message_no + ?2, updated_at = ?3 WHERE log = ?1 \
         RETURNING seq, message_no";
    let (seq, message_no) = db
        .prepare_cached(sql)?
        .query_row(params![log.as_str(), kind == EntryKind::Message, at], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let sql = "INSERT INTO log (log, seq, message_no, kind, sender, sender_name, dedupe, client_gave_id, content, \
         target, subject, flag, created_at, fingerprint, data) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)";
    db.prepare_cached(sql)?.execute(params![
        log.as_str(),
        seq,
        message_no,
        i16::from(kind),
        new.sender.as_str(),
        &*new.sender_name,
        new.dedupe.as_str(),
        new.client_gave_id,
        content,
        target,
        subject,
        flag,
        at,
        Fingerprint::of(new).map(Fingerprint::number),
        data
    ])?;
    Ok((seq, message_no))
}

/// Moves the sender's read mark up to the own message, which ends the run of notifications before it. The delivered mark
/// stays: a device that missed something still gets it.
fn mark_read_by_sender(db: &Connection, new: &NewEntry, (seq, message_no): (Seq, i64), at: i64) -> Result<()> {
    let (log, sender) = (new.log.as_str(), new.sender.as_str());
    let sql = "UPDATE members SET read_seq = ?3, read_no = ?4 WHERE conversation = ?1 AND user_id = ?2";
    db.prepare_cached(sql)?.execute(params![log, sender, seq, message_no])?;
    let sql = "UPDATE notifications SET read_at = ?4 \
         WHERE user_id = ?2 AND conversation = ?1 AND read_at IS NULL AND last_seq <= ?3";
    db.prepare_cached(sql)?.execute(params![log, sender, seq, at]).map(drop)
}

/// Appends an entry to an inbox, and returns it with its seq.
pub(super) fn append_to_inbox(db: &Connection, mut entry: Entry) -> Result<Entry> {
    let at = entry.at.micros();
    let sql = "INSERT INTO heads (log, updated_at) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
    db.prepare_cached(sql)?.execute((entry.log.as_str(), at))?;
    let new = NewEntry {
        log: entry.log.clone(),
        sender: entry.sender.clone(),
        sender_name: entry.sender_name.clone(),
        dedupe: ClientId::fresh(),
        client_gave_id: false,
        authority: Authority::System,
        body: entry.body.clone(),
    };
    (entry.seq, entry.message_no) = insert(db, &entry.log, &new, at)?;
    Ok(entry)
}

pub(super) fn new_inbox_entry(user: &UserId, sender: &UserId, at: i64, body: Body) -> Entry {
    Entry {
        log: LogId::inbox(user),
        seq: 0,
        message_no: 0,
        sender: sender.clone(),
        sender_name: sender.as_str().into(),
        client_id: None,
        at: Timestamp::from_micros(at),
        body,
    }
}

pub(super) fn add_user(db: &Connection, user: &UserId) -> Result<()> {
    let sql = "INSERT INTO users (id, name) VALUES (?1, ?1) ON CONFLICT DO NOTHING";
    db.prepare_cached(sql)?.execute([user.as_str()]).map(drop)
}

fn ends(db: &Connection, logs: Vec<LogId>) -> Result<Vec<(LogId, Ends)>> {
    let mut statement = db.prepare_cached("SELECT seq, updated_at, removed_seq FROM heads WHERE log = ?1")?;
    let mut found = Vec::with_capacity(logs.len());
    for log in logs {
        let read = |row: &rusqlite::Row<'_>| Ok(Ends::of(row.get(0)?, time(row, 1)?, row.get(2)?));
        found.extend(statement.query_row([log.as_str()], read).optional()?.map(|ends| (log, ends)));
    }
    Ok(found)
}

fn stamps(db: &Connection, entries: Vec<(LogId, Seq)>) -> Result<Vec<(LogId, EntryStamp)>> {
    let mut statement = db.prepare_cached("SELECT created_at FROM log WHERE log = ?1 AND seq = ?2")?;
    let mut found = Vec::with_capacity(entries.len());
    for (log, seq) in entries {
        let at = statement.query_row((log.as_str(), seq), |row| time(row, 0)).optional()?;
        found.extend(at.map(|at| (log, EntryStamp { seq, at })));
    }
    Ok(found)
}

fn ends_at(db: &Connection, logs: Vec<(LogId, Timestamp)>) -> Result<Vec<(LogId, Seq)>> {
    let mut newest = db.prepare_cached(
        "SELECT seq FROM log WHERE log = ?1 AND seq > ?2 AND created_at <= ?3 ORDER BY seq DESC LIMIT 1",
    )?;
    let mut found = Vec::with_capacity(logs.len());
    for (log, at) in logs {
        let Some(Head { seq: head, removed, .. }) = head(db, &log)? else { continue };
        let parameters = params![log.as_str(), head - ENDS_AT_SPAN, at.micros()];
        let before = newest.query_row(parameters, |row| row.get(0)).optional()?;
        found.push((log, before.unwrap_or(if head > ENDS_AT_SPAN { head } else { removed })));
    }
    Ok(found)
}

fn entries(db: &Connection, log: &LogId, after: Seq, limit: u32) -> Result<Vec<Entry>> {
    db.prepare_cached(ENTRIES)?.query_map(params![log.as_str(), after, limit], entry)?.collect()
}
