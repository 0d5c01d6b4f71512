//! What is listed in pages: messages with what became of them, what a search finds, conversations with their members.

use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use super::{
    super::{Direct, MessagesPage, Within, row::pair, words},
    queries::{conversation_row, entry, id, members, unreadable},
};
use crate::model::{Conversation, ConversationId, Entry, Message, Pair, Reactions, Seq, UserId};

const MESSAGES: &str = "SELECT log, seq, message_no, kind, sender, sender_name, dedupe, client_gave_id, content, target, \
     subject, flag, edited_at, deleted, created_at FROM log WHERE log = ?1 AND seq < ?2 AND kind = 0 \
     ORDER BY seq DESC LIMIT ?3 OFFSET ?4";
const THREAD: &str = "SELECT log, seq, message_no, kind, sender, sender_name, dedupe, client_gave_id, content, target, \
     subject, flag, edited_at, deleted, created_at FROM log WHERE log = ?1 AND target = ?5 AND seq < ?2 AND kind = 0 \
     ORDER BY seq DESC LIMIT ?3 OFFSET ?4";
const MESSAGE: &str = "SELECT log, seq, message_no, kind, sender, sender_name, dedupe, client_gave_id, content, target, \
     subject, flag, edited_at, deleted, created_at FROM log WHERE log = ?1 AND seq = ?2 AND kind = 0";
const SEARCH: &str = "SELECT l.log, l.seq, l.message_no, l.kind, l.sender, l.sender_name, l.dedupe, l.client_gave_id, \
     l.content, l.target, l.subject, l.flag, l.edited_at, l.deleted, l.created_at \
     FROM words f JOIN worded w ON w.id = f.rowid JOIN log l ON l.log = w.log AND l.seq = w.seq \
     WHERE f.content MATCH ?2 AND NOT l.deleted \
     AND (l.log = ?3 OR l.log IN (SELECT conversation FROM members WHERE user_id = ?1)) \
     ORDER BY l.created_at DESC, l.log, l.seq DESC LIMIT ?4 OFFSET ?5";
const CONVERSATIONS: &str = "SELECT c.id, c.kind, c.name, c.description, c.open, c.created_by, c.created_at, \
     h.updated_at, h.seq, h.message_no - m.read_no, m.archived \
     FROM members m JOIN conversations c ON c.id = m.conversation JOIN heads h ON h.log = c.id \
     WHERE m.user_id = ?1 AND m.archived = ?4 ORDER BY h.updated_at DESC, c.id LIMIT ?2 OFFSET ?3";
/// Members that a listing shows of each conversation.
const FIRST_MEMBERS: u32 = 100;

pub(super) fn messages(
    db: &Connection,
    of: &ConversationId,
    reader: &UserId,
    MessagesPage { before, thread, limit, offset }: MessagesPage,
) -> Result<(Vec<Message>, i64)> {
    let before = before.unwrap_or(Seq::MAX);
    let (entries, total) = match thread {
        None => {
            let total = "SELECT message_no FROM heads WHERE log = ?1";
            let page = params![of.as_str(), before, limit, offset];
            let entries: Vec<Entry> = db.prepare_cached(MESSAGES)?.query_map(page, entry)?.collect::<Result<_>>()?;
            (entries, db.prepare_cached(total)?.query_row([of.as_str()], |row| row.get(0)).optional()?)
        }
        Some(root) => {
            let total = "SELECT count(*) FROM log WHERE log = ?1 AND target = ?2 AND kind = 0";
            let page = params![of.as_str(), before, limit, offset, root];
            let entries = db.prepare_cached(THREAD)?.query_map(page, entry)?.collect::<Result<_>>()?;
            (entries, db.prepare_cached(total)?.query_row(params![of.as_str(), root], |row| row.get(0)).optional()?)
        }
    };
    let messages = entries.into_iter().map(|entry| shown(db, reader, entry)).collect::<Result<_>>()?;
    Ok((messages, total.unwrap_or(0)))
}

pub(super) fn message(db: &Connection, of: &ConversationId, seq: Seq, reader: &UserId) -> Result<Option<Message>> {
    let found = db.prepare_cached(MESSAGE)?.query_row(params![of.as_str(), seq], entry).optional()?;
    found.map(|entry| shown(db, reader, entry)).transpose()
}

/// A message with the reactions and replies to it. No round trips here: one by one is well enough.
fn shown(db: &Connection, reader: &UserId, entry: Entry) -> Result<Message> {
    let sql = "SELECT emoji, count(*), max(user_id = ?3) FROM reactions WHERE log = ?1 AND seq = ?2 \
         GROUP BY emoji ORDER BY count(*) DESC, emoji";
    let read =
        |row: &Row<'_>| Ok(Reactions { emoji: row.get::<_, String>(0)?.into(), count: row.get(1)?, own: row.get(2)? });
    let about = params![entry.log.as_str(), entry.seq, reader.as_str()];
    let reactions = db.prepare_cached(sql)?.query_map(about, read)?.collect::<Result<_>>()?;
    let sql = "SELECT count(*) FROM log WHERE log = ?1 AND target = ?2 AND kind = 0";
    let replies = db.prepare_cached(sql)?.query_row(params![entry.log.as_str(), entry.seq], |row| row.get(0))?;
    Ok(Message { entry, reactions, replies })
}

pub(super) fn search(db: &Connection, within: &Within, text: &str, limit: u32, offset: u32) -> Result<Vec<Entry>> {
    let words = words(text);
    if words.is_empty() {
        return Ok(Vec::new());
    }
    let query = format!("\"{}\"*", words.join("\" \""));
    let (user, of) = within.parts();
    let asked = params![user, query, of, limit, offset];
    db.prepare_cached(SEARCH)?.query_map(asked, entry)?.collect()
}

pub(super) fn conversations(
    db: &Connection,
    user: &UserId,
    archived: bool,
    limit: u32,
    offset: u32,
) -> Result<(Vec<Conversation>, i64)> {
    let page = params![user.as_str(), limit, offset, archived];
    let mut listed: Vec<Conversation> =
        db.prepare_cached(CONVERSATIONS)?.query_map(page, conversation_row)?.collect::<Result<_>>()?;
    for one in &mut listed {
        one.members = members(db, &one.id, "", FIRST_MEMBERS)?;
    }
    let total = db
        .prepare_cached("SELECT count(*) FROM members WHERE user_id = ?1 AND archived = ?2")?
        .query_row(params![user.as_str(), archived], |row| row.get(0))?;
    Ok((listed, total))
}

pub(super) fn directs(db: &Connection, user: &UserId, limit: u32) -> Result<Vec<Direct>> {
    let sql = "SELECT c.id, c.direct_key, m.delivered_seq, h.seq \
         FROM members m JOIN conversations c ON c.id = m.conversation JOIN heads h ON h.log = c.id \
         WHERE m.user_id = ?1 AND c.direct_key IS NOT NULL ORDER BY h.updated_at DESC, c.id LIMIT ?2";
    let read = |row: &Row<'_>| {
        Ok(Direct {
            conversation: id(ConversationId::parse(&row.get::<_, String>(0)?))?,
            pair: pair(&row.get::<_, String>(1)?).map_err(unreadable)?,
            delivered: row.get(2)?,
            head: row.get(3)?,
        })
    };
    db.prepare_cached(sql)?.query_map(params![user.as_str(), limit], read)?.collect()
}

pub(super) fn pair_of(db: &Connection, of: &ConversationId) -> Result<Option<Pair>> {
    let sql = "SELECT direct_key FROM conversations WHERE id = ?1 AND direct_key IS NOT NULL";
    let read = |row: &Row<'_>| pair(&row.get::<_, String>(0)?).map_err(unreadable);
    db.prepare_cached(sql)?.query_row([of.as_str()], read).optional()
}

pub(super) fn acquaintances(db: &Connection, user: &UserId, limit: u32) -> Result<Vec<UserId>> {
    let sql = "SELECT DISTINCT o.user_id FROM members m JOIN members o ON o.conversation = m.conversation \
         WHERE m.user_id = ?1 AND o.user_id <> ?1 LIMIT ?2";
    let read = |row: &Row<'_>| id(UserId::parse(&row.get::<_, String>(0)?));
    db.prepare_cached(sql)?.query_map(params![user.as_str(), limit], read)?.collect()
}
