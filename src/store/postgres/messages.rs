//! Messages in their current state: list, show and search.

use std::collections::HashMap;

use async_trait::async_trait;
use tokio_postgres::{Row, types::ToSql};

use super::{
    super::{Messages, MessagesPage, Operation, SearchScope, StoreError, row::entry_columns},
    Postgres,
    rows::{entry, limit_and_offset},
};
use crate::model::{ConversationId, Entry, Message, Page, Reactions, SearchTerms, Seq, UserId};

const MESSAGES: &str = concat!(
    "SELECT ",
    entry_columns!(),
    " FROM log WHERE log = $1 AND seq < $2 AND kind = 0 ORDER BY seq DESC LIMIT $3 OFFSET $4"
);
const THREAD: &str = concat!(
    "SELECT ",
    entry_columns!(),
    " FROM log WHERE log = $1 AND target = $5 AND seq < $2 AND kind = 0 \
     ORDER BY seq DESC LIMIT $3 OFFSET $4"
);
const MESSAGE: &str = concat!("SELECT ", entry_columns!(), " FROM log WHERE log = $1 AND seq = $2 AND kind = 0");
/// Searches the newest entries of each conversation, from the newest one backwards. The `LIKE` patterns exclude most
/// entries cheaply; only the remaining ones are split into words.
const SEARCH: &str = concat!(
    "WITH within AS ( \
         SELECT h.log, h.seq AS head FROM heads h WHERE h.log = $3 \
         UNION ALL (SELECT h.log, h.seq FROM members m JOIN heads h ON h.log = m.conversation \
             WHERE m.user_id = $1 ORDER BY h.updated_at DESC LIMIT $8) \
     ) SELECT ",
    entry_columns!("f."),
    " \
     FROM within CROSS JOIN LATERAL ( \
         SELECT * FROM log l WHERE l.log = within.log AND l.seq > within.head - $7::bigint AND l.kind = 0 AND NOT l.deleted \
             AND lower(l.content) LIKE ALL ($6::text[]) AND words_of(l.content) @@ to_tsquery('simple', $2) \
         ORDER BY l.seq DESC LIMIT $4::bigint + $5::bigint \
     ) f ORDER BY f.created_at DESC, f.log, f.seq DESC LIMIT $4 OFFSET $5"
);
const REACTIONS: &str = "SELECT seq, emoji, count(*), bool_or(user_id = $3) FROM reactions \
     WHERE log = $1 AND seq = ANY ($2) GROUP BY seq, emoji ORDER BY seq, count(*) DESC, emoji";
const REPLIES: &str = "SELECT target, count(*) FROM log \
     WHERE log = $1 AND kind = 0 AND target = ANY ($2) GROUP BY target";

/// Number of newest entries that a search reads: of each conversation, and of the only one if the scope names it.
const SEARCH_DEPTH: i64 = 10_000;
const SEARCH_DEPTH_OF_NAMED: i64 = 100_000;
/// Number of most recently active conversations that a search reads.
const SEARCH_CONVERSATIONS: i64 = 200;

#[async_trait]
impl Messages for Postgres {
    async fn messages(
        &self,
        of: &ConversationId,
        reader: &UserId,
        MessagesPage { before, thread, page }: MessagesPage,
    ) -> Result<(Vec<Message>, i64), StoreError> {
        let (id, before, (limit, offset)) = (of.as_str(), before.unwrap_or(Seq::MAX), limit_and_offset(page));
        let (rows, total) = match &thread {
            None => {
                let total = "SELECT message_no FROM heads WHERE log = $1";
                let page: [&(dyn ToSql + Sync); 4] = [&id, &before, &limit, &offset];
                (self.query(Operation::Read, MESSAGES, &page).await?, self.query(Operation::Read, total, &[&id]).await?)
            }
            Some(root) => {
                let total = "SELECT count(*) FROM log WHERE log = $1 AND target = $2 AND kind = 0";
                let page: [&(dyn ToSql + Sync); 5] = [&id, &before, &limit, &offset, root];
                let rows = self.query(Operation::Read, THREAD, &page).await?;
                (rows, self.query(Operation::Read, total, &[&id, root]).await?)
            }
        };
        Ok((self.with_reactions(of, reader, &rows).await?, total.first().map_or(0, |row| row.get(0))))
    }

    async fn message(&self, of: &ConversationId, seq: Seq, reader: &UserId) -> Result<Option<Message>, StoreError> {
        let rows = self.query(Operation::Read, MESSAGE, &[&of.as_str(), &seq]).await?;
        Ok(self.with_reactions(of, reader, &rows).await?.pop())
    }

    async fn search(&self, scope: &SearchScope, terms: &SearchTerms, page: Page) -> Result<Vec<Entry>, StoreError> {
        let words = terms.words();
        if words.is_empty() {
            return Ok(Vec::new());
        }
        let query = format!("'{}':*", words.join("' & '"));
        // Only ASCII words become patterns: for other characters, Rust's lower case may differ from the database's.
        let ascii = words.iter().filter(|word| word.is_ascii());
        let patterns: Vec<String> = ascii.map(|word| format!("%{}%", word.to_ascii_lowercase())).collect();
        let (user, of) = scope.parts();
        let depth = if of.is_some() { SEARCH_DEPTH_OF_NAMED } else { SEARCH_DEPTH };
        let (limit, offset) = limit_and_offset(page);
        let parameters: [&(dyn ToSql + Sync); 8] =
            [&user, &query, &of, &limit, &offset, &patterns, &depth, &SEARCH_CONVERSATIONS];
        let rows = self.query(Operation::Read, SEARCH, &parameters).await?;
        rows.iter().map(entry).collect()
    }
}

impl Postgres {
    /// Adds the reactions and the number of replies to messages.
    async fn with_reactions(
        &self,
        of: &ConversationId,
        reader: &UserId,
        rows: &[Row],
    ) -> Result<Vec<Message>, StoreError> {
        let entries = rows.iter().map(entry).collect::<Result<Vec<Entry>, _>>()?;
        let seqs: Vec<Seq> = entries.iter().map(|entry| entry.seq).collect();
        if seqs.is_empty() {
            return Ok(Vec::new());
        }
        let (of, reader) = (of.as_str(), reader.as_str());
        let mut reactions: HashMap<Seq, Vec<Reactions>> = HashMap::new();
        for row in self.query(Operation::Read, REACTIONS, &[&of, &seqs, &reader]).await? {
            let one = Reactions { emoji: row.get::<_, &str>(1).into(), count: row.get(2), own: row.get(3) };
            reactions.entry(row.get(0)).or_default().push(one);
        }
        let replies = self.query(Operation::Read, REPLIES, &[&of, &seqs]).await?;
        let replies: HashMap<Seq, i64> = replies.iter().map(|row| (row.get(0), row.get(1))).collect();
        let message = |entry: Entry| Message {
            reactions: reactions.remove(&entry.seq).unwrap_or_default(),
            replies: replies.get(&entry.seq).copied().unwrap_or(0),
            entry,
        };
        Ok(entries.into_iter().map(message).collect())
    }
}
