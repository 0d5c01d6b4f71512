//! What is listed in pages: messages with what became of them, what a search finds, conversations with their members.

use std::{collections::HashMap, sync::Arc};

use tokio_postgres::{Row, types::ToSql};

use super::{
    super::{MessagesPage, Operation, StoreError, Within, words},
    Postgres,
    rows::{conversation, entry, unreadable, user},
    sql::{CONVERSATIONS, FIRST_MEMBERS, MESSAGE, MESSAGES, REACTIONS, REPLIES, SEARCH, THREAD},
};
use crate::model::{Conversation, ConversationId, Entry, Member, Message, Reactions, Seq, UserId};

/// The newest entries that a search looks through: of each conversation, and of one that is named.
const SEARCH_DEPTH: i64 = 10_000;
const SEARCH_DEPTH_OF_ONE: i64 = 100_000;
/// Conversations that a search looks through, the last active ones.
const SEARCH_CONVERSATIONS: i64 = 200;

impl Postgres {
    pub(super) async fn read_messages(
        &self,
        of: &ConversationId,
        reader: &UserId,
        MessagesPage { before, thread, limit, offset }: MessagesPage,
    ) -> Result<(Vec<Message>, i64), StoreError> {
        let (id, before, limit, offset) =
            (of.as_str(), before.unwrap_or(Seq::MAX), i64::from(limit), i64::from(offset));
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
        Ok((self.shown(of, reader, &rows).await?, total.first().map_or(0, |row| row.get(0))))
    }

    pub(super) async fn read_message(
        &self,
        of: &ConversationId,
        seq: Seq,
        reader: &UserId,
    ) -> Result<Option<Message>, StoreError> {
        let rows = self.query(Operation::Read, MESSAGE, &[&of.as_str(), &seq]).await?;
        Ok(self.shown(of, reader, &rows).await?.pop())
    }

    /// Messages with the reactions and replies to them.
    async fn shown(&self, of: &ConversationId, reader: &UserId, rows: &[Row]) -> Result<Vec<Message>, StoreError> {
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
        let shown = |entry: Entry| Message {
            reactions: reactions.remove(&entry.seq).unwrap_or_default(),
            replies: replies.get(&entry.seq).copied().unwrap_or(0),
            entry,
        };
        Ok(entries.into_iter().map(shown).collect())
    }

    pub(super) async fn find(
        &self,
        within: &Within,
        text: &str,
        limit: u32,
        offset: u32,
    ) -> Result<Vec<Entry>, StoreError> {
        let words = words(text);
        if words.is_empty() {
            return Ok(Vec::new());
        }
        let query = format!("'{}':*", words.join("' & '"));
        // Lower case is the database's business where it is more than ASCII.
        let plain = words.iter().filter(|word| word.is_ascii());
        let patterns: Vec<String> = plain.map(|word| format!("%{}%", word.to_ascii_lowercase())).collect();
        let (user, of) = within.parts();
        let depth = if of.is_some() { SEARCH_DEPTH_OF_ONE } else { SEARCH_DEPTH };
        let (limit, offset) = (i64::from(limit), i64::from(offset));
        let asked: [&(dyn ToSql + Sync); 8] =
            [&user, &query, &of, &limit, &offset, &patterns, &depth, &SEARCH_CONVERSATIONS];
        let rows = self.query(Operation::Read, SEARCH, &asked).await?;
        rows.iter().map(entry).collect()
    }

    pub(super) async fn list_conversations(
        &self,
        of: &UserId,
        archived: bool,
        limit: u32,
        offset: u32,
    ) -> Result<(Vec<Conversation>, i64), StoreError> {
        let (of, limit, offset) = (of.as_str(), i64::from(limit), i64::from(offset));
        let rows = self.query(Operation::Read, CONVERSATIONS, &[&of, &limit, &offset, &archived]).await?;
        let total = match rows.first() {
            Some(row) => row.get(11),
            // Past the last page the window has nothing to count.
            None => {
                let sql = "SELECT count(*) FROM members WHERE user_id = $1 AND archived = $2";
                self.query(Operation::Read, sql, &[&of, &archived]).await?.first().map_or(0, |row| row.get(0))
            }
        };
        let mut listed = rows.iter().map(conversation).collect::<Result<Vec<_>, _>>()?;
        let ids: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
        let mut members: HashMap<ConversationId, Vec<Member>> = HashMap::new();
        for row in self.query(Operation::Read, FIRST_MEMBERS, &[&ids]).await? {
            let id = ConversationId::parse(row.get(0)).map_err(|error| unreadable(&error))?;
            let name = row.get::<_, Option<&str>>(2).map(Arc::from);
            let member = Member { user: user(row.get(1))?, name, delivered_seq: row.get(3), read_seq: row.get(4) };
            members.entry(id).or_default().push(member);
        }
        for one in &mut listed {
            one.members = members.remove(&one.id).unwrap_or_default();
        }
        Ok((listed, total))
    }
}
