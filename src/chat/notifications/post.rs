//! The JSON form of a notification for the operator's webhook.

use std::sync::Arc;

use serde::Serialize;

use crate::model::{Body, ConversationId, Entry, EntryId, Seq, Timestamp, UserId};

/// Maximum number of characters of a message in the webhook's payload.
const EXCERPT_CHARS: usize = 200;

/// A notification that waits for the webhook.
pub(in crate::chat) struct Notified {
    pub(super) user: UserId,
    pub(super) conversation: ConversationId,
    pub(super) from_seq: Seq,
    pub(super) message: Arc<Entry>,
    pub(super) at: Timestamp,
}

/// The payload of the webhook.
#[derive(Serialize)]
pub(super) struct Post<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    user_id: &'a UserId,
    conversation_id: &'a ConversationId,
    from_seq: Seq,
    message: Excerpt<'a>,
    created_at: Timestamp,
}

#[derive(Serialize)]
struct Excerpt<'a> {
    id: EntryId,
    seq: Seq,
    sender_id: &'a UserId,
    sender_name: &'a str,
    content: &'a str,
    created_at: Timestamp,
}

impl<'a> From<&'a Notified> for Post<'a> {
    fn from(Notified { user, conversation, from_seq, message, at }: &'a Notified) -> Self {
        let content = match &message.body {
            Body::Message { content, .. } => content,
            _ => "",
        };
        let end = content.char_indices().nth(EXCERPT_CHARS).map_or(content.len(), |(at, _)| at);
        let excerpt = Excerpt {
            id: message.id(),
            seq: message.seq,
            sender_id: &message.sender,
            sender_name: &message.sender_name,
            content: &content[..end],
            created_at: message.at,
        };
        Self {
            kind: "notification",
            user_id: user,
            conversation_id: conversation,
            from_seq: *from_seq,
            message: excerpt,
            created_at: *at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::LogId;

    fn message(log: &str, seq: Seq, sender: &str, content: &str) -> Arc<Entry> {
        let content = content.into();
        Arc::new(Entry {
            log: LogId::parse(log).unwrap(),
            seq,
            message_no: seq,
            sender: user(sender),
            sender_name: sender.into(),
            client_id: None,
            at: Timestamp::from_seconds(seq),
            body: Body::Message {
                content,
                reply_to: None,
                is_ai: false,
                persona: None,
                edited_at: None,
                deleted: false,
            },
        })
    }

    fn user(id: &str) -> UserId {
        UserId::parse(id).unwrap()
    }

    #[test]
    fn the_webhook_gets_an_excerpt_of_a_message() {
        let long = format!("{}…", "ä".repeat(EXCERPT_CHARS));
        let of = |content: &str| Notified {
            user: user("bob"),
            conversation: ConversationId::parse("team").unwrap(),
            from_seq: 3,
            message: message("team", 3, "alice", content),
            at: Timestamp::from_seconds(9),
        };
        let shown = |content| serde_json::to_value(Post::from(&of(content))).unwrap();
        assert_eq!(shown(&long)["message"]["content"], "ä".repeat(EXCERPT_CHARS));
        let short = shown("hi");
        assert_eq!((&short["type"], &short["user_id"]), (&"notification".into(), &"bob".into()));
        assert_eq!((&short["message"]["content"], &short["message"]["sender_id"]), (&"hi".into(), &"alice".into()));
    }
}
