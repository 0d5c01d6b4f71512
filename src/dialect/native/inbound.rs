//! Frames from native clients. Unknown fields are ignored.

use std::{borrow::Cow, collections::HashMap};

use serde::Deserialize;

use crate::model::{ClientId, ConversationId, GivenNumber, Status, UserId};

/// A frame from a client, by its `type`.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
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
    },
    Leave {
        conversation_id: ConversationId,
    },
    Sync {
        /// The last seq that the client has of each conversation.
        conversations: HashMap<ConversationId, GivenNumber>,
    },
    Send {
        #[serde(default)]
        conversation_id: Option<ConversationId>,
        #[serde(default)]
        recipient_id: Option<UserId>,
        #[serde(borrow)]
        content: Cow<'a, str>,
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
        #[serde(borrow)]
        content: Cow<'a, str>,
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
        "typing",
        "read",
        "presence",
        "status",
        "history",
        "search",
        "conversations",
        "archive",
        "ping",
    ];
}

fn default_true() -> bool {
    true
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
}
