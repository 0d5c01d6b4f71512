//! What is asked of PostgreSQL.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use tokio_postgres::Row;

use super::{
    super::{
        Access, Authority, Direct, Ends, MessagesPage, NewEntry, Operation, Outcome, Store, StoreError, Waiting,
        Within, migrations,
        row::{Columns, direct_key, inbox_entry},
    },
    Postgres, describe,
    rows::{conversation, entry, outcome, pair, system_time, time, unreadable, user},
    sql::{ACQUAINTANCES, APPEND_CHANGE, APPEND_MESSAGES, CONVERSATION, DIRECTS, ENTRIES, MARK, MEMBERS},
};
use crate::model::{
    Body, Conversation, ConversationId, Entry, LogId, Member, Message, NewConversation, NodeId, Notification, Pair,
    Seq, Status, Timestamp, UserId,
};

/// The lock under which one node at a time migrates; any number that is this program's own.
const MIGRATION_LOCK: i64 = 0x5157_4249_4F41_5244;
/// How long migrations may take, waiting for another node's among them.
const MIGRATION: Duration = Duration::from_secs(300);

impl Postgres {
    async fn append_messages(&self, batch: &[NewEntry]) -> Result<Vec<Outcome>, StoreError> {
        let columns: Vec<Columns<'_>> = batch.iter().map(|entry| Columns::from(&entry.body)).collect();
        let logs: Vec<&str> = batch.iter().map(|entry| entry.log.as_str()).collect();
        let senders: Vec<&str> = batch.iter().map(|entry| entry.sender.as_str()).collect();
        let names: Vec<&str> = batch.iter().map(|entry| &*entry.sender_name).collect();
        let dedupes: Vec<&str> = batch.iter().map(|entry| entry.dedupe.as_str()).collect();
        let gave: Vec<bool> = batch.iter().map(|entry| entry.client_gave_id).collect();
        let must: Vec<bool> = batch.iter().map(|entry| entry.authority == Authority::Member).collect();
        let contents: Vec<Option<&str>> = columns.iter().map(|columns| columns.content).collect();
        let targets: Vec<Option<Seq>> = columns.iter().map(|columns| columns.target).collect();
        let flags: Vec<bool> = columns.iter().map(|columns| columns.flag).collect();
        let rows = self
            .query(
                Operation::Append,
                APPEND_MESSAGES,
                &[&logs, &senders, &names, &dedupes, &gave, &must, &contents, &targets, &flags],
            )
            .await?;
        if rows.len() != batch.len() {
            return Err(StoreError::Failed("append_messages did not answer for each entry".into()));
        }
        Ok(rows.iter().map(outcome).collect())
    }

    async fn append_change(&self, new: &NewEntry) -> Result<Outcome, StoreError> {
        let Columns { kind, content, target, subject, flag } = Columns::from(&new.body);
        let authority = match new.authority {
            Authority::Member => 0_i16,
            Authority::Admin => 1,
            Authority::System => 2,
        };
        let (log, sender, dedupe) = (new.log.as_str(), new.sender.as_str(), new.dedupe.as_str());
        let kind = kind as i16;
        let rows = self
            .query(
                Operation::Append,
                APPEND_CHANGE,
                &[
                    &log,
                    &kind,
                    &sender,
                    &&*new.sender_name,
                    &dedupe,
                    &new.client_gave_id,
                    &authority,
                    &content,
                    &target,
                    &subject,
                    &flag,
                ],
            )
            .await?;
        let row = rows.first().ok_or_else(|| StoreError::Failed("append_change did not answer".into()))?;
        let mut outcome = outcome(row);
        if let (Ok(appended), Some(seq)) = (&mut outcome, row.get::<_, Option<Seq>>(4)) {
            appended.also = inbox_entry(new, appended, seq).into_iter().collect();
        }
        Ok(outcome)
    }

    /// The inbox entries that rows of (user, inbox seq, time) tell of.
    fn told(
        rows: &[Row],
        sender: impl Fn(&UserId) -> UserId,
        body: impl Fn(&Row) -> Body,
    ) -> Result<Vec<Entry>, StoreError> {
        rows.iter()
            .map(|row| {
                let user = user(row.get(0))?;
                let sender = sender(&user);
                Ok(Entry {
                    log: LogId::inbox(&user),
                    seq: row.get(1),
                    message_no: 0,
                    sender_name: sender.as_str().into(),
                    sender,
                    client_id: None,
                    at: time(row.get(2)),
                    body: body(row),
                })
            })
            .collect()
    }

    async fn make(
        &self,
        new: &NewConversation,
        id: &ConversationId,
        direct: Option<&str>,
        creator: &UserId,
        members: &[&str],
    ) -> Result<Vec<Entry>, StoreError> {
        let kind = i16::from(direct.is_some());
        let (name, description) = (new.name.as_deref(), new.description.as_deref());
        let sql = "SELECT o_user, o_inbox_seq, o_at FROM create_conversation($1, $2, $3, $4, $5, $6, $7, $8)";
        let (id_text, creator_text) = (id.as_str(), creator.as_str());
        let rows = self
            .query(
                Operation::Write,
                sql,
                &[&id_text, &kind, &name, &description, &new.open, &direct, &creator_text, &members],
            )
            .await?;
        let body = |_: &Row| Body::ConversationAdded { conversation: id.clone(), since: 0 };
        Self::told(&rows, |_| creator.clone(), body)
    }
}

#[async_trait]
impl Store for Postgres {
    async fn migrate(&self) -> Result<usize, StoreError> {
        let mut session = bb8::ManageConnection::connect(&self.sessions).await?;
        let failed = |error: tokio_postgres::Error| StoreError::Failed(describe(&error));
        let migrating = tokio::time::timeout(MIGRATION, async {
            // Ended with the session, which ends here.
            let lock =
                format!("SET statement_timeout = 0; SET lock_timeout = 0; SELECT pg_advisory_lock({MIGRATION_LOCK})");
            session.client.batch_execute(&lock).await.map_err(failed)?;
            let report = migrations::runner(migrations::POSTGRES)?.run_async(&mut session.client).await;
            report.map(|report| report.applied_migrations().len()).map_err(|error| unreadable(&error))
        });
        migrating.await.unwrap_or_else(|_| Err(StoreError::Unavailable("migrations took too long".into())))
    }

    async fn ping(&self) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT FROM alone WHERE until > clock_timestamp())";
        let rows = self.query(Operation::Ping, sql, &[]).await?;
        Ok(rows.first().is_some_and(|row| row.get(0)))
    }

    async fn give_notice(&self, node: &NodeId, alone: Duration, grown: &[(LogId, Seq)]) -> Result<(), StoreError> {
        let (logs, seqs): (Vec<&str>, Vec<Seq>) = grown.iter().map(|(log, seq)| (log.as_str(), *seq)).unzip();
        let sql = "SELECT give_notice($1, $2, $3, $4)";
        self.query(Operation::Write, sql, &[&node.as_str(), &alone.as_secs_f64(), &logs, &seqs]).await.map(drop)
    }

    async fn withdraw_notice(&self, node: &NodeId) -> Result<(), StoreError> {
        self.query(Operation::Write, "SELECT withdraw_notice($1)", &[&node.as_str()]).await.map(drop)
    }

    async fn notices(&self, span: Duration) -> Result<Vec<(LogId, Seq)>, StoreError> {
        let sql = "SELECT log, seq FROM notices WHERE at > clock_timestamp() - make_interval(secs => $1)";
        let rows = self.query(Operation::Read, sql, &[&span.as_secs_f64()]).await?;
        let log = |row: &Row| LogId::parse(row.get(0)).map_err(|error| unreadable(&error));
        rows.iter().map(|row| Ok((log(row)?, row.get(1)))).collect()
    }

    async fn append(&self, batch: &[NewEntry]) -> Result<Vec<Outcome>, StoreError> {
        match batch {
            [one] if !one.body.is_message() => Ok(vec![self.append_change(one).await?]),
            _ => self.append_messages(batch).await,
        }
    }

    async fn ends(&self, logs: &[LogId]) -> Result<Vec<(LogId, Ends)>, StoreError> {
        let names: Vec<&str> = logs.iter().map(LogId::as_str).collect();
        let rows = self.query(Operation::Read, "SELECT log, seq FROM heads WHERE log = ANY ($1)", &[&names]).await?;
        rows.iter()
            .map(|row| {
                let log = LogId::parse(row.get(0)).map_err(|error| unreadable(&error))?;
                Ok((log, Ends { first: 1, head: row.get(1) }))
            })
            .collect()
    }

    async fn entries(&self, log: &LogId, after: Seq, limit: u32) -> Result<Vec<Entry>, StoreError> {
        let (log, limit) = (log.as_str(), i64::from(limit));
        self.query(Operation::Read, ENTRIES, &[&log, &after, &limit]).await?.iter().map(entry).collect()
    }

    async fn messages(
        &self,
        conversation: &ConversationId,
        reader: &UserId,
        page: MessagesPage,
    ) -> Result<(Vec<Message>, i64), StoreError> {
        self.read_messages(conversation, reader, page).await
    }

    async fn message(
        &self,
        conversation: &ConversationId,
        seq: Seq,
        reader: &UserId,
    ) -> Result<Option<Message>, StoreError> {
        self.read_message(conversation, seq, reader).await
    }

    async fn search(&self, within: &Within, words: &str, limit: u32, offset: u32) -> Result<Vec<Entry>, StoreError> {
        self.find(within, words, limit, offset).await
    }

    async fn access(&self, conversation: &ConversationId, user: &UserId) -> Result<Option<Access>, StoreError> {
        let sql = "SELECT c.open, h.seq, m.user_id IS NOT NULL FROM conversations c JOIN heads h ON h.log = c.id \
             LEFT JOIN members m ON m.conversation = c.id AND m.user_id = $2 WHERE c.id = $1";
        let rows = self.query(Operation::Read, sql, &[&conversation.as_str(), &user.as_str()]).await?;
        Ok(rows.first().map(|row| Access {
            open: row.get(0),
            ends: Ends { first: 1, head: row.get(1) },
            member: row.get(2),
        }))
    }

    async fn create(
        &self,
        new: &NewConversation,
        id: &ConversationId,
        creator: &UserId,
    ) -> Result<Option<(Conversation, Vec<Entry>)>, StoreError> {
        let members: Vec<&str> = new.members.iter().chain([creator]).map(UserId::as_str).collect();
        let told = self.make(new, id, None, creator, &members).await?;
        if told.is_empty() {
            return Ok(None);
        }
        Ok(self.conversation(id, creator).await?.map(|conversation| (conversation, told)))
    }

    async fn direct(&self, one: &UserId, other: &UserId) -> Result<(ConversationId, Vec<Entry>), StoreError> {
        const KNOWN: &str = "SELECT id FROM conversations WHERE direct_key = $1";
        let key = direct_key(one, other);
        let known = |rows: Vec<Row>| -> Result<Option<ConversationId>, StoreError> {
            rows.first().map(|row| ConversationId::parse(row.get(0)).map_err(|e| unreadable(&e))).transpose()
        };
        if let Some(id) = known(self.query(Operation::Read, KNOWN, &[&key]).await?)? {
            return Ok((id, Vec::new()));
        }
        let id = ConversationId::fresh();
        let members = [one.as_str(), other.as_str()];
        let told = self.make(&NewConversation::default(), &id, Some(&key), one, &members).await?;
        if !told.is_empty() {
            return Ok((id, told));
        }
        // Somebody else made it just now.
        let id = known(self.query(Operation::Read, KNOWN, &[&key]).await?)?;
        Ok((id.ok_or_else(|| StoreError::Failed("a direct conversation came and went".into()))?, Vec::new()))
    }

    async fn conversation(&self, id: &ConversationId, reader: &UserId) -> Result<Option<Conversation>, StoreError> {
        let rows = self.query(Operation::Read, CONVERSATION, &[&id.as_str(), &reader.as_str()]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let members = self.query(Operation::Read, MEMBERS, &[&id.as_str(), &"", &1_000_i64]).await?;
        let members = members.iter().map(|row| {
            let name = row.get::<_, Option<&str>>(1).map(Arc::from);
            Ok(Member { user: user(row.get(0))?, name, delivered_seq: row.get(2), read_seq: row.get(3) })
        });
        let members = members.collect::<Result<_, StoreError>>()?;
        Ok(Some(Conversation { members, ..conversation(row)? }))
    }

    async fn conversations(
        &self,
        user: &UserId,
        archived: bool,
        limit: u32,
        offset: u32,
    ) -> Result<(Vec<Conversation>, i64), StoreError> {
        self.list_conversations(user, archived, limit, offset).await
    }

    async fn archive(&self, conversation: &ConversationId, user: &UserId, archived: bool) -> Result<bool, StoreError> {
        let sql = "UPDATE members SET archived = $3 WHERE conversation = $1 AND user_id = $2 RETURNING 1";
        let rows = self.query(Operation::Write, sql, &[&conversation.as_str(), &user.as_str(), &archived]).await?;
        Ok(!rows.is_empty())
    }

    async fn directs(&self, user: &UserId, limit: u32) -> Result<Vec<Direct>, StoreError> {
        let rows = self.query(Operation::Read, DIRECTS, &[&user.as_str(), &i64::from(limit)]).await?;
        rows.iter()
            .map(|row| {
                let conversation = ConversationId::parse(row.get(0)).map_err(|error| unreadable(&error))?;
                Ok(Direct { conversation, pair: pair(row.get(1))?, delivered: row.get(2), head: row.get(3) })
            })
            .collect()
    }

    async fn pair(&self, conversation: &ConversationId) -> Result<Option<Pair>, StoreError> {
        let sql = "SELECT direct_key FROM conversations WHERE id = $1 AND direct_key IS NOT NULL";
        let rows = self.query(Operation::Read, sql, &[&conversation.as_str()]).await?;
        rows.first().map(|row| pair(row.get(0))).transpose()
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

    async fn know(&self, users: &[(UserId, Arc<str>)]) -> Result<(), StoreError> {
        let mut users: Vec<(&str, &str)> = users.iter().map(|(user, name)| (user.as_str(), &**name)).collect();
        // Rows are locked in one order whoever comes.
        users.sort_unstable();
        users.dedup_by_key(|(user, _)| *user);
        let (ids, names): (Vec<&str>, Vec<&str>) = users.into_iter().unzip();
        let sql = "INSERT INTO users (id, name) SELECT * FROM unnest($1::text[], $2::text[]) \
             ON CONFLICT (id) DO UPDATE SET name = excluded.name WHERE users.name <> excluded.name";
        self.query(Operation::Write, sql, &[&ids, &names]).await.map(drop)
    }

    async fn set_status(&self, user: &UserId, status: Status) -> Result<(), StoreError> {
        let sql = "UPDATE users SET status = $2 WHERE id = $1";
        self.query(Operation::Write, sql, &[&user.as_str(), &status.code()]).await.map(drop)
    }

    async fn seen(&self, users: &[UserId], at: Timestamp) -> Result<(), StoreError> {
        let users: Vec<&str> = users.iter().map(UserId::as_str).collect();
        let sql = "UPDATE users SET last_seen = greatest(last_seen, $2) WHERE id = ANY ($1)";
        self.query(Operation::Write, sql, &[&users, &system_time(at)]).await.map(drop)
    }

    async fn statuses(&self, users: &[UserId]) -> Result<Vec<(UserId, Status, Option<Timestamp>)>, StoreError> {
        let users: Vec<&str> = users.iter().map(UserId::as_str).collect();
        let sql = "SELECT id, status, last_seen FROM users WHERE id = ANY ($1)";
        let rows = self.query(Operation::Read, sql, &[&users]).await?;
        rows.iter()
            .map(|row| {
                let seen = row.get::<_, Option<SystemTime>>(2).map(time);
                Ok((user(row.get(0))?, Status::from_code(row.get(1)), seen))
            })
            .collect()
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

    async fn notify(
        &self,
        conversation: &ConversationId,
        Waiting { first, last }: Waiting,
        users: &[UserId],
    ) -> Result<Vec<Entry>, StoreError> {
        let users: Vec<&str> = users.iter().map(UserId::as_str).collect();
        let sql = "SELECT o_user, o_inbox_seq, o_at, o_from FROM notify_users($1, $2, $3, $4)";
        let rows = self.query(Operation::Write, sql, &[&conversation.as_str(), &first, &last, &users]).await?;
        let body = |row: &Row| Body::Notified { conversation: conversation.clone(), from_seq: row.get(3) };
        Self::told(&rows, UserId::clone, body)
    }

    async fn notifications(&self, user: &UserId, limit: u32, offset: u32) -> Result<Vec<Notification>, StoreError> {
        let sql = "SELECT id, conversation, from_seq, count, created_at, read_at FROM notifications \
             WHERE user_id = $1 ORDER BY id DESC LIMIT $2 OFFSET $3";
        let (limit, offset) = (i64::from(limit), i64::from(offset));
        let rows = self.query(Operation::Read, sql, &[&user.as_str(), &limit, &offset]).await?;
        rows.iter()
            .map(|row| {
                Ok(Notification {
                    id: row.get(0),
                    conversation: ConversationId::parse(row.get(1)).map_err(|error| unreadable(&error))?,
                    from_seq: row.get(2),
                    count: row.get(3),
                    created_at: time(row.get(4)),
                    read_at: row.get::<_, Option<SystemTime>>(5).map(time),
                })
            })
            .collect()
    }

    async fn read_notifications(&self, user: &UserId, ids: Option<&[i64]>) -> Result<u64, StoreError> {
        let sql = "UPDATE notifications SET read_at = now() \
             WHERE user_id = $1 AND read_at IS NULL AND ($2::bigint[] IS NULL OR id = ANY ($2)) RETURNING 1";
        Ok(self.query(Operation::Write, sql, &[&user.as_str(), &ids]).await?.len() as u64)
    }
}
