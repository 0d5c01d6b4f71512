//! Conversations: create, show and list, with their members.

use std::collections::HashMap;

use async_trait::async_trait;
use tokio_postgres::Row;

use super::{
    super::{
        Conversations, Direct, FoundDirect, Operation, StoreError,
        codes::kind_of,
        row::{
            conversation_columns, deletions, direct_columns, direct_key, entry_columns, larger, last_messages,
            member_columns, unread_count,
        },
    },
    Postgres,
    rows::{
        MEMBERS, conversation, conversation_id, direct, entry, inbox_columns, inbox_entries, limit_and_offset, member,
        pair,
    },
};
use crate::model::{Body, Conversation, ConversationId, Entry, Member, NewConversation, Page, Pair, UserId};

const CONVERSATIONS: &str = concat!(
    "SELECT ",
    conversation_columns!("m.read_no", "m.read_seq", "m.archived"),
    ", count(*) OVER () \
     FROM members m JOIN conversations c ON c.id = m.conversation JOIN heads h ON h.log = c.id \
     WHERE m.user_id = $1 AND m.archived = $4 ORDER BY h.updated_at DESC, c.id LIMIT $2 OFFSET $3"
);
const CONVERSATION: &str = concat!(
    "SELECT ",
    conversation_columns!(
        "coalesce(m.read_no, h.message_no)",
        "coalesce(m.read_seq, h.seq)",
        "coalesce(m.archived, false)"
    ),
    " \
     FROM conversations c JOIN heads h ON h.log = c.id \
     LEFT JOIN members m ON m.conversation = c.id AND m.user_id = $2 WHERE c.id = $1"
);
const FIRST_MEMBERS: &str = concat!(
    "SELECT ",
    member_columns!(),
    ", c.id \
     FROM unnest($1::text[]) AS c (id) CROSS JOIN LATERAL ( \
         SELECT * FROM members m WHERE m.conversation = c.id ORDER BY m.user_id LIMIT 100 \
     ) m LEFT JOIN users u ON u.id = m.user_id ORDER BY c.id, m.user_id"
);
const LAST_MESSAGES: &str = last_messages!("h.log = ANY ($1)");
const BY_KEY: &str = "SELECT c.id, h.seq FROM conversations c JOIN heads h ON h.log = c.id WHERE c.direct_key = $1";
const CREATE: &str = concat!("SELECT ", inbox_columns!(), " FROM create_conversation($1, $2, $3, $4, $5, $6, $7, $8)");
const DIRECTS: &str = concat!(
    "SELECT ",
    direct_columns!(),
    " \
     FROM members m JOIN conversations c ON c.id = m.conversation JOIN heads h ON h.log = c.id \
     WHERE m.user_id = $1 AND c.direct_key IS NOT NULL ORDER BY h.updated_at DESC, c.id LIMIT $2"
);

impl Postgres {
    async fn direct_of_key(&self, key: &str) -> Result<Option<FoundDirect>, StoreError> {
        let rows = self.query(Operation::Read, BY_KEY, &[&key]).await?;
        let found = |row: &Row| -> Result<_, StoreError> {
            let (conversation, head) = (conversation_id(row.get(0))?, row.get(1));
            Ok(FoundDirect { conversation, head, inbox_entries: Vec::new() })
        };
        rows.first().map(found).transpose()
    }

    async fn insert_conversation(
        &self,
        operation: Operation,
        new: &NewConversation,
        id: &ConversationId,
        direct: Option<&str>,
        creator: &UserId,
        members: &[&str],
    ) -> Result<Vec<Entry>, StoreError> {
        let kind = i16::from(kind_of(direct));
        let (name, description) = (new.name.as_deref(), new.description.as_deref());
        let (id_text, creator_text) = (id.as_str(), creator.as_str());
        let rows = self
            .query(
                operation,
                CREATE,
                &[&id_text, &kind, &name, &description, &new.open, &direct, &creator_text, &members],
            )
            .await?;
        let body = |_: &Row| Body::ConversationAdded { conversation: id.clone(), since: 0 };
        inbox_entries(&rows, |_| creator.clone(), body)
    }

    async fn read_conversation(
        &self,
        operation: Operation,
        id: &ConversationId,
        reader: &UserId,
    ) -> Result<Option<Conversation>, StoreError> {
        let rows = self.query(operation, CONVERSATION, &[&id.as_str(), &reader.as_str()]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let members = self.query(operation, MEMBERS, &[&id.as_str(), &"", &1_000_i64]).await?;
        let members = members.iter().map(member).collect::<Result<_, _>>()?;
        Ok(Some(Conversation { members, ..conversation(row)? }))
    }
}

#[async_trait]
impl Conversations for Postgres {
    async fn create(
        &self,
        new: &NewConversation,
        id: &ConversationId,
        creator: &UserId,
    ) -> Result<Option<(Conversation, Vec<Entry>)>, StoreError> {
        let members: Vec<&str> = new.members.iter().chain([creator]).map(UserId::as_str).collect();
        let operation = Operation::creation(members.len());
        let entries = self.insert_conversation(operation, new, id, None, creator, &members).await?;
        if entries.is_empty() {
            return Ok(None);
        }
        Ok(self.read_conversation(operation, id, creator).await?.map(|conversation| (conversation, entries)))
    }

    async fn direct(&self, one: &UserId, other: &UserId) -> Result<FoundDirect, StoreError> {
        let key = direct_key(one, other);
        if let Some(found) = self.direct_of_key(&key).await? {
            return Ok(found);
        }
        let conversation = ConversationId::fresh();
        let (operation, new, members) = (Operation::Write, NewConversation::default(), [one.as_str(), other.as_str()]);
        let inbox_entries = self.insert_conversation(operation, &new, &conversation, Some(&key), one, &members).await?;
        if !inbox_entries.is_empty() {
            return Ok(FoundDirect { conversation, head: 0, inbox_entries });
        }
        // A concurrent call created the conversation.
        let found = self.direct_of_key(&key).await?;
        found.ok_or_else(|| StoreError::Failed("a direct conversation was created and removed concurrently".into()))
    }

    async fn known_direct(&self, one: &UserId, other: &UserId) -> Result<Option<ConversationId>, StoreError> {
        Ok(self.direct_of_key(&direct_key(one, other)).await?.map(|found| found.conversation))
    }

    async fn conversation(&self, id: &ConversationId, reader: &UserId) -> Result<Option<Conversation>, StoreError> {
        self.read_conversation(Operation::List, id, reader).await
    }

    async fn conversations(
        &self,
        of: &UserId,
        archived: bool,
        page: Page,
    ) -> Result<(Vec<Conversation>, i64), StoreError> {
        let (of, (limit, offset)) = (of.as_str(), limit_and_offset(page));
        let rows = self.query(Operation::List, CONVERSATIONS, &[&of, &limit, &offset, &archived]).await?;
        let total = match rows.first() {
            Some(row) => row.get(11),
            // Past the last page there is no row that could carry the window's count.
            None => {
                let sql = "SELECT count(*) FROM members WHERE user_id = $1 AND archived = $2";
                self.query(Operation::List, sql, &[&of, &archived]).await?.first().map_or(0, |row| row.get(0))
            }
        };
        let mut listed = rows.iter().map(conversation).collect::<Result<Vec<_>, _>>()?;
        let ids: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
        let mut members: HashMap<ConversationId, Vec<Member>> = HashMap::new();
        for row in self.query(Operation::List, FIRST_MEMBERS, &[&ids]).await? {
            members.entry(conversation_id(row.get(4))?).or_default().push(member(&row)?);
        }
        let mut last = HashMap::new();
        for row in self.query(Operation::List, LAST_MESSAGES, &[&ids]).await? {
            let message = entry(&row)?;
            last.extend(message.log.conversation().map(|id| (id, message)));
        }
        for one in &mut listed {
            one.members = members.remove(&one.id).unwrap_or_default();
            one.last_message = last.remove(&one.id).map(Box::new);
        }
        Ok((listed, total))
    }

    async fn archive(&self, conversation: &ConversationId, user: &UserId, archived: bool) -> Result<bool, StoreError> {
        let sql = "UPDATE members SET archived = $3 WHERE conversation = $1 AND user_id = $2 RETURNING 1";
        let rows = self.query(Operation::Write, sql, &[&conversation.as_str(), &user.as_str(), &archived]).await?;
        Ok(!rows.is_empty())
    }

    async fn directs(&self, user: &UserId, limit: u32) -> Result<Vec<Direct>, StoreError> {
        let rows = self.query(Operation::Read, DIRECTS, &[&user.as_str(), &i64::from(limit)]).await?;
        rows.iter().map(direct).collect()
    }

    async fn pair(&self, conversation: &ConversationId) -> Result<Option<Pair>, StoreError> {
        let sql = "SELECT direct_key FROM conversations WHERE id = $1 AND direct_key IS NOT NULL";
        let rows = self.query(Operation::Read, sql, &[&conversation.as_str()]).await?;
        rows.first().map(|row| pair(row.get(0))).transpose()
    }
}
