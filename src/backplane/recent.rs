//! Recent messages, cached per conversation as REST returns them, each with a tag that signs the key and the message.
//! Redis is not trusted with the past: a message without a valid tag is refused, and the whole list is dropped.

use std::{sync::Arc, time::Duration};

use redis::Pipeline;
use serde::{Deserialize, Serialize};

use super::{
    link::Link,
    mac::{Kind, Macs, Standing, TAG_MAX},
    ops::Op,
    refusals::{Refusals, RefusedPlace},
};
use crate::{
    metrics::Metrics,
    model::{Body, ClientId, ConversationId, Data, Entry, LogId, LogOf, Seq, Timestamp, UserId},
};

/// Maximum number of cached messages per conversation.
const CACHED_MAX: i64 = 50;

/// The JSON before and after the tag of a cached message.
const BEFORE_TAG: &str = ",\"mac\":\"";
const AFTER_TAG: &str = "\"}";

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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<Data>,
    created_at: Timestamp,
    updated_at: Timestamp,
    is_edited: bool,
    is_deleted: bool,
    is_ai: bool,
    reply_to: Option<Seq>,
    client_id: Option<ClientId>,
    /// The epoch of the store in which it was stored. An earlier version wrote none.
    #[serde(default)]
    epoch: i64,
}

impl Cached {
    fn of(entry: &Entry, epoch: i64) -> Option<Self> {
        let conversation_id = entry.log.conversation()?;
        let Body::Message { content, data, reply_to, is_ai, edited_at, deleted, .. } = &entry.body else { return None };
        Some(Self {
            id: entry.id().to_string(),
            conversation_id,
            seq: entry.seq,
            message_no: entry.message_no,
            sender_id: entry.sender.clone(),
            sender_username: entry.sender_name.clone(),
            content: content.clone(),
            data: data.clone(),
            created_at: entry.at,
            updated_at: edited_at.unwrap_or(entry.at),
            is_edited: edited_at.is_some(),
            is_deleted: *deleted,
            is_ai: *is_ai,
            reply_to: *reply_to,
            client_id: entry.client_id.clone(),
            epoch,
        })
    }

    fn into_entry(self) -> Entry {
        let Self { content, data, reply_to, is_ai, is_deleted: deleted, .. } = self;
        let edited_at = self.is_edited.then_some(self.updated_at);
        Entry {
            log: LogId::from(&self.conversation_id),
            seq: self.seq,
            message_no: self.message_no,
            sender: self.sender_id,
            sender_name: self.sender_username,
            client_id: self.client_id,
            at: self.created_at,
            body: Body::Message { content, data, reply_to, is_ai, persona: None, edited_at, deleted },
        }
    }
}

/// Signs a message for the list under this key: its JSON, with the tag as the last field. `None` until the keys are known.
fn signed(cached: &Cached, key: &str, macs: &Macs) -> Option<String> {
    let json = serde_json::to_string(cached).ok()?;
    let open = json.strip_suffix('}')?;
    let tag = macs.tag(Kind::Cached, key, &[open.as_bytes()])?;
    Some([open, BEFORE_TAG, &tag, AFTER_TAG].concat())
}

/// The reason for which an element is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unread {
    /// No node of this deployment signed it for this key.
    Forged,
    /// It was signed with a key that was removed.
    Retired,
    /// It was stored in another epoch of the store, and may be lost.
    OtherEpoch,
}

/// Reads an element of the list under this key.
///
/// # Errors
/// It may not be what the store has.
fn verified(element: &[u8], key: &str, macs: &Macs, epoch: i64) -> Result<Entry, Unread> {
    let (open, tag) = parts(element).ok_or(Unread::Forged)?;
    match macs.standing(Kind::Cached, key.as_bytes(), &[open], tag) {
        Standing::Genuine => {
            let cached = serde_json::from_slice::<Cached>(element).map_err(|_| Unread::Forged)?;
            if cached.epoch == epoch { Ok(cached.into_entry()) } else { Err(Unread::OtherEpoch) }
        }
        Standing::Retired => Err(Unread::Retired),
        Standing::Forged => Err(Unread::Forged),
    }
}

/// The signed part of an element, and its tag.
fn parts(element: &[u8]) -> Option<(&[u8], &[u8])> {
    let body = element.strip_suffix(AFTER_TAG.as_bytes())?;
    let end = &body[body.len().saturating_sub(BEFORE_TAG.len() + TAG_MAX)..];
    let at = end.windows(BEFORE_TAG.len()).rposition(|part| part == BEFORE_TAG.as_bytes())?;
    let (open, rest) = body.split_at(body.len() - end.len() + at);
    Some((open, &rest[BEFORE_TAG.len()..]))
}

/// The cache.
pub(super) struct Recent {
    link: Arc<Link>,
    metrics: Arc<Metrics>,
    ttl: Duration,
    macs: Arc<Macs>,
    refusals: Arc<Refusals>,
}

impl Recent {
    pub(super) fn new(
        link: Arc<Link>,
        metrics: Arc<Metrics>,
        ttl: Duration,
        macs: Arc<Macs>,
        refusals: Arc<Refusals>,
    ) -> Self {
        Self { link, metrics, ttl, macs, refusals }
    }

    /// Adds to `pipeline` the cache commands for one log's new entries, which were stored in this epoch. Messages are added.
    /// The cache is emptied first if there is an edit or a deletion, which may concern a cached message, or if `repeat` says
    /// that the messages may have been added already; and only emptied if the epoch is over.
    pub(super) fn update(
        &self,
        pipeline: &mut Pipeline,
        log: &LogId,
        (entries, epoch): (&[&Entry], i64),
        repeat: bool,
    ) {
        let LogOf::Conversation(conversation) = log.of() else { return };
        let key = self.link.keys().recent(&conversation);
        let changes = |entry: &&Entry| matches!(entry.body, Body::Edited { .. } | Body::Deleted { .. });
        let (changed, over) = (entries.iter().rposition(changes), epoch != self.macs.epoch());
        if repeat || changed.is_some() || over && !entries.is_empty() {
            pipeline.cmd("DEL").arg(&key);
        }
        let fresh = entries.iter().skip(changed.map_or(0, |index| index + 1)).filter(|_| !over);
        let messages = fresh.filter_map(|entry| signed(&Cached::of(entry, epoch)?, &key, &self.macs));
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

    /// Deletes the lists of conversations.
    pub(super) async fn forget(&self, conversations: &[ConversationId]) {
        for conversation in conversations {
            let mut pipeline = Pipeline::new();
            pipeline.cmd("DEL").arg(self.link.keys().recent(conversation));
            // A failure means that Redis is down; the list then expires.
            if self.link.run(Op::Recent, conversation.as_str(), &pipeline).await.is_err() {
                return;
            }
        }
    }

    /// The cached entries of a log, by seq. If not all of them can be what the store has, the list is deleted.
    async fn read(&self, log: &LogId) -> Option<Vec<Entry>> {
        let key = self.link.keys().recent(&log.conversation()?);
        // The store answers instead.
        if self.link.is_late(&key) {
            return None;
        }
        let mut pipeline = Pipeline::new();
        // A longer list is not read to its end, whoever wrote it.
        pipeline.cmd("LRANGE").arg(&key).arg(0).arg(CACHED_MAX - 1);
        let mut replies = self.link.run(Op::Recent, log.as_str(), &pipeline).await.ok()?;
        let elements: Vec<Vec<u8>> = replies.take(0).ok()?;
        let (mut entries, mut forged, mut retired) = (Vec::with_capacity(elements.len()), 0, 0);
        for element in &elements {
            match verified(element, &key, &self.macs, self.macs.epoch()) {
                Ok(entry) => entries.push(entry),
                Err(Unread::Retired) => retired += 1,
                Err(Unread::Forged) => forged += 1,
                // Expected after the store was set back.
                Err(Unread::OtherEpoch) => {}
            }
        }
        let whole = entries.len() == elements.len();
        if let Some(entries) = of_one_log(entries).filter(|_| whole) {
            return Some(entries);
        }
        for (place, count) in [(RefusedPlace::Cache, forged), (RefusedPlace::Retired, retired)] {
            self.refusals.note(place, &key, count);
        }
        let mut pipeline = Pipeline::new();
        pipeline.cmd("DEL").arg(&key);
        // If this fails, the list is refused again.
        let _ = self.link.run(Op::Recent, log.as_str(), &pipeline).await;
        None
    }
}

/// The entries by seq, each once: nodes may have pushed seq 8 before 7, or one seq twice. `None` if they can't all be of one
/// log, because the store was set back since some were pushed.
fn of_one_log(mut entries: Vec<Entry>) -> Option<Vec<Entry>> {
    entries.sort_by_key(|entry| entry.seq);
    entries.dedup_by_key(|entry| entry.stamp());
    entries.windows(2).all(|pair| may_follow(&pair[0], &pair[1])).then_some(entries)
}

/// True if two messages may be of one log: times and numbers of messages rise, the latter at most as fast as the seqs.
fn may_follow(one: &Entry, next: &Entry) -> bool {
    let (seqs, messages) = (next.seq - one.seq, next.message_no - one.message_no);
    seqs > 0 && one.at <= next.at && (1..=seqs).contains(&messages)
}

/// Of entries by seq, those after `after`, if they follow it without a gap.
fn continuation(mut entries: Vec<Entry>, after: Seq) -> Option<Vec<Entry>> {
    entries.retain(|entry| entry.seq > after);
    let gapless = entries.iter().zip(after.saturating_add(1)..).all(|(entry, seq)| entry.seq == seq);
    (gapless && !entries.is_empty()).then_some(entries)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::mac::tests::macs, *};

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
                data: Some(Data::stored(r#"{"n":1.0}"#.to_owned()).unwrap()),
                reply_to: Some(1),
                is_ai: false,
                persona: None,
                edited_at: None,
                deleted: false,
            },
        }
    }

    #[test]
    fn what_is_cached_is_what_rest_returns_and_the_epoch() {
        let entry = message(2);
        let cached = serde_json::to_value(Cached::of(&entry, 3).unwrap()).unwrap();
        let id = entry.id().to_string();
        let expected = serde_json::json!({
            "id": id, "conversation_id": "room", "seq": 2, "message_no": 2, "sender_id": "alice",
            "sender_username": "Alice", "content": "hi", "data": {"n": 1.0}, "created_at": "2025-01-15T10:30:00.000000Z",
            "updated_at": "2025-01-15T10:30:00.000000Z", "is_edited": false, "is_deleted": false, "is_ai": false,
            "client_id": "c-1", "reply_to": 1, "epoch": 3,
        });
        assert_eq!(cached, expected);
        assert_eq!(serde_json::from_value::<Cached>(cached).unwrap().into_entry(), entry);
    }

    #[test]
    fn a_cached_message_is_read_only_under_the_key_that_it_was_signed_for() {
        let (macs, entry) = (macs(1), message(2));
        let element = signed(&Cached::of(&entry, 3).unwrap(), "room_messages:room", &macs).unwrap();
        let read = |element: &str, key| verified(element.as_bytes(), key, &macs, 3).ok();
        assert_eq!(read(&element, "room_messages:room"), Some(entry));
        assert_eq!(read(&element, "room_messages:other"), None);
        assert_eq!(verified(element.as_bytes(), "room_messages:room", &macs, 4), Err(Unread::OtherEpoch));
        let json: serde_json::Value = serde_json::from_str(&element).unwrap();
        assert!(json["mac"].as_str().is_some_and(|tag| tag.starts_with("1.")), "{json}");
        for (from, to) in
            [("hi", "ho"), ("\"seq\":2", "\"seq\":3"), ("1.", "2."), ("}", "} "), (",\"mac\"", ",\"max\"")]
        {
            assert_eq!(read(&element.replace(from, to), "room_messages:room"), None, "{from} {to}");
        }
        let unsigned = serde_json::to_string(&Cached::of(&message(2), 3).unwrap()).unwrap();
        for element in ["", "{}", "\"}", ",\"mac\":\"\"}", &unsigned] {
            assert_eq!(read(element, "room_messages:room"), None, "{element}");
        }
    }

    #[test]
    fn inboxes_and_other_kinds_are_not_cached() {
        let mut entry = message(2);
        entry.body = Body::Deleted { target: 1 };
        assert!(Cached::of(&entry, 3).is_none());
        let mut entry = message(2);
        entry.log = LogId::inbox(&entry.sender);
        assert!(Cached::of(&entry, 3).is_none());
    }

    #[test]
    fn entries_of_two_states_of_a_log_are_told_from_those_of_one() {
        let later = |seq: Seq, number: i64| {
            let at = Timestamp::from_seconds(1_736_937_100);
            Entry { message_no: number, at, ..message(seq) }
        };
        let kept = || (1..=6).map(message);
        assert!(of_one_log(kept().chain([later(7, 7), later(8, 8)]).collect()).is_some());
        assert!(of_one_log(kept().chain([later(9, 7), later(12, 8)]).collect()).is_some(), "others are no messages");
        for (lost, new) in [
            (7..=8, vec![later(8, 8)]),
            (7..=10, vec![later(8, 8)]),
            // The new entry 7 is no message.
            (7..=7, vec![later(8, 7)]),
            (7..=9, vec![later(8, 7)]),
        ] {
            let entries = kept().chain(lost.map(message)).chain(new).collect();
            assert_eq!(of_one_log(entries), None);
        }
    }

    proptest! {
        #[test]
        fn a_continuation_has_no_gap(seqs in prop::collection::vec(1_i64..20, 0..30), after in 0_i64..20) {
            let entries = of_one_log(seqs.iter().map(|seq| message(*seq)).collect()).unwrap();
            let found = continuation(entries, after);
            let newest = seqs.iter().copied().max().unwrap_or(0);
            let whole = newest > after && (after + 1..=newest).all(|seq| seqs.contains(&seq));
            let expected = whole.then(|| (after + 1..=newest).collect::<Vec<_>>());
            prop_assert_eq!(found.map(|entries| entries.iter().map(|e| e.seq).collect::<Vec<_>>()), expected);
        }
    }
}
