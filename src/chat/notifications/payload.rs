//! The JSON form of a notification for the operator's webhook.

use serde::Serialize;

use crate::{
    model::{ConversationId, Data, Entry, EntryId, Seq, Timestamp, UserId},
    store::NotificationPost,
};

/// Maximum number of characters of a message in the webhook's payload.
const EXCERPT_CHARS: usize = 200;

/// The payload of the webhook.
#[derive(Serialize)]
pub(super) struct Payload<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    notification_id: i64,
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
    /// Whole: clients may need it to read the message at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Data>,
    created_at: Timestamp,
}

impl<'a> Payload<'a> {
    /// The payload of a request whose first message is `message`.
    pub(super) fn of(post: &'a NotificationPost, message: &'a Entry) -> Self {
        let (content, data) = message.body.payload();
        let end = content.char_indices().nth(EXCERPT_CHARS).map_or(content.len(), |(at, _)| at);
        let excerpt = Excerpt {
            id: message.id(),
            seq: message.seq,
            sender_id: &message.sender,
            sender_name: &message.sender_name,
            content: &content[..end],
            data,
            created_at: message.at,
        };
        Self {
            kind: "notification",
            notification_id: post.id,
            user_id: &post.user,
            conversation_id: &post.conversation,
            from_seq: post.from_seq,
            message: excerpt,
            created_at: post.created_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Body, LogId};

    fn message(log: &str, seq: Seq, sender: &str, content: &str) -> Entry {
        Entry {
            log: LogId::parse(log).unwrap(),
            seq,
            message_no: seq,
            sender: user(sender),
            sender_name: sender.into(),
            client_id: None,
            at: Timestamp::from_seconds(seq),
            body: Body::message(content),
        }
    }

    fn user(id: &str) -> UserId {
        UserId::parse(id).unwrap()
    }

    #[test]
    fn the_webhook_gets_an_excerpt_of_a_message() {
        let long = format!("{}…", "ä".repeat(EXCERPT_CHARS));
        let post = NotificationPost {
            id: 17,
            user: user("bob"),
            conversation: ConversationId::parse("team").unwrap(),
            from_seq: 3,
            created_at: Timestamp::from_seconds(9),
            tries: 1,
            expired: false,
            message: None,
        };
        let shown = |content| {
            let message = message("team", 3, "alice", content);
            serde_json::to_value(Payload::of(&post, &message)).unwrap()
        };
        assert_eq!(shown(&long)["message"]["content"], "ä".repeat(EXCERPT_CHARS));
        let short = shown("hi");
        assert_eq!((&short["type"], &short["user_id"]), (&"notification".into(), &"bob".into()));
        assert_eq!(short["notification_id"], 17);
        assert_eq!((&short["message"]["content"], &short["message"]["sender_id"]), (&"hi".into(), &"alice".into()));
    }
}
