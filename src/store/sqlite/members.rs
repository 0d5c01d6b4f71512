//! Members of a conversation, and their delivered and read marks.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use super::{
    super::{
        Access, Ends, Members, Operation, StoreError,
        row::{deletions, larger, unread_count},
    },
    Sqlite,
    logs::head,
    now,
    rights::is_blocked_in_direct,
    rows::{self, id},
};
use crate::model::{ConversationId, LogId, Seq, Unread, UserId};

#[async_trait]
impl Members for Sqlite {
    async fn access(&self, conversation: &ConversationId, user: &UserId) -> Result<Option<Access>, StoreError> {
        let (id, user) = (conversation.clone(), user.clone());
        self.read(Operation::Read, move |db| access(db, &id, &user)).await
    }

    async fn reader_access(&self, conversation: &ConversationId, user: &UserId) -> Result<Option<Access>, StoreError> {
        let (id, user) = (conversation.clone(), user.clone());
        self.read(Operation::List, move |db| access(db, &id, &user)).await
    }

    async fn speaks(&self, conversation: &ConversationId, user: &UserId) -> Result<Option<Seq>, StoreError> {
        let (log, user) = (LogId::from(conversation), user.clone());
        self.read(Operation::Read, move |db| speaks(db, &log, &user)).await
    }

    async fn acquainted(&self, one: &UserId, other: &UserId) -> Result<bool, StoreError> {
        let (one, other) = (one.clone(), other.clone());
        self.read(Operation::Read, move |db| acquainted(db, &one, &other)).await
    }

    async fn members(
        &self,
        conversation: &ConversationId,
        after: Option<&UserId>,
        limit: u32,
    ) -> Result<Vec<UserId>, StoreError> {
        let (id, after) = (conversation.clone(), after.map_or_else(String::new, ToString::to_string));
        self.read(Operation::Read, move |db| {
            Ok(rows::members(db, &id, &after, limit)?.into_iter().map(|member| member.user).collect())
        })
        .await
    }

    async fn members_of(
        &self,
        conversations: &[(ConversationId, Option<UserId>)],
        limit: u32,
    ) -> Result<Vec<(ConversationId, UserId)>, StoreError> {
        let conversations = conversations.to_vec();
        self.read(Operation::List, move |db| {
            let mut found = Vec::new();
            for (id, after) in conversations {
                let members = rows::members(db, &id, after.as_ref().map_or("", UserId::as_str), limit)?;
                found.extend(members.into_iter().map(|member| (id.clone(), member.user)));
            }
            Ok(found)
        })
        .await
    }

    async fn members_among(
        &self,
        of: &[(ConversationId, UserId)],
    ) -> Result<Vec<(ConversationId, UserId)>, StoreError> {
        let of = of.to_vec();
        self.read(Operation::Read, move |db| {
            let mut statement = db.prepare_cached("SELECT 1 FROM members WHERE conversation = ?1 AND user_id = ?2")?;
            let mut found = Vec::new();
            for (conversation, user) in of {
                if statement.exists((conversation.as_str(), user.as_str()))? {
                    found.push((conversation, user));
                }
            }
            Ok(found)
        })
        .await
    }

    async fn unread(&self, of: &[(ConversationId, UserId)]) -> Result<Vec<Unread>, StoreError> {
        let of = of.to_vec();
        self.read(Operation::List, move |db| unread(db, of)).await
    }

    async fn acquaintances(&self, user: &UserId, limit: u32) -> Result<Vec<UserId>, StoreError> {
        let user = user.clone();
        self.read(Operation::Read, move |db| acquaintances(db, &user, limit)).await
    }

    async fn mark(
        &self,
        conversation: &ConversationId,
        user: &UserId,
        delivered: Seq,
        read: Seq,
    ) -> Result<Option<(Seq, Seq)>, StoreError> {
        let (id, user) = (conversation.clone(), user.clone());
        self.write(Operation::Write, move |db| move_marks(db, &id, &user, delivered.max(read), read)).await
    }
}

fn access(db: &Connection, conversation: &ConversationId, user: &UserId) -> Result<Option<Access>> {
    let sql = "SELECT c.open, h.seq, m.user_id IS NOT NULL, coalesce(m.delivered_seq, 0), h.updated_at, h.removed_seq \
         FROM conversations c JOIN heads h ON h.log = c.id \
         LEFT JOIN members m ON m.conversation = c.id AND m.user_id = ?2 WHERE c.id = ?1";
    let read = |row: &Row<'_>| {
        let ends = Ends::of(row.get(1)?, rows::time(row, 4)?, row.get(5)?);
        Ok(Access { open: row.get(0)?, ends, member: row.get(2)?, delivered: row.get(3)? })
    };
    db.prepare_cached(sql)?.query_row((conversation.as_str(), user.as_str()), read).optional()
}

fn unread(db: &Connection, of: Vec<(ConversationId, UserId)>) -> Result<Vec<Unread>> {
    let sql = concat!(
        "SELECT h.seq, ",
        unread_count!("m.conversation", "m.read_no", "m.read_seq"),
        " FROM members m JOIN heads h ON h.log = m.conversation WHERE m.conversation = ?1 AND m.user_id = ?2"
    );
    let (mut statement, mut found) = (db.prepare_cached(sql)?, Vec::with_capacity(of.len()));
    for (conversation, user) in of {
        let read = |row: &Row<'_>| Ok((row.get(0)?, row.get::<_, i64>(1)?.max(0)));
        if let Some((head, unread)) = statement.query_row((conversation.as_str(), user.as_str()), read).optional()? {
            found.push(Unread { conversation, user, head, unread });
        }
    }
    Ok(found)
}

fn speaks(db: &Connection, log: &LogId, user: &UserId) -> Result<Option<Seq>> {
    let sql = "SELECT 1 FROM members WHERE conversation = ?1 AND user_id = ?2";
    let member = db.prepare_cached(sql)?.exists((log.as_str(), user.as_str()))?;
    match member && !is_blocked_in_direct(db, log, user)? {
        true => Ok(head(db, log)?.map(|head| head.seq)),
        false => Ok(None),
    }
}

fn acquainted(db: &Connection, one: &UserId, other: &UserId) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM members m JOIN members o ON o.conversation = m.conversation \
             AND o.user_id = ?2 WHERE m.user_id = ?1) \
         AND NOT EXISTS (SELECT 1 FROM blocks WHERE user_id = ?1 AND blocked = ?2 OR user_id = ?2 AND blocked = ?1)";
    db.prepare_cached(sql)?.query_row((one.as_str(), other.as_str()), |row| row.get(0))
}

fn acquaintances(db: &Connection, user: &UserId, limit: u32) -> Result<Vec<UserId>> {
    let sql = "SELECT DISTINCT o.user_id FROM members m JOIN members o ON o.conversation = m.conversation \
         WHERE m.user_id = ?1 AND o.user_id <> ?1 LIMIT ?2";
    let read = |row: &Row<'_>| id(UserId::parse(&row.get::<_, String>(0)?));
    db.prepare_cached(sql)?.query_map(params![user.as_str(), limit], read)?.collect()
}

/// Moves a member's marks forward.
fn move_marks(
    db: &Connection,
    id: &ConversationId,
    user: &UserId,
    delivered: Seq,
    read: Seq,
) -> Result<Option<(Seq, Seq)>> {
    let log = LogId::from(id);
    let Some(head) = head(db, &log)? else { return Ok(None) };
    let (delivered, read) = (delivered.min(head.seq), read.min(head.seq));
    let moved: Option<(Seq, Seq)> = db
        .prepare_cached(
            "UPDATE members SET delivered_seq = max(delivered_seq, ?3), read_seq = max(read_seq, ?4), \
             read_no = CASE WHEN ?4 > read_seq THEN coalesce((SELECT message_no FROM log WHERE log = ?1 AND seq <= ?4 \
                 ORDER BY seq DESC LIMIT 1), read_no) ELSE read_no END \
             WHERE conversation = ?1 AND user_id = ?2 AND (?3 > delivered_seq OR ?4 > read_seq) \
             RETURNING max(delivered_seq, read_seq), read_seq",
        )?
        .query_row(params![id.as_str(), user.as_str(), delivered, read], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    if let Some((_, read)) = moved {
        let sql = "UPDATE notifications SET read_at = ?4 \
             WHERE user_id = ?2 AND conversation = ?1 AND read_at IS NULL AND last_seq <= ?3";
        db.execute(sql, params![id.as_str(), user.as_str(), read, now()])?;
    }
    Ok(moved)
}
