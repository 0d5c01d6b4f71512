//! The frames of all dialects that the clients of the soak use.

use serde_json::{Value, json};
pub use switchboard::dialect::Dialect;

use super::ledger::Number;
use crate::support::token;

/// The meaning of a frame.
#[derive(Debug, PartialEq)]
pub enum Heard {
    /// A message with this number is in its log.
    Message {
        room: String,
        seq: i64,
        number: Number,
    },
    /// The message with this number is stored.
    Acked(Number),
    /// The message with this number was refused.
    Refused(Number, String),
    /// The client must read anew, and continues at `head`.
    Resync {
        room: String,
        head: i64,
    },
    /// The socket listens to the room from `head` on.
    Joined {
        room: String,
        head: i64,
    },
    Other,
}

/// The client's side of a dialect.
pub trait Client {
    /// The path of a user's socket, with a token.
    fn path(self, user: &str, room: &str) -> String;
    /// The type of the first frame.
    fn greeting(self) -> &'static str;
    /// The frame that joins a room, in dialects whose path names none.
    fn join(self, room: &str, since: Option<i64>) -> Option<String>;
    /// The frame that sends a message to a room, or in the direct dialect to a user.
    fn send(self, to: &str, number: Number) -> String;
}

impl Client for Dialect {
    fn path(self, user: &str, room: &str) -> String {
        let path = match self {
            Self::Native => "/v1/ws".to_owned(),
            Self::Direct => "/ws".to_owned(),
            Self::Rooms => format!("/ws/{room}"),
            Self::Conversation => format!("/api/chat/ws/{room}"),
            Self::Personas => "/ws/auth".to_owned(),
        };
        format!("{path}?token={}", token(user))
    }

    fn greeting(self) -> &'static str {
        match self {
            Self::Native | Self::Direct => "authenticated",
            Self::Rooms => "connected",
            Self::Conversation => "system",
            Self::Personas => "online_users",
        }
    }

    fn join(self, room: &str, since: Option<i64>) -> Option<String> {
        let mut frame = match self {
            Self::Native => json!({"type": "join", "conversation_id": room, "ref": "join"}),
            Self::Personas => json!({"type": "join_conversation", "conversation_id": room}),
            Self::Direct | Self::Rooms | Self::Conversation => return None,
        };
        if let Some(since) = since {
            frame["since_seq"] = json!(since);
        }
        Some(frame.to_string())
    }

    fn send(self, to: &str, number: Number) -> String {
        let (text, id) =
            (format!("soak {number} of the usual length, about as long as people write"), format!("soak-{number}"));
        match self {
            Self::Native => json!({"type": "send", "conversation_id": to, "content": text, "client_id": id, "ref": id}),
            Self::Direct => json!({"type": "send_message", "recipient_id": to, "content": text, "client_id": id}),
            Self::Rooms => json!({"type": "send_message", "data": {"content": text, "client_id": id}}),
            Self::Conversation => json!({"type": "message", "content": text, "client_id": id}),
            Self::Personas => json!({"type": "send_message", "conversation_id": to, "content": text, "client_id": id}),
        }
        .to_string()
    }
}

/// Reads a frame of any dialect.
pub fn hear(frame: &Value) -> Heard {
    // The fields stand in the frame, or in a part of it.
    let part = [&frame["data"], &frame["message"]].into_iter().find(|part| part.is_object()).unwrap_or(frame);
    let text = |name: &str| part[name].as_str().or(frame[name].as_str()).unwrap_or_default();
    let room = || text("conversation_id").to_owned();
    let head = || part["head"].as_i64().unwrap_or_default();
    let by_id = || text("client_id").strip_prefix("soak-").and_then(|number| number.parse().ok());
    match frame["type"].as_str().unwrap_or_default() {
        "message" | "new_message" => {
            let number = text("content").strip_prefix("soak ").and_then(|rest| rest.split(' ').next()?.parse().ok());
            match (number, part["seq"].as_i64()) {
                (Some(number), Some(seq)) => Heard::Message { room: room(), seq, number },
                _ => Heard::Other,
            }
        }
        "ack" | "message_sent" => by_id().map_or(Heard::Other, Heard::Acked),
        "error" | "message_error" | "rate_limit_exceeded" => {
            by_id().map_or(Heard::Other, |number| Heard::Refused(number, text("code").to_owned()))
        }
        "resync" => Heard::Resync { room: room(), head: head() },
        "joined" => Heard::Joined { room: room(), head: head() },
        _ => Heard::Other,
    }
}
