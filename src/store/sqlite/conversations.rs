//! Conversations: create, show and list, with their members.

use std::collections::BTreeSet;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use super::{
    super::{
        Conversations, Direct, FoundDirect, Operation, StoreError,
        codes::kind_of,
        row::{
            conversation_columns, deletions, direct_columns, direct_key, entry_columns, larger, last_messages, pair,
            unread_count,
        },
    },
    Sqlite,
    logs::{add_user, append_to_inbox, new_inbox_entry},
    now,
    rows::{self, id, members, unreadable},
};
use crate::model::{Body, Conversation, ConversationId, Entry, NewConversation, Page, Pair, UserId};

const CONVERSATIONS: &str = concat!(
    "SELECT ",
    conversation_columns!("m.read_no", "m.read_seq", "m.archived"),
    " \
     FROM members m JOIN conversations c ON c.id = m.conversation JOIN heads h ON h.log = c.id \
     WHERE m.user_id = ?1 AND m.archived = ?4 ORDER BY h.updated_at DESC, c.id LIMIT ?2 OFFSET ?3"
);
const CONVERSATION: &str = concat!(
    "SELECT ",
    conversation_columns!(
        "coalesce(m.read_no, h.message_no)",
        "coalesce(m.read_seq, h.seq)",
        "coalesce(m.archived, 0)"
    ),
    " \
     FROM conversations c JOIN heads h ON h.log = c.id \
     LEFT JOIN members m ON m.conversation = c.id AND m.user_id = ?2 WHERE c.id = ?1"
);
const DIRECTS: &str = concat!(
    "SELECT ",
    direct_columns!(),
    " \
     FROM members m JOIN conversations c ON c.id = m.conversation JOIN heads h ON h.log = c.id \
     WHERE m.user_id = ?1 AND c.direct_key IS NOT NULL ORDER BY h.updated_at DESC, c.id LIMIT ?2"
);
const LAST_MESSAGE: &str = last_messages!("h.log = ?1");
/// Number of members that a listing shows of each conversation.
const FIRST_MEMBERS: u32 = 100;

#[async_trait]
impl Conversations for Sqlite {
    async fn create(
        &self,
        new: &NewConversation,
        id: &ConversationId,
        creator: &UserId,
    ) -> Result<Option<(Conversation, Vec<Entry>)>, StoreError> {
        let (new, id, creator) = (new.clone(), id.clone(), creator.clone());
        self.write(Operation::creation(new.members.len()), move |db| {
            let members = new.members.iter().chain([&creator]).cloned().collect();
            let Some(entries) = insert_conversation(db, &new, &id, None, &creator, members)? else { return Ok(None) };
            Ok(conversation(db, &id, &creator)?.map(|conversation| (conversation, entries)))
        })
        .await
    }

    async fn direct(&self, one: &UserId, other: &UserId) -> Result<FoundDirect, StoreError> {
        let (one, other) = (one.clone(), other.clone());
        self.write(Operation::Write, move |db| {
            let key = direct_key(&one, &other);
            if let Some(found) = direct_of_key(db, &key)? {
                return Ok(found);
            }
            let (id, members) = (ConversationId::fresh(), [one.clone(), other].into());
            let entries = insert_conversation(db, &NewConversation::default(), &id, Some(&key), &one, members)?;
            Ok(FoundDirect { conversation: id, head: 0, inbox_entries: entries.unwrap_or_default() })
        })
        .await
    }

    async fn known_direct(&self, one: &UserId, other: &UserId) -> Result<Option<ConversationId>, StoreError> {
        let key = direct_key(one, other);
        self.read(Operation::Read, move |db| Ok(direct_of_key(db, &key)?.map(|found| found.conversation))).await
    }

    async fn conversation(&self, id: &ConversationId, reader: &UserId) -> Result<Option<Conversation>, StoreError> {
        let (id, reader) = (id.clone(), reader.clone());
        self.read(Operation::List, move |db| conversation(db, &id, &reader)).await
    }

    async fn conversations(
        &self,
        user: &UserId,
        archived: bool,
        page: Page,
    ) -> Result<(Vec<Conversation>, i64), StoreError> {
        let user = user.clone();
        self.read(Operation::List, move |db| conversations(db, &user, archived, page)).await
    }

    async fn archive(&self, conversation: &ConversationId, user: &UserId, archived: bool) -> Result<bool, StoreError> {
        let (id, user) = (conversation.clone(), user.clone());
        let sql = "UPDATE members SET archived = ?3 WHERE conversation = ?1 AND user_id = ?2";
        self.write(Operation::Write, move |db| Ok(db.execute(sql, (id.as_str(), user.as_str(), archived))? > 0)).await
    }

    async fn directs(&self, user: &UserId, limit: u32) -> Result<Vec<Direct>, StoreError> {
        let user = user.clone();
        self.read(Operation::Read, move |db| directs(db, &user, limit)).await
    }

    async fn pair(&self, conversation: &ConversationId) -> Result<Option<Pair>, StoreError> {
        let id = conversation.clone();
        self.read(Operation::Read, move |db| pair_of(db, &id)).await
    }
}

/// Creates a conversation and adds an entry to each member's inbox; `None` if the id is taken.
fn insert_conversation(
    db: &Connection,
    new: &NewConversation,
    id: &ConversationId,
    direct_key: Option<&str>,
    creator: &UserId,
    members: BTreeSet<UserId>,
) -> Result<Option<Vec<Entry>>> {
    let at = now();
    let inserted = db.execute(
        "INSERT INTO conversations (id, kind, name, description, open, direct_key, created_by, created_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING",
        params![
            id.as_str(),
            i16::from(kind_of(direct_key)),
            new.name.as_deref(),
            new.description.as_deref(),
            new.open,
            direct_key,
            creator.as_str(),
            at
        ],
    )?;
    if inserted == 0 {
        return Ok(None);
    }
    db.execute("INSERT INTO heads (log, updated_at) VALUES (?1, ?2)", (id.as_str(), at))?;
    let add_member = |user: UserId| {
        add_user(db, &user)?;
        let sql = "INSERT INTO members (conversation, user_id, joined_at) VALUES (?1, ?2, ?3)";
        db.execute(sql, (id.as_str(), user.as_str(), at))?;
        append_to_inbox(
            db,
            new_inbox_entry(&user, creator, at, Body::ConversationAdded { conversation: id.clone(), since: 0 }),
        )
    };
    members.into_iter().map(add_member).collect::<Result<_>>().map(Some)
}

fn direct_of_key(db: &Connection, key: &str) -> Result<Option<FoundDirect>> {
    let read = |row: &Row<'_>| {
        let (conversation, head) = (id(ConversationId::parse(&row.get::<_, String>(0)?))?, row.get(1)?);
        Ok(FoundDirect { conversation, head, inbox_entries: Vec::new() })
    };
    let sql = "SELECT c.id, h.seq FROM conversations c JOIN heads h ON h.log = c.id WHERE c.direct_key = ?1";
    db.prepare_cached(sql)?.query_row([key], read).optional()
}

fn conversation(db: &Connection, of: &ConversationId, reader: &UserId) -> Result<Option<Conversation>> {
    let read =
        db.prepare_cached(CONVERSATION)?.query_row((of.as_str(), reader.as_str()), rows::conversation).optional()?;
    let Some(conversation) = read else { return Ok(None) };
    Ok(Some(Conversation { members: members(db, of, "", 1_000)?, ..conversation }))
}

fn conversations(db: &Connection, user: &UserId, archived: bool, page: Page) -> Result<(Vec<Conversation>, i64)> {
    let parameters = params![user.as_str(), page.limit.get(), page.offset.get(), archived];
    let mut listed: Vec<Conversation> =
        db.prepare_cached(CONVERSATIONS)?.query_map(parameters, rows::conversation)?.collect::<Result<_>>()?;
    for one in &mut listed {
        one.members = members(db, &one.id, "", FIRST_MEMBERS)?;
        one.last_message =
            db.prepare_cached(LAST_MESSAGE)?.query_row([one.id.as_str()], rows::entry).optional()?.map(Box::new);
    }
    let total = db
        .prepare_cached("SELECT count(*) FROM members WHERE user_id = ?1 AND archived = ?2")?
        .query_row(params![user.as_str(), archived], |row| row.get(0))?;
    Ok((listed, total))
}

fn direct(row: &Row<'_>) -> Result<Direct> {
    Ok(Direct {
        conversation: id(ConversationId::parse(&row.get::<_, String>(0)?))?,
        pair: pair(&row.get::<_, String>(1)?).map_err(unreadable)?,
        delivered: row.get(2)?,
        head: row.get(3)?,
        removed: row.get(4)?,
    })
}

fn directs(db: &Connection, user: &UserId, limit: u32) -> Result<Vec<Direct>> {
    db.prepare_cached(DIRECTS)?.query_map(params![user.as_str(), limit], direct)?.collect()
}

fn pair_of(db: &Connection, of: &ConversationId) -> Result<Option<Pair>> {
    let sql = "SELECT direct_key FROM conversations WHERE id = ?1 AND direct_key IS NOT NULL";
    let read = |row: &Row<'_>| pair(&row.get::<_, String>(0)?).map_err(unreadable);
    db.prepare_cached(sql)?.query_row([of.as_str()], read).optional()
}
