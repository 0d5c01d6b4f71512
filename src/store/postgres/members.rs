//! Members of a conversation, and their delivered and read marks.

use async_trait::async_trait;

use super::{
    super::{Access, Ends, Members, Operation, StoreError},
    Postgres,
    rows::{MEMBERS, user},
};
use crate::model::{ConversationId, Seq, UserId};

const MARK: &str = "SELECT o_delivered, o_read FROM move_marks($1, $2, $3, $4)";
const ACQUAINTANCES: &str = "SELECT DISTINCT o.user_id FROM members m CROSS JOIN LATERAL ( \
         SELECT user_id FROM members WHERE conversation = m.conversation AND user_id <> $1 LIMIT $2 \
     ) o WHERE m.user_id = $1 LIMIT $2";

impl Postgres {
    async fn read_access(
        &self,
        operation: Operation,
        conversation: &ConversationId,
        user: &UserId,
    ) -> Result<Option<Access>, StoreError> {
        let sql = "SELECT c.open, h.seq, m.user_id IS NOT NULL, coalesce(m.delivered_seq, 0) \
             FROM conversations c JOIN heads h ON h.log = c.id \
             LEFT JOIN members m ON m.conversation = c.id AND m.user_id = $2 WHERE c.id = $1";
        let rows = self.query(operation, sql, &[&conversation.as_str(), &user.as_str()]).await?;
        Ok(rows.first().map(|row| Access {
            open: row.get(0),
            ends: Ends { first: 1, head: row.get(1) },
            member: row.get(2),
            delivered: row.get(3),
        }))
    }
}

#[async_trait]
impl Members for Postgres {
    async fn access(&self, conversation: &ConversationId, user: &UserId) -> Result<Option<Access>, StoreError> {
        self.read_access(Operation::Read, conversation, user).await
    }

    async fn reader_access(&self, conversation: &ConversationId, user: &UserId) -> Result<Option<Access>, StoreError> {
        self.read_access(Operation::List, conversation, user).await
    }

    async fn members(
        &self,
        conversation: &ConversationId,
        after: Option<&UserId>,
        limit: u32,
    ) -> Result<Vec<UserId>, StoreError> {
        let after = after.map_or("", UserId::as_str);
        let rows = self.query(Operation::Read, MEMBERS, &[&conversation.as_str(), &after, &i64::from(limit)]).await?;
        rows.iter().map(|row| user(row.get(0))).collect()
    }

    async fn acquaintances(&self, of: &UserId, limit: u32) -> Result<Vec<UserId>, StoreError> {
        let rows = self.query(Operation::Read, ACQUAINTANCES, &[&of.as_str(), &i64::from(limit)]).await?;
        rows.iter().map(|row| user(row.get(0))).collect()
    }

    async fn mark(
        &self,
        conversation: &ConversationId,
        user: &UserId,
        delivered: Seq,
        read: Seq,
    ) -> Result<Option<(Seq, Seq)>, StoreError> {
        let (id, user, delivered) = (conversation.as_str(), user.as_str(), delivered.max(read));
        let rows = self.query(Operation::Write, MARK, &[&id, &user, &delivered, &read]).await?;
        Ok(rows.first().map(|row| (row.get(0), row.get(1))))
    }
}
