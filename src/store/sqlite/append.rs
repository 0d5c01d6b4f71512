//! What writes, each inside the caller's transaction. One thread writes: the order of locks is its order of work.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use super::{
    super::{
        AppendRefused, Appended, Authority, NewEntry, Outcome, Waiting,
        row::{Columns, Kind, inbox_entry},
    },
    now,
};
use crate::model::{Body, ClientId, ConversationId, Entry, LogId, NewConversation, Seq, Timestamp, UserId};

/// A log's end.
struct Head {
    seq: Seq,
    message_no: i64,
}

fn head(db: &Connection, log: &LogId) -> Result<Option<Head>> {
    let sql = "SELECT seq, message_no FROM heads WHERE log = ?1";
    let read = |row: &rusqlite::Row<'_>| Ok(Head { seq: row.get(0)?, message_no: row.get(1)? });
    db.prepare_cached(sql)?.query_row([log.as_str()], read).optional()
}

fn is_member(db: &Connection, log: &LogId, user: &UserId) -> Result<bool> {
    db.prepare_cached("SELECT 1 FROM members WHERE conversation = ?1 AND user_id = ?2")?
        .exists((log.as_str(), user.as_str()))
}

/// Appends one entry: who may, once, numbered. Refusals change nothing.
pub(super) fn append(db: &Connection, new: &NewEntry) -> Result<Outcome> {
    let Some(head) = head(db, &new.log)? else { return Ok(Err(AppendRefused::NoSuchLog)) };
    if let Some(stored) = stored_before(db, new)? {
        return Ok(Ok(stored));
    }
    if new.authority == Authority::Member && !is_member(db, &new.log, &new.sender)? {
        return Ok(Err(AppendRefused::NotMember));
    }
    if let Err(refused) = check_target(db, new)? {
        return Ok(Err(refused));
    }
    let at = now();
    if !change(db, new, &head, at)? {
        return Ok(Err(AppendRefused::Unchanged));
    }
    let (seq, message_no) = insert(db, &new.log, new, at)?;
    let at = Timestamp::from_micros(at);
    let mut appended = Appended { seq, message_no, at, duplicate: false, also: Vec::new() };
    if let Some(entry) = inbox_entry(new, &appended, 0) {
        appended.also.push(tell(db, entry)?);
    }
    Ok(Ok(appended))
}

fn stored_before(db: &Connection, new: &NewEntry) -> Result<Option<Appended>> {
    let sql = "SELECT seq, message_no, created_at FROM log WHERE log = ?1 AND sender = ?2 AND dedupe = ?3";
    db.prepare_cached(sql)?
        .query_row((new.log.as_str(), new.sender.as_str(), new.dedupe.as_str()), |row| {
            Ok(Appended {
                seq: row.get(0)?,
                message_no: row.get(1)?,
                at: Timestamp::from_micros(row.get(2)?),
                duplicate: true,
                also: Vec::new(),
            })
        })
        .optional()
}

/// Whether the message an entry is about is there, and may be changed by its sender.
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

/// What an entry changes beside the log; false where there is nothing to change.
fn change(db: &Connection, new: &NewEntry, head: &Head, at: i64) -> Result<bool> {
    let log = new.log.as_str();
    let changed = match &new.body {
        Body::Edited { target, content } => db.execute(
            "UPDATE log SET content = ?3, edited_at = ?4 WHERE log = ?1 AND seq = ?2",
            params![log, target, &**content, at],
        )?,
        Body::Deleted { target } => {
            db.execute("DELETE FROM reactions WHERE log = ?1 AND seq = ?2", params![log, target])?;
            // Earlier texts of it must not be read either.
            let edits = "UPDATE log SET content = '' WHERE log = ?1 AND seq > ?2 AND kind = 1 AND target = ?2";
            db.execute(edits, params![log, target])?;
            let sql = "UPDATE log SET content = '', deleted = 1 WHERE log = ?1 AND seq = ?2";
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
    let Columns { kind, content, target, subject, flag } = Columns::from(&new.body);
    let sql = "UPDATE heads SET seq = seq + 1, message_no = message_no + ?2, updated_at = ?3 WHERE log = ?1 \
         RETURNING seq, message_no";
    let (seq, message_no) = db
        .prepare_cached(sql)?
        .query_row(params![log.as_str(), kind == Kind::Message, at], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let sql = "INSERT INTO log (log, seq, message_no, kind, sender, sender_name, dedupe, client_gave_id, content, \
         target, subject, flag, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";
    db.prepare_cached(sql)?.execute(params![
        log.as_str(),
        seq,
        message_no,
        kind as i16,
        new.sender.as_str(),
        &*new.sender_name,
        new.dedupe.as_str(),
        new.client_gave_id,
        content,
        target,
        subject,
        flag,
        at
    ])?;
    Ok((seq, message_no))
}

/// Puts an entry into an inbox, and returns it with its seq.
fn tell(db: &Connection, mut entry: Entry) -> Result<Entry> {
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

fn told(user: &UserId, sender: &UserId, at: i64, body: Body) -> Entry {
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

fn add_user(db: &Connection, user: &UserId) -> Result<()> {
    let sql = "INSERT INTO users (id, name) VALUES (?1, ?1) ON CONFLICT DO NOTHING";
    db.prepare_cached(sql)?.execute([user.as_str()]).map(drop)
}

/// Makes a conversation and tells its members' inboxes; `None` where the id is taken.
pub(super) fn create(
    db: &Connection,
    new: &NewConversation,
    id: &ConversationId,
    direct_key: Option<&str>,
    creator: &UserId,
    members: BTreeSet<UserId>,
) -> Result<Option<Vec<Entry>>> {
    let at = now();
    let made = db.execute(
        "INSERT INTO conversations (id, kind, name, description, open, direct_key, created_by, created_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING",
        params![
            id.as_str(),
            direct_key.is_some(),
            new.name.as_deref(),
            new.description.as_deref(),
            new.open,
            direct_key,
            creator.as_str(),
            at
        ],
    )?;
    if made == 0 {
        return Ok(None);
    }
    db.execute("INSERT INTO heads (log, updated_at) VALUES (?1, ?2)", (id.as_str(), at))?;
    let tell_member = |user: UserId| {
        add_user(db, &user)?;
        let sql = "INSERT INTO members (conversation, user_id, joined_at) VALUES (?1, ?2, ?3)";
        db.execute(sql, (id.as_str(), user.as_str(), at))?;
        tell(db, told(&user, creator, at, Body::ConversationAdded { conversation: id.clone(), since: 0 }))
    };
    members.into_iter().map(tell_member).collect::<Result<_>>().map(Some)
}

/// Moves a member's marks forward.
pub(super) fn mark(
    db: &Connection,
    id: &ConversationId,
    user: &UserId,
    delivered: Seq,
    read: Seq,
) -> Result<Option<(Seq, Seq)>> {
    let log = LogId::from(id);
    let Some(head) = head(db, &log)? else { return Ok(None) };
    let (delivered, read) = (delivered.min(head.seq), read.min(head.seq));
    let moved: Option<(Seq, Seq)> = db
        .prepare_cached(
            "UPDATE members SET delivered_seq = max(delivered_seq, ?3), read_seq = max(read_seq, ?4), \
             read_no = CASE WHEN ?4 > read_seq THEN coalesce((SELECT message_no FROM log WHERE log = ?1 AND seq <= ?4 \
                 ORDER BY seq DESC LIMIT 1), read_no) ELSE read_no END \
             WHERE conversation = ?1 AND user_id = ?2 AND (?3 > delivered_seq OR ?4 > read_seq) \
             RETURNING delivered_seq, read_seq",
        )?
        .query_row(params![id.as_str(), user.as_str(), delivered, read], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    if let Some((_, read)) = moved {
        let sql = "UPDATE notifications SET read_at = ?4 \
             WHERE user_id = ?2 AND conversation = ?1 AND read_at IS NULL AND last_seq <= ?3";
        db.execute(sql, params![id.as_str(), user.as_str(), read, now()])?;
    }
    Ok(moved)
}

/// Opens a run of unread messages for each user, or widens the one that is open. Passed over: who is no member, what they
/// read, and what a run held that they put away.
pub(super) fn notify(db: &Connection, id: &ConversationId, waiting: Waiting, users: Vec<UserId>) -> Result<Vec<Entry>> {
    let (at, mut entries) = (now(), Vec::new());
    for user in users {
        let sql = "SELECT l.seq FROM members m, log l WHERE m.conversation = ?1 AND m.user_id = ?2 AND l.log = ?1 \
             AND l.seq > max(m.read_seq, ?3 - 1, coalesce((SELECT max(last_seq) FROM notifications \
                 WHERE user_id = ?2 AND conversation = ?1 AND read_at IS NOT NULL), 0)) \
             AND l.seq <= ?4 AND l.kind = 0 ORDER BY l.seq LIMIT 1";
        let asked = params![id.as_str(), user.as_str(), waiting.first, waiting.last];
        let Some(first): Option<Seq> = db.prepare_cached(sql)?.query_row(asked, |row| row.get(0)).optional()? else {
            continue;
        };
        let sql = "SELECT id, from_seq, last_seq FROM notifications \
             WHERE user_id = ?2 AND conversation = ?1 AND read_at IS NULL";
        let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let open: Option<(i64, Seq, Seq)> =
            db.prepare_cached(sql)?.query_row(params![id.as_str(), user.as_str()], read).optional()?;
        let (from, last) =
            open.map_or((first, waiting.last), |(_, from, last)| (from.min(first), last.max(waiting.last)));
        let sql = "SELECT max(message_no) - min(message_no) + 1 FROM log WHERE log = ?1 AND seq IN (?2, ?3)";
        let count: i64 = db.prepare_cached(sql)?.query_row(params![id.as_str(), from, last], |row| row.get(0))?;
        if let Some((run, ..)) = open {
            let sql = "UPDATE notifications SET from_seq = ?2, last_seq = ?3, count = ?4 WHERE id = ?1";
            db.prepare_cached(sql)?.execute(params![run, from, last, count])?;
            continue;
        }
        let sql = "INSERT INTO notifications (user_id, conversation, from_seq, last_seq, count, created_at) \
             VALUES (?2, ?1, ?3, ?4, ?5, ?6)";
        db.prepare_cached(sql)?.execute(params![id.as_str(), user.as_str(), from, last, count, at])?;
        let body = Body::Notified { conversation: id.clone(), from_seq: from };
        entries.push(tell(db, told(&user, &user, at, body))?);
    }
    Ok(entries)
}

/// Marks a user's open notifications read, those named or all. How many there were.
pub(super) fn read_notifications(db: &Connection, user: &UserId, ids: Option<Vec<i64>>) -> Result<u64> {
    let sql = "UPDATE notifications SET read_at = ?2 WHERE user_id = ?1 AND read_at IS NULL";
    let Some(ids) = ids else { return Ok(db.execute(sql, params![user.as_str(), now()])? as u64) };
    let mut one = db.prepare_cached(&format!("{sql} AND id = ?3"))?;
    let read = ids.into_iter().map(|id| one.execute(params![user.as_str(), now(), id]));
    Ok(read.sum::<Result<usize>>()? as u64)
}
