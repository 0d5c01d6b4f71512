//! Messages in their current state: list, show and search.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use super::{
    super::{Messages, MessagesPage, Operation, SearchScope, StoreError, row::entry_columns},
    Sqlite,
    rows::entry,
};
use crate::model::{ConversationId, Entry, LogId, Message, Page, Reactions, SearchTerms, Seq, UserId};

const MESSAGES: &str = concat!(
    "SELECT ",
    entry_columns!(),
    " FROM log WHERE log = ?1 AND seq < ?2 AND kind = 0 \
     ORDER BY seq DESC LIMIT ?3 OFFSET ?4"
);
const THREAD: &str = concat!(
    "SELECT ",
    entry_columns!(),
    " FROM log WHERE log = ?1 AND target = ?5 AND seq < ?2 AND kind = 0 \
     ORDER BY seq DESC LIMIT ?3 OFFSET ?4"
);
const MESSAGE: &str = concat!("SELECT ", entry_columns!(), " FROM log WHERE log = ?1 AND seq = ?2 AND kind = 0");
/// The rows of words are in the order of time, and are read from the newest one back.
const SEARCH: &str = concat!(
    "SELECT ",
    entry_columns!("l."),
    " \
     FROM words f CROSS JOIN worded w ON w.id = f.rowid CROSS JOIN log l ON l.log = w.log AND l.seq = w.seq \
     WHERE f.content MATCH ?2 AND NOT l.deleted \
     AND (l.log = ?3 OR l.log IN (SELECT conversation FROM members WHERE user_id = ?1)) \
     ORDER BY f.rowid DESC"
);

#[async_trait]
impl Messages for Sqlite {
    async fn messages(
        &self,
        conversation: &ConversationId,
        reader: &UserId,
        page: MessagesPage,
    ) -> Result<(Vec<Message>, i64), StoreError> {
        let (id, reader) = (conversation.clone(), reader.clone());
        self.read(Operation::List, move |db| messages(db, &id, &reader, page)).await
    }

    async fn message(
        &self,
        conversation: &ConversationId,
        seq: Seq,
        reader: &UserId,
    ) -> Result<Option<Message>, StoreError> {
        let (id, reader) = (conversation.clone(), reader.clone());
        self.read(Operation::Read, move |db| message(db, &id, seq, &reader)).await
    }

    async fn search(&self, scope: &SearchScope, terms: &SearchTerms, page: Page) -> Result<Vec<Entry>, StoreError> {
        let (scope, terms) = (scope.clone(), terms.clone());
        self.read(Operation::Search, move |db| search(db, &scope, &terms, page)).await
    }

    /// The triggers of the tables index each message with its append.
    async fn index(&self, _: &LogId) -> Result<u32, StoreError> {
        Ok(0)
    }

    async fn unindexed(&self, _: Option<&LogId>) -> Result<(Vec<LogId>, Option<LogId>), StoreError> {
        Ok((Vec::new(), None))
    }
}

fn messages(
    db: &Connection,
    of: &ConversationId,
    reader: &UserId,
    MessagesPage { before, thread, page }: MessagesPage,
) -> Result<(Vec<Message>, i64)> {
    let (before, limit, offset) = (before.unwrap_or(Seq::MAX), page.limit.get(), page.offset.get());
    let (entries, total) = match thread {
        None => {
            let total = "SELECT message_no FROM heads WHERE log = ?1";
            let parameters = params![of.as_str(), before, limit, offset];
            let entries: Vec<Entry> =
                db.prepare_cached(MESSAGES)?.query_map(parameters, entry)?.collect::<Result<_>>()?;
            (entries, db.prepare_cached(total)?.query_row([of.as_str()], |row| row.get(0)).optional()?)
        }
        Some(root) => {
            let total = "SELECT count(*) FROM log WHERE log = ?1 AND target = ?2 AND kind = 0";
            let parameters = params![of.as_str(), before, limit, offset, root];
            let entries = db.prepare_cached(THREAD)?.query_map(parameters, entry)?.collect::<Result<_>>()?;
            (entries, db.prepare_cached(total)?.query_row(params![of.as_str(), root], |row| row.get(0)).optional()?)
        }
    };
    let messages = entries.into_iter().map(|entry| with_reactions(db, reader, entry)).collect::<Result<_>>()?;
    Ok((messages, total.unwrap_or(0)))
}

fn message(db: &Connection, of: &ConversationId, seq: Seq, reader: &UserId) -> Result<Option<Message>> {
    let found = db.prepare_cached(MESSAGE)?.query_row(params![of.as_str(), seq], entry).optional()?;
    found.map(|entry| with_reactions(db, reader, entry)).transpose()
}

/// Adds the reactions and the number of replies to a message. SQLite has no round trips, so one query per message is
/// fast enough.
fn with_reactions(db: &Connection, reader: &UserId, entry: Entry) -> Result<Message> {
    let sql = "SELECT emoji, count(*), max(user_id = ?3) FROM reactions WHERE log = ?1 AND seq = ?2 \
         GROUP BY emoji ORDER BY count(*) DESC, emoji";
    let read =
        |row: &Row<'_>| Ok(Reactions { emoji: row.get::<_, String>(0)?.into(), count: row.get(1)?, own: row.get(2)? });
    let parameters = params![entry.log.as_str(), entry.seq, reader.as_str()];
    let reactions = db.prepare_cached(sql)?.query_map(parameters, read)?.collect::<Result<_>>()?;
    let sql = "SELECT count(*) FROM log WHERE log = ?1 AND target = ?2 AND kind = 0";
    let replies = db.prepare_cached(sql)?.query_row(params![entry.log.as_str(), entry.seq], |row| row.get(0))?;
    Ok(Message { entry, reactions, replies })
}

fn search(db: &Connection, scope: &SearchScope, terms: &SearchTerms, page: Page) -> Result<Vec<Entry>> {
    if terms.is_empty() {
        return Ok(Vec::new());
    }
    let (user, of) = scope.parts();
    let mut statement = db.prepare_cached(SEARCH)?;
    let candidates = statement.query_map(params![user, matching(terms), of], entry)?;
    let found = |entry: &Result<Entry>| entry.as_ref().map_or(true, |entry| terms.find(entry.body.payload().0));
    let number = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    let (skipped, wanted) = (number(page.offset.get()), number(page.limit.get()));
    candidates.filter(found).skip(skipped).take(wanted).collect()
}

/// The query of the index. Tokens have no quotes, so they need no escapes.
fn matching(terms: &SearchTerms) -> String {
    let tokens = terms.tokens().into_iter().map(|one| format!("\"{}\"{}", one.text, if one.prefix { "*" } else { "" }));
    tokens.collect::<Vec<_>>().join(" ")
}
