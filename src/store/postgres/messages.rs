//! Messages in their current state: list and show.

use std::collections::HashMap;

use async_trait::async_trait;
use tokio_postgres::{Row, types::ToSql};

use super::{
    super::{Messages, MessagesPage, Operation, SearchScope, StoreError, row::entry_columns},
    Postgres,
    rows::{entry, limit_and_offset},
};
use crate::model::{ConversationId, Entry, LogId, Message, Page, Reactions, SearchTerms, Seq, UserId};

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
const REACTIONS: &str = "SELECT seq, emoji, count(*), bool_or(user_id = $3) FROM reactions \
     WHERE log = $1 AND seq = ANY ($2) GROUP BY seq, emoji ORDER BY seq, count(*) DESC, emoji";
const REPLIES: &str = "SELECT target, count(*) FROM log \
     WHERE log = $1 AND kind = 0 AND target = ANY ($2) GROUP BY target";

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
                (self.query(Operation::List, MESSAGES, &page).await?, self.query(Operation::List, total, &[&id]).await?)
            }
            Some(root) => {
                let total = "SELECT count(*) FROM log WHERE log = $1 AND target = $2 AND kind = 0";
                let page: [&(dyn ToSql + Sync); 5] = [&id, &before, &limit, &offset, root];
                let rows = self.query(Operation::List, THREAD, &page).await?;
                (rows, self.query(Operation::List, total, &[&id, root]).await?)
            }
        };
        Ok((self.with_reactions(Operation::List, of, reader, &rows).await?, total.first().map_or(0, |row| row.get(0))))
    }

    async fn message(&self, of: &ConversationId, seq: Seq, reader: &UserId) -> Result<Option<Message>, StoreError> {
        let rows = self.query(Operation::Read, MESSAGE, &[&of.as_str(), &seq]).await?;
        Ok(self.with_reactions(Operation::Read, of, reader, &rows).await?.pop())
    }

    async fn search(&self, scope: &SearchScope, terms: &SearchTerms, page: Page) -> Result<Vec<Entry>, StoreError> {
        self.search_messages(scope, terms, page).await
    }

    async fn index(&self, log: &LogId) -> Result<u32, StoreError> {
        self.add_segments(log).await
    }

    async fn unindexed(&self, after: Option<&LogId>) -> Result<(Vec<LogId>, Option<LogId>), StoreError> {
        self.unindexed_logs(after).await
    }
}

impl Postgres {
    /// Adds the reactions and the number of replies to messages.
    async fn with_reactions(
        &self,
        operation: Operation,
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
        for row in self.query(operation, REACTIONS, &[&of, &seqs, &reader]).await? {
            let one = Reactions { emoji: row.get::<_, &str>(1).into(), count: row.get(2), own: row.get(3) };
            reactions.entry(row.get(0)).or_default().push(one);
        }
        let replies = self.query(operation, REPLIES, &[&of, &seqs]).await?;
        let replies: HashMap<Seq, i64> = replies.iter().map(|row| (row.get(0), row.get(1))).collect();
        let message = |entry: Entry| Message {
            reactions: reactions.remove(&entry.seq).unwrap_or_default(),
            replies: replies.get(&entry.seq).copied().unwrap_or(0),
            entry,
        };
        Ok(entries.into_iter().map(message).collect())
    }
}
