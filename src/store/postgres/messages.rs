//! Messages in their current state: list and show.

use async_trait::async_trait;
use tokio_postgres::{Row, types::ToSql};

use super::{
    super::{
        Messages, MessagesPage, Operation, ReadMessages, SearchScope, StoreError,
        row::{ENTRY_COLUMNS, entry_columns},
    },
    Postgres,
    rows::entry,
};
use crate::model::{ConversationId, Entry, LogId, Message, Page, Reactions, SearchTerms, Seq, UserId};

/// The column that says on which side of its page a message is, after those of the entry, the head and the total.
const OLDER: usize = ENTRY_COLUMNS + 2;

/// Messages `m` as a reader ($2) sees them, with the head of their log ($1): one statement, so one snapshot. Without
/// messages there is one row with the head. The columns follow those of the entry.
macro_rules! shown {
    ($total:literal, $($messages:expr),+) => {
        concat!(
            "SELECT ",
            entry_columns!("m."),
            ", h.seq, ",
            $total,
            ", m.older, \
                 (SELECT count(*) FROM log a WHERE a.log = $1 AND a.kind = 0 AND a.target = m.seq), \
                 r.emojis, r.counts, r.owns \
             FROM heads h LEFT JOIN LATERAL (",
            $($messages,)+
            ") m ON true LEFT JOIN LATERAL ( \
                 SELECT array_agg(emoji ORDER BY count DESC, emoji) AS emojis, \
                     array_agg(count ORDER BY count DESC, emoji) AS counts, array_agg(own ORDER BY count DESC, emoji) AS owns \
                 FROM ( \
                     SELECT emoji, count(*) AS count, bool_or(user_id = $2) AS own FROM reactions \
                     WHERE log = $1 AND seq = m.seq GROUP BY emoji ORDER BY 2 DESC, 1 LIMIT 51 \
                 ) different \
             ) r ON true WHERE h.log = $1"
        )
    };
}

/// The two sides of a page: the messages before a seq and those after another one.
macro_rules! page {
    ($total:literal, $which:literal) => {
        shown!(
            $total,
            "(SELECT true AS older, ",
            entry_columns!(),
            " FROM log WHERE log = $1 AND seq < $3 AND kind = 0",
            $which,
            " ORDER BY seq DESC LIMIT $4 OFFSET $5) UNION ALL (SELECT false, ",
            entry_columns!(),
            " FROM log WHERE log = $1 AND seq > $6 AND kind = 0",
            $which,
            " ORDER BY seq LIMIT $7 OFFSET $8)"
        )
    };
}

const MESSAGES: &str = page!("h.message_no - h.removed_no", "");
const THREAD: &str =
    page!("(SELECT count(*) FROM log t WHERE t.log = $1 AND t.target = $9 AND t.kind = 0)", " AND target = $9");
const MESSAGE: &str = shown!(
    "h.message_no - h.removed_no",
    "SELECT true AS older, ",
    entry_columns!(),
    " FROM log WHERE log = $1 AND seq = $3 AND kind = 0"
);

#[async_trait]
impl Messages for Postgres {
    async fn messages(
        &self,
        of: &ConversationId,
        reader: &UserId,
        page: MessagesPage,
    ) -> Result<ReadMessages, StoreError> {
        let (id, reader, (older, newer)) = (of.as_str(), reader.as_str(), page.sides());
        let (older_rows, newer_rows) = (older.rows(), newer.rows());
        let parameters: [&(dyn ToSql + Sync); 9] = [
            &id,
            &reader,
            &older.beyond,
            &older_rows,
            &older.offset,
            &newer.beyond,
            &newer_rows,
            &newer.offset,
            &page.thread.unwrap_or_default(),
        ];
        let rows = match page.thread {
            None => self.query(Operation::List, MESSAGES, &parameters[..8]).await?,
            Some(_) => self.query(Operation::List, THREAD, &parameters).await?,
        };
        let (mut older, mut newer) = (Vec::new(), Vec::new());
        for row in &rows {
            let side = if row.get::<_, Option<bool>>(OLDER) == Some(true) { &mut older } else { &mut newer };
            side.extend(message(row)?);
        }
        older.sort_unstable_by_key(|message| -message.entry.seq);
        newer.sort_unstable_by_key(|message| message.entry.seq);
        let read = ReadMessages::of(page, older, newer);
        let (head, total) = rows.first().map_or((0, 0), |row| (row.get(ENTRY_COLUMNS), row.get(ENTRY_COLUMNS + 1)));
        Ok(ReadMessages { head, total, ..read })
    }

    async fn message(&self, of: &ConversationId, seq: Seq, reader: &UserId) -> Result<Option<Message>, StoreError> {
        let rows = self.query(Operation::Read, MESSAGE, &[&of.as_str(), &reader.as_str(), &seq]).await?;
        rows.first().map_or(Ok(None), message)
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

/// The message of a row of [`shown!`]; none if the row has only the head.
fn message(row: &Row) -> Result<Option<Message>, StoreError> {
    if row.get::<_, Option<bool>>(OLDER).is_none() {
        return Ok(None);
    }
    let emojis: Vec<&str> = row.get::<_, Option<_>>(OLDER + 2).unwrap_or_default();
    let counts: Vec<i64> = row.get::<_, Option<_>>(OLDER + 3).unwrap_or_default();
    let owns: Vec<bool> = row.get::<_, Option<_>>(OLDER + 4).unwrap_or_default();
    let more_reactions = emojis.len() > Message::REACTIONS;
    let each = emojis.into_iter().zip(counts).zip(owns).take(Message::REACTIONS);
    let reactions = each.map(|((emoji, count), own)| Reactions { emoji: emoji.into(), count, own }).collect();
    Ok(Some(Message { entry: entry(row)?, reactions, more_reactions, replies: row.get(OLDER + 1) }))
}
