//! Messages in their current state: list, show and search.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use super::{
    super::{
        Messages, MessagesPage, Operation, ReadMessages, SearchScope, StoreError, message_pages::Side,
        row::entry_columns,
    },
    Sqlite,
    rows::entry,
};
use crate::model::{ConversationId, Entry, LogId, Message, Page, Reactions, SearchTerms, Seq, UserId};

/// One side of a page: the messages before or after a seq.
macro_rules! side {
    ($which:literal, $order:literal) => {
        concat!(
            "SELECT ",
            entry_columns!(),
            " FROM log WHERE log = ?1 AND kind = 0 AND ",
            $which,
            " ORDER BY seq ",
            $order,
            " LIMIT ?3 OFFSET ?4"
        )
    };
}

const OLDER: &str = side!("seq < ?2", "DESC");
const NEWER: &str = side!("seq > ?2", "");
const OLDER_IN_THREAD: &str = side!("seq < ?2 AND target = ?5", "DESC");
const NEWER_IN_THREAD: &str = side!("seq > ?2 AND target = ?5", "");
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
    ) -> Result<ReadMessages, StoreError> {
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

fn messages(db: &Connection, of: &ConversationId, reader: &UserId, page: MessagesPage) -> Result<ReadMessages> {
    // A transaction reads one snapshot.
    let db = db.unchecked_transaction()?;
    let (older, newer) = page.sides();
    let (older_sql, newer_sql) = match page.thread {
        None => (OLDER, NEWER),
        Some(_) => (OLDER_IN_THREAD, NEWER_IN_THREAD),
    };
    let (older, newer) =
        (side(&db, older_sql, of, (older, page.thread))?, side(&db, newer_sql, of, (newer, page.thread))?);
    let shown = |entries: Vec<Entry>| {
        entries.into_iter().map(|entry| with_reactions(&db, reader, entry)).collect::<Result<Vec<_>>>()
    };
    let read = ReadMessages::of(page, shown(older)?, shown(newer)?);
    let ends = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let head = "SELECT seq, message_no - removed_no FROM heads WHERE log = ?1";
    let (head, mut total) = db.prepare_cached(head)?.query_row([of.as_str()], ends).optional()?.unwrap_or_default();
    if let Some(root) = page.thread {
        let sql = "SELECT count(*) FROM log WHERE log = ?1 AND target = ?2 AND kind = 0";
        total = db.prepare_cached(sql)?.query_row(params![of.as_str(), root], |row| row.get(0))?;
    }
    Ok(ReadMessages { head, total, ..read })
}

fn side(db: &Connection, sql: &str, of: &ConversationId, (side, thread): (Side, Option<Seq>)) -> Result<Vec<Entry>> {
    let mut statement = db.prepare_cached(sql)?;
    match thread {
        None => statement.query_map(params![of.as_str(), side.beyond, side.rows(), side.offset], entry)?.collect(),
        Some(root) => {
            statement.query_map(params![of.as_str(), side.beyond, side.rows(), side.offset, root], entry)?.collect()
        }
    }
}

fn message(db: &Connection, of: &ConversationId, seq: Seq, reader: &UserId) -> Result<Option<Message>> {
    let found = db.prepare_cached(MESSAGE)?.query_row(params![of.as_str(), seq], entry).optional()?;
    found.map(|entry| with_reactions(db, reader, entry)).transpose()
}

/// Adds the reactions and the number of replies to a message. SQLite has no round trips, so one query per message is
/// fast enough.
fn with_reactions(db: &Connection, reader: &UserId, entry: Entry) -> Result<Message> {
    let sql = "SELECT emoji, count(*), max(user_id = ?3) FROM reactions WHERE log = ?1 AND seq = ?2 \
         GROUP BY emoji ORDER BY count(*) DESC, emoji LIMIT 51";
    let read =
        |row: &Row<'_>| Ok(Reactions { emoji: row.get::<_, String>(0)?.into(), count: row.get(1)?, own: row.get(2)? });
    let parameters = params![entry.log.as_str(), entry.seq, reader.as_str()];
    let mut reactions: Vec<Reactions> = db.prepare_cached(sql)?.query_map(parameters, read)?.collect::<Result<_>>()?;
    let more_reactions = reactions.len() > Message::REACTIONS;
    reactions.truncate(Message::REACTIONS);
    let sql = "SELECT count(*) FROM log WHERE log = ?1 AND target = ?2 AND kind = 0";
    let replies = db.prepare_cached(sql)?.query_row(params![entry.log.as_str(), entry.seq], |row| row.get(0))?;
    Ok(Message { entry, reactions, more_reactions, replies })
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
