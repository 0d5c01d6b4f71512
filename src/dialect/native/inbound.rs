//! Frames from native clients. Unknown fields are refused, apart from `ref`, which every frame may have. The envelope reads
//! `data`.

use std::{borrow::Cow, collections::HashMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny},
};

use crate::model::{ClientId, ConversationId, GivenNumber, Status, UserId};

/// A frame from a client, by its `type`.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum In<'a> {
    Authenticate {
        token: String,
    },
    Refresh {
        token: String,
    },
    Join {
        conversation_id: ConversationId,
        #[serde(default)]
        since_seq: Option<GivenNumber>,
        /// True to be told who begins and stops to listen.
        #[serde(default)]
        roster: bool,
    },
    Leave {
        conversation_id: ConversationId,
    },
    Sync {
        /// The last seq that the client has of each conversation.
        conversations: Cursors,
        #[serde(default)]
        roster: bool,
    },
    Send {
        #[serde(default)]
        conversation_id: Option<ConversationId>,
        #[serde(default)]
        recipient_id: Option<UserId>,
        #[serde(borrow, default)]
        content: Cow<'a, str>,
        #[serde(default)]
        #[expect(dead_code, reason = "the envelope reads it")]
        data: IgnoredAny,
        #[serde(default)]
        client_id: Option<ClientId>,
        #[serde(default)]
        reply_to: Option<GivenNumber>,
        #[serde(default)]
        persona_id: Option<UserId>,
    },
    Edit {
        conversation_id: ConversationId,
        seq: GivenNumber,
        #[serde(borrow, default)]
        content: Cow<'a, str>,
        #[serde(default)]
        #[expect(dead_code, reason = "the envelope reads it")]
        data: IgnoredAny,
        #[serde(default)]
        client_id: Option<ClientId>,
    },
    Delete {
        conversation_id: ConversationId,
        seq: GivenNumber,
        #[serde(default)]
        client_id: Option<ClientId>,
    },
    React {
        conversation_id: ConversationId,
        seq: GivenNumber,
        #[serde(borrow)]
        emoji: Cow<'a, str>,
        #[serde(default = "default_true")]
        active: bool,
        #[serde(default)]
        client_id: Option<ClientId>,
    },
    Event {
        #[serde(default)]
        conversation_id: Option<ConversationId>,
        #[serde(default)]
        recipient_id: Option<UserId>,
        #[serde(borrow)]
        name: Cow<'a, str>,
        #[serde(default)]
        #[expect(dead_code, reason = "the envelope reads it")]
        data: IgnoredAny,
    },
    Typing {
        conversation_id: ConversationId,
        #[serde(default = "default_true")]
        active: bool,
    },
    Read {
        conversation_id: ConversationId,
        #[serde(default)]
        seq: Option<GivenNumber>,
        #[serde(default)]
        delivered_seq: Option<GivenNumber>,
    },
    Presence {
        user_ids: Vec<UserId>,
    },
    Status {
        status: Status,
    },
    History {
        conversation_id: ConversationId,
        #[serde(default)]
        before_seq: Option<GivenNumber>,
        #[serde(default)]
        after_seq: Option<GivenNumber>,
        #[serde(default)]
        around_seq: Option<GivenNumber>,
        /// Only replies to this message.
        #[serde(default)]
        thread_seq: Option<GivenNumber>,
        #[serde(default)]
        limit: Option<GivenNumber>,
        #[serde(default)]
        offset: Option<GivenNumber>,
    },
    Search {
        #[serde(borrow)]
        words: Cow<'a, str>,
        #[serde(default)]
        conversation_id: Option<ConversationId>,
        #[serde(default)]
        limit: Option<GivenNumber>,
        #[serde(default)]
        offset: Option<GivenNumber>,
    },
    Conversations {
        #[serde(default)]
        archived: bool,
        #[serde(default)]
        limit: Option<GivenNumber>,
        #[serde(default)]
        offset: Option<GivenNumber>,
    },
    Members {
        conversation_id: ConversationId,
    },
    Archive {
        conversation_id: ConversationId,
        #[serde(default = "default_true")]
        archived: bool,
    },
    Ping {},
}

impl In<'_> {
    /// Every `type` a client may send.
    pub(super) const KINDS: &'static [&'static str] = &[
        "authenticate",
        "refresh",
        "join",
        "leave",
        "sync",
        "send",
        "edit",
        "delete",
        "react",
        "event",
        "typing",
        "read",
        "presence",
        "status",
        "history",
        "search",
        "conversations",
        "members",
        "archive",
        "ping",
    ];
}

fn default_true() -> bool {
    true
}

/// The conversations of a `sync`, each once, in the order of the frame. If an id comes twice, its last seq counts.
pub(super) struct Cursors(pub(super) Vec<(ConversationId, GivenNumber)>);

impl<'de> Deserialize<'de> for Cursors {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Ordered;

        impl<'de> de::Visitor<'de> for Ordered {
            type Value = Cursors;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with a seq for each conversation")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Cursors, A::Error> {
                let (mut cursors, mut places) = (Vec::new(), HashMap::new());
                while let Some((conversation, since)) = map.next_entry::<ConversationId, GivenNumber>()? {
                    match places.get(&conversation) {
                        Some(place) => {
                            let cursor: &mut (ConversationId, GivenNumber) = &mut cursors[*place];
                            cursor.1 = since;
                        }
                        None => {
                            places.insert(conversation.clone(), cursors.len());
                            cursors.push((conversation, since));
                        }
                    }
                }
                Ok(Cursors(cursors))
            }
        }

        from.deserialize_map(Ordered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_a_variant() {
        for kind in In::KINDS {
            let frame = format!(r#"{{"type":"{kind}"}}"#);
            if let Err(error) = serde_json::from_str::<In<'_>>(&frame) {
                assert!(error.to_string().starts_with("missing field"), "{kind}: {error}");
            }
        }
        assert!(serde_json::from_str::<In<'_>>(r#"{"type":"dance"}"#).is_err());
    }

    #[test]
    fn a_sync_keeps_the_order_of_its_conversations() {
        let Cursors(cursors) = serde_json::from_str(r#"{"z":1,"a":2,"7":3,"z":4}"#).unwrap();
        let cursors: Vec<_> = cursors.iter().map(|(id, since)| (id.as_str(), since.whole("seq").unwrap())).collect();
        assert_eq!(cursors, [("z", 4), ("a", 2), ("7", 3)]);
        assert!(serde_json::from_str::<Cursors>("[]").is_err());
    }

    #[test]
    fn no_kind_takes_unknown_fields() {
        for kind in In::KINDS {
            let frame = format!(r#"{{"type":"{kind}","colour":1}}"#);
            let error = serde_json::from_str::<In<'_>>(&frame).err().unwrap().to_string();
            assert!(error.starts_with("unknown field `colour`"), "{kind}: {error}");
        }
    }
}
