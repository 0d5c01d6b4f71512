//! Recent messages, cached per conversation as REST returns them.

use std::{sync::Arc, time::Duration};

use redis::Pipeline;
use serde::{Deserialize, Serialize};

use super::{keys, link::Link, ops::Op};
use crate::{
    metrics::Metrics,
    model::{Body, ClientId, ConversationId, Entry, LogId, LogOf, Seq, Timestamp, UserId},
};

/// Maximum number of cached messages per conversation.
const CACHED_MAX: i64 = 50;

/// A message in the form that REST returns, without reactions and replies, since those change without the message.
/// Entries of other kinds are not cached.
#[derive(Debug, Serialize, Deserialize)]
struct Cached {
    /// The public id. Not read back, since it is computed from conversation and seq.
    #[serde(default)]
    id: String,
    conversation_id: ConversationId,
    seq: Seq,
    message_no: i64,
    sender_id: UserId,
    sender_username: Arc<str>,
    content: Arc<str>,
    created_at: Timestamp,
    updated_at: Timestamp,
    is_edited: bool,
    is_deleted: bool,
    is_ai: bool,
    reply_to: Option<Seq>,
    client_id: Option<ClientId>,
}

impl Cached {
    fn of(entry: &Entry) -> Option<Self> {
        let conversation_id = entry.log.conversation()?;
        let Body::Message { content, reply_to, is_ai, edited_at, deleted, .. } = &entry.body else { return None };
        Some(Self {
            id: entry.id().to_string(),
            conversation_id,
            seq: entry.seq,
            message_no: entry.message_no,
            sender_id: entry.sender.clone(),
            sender_username: entry.sender_name.clone(),
            content: content.clone(),
            created_at: entry.at,
            updated_at: edited_at.unwrap_or(entry.at),
            is_edited: edited_at.is_some(),
            is_deleted: *deleted,
            is_ai: *is_ai,
            reply_to: *reply_to,
            client_id: entry.client_id.clone(),
        })
    }

    fn into_entry(self) -> Entry {
        let Self { reply_to, is_ai, is_deleted: deleted, .. } = self;
        let edited_at = self.is_edited.then_some(self.updated_at);
        Entry {
            log: LogId::from(&self.conversation_id),
            seq: self.seq,
            message_no: self.message_no,
            sender: self.sender_id,
            sender_name: self.sender_username,
            client_id: self.client_id,
            at: self.created_at,
            body: Body::Message { content: self.content, reply_to, is_ai, persona: None, edited_at, deleted },
        }
    }
}

/// The cache.
pub(super) struct Recent {
    link: Arc<Link>,
    metrics: Arc<Metrics>,
    ttl: Duration,
}

impl Recent {
    pub(super) fn new(link: Arc<Link>, metrics: Arc<Metrics>, ttl: Duration) -> Self {
        Self { link, metrics, ttl }
    }

    /// Adds to `pipeline` the cache commands for one log's new entries. Messages are added. The cache is emptied first
    /// if there is an edit or a deletion, which may concern a cached message, or if `repeat` says that the messages may
    /// have been added already.
    pub(super) fn update(&self, pipeline: &mut Pipeline, log: &LogId, entries: &[&Entry], repeat: bool) {
        let LogOf::Conversation(conversation) = log.of() else { return };
        let key = keys::recent(&conversation);
        let changes = |entry: &&Entry| matches!(entry.body, Body::Edited { .. } | Body::Deleted { .. });
        let changed = entries.iter().rposition(changes);
        if repeat || changed.is_some() {
            pipeline.cmd("DEL").arg(&key);
        }
        let fresh = entries.iter().skip(changed.map_or(0, |index| index + 1));
        let messages = fresh.filter_map(|entry| serde_json::to_string(&Cached::of(entry)?).ok());
        let messages: Vec<String> = messages.collect();
        if !messages.is_empty() && !self.ttl.is_zero() {
            pipeline.cmd("LPUSH").arg(&key).arg(messages);
            pipeline.cmd("LTRIM").arg(&key).arg(0).arg(CACHED_MAX - 1);
            pipeline.cmd("EXPIRE").arg(&key).arg(self.ttl.as_secs().max(1));
        }
    }

    /// The cached entries after `after`, oldest first; `None` if they don't follow `after` without a gap.
    pub(super) async fn after(&self, log: &LogId, after: Seq) -> Option<Vec<Entry>> {
        let found = self.read(log).await.and_then(|cached| continuation(cached, after));
        if found.is_some() { &self.metrics.cache_hits } else { &self.metrics.cache_misses }.inc();
        found
    }

    async fn read(&self, log: &LogId) -> Option<Vec<Entry>> {
        let conversation = log.conversation()?;
        // The store answers instead.
        if self.link.is_late() {
            return None;
        }
        let mut pipeline = Pipeline::new();
        pipeline.cmd("LRANGE").arg(keys::recent(&conversation)).arg(0).arg(-1);
        let mut replies = self.link.run(Op::Recent, log.as_str(), &pipeline).await.ok()?;
        let cached: Vec<Vec<u8>> = replies.take(0).ok()?;
        let parse = |json: &Vec<u8>| Some(serde_json::from_slice::<Cached>(json).ok()?.into_entry());
        // An element that can't be parsed was written by another program; ignore the whole cache then.
        let entries: Option<Vec<_>> = cached.iter().map(parse).collect();
        entries.filter(|entries| entries.iter().all(|entry| entry.log == *log))
    }
}

/// The entries after `after`. Nodes may have pushed seq 8 before 7, or one seq twice; this sorts and dedups before it
/// looks for gaps.
fn continuation(mut entries: Vec<Entry>, after: Seq) -> Option<Vec<Entry>> {
    entries.retain(|entry| entry.seq > after);
    entries.sort_by_key(|entry| entry.seq);
    entries.dedup_by_key(|entry| entry.seq);
    let gapless = entries.iter().zip(after.saturating_add(1)..).all(|(entry, seq)| entry.seq == seq);
    (gapless && !entries.is_empty()).then_some(entries)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(seq: Seq) -> Entry {
        Entry {
            log: LogId::parse("room").unwrap(),
            seq,
            message_no: seq,
            sender: UserId::parse("alice").unwrap(),
            sender_name: "Alice".into(),
            client_id: Some(ClientId::parse("c-1").unwrap()),
            at: Timestamp::from_seconds(1_736_937_000),
            body: Body::Message {
                content: "hi".into(),
                reply_to: Some(1),
                is_ai: false,
                persona: None,
                edited_at: None,
                deleted: false,
            },
        }
    }

    #[test]
    fn what_is_cached_is_what_rest_returns() {
        let entry = message(2);
        let cached = serde_json::to_value(Cached::of(&entry).unwrap()).unwrap();
        let id = entry.id().to_string();
        let expected = serde_json::json!({
            "id": id, "conversation_id": "room", "seq": 2, "message_no": 2, "sender_id": "alice",
            "sender_username": "Alice", "content": "hi", "created_at": "2025-01-15T10:30:00.000000Z",
            "updated_at": "2025-01-15T10:30:00.000000Z", "is_edited": false, "is_deleted": false, "is_ai": false,
            "client_id": "c-1", "reply_to": 1,
        });
        assert_eq!(cached, expected);
        assert_eq!(serde_json::from_value::<Cached>(cached).unwrap().into_entry(), entry);
    }

    #[test]
    fn inboxes_and_other_kinds_are_not_cached() {
        let mut entry = message(2);
        entry.body = Body::Deleted { target: 1 };
        assert!(Cached::of(&entry).is_none());
        let mut entry = message(2);
        entry.log = LogId::inbox(&entry.sender);
        assert!(Cached::of(&entry).is_none());
    }

    proptest! {
        #[test]
        fn a_continuation_has_no_gap(seqs in prop::collection::vec(1_i64..20, 0..30), after in 0_i64..20) {
            let found = continuation(seqs.iter().map(|seq| message(*seq)).collect(), after);
            let newest = seqs.iter().copied().max().unwrap_or(0);
            let whole = newest > after && (after + 1..=newest).all(|seq| seqs.contains(&seq));
            let expected = whole.then(|| (after + 1..=newest).collect::<Vec<_>>());
            prop_assert_eq!(found.map(|entries| entries.iter().map(|e| e.seq).collect::<Vec<_>>()), expected);
        }
    }
}
