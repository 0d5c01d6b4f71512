//! Blocks between users, and former members who may not be added by everybody.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Result, params};

use super::{
    super::{Authority, Blocks, NewEntry, Operation, StoreError, codes::FormerCode},
    Sqlite, now,
    rows::id,
};
use crate::model::{Body, LogId, UserId};

#[async_trait]
impl Blocks for Sqlite {
    async fn block(&self, user: &UserId, other: &UserId, limit: u32) -> Result<bool, StoreError> {
        let (user, other) = (user.clone(), other.clone());
        self.write(Operation::Write, move |db| block(db, &user, &other, limit)).await
    }

    async fn unblock(&self, user: &UserId, other: &UserId) -> Result<(), StoreError> {
        let (user, other) = (user.clone(), other.clone());
        let sql = "DELETE FROM blocks WHERE user_id = ?1 AND blocked = ?2";
        self.write(Operation::Write, move |db| db.execute(sql, (user.as_str(), other.as_str())).map(drop)).await
    }

    async fn blocked(&self, user: &UserId) -> Result<Vec<UserId>, StoreError> {
        let user = user.clone();
        self.read(Operation::Read, move |db| {
            let mut statement = db.prepare_cached("SELECT blocked FROM blocks WHERE user_id = ?1 ORDER BY blocked")?;
            let read = |row: &rusqlite::Row<'_>| id(UserId::parse(&row.get::<_, String>(0)?));
            statement.query_map([user.as_str()], read)?.collect()
        })
        .await
    }

    async fn any_blocks(&self, users: &[UserId], other: &UserId) -> Result<bool, StoreError> {
        let (users, other) = (users.to_vec(), other.clone());
        self.read(Operation::Read, move |db| {
            for user in &users {
                if blocks(db, user, &other)? {
                    return Ok(true);
                }
            }
            Ok(false)
        })
        .await
    }
}

fn block(db: &Connection, user: &UserId, other: &UserId, limit: u32) -> Result<bool> {
    if blocks(db, user, other)? {
        return Ok(true);
    }
    let count: u32 = db
        .prepare_cached("SELECT count(*) FROM blocks WHERE user_id = ?1")?
        .query_row([user.as_str()], |row| row.get(0))?;
    if count >= limit {
        return Ok(false);
    }
    let sql = "INSERT INTO blocks (user_id, blocked, created_at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
    db.execute(sql, params![user.as_str(), other.as_str(), now()])?;
    Ok(true)
}

fn blocks(db: &Connection, user: &UserId, other: &UserId) -> Result<bool> {
    db.prepare_cached("SELECT 1 FROM blocks WHERE user_id = ?1 AND blocked = ?2")?
        .exists((user.as_str(), other.as_str()))
}

/// True if the log is a direct conversation whose other member blocks the sender.
pub(super) fn is_blocked_in_direct(db: &Connection, log: &LogId, sender: &UserId) -> Result<bool> {
    let sql = "SELECT 1 FROM conversations c JOIN members m ON m.conversation = c.id \
         JOIN blocks b ON b.user_id = m.user_id AND b.blocked = ?2 WHERE c.id = ?1 AND c.direct_key IS NOT NULL";
    db.prepare_cached(sql)?.exists((log.as_str(), sender.as_str()))
}

/// True if the sender of `new` may add this user. A user who is a member already may always be added again, since that
/// changes nothing.
pub(super) fn may_add(db: &Connection, new: &NewEntry, user: &UserId) -> Result<bool> {
    let (log, sender) = (new.log.as_str(), &new.sender);
    if new.authority == Authority::Admin {
        return Ok(true);
    }
    let sql = "SELECT 1 FROM members WHERE conversation = ?1 AND user_id = ?2";
    if db.prepare_cached(sql)?.exists((log, user.as_str()))? {
        return Ok(true);
    }
    let sql = "SELECT ending FROM former_members WHERE conversation = ?1 AND user_id = ?2";
    let ending: Option<i16> = db.prepare_cached(sql)?.query_row((log, user.as_str()), |row| row.get(0)).optional()?;
    if new.authority == Authority::System {
        return Ok(ending != Some(i16::from(FormerCode::Removed)));
    }
    if blocks(db, user, sender)? {
        return Ok(false);
    }
    let sql = "SELECT 1 FROM conversations WHERE id = ?1 AND created_by = ?2";
    Ok(ending.is_none() || db.prepare_cached(sql)?.exists((log, sender.as_str()))?)
}

/// Records how a membership ended, or forgets it once the user is a member again.
pub(super) fn record_former_member(db: &Connection, new: &NewEntry, at: i64) -> Result<()> {
    match &new.body {
        Body::MemberAdded { user } => {
            let sql = "DELETE FROM former_members WHERE conversation = ?1 AND user_id = ?2";
            db.prepare_cached(sql)?.execute((new.log.as_str(), user.as_str())).map(drop)
        }
        Body::MemberRemoved { user } => {
            let ending = if *user == new.sender { FormerCode::Left } else { FormerCode::Removed };
            let sql = "INSERT INTO former_members (conversation, user_id, ending, ended_at) VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT (conversation, user_id) DO UPDATE SET ending = ?3, ended_at = ?4";
            db.prepare_cached(sql)?.execute(params![new.log.as_str(), user.as_str(), i16::from(ending), at]).map(drop)
        }
        _ => Ok(()),
    }
}
