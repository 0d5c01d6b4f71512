//! Notifications of messages that wait.

use serde::Serialize;

use super::{ConversationId, Seq, Timestamp};

/// A notification that messages wait for a user who was away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Notification {
    /// Number of the notification, for reference.
    pub id: i64,
    /// The conversation in which they wait.
    pub conversation: ConversationId,
    /// Seq of the first unread message.
    pub from_seq: Seq,
    /// Number of waiting messages, deleted ones left out; of one that was read, the number that waited.
    pub count: i64,
    /// Time at which the first message arrived.
    pub created_at: Timestamp,
    /// Time at which it was marked read.
    pub read_at: Option<Timestamp>,
}
