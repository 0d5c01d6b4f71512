//! Members of a conversation, and their delivered and read marks.

use async_trait::async_trait;
use tokio_postgres::Row;

use super::{
    super::{
        Access, Ends, Members, Operation, StoreError,
        row::{deletions, larger, unread_count},
    },
    Postgres,
    rows::{MEMBERS, conversation_id, time, user},
};
use crate::model::{ConversationId, Seq, Unread, UserId};

const MARK: &str = "SELECT o_delivered, o_read FROM move_marks($1, $2, $3, $4)";
const ACQUAINTANCES: &str = "SELECT DISTINCT o.user_id FROM members m CROSS JOIN LATERAL ( \
         SELECT user_id FROM members WHERE conversation = m.conversation AND user_id <> $1 LIMIT $2 \
     ) o WHERE m.user_id = $1 LIMIT $2";

const SPEAKS: &str = "SELECT h.seq FROM members m JOIN heads h ON h.log = m.conversation \
     WHERE m.conversation = $1 AND m.user_id = $2 AND NOT is_blocked_in_direct($1, $2)";
const ACQUAINTED: &str = "SELECT EXISTS ( \
         SELECT FROM members m JOIN members o ON o.conversation = m.conversation AND o.user_id = $2 WHERE m.user_id = $1 \
     ) AND NOT EXISTS ( \
         SELECT FROM blocks WHERE user_id = $1 AND blocked = $2 OR user_id = $2 AND blocked = $1 \
     )";
const MEMBERS_OF: &str = "SELECT c.id, m.user_id FROM unnest($1::text[], $2::text[]) AS c (id, after) \
     CROSS JOIN LATERAL ( \
         SELECT user_id FROM members WHERE conversation = c.id AND user_id > c.after ORDER BY user_id LIMIT $3 \
     ) m ORDER BY c.id, m.user_id";
const MEMBERS_AMONG: &str = "SELECT m.conversation, m.user_id FROM unnest($1::text[], $2::text[]) AS a (conversation, user_id) \
     JOIN members m ON m.conversation = a.conversation AND m.user_id = a.user_id";
const UNREAD: &str = concat!(
    "SELECT m.conversation, m.user_id, h.seq, ",
    unread_count!("m.conversation", "m.read_no", "m.read_seq"),
    " \
     FROM unnest($1::text[], $2::text[]) AS a (conversation, user_id) \
     JOIN members m ON m.conversation = a.conversation AND m.user_id = a.user_id \
     JOIN heads h ON h.log = m.conversation"
);

impl Postgres {
    async fn read_access(
        &self,
        operation: Operation,
        conversation: &ConversationId,
        user: &UserId,
    ) -> Result<Option<Access>, StoreError> {
        let sql = "SELECT c.open, h.seq, m.user_id IS NOT NULL, coalesce(m.delivered_seq, 0), h.updated_at, h.removed_seq \
             FROM conversations c JOIN heads h ON h.log = c.id \
             LEFT JOIN members m ON m.conversation = c.id AND m.user_id = $2 WHERE c.id = $1";
        let rows = self.query(operation, sql, &[&conversation.as_str(), &user.as_str()]).await?;
        Ok(rows.first().map(|row| Access {
            open: row.get(0),
            ends: Ends::of(row.get(1), time(row.get(4)), row.get(5)),
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

    async fn speaks(&self, conversation: &ConversationId, user: &UserId) -> Result<Option<Seq>, StoreError> {
        let rows = self.query(Operation::Read, SPEAKS, &[&conversation.as_str(), &user.as_str()]).await?;
        Ok(rows.first().map(|row| row.get(0)))
    }

    async fn acquainted(&self, one: &UserId, other: &UserId) -> Result<bool, StoreError> {
        let rows = self.query(Operation::Read, ACQUAINTED, &[&one.as_str(), &other.as_str()]).await?;
        Ok(rows.first().is_some_and(|row| row.get(0)))
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

    async fn members_of(
        &self,
        conversations: &[(ConversationId, Option<UserId>)],
        limit: u32,
    ) -> Result<Vec<(ConversationId, UserId)>, StoreError> {
        let ids: Vec<&str> = conversations.iter().map(|(id, _)| id.as_str()).collect();
        let after = conversations.iter().map(|(_, after)| after.as_ref().map_or("", UserId::as_str));
        let after: Vec<&str> = after.collect();
        let rows = self.query(Operation::List, MEMBERS_OF, &[&ids, &after, &i64::from(limit)]).await?;
        rows.iter().map(|row| Ok((conversation_id(row.get(0))?, user(row.get(1))?))).collect()
    }

    async fn members_among(
        &self,
        of: &[(ConversationId, UserId)],
    ) -> Result<Vec<(ConversationId, UserId)>, StoreError> {
        let (ids, users): (Vec<&str>, Vec<&str>) = of.iter().map(|(id, user)| (id.as_str(), user.as_str())).unzip();
        let rows = self.query(Operation::Read, MEMBERS_AMONG, &[&ids, &users]).await?;
        rows.iter().map(|row| Ok((conversation_id(row.get(0))?, user(row.get(1))?))).collect()
    }

    async fn unread(&self, of: &[(ConversationId, UserId)]) -> Result<Vec<Unread>, StoreError> {
        let ids: Vec<&str> = of.iter().map(|(id, _)| id.as_str()).collect();
        let users: Vec<&str> = of.iter().map(|(_, user)| user.as_str()).collect();
        let rows = self.query(Operation::List, UNREAD, &[&ids, &users]).await?;
        let unread = |row: &Row| {
            let (conversation, user) = (conversation_id(row.get(0))?, user(row.get(1))?);
            Ok(Unread { conversation, user, head: row.get(2), unread: row.get::<_, i64>(3).max(0) })
        };
        rows.iter().map(unread).collect()
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
