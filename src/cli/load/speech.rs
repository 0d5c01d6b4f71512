//! The frames of a dialect that the load uses.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{json, value::RawValue};

use super::super::server_url::NATIVE_PATH;
use crate::model::{ConversationId, Seq};

/// The dialect of a run's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speech {
    Native,
    Rooms,
    Personas,
}

/// What a frame tells the load.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard<'a> {
    /// The server greeted the connection.
    Greeting,
    /// The connection listens to its room.
    Joined,
    /// A message of anybody in the room.
    Message { seq: Seq, text: Cow<'a, str> },
    /// The message with this `client_id` is stored.
    Stored(Cow<'a, str>),
    /// A frame was refused, or the message with this `client_id`.
    Refused { code: Cow<'a, str>, client_id: Option<Cow<'a, str>> },
    /// The connection must read the room anew.
    Resync,
    /// The rest.
    Other,
}

/// A frame of any dialect: its type, and the parts that may hold its fields.
#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    /// The content of a frame of the rooms dialect.
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    /// The message in a frame of the personas dialect; a text elsewhere.
    #[serde(borrow)]
    message: Option<&'a RawValue>,
}

/// The fields of a message, a refusal or an ack: of the frame itself, or of a part of it.
#[derive(Deserialize, Default)]
struct Fields<'a> {
    #[serde(borrow)]
    client_id: Option<Cow<'a, str>>,
    seq: Option<Seq>,
    #[serde(borrow)]
    content: Option<Cow<'a, str>>,
    #[serde(borrow)]
    code: Option<Cow<'a, str>>,
}

impl Speech {
    /// The names of all.
    pub(super) const NAMES: [&'static str; 3] = ["native", "rooms", "personas"];

    /// The dialect of this name.
    pub(super) fn of(name: &str) -> Option<Self> {
        [Self::Native, Self::Rooms, Self::Personas].into_iter().find(|speech| speech.name() == name)
    }

    /// The name in commands and results.
    pub(super) fn name(self) -> &'static str {
        let [native, rooms, personas] = Self::NAMES;
        match self {
            Self::Native => native,
            Self::Rooms => rooms,
            Self::Personas => personas,
        }
    }

    /// The path of a connection that uses a room.
    pub(super) fn path(self, room: &ConversationId) -> String {
        match self {
            Self::Native => NATIVE_PATH.to_owned(),
            Self::Rooms => format!("/ws/rooms/{room}"),
            Self::Personas => "/ws/auth".to_owned(),
        }
    }

    /// The frame that joins a room, unless the path does.
    pub(super) fn join(self, room: &ConversationId) -> Option<String> {
        match self {
            Self::Native => Some(json!({"type": "join", "conversation_id": room, "ref": "join"}).to_string()),
            Self::Rooms => None,
            Self::Personas => Some(json!({"type": "join_conversation", "conversation_id": room}).to_string()),
        }
    }

    /// The frame that sends a text.
    pub(super) fn send(self, room: &ConversationId, text: &str, client_id: &str) -> String {
        let frame = match self {
            Self::Native => json!({"type": "send", "conversation_id": room, "content": text, "client_id": client_id}),
            Self::Rooms => json!({"type": "send_message", "data": {"content": text, "client_id": client_id}}),
            Self::Personas => {
                json!({"type": "send_message", "conversation_id": room, "content": text, "client_id": client_id})
            }
        };
        frame.to_string()
    }

    /// True if a sender receives its own messages. In the native dialect it receives the ack alone.
    pub(super) fn echoes(self) -> bool {
        self != Self::Native
    }

    /// True if the sender's own message is its ack.
    pub(super) fn echo_is_ack(self) -> bool {
        self == Self::Personas
    }

    /// What a frame of the server tells.
    pub(super) fn hear(self, frame: &str) -> Heard<'_> {
        let Ok(Frame { kind, data, message }) = serde_json::from_str(frame) else { return Heard::Other };
        let part = match self {
            Self::Rooms => data,
            Self::Personas if kind == "new_message" => message,
            Self::Native | Self::Personas => None,
        };
        let Fields { client_id, seq, content, code } =
            serde_json::from_str(part.map_or(frame, RawValue::get)).unwrap_or_default();
        match (self, &*kind) {
            (Self::Native, "authenticated") | (Self::Personas, "online_users") => Heard::Greeting,
            (Self::Native, "joined") | (Self::Rooms, "connected") | (Self::Personas, "conversation_joined") => {
                Heard::Joined
            }
            (Self::Native, "message") | (Self::Rooms | Self::Personas, "new_message") => match (seq, content) {
                (Some(seq), Some(text)) => Heard::Message { seq, text },
                _ => Heard::Other,
            },
            (Self::Native, "ack") | (Self::Rooms, "message_sent") => client_id.map_or(Heard::Other, Heard::Stored),
            (_, "rate_limit_exceeded") => Heard::Refused { code: "rate_limited".into(), client_id },
            (_, "error" | "message_error") => Heard::Refused { code: code.unwrap_or("no code".into()), client_id },
            (_, "resync") => Heard::Resync,
            _ => Heard::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_every_dialect_are_understood() {
        let message = |text: &'static str| Heard::Message { seq: 42, text: text.into() };
        let refused = |code: &'static str| Heard::Refused { code: code.into(), client_id: Some("c-1".into()) };
        for (speech, frame, heard) in [
            (Speech::Native, r#"{"type":"authenticated","user_id":"a"}"#, Heard::Greeting),
            (Speech::Native, r#"{"type":"joined","ref":"join","head":0}"#, Heard::Joined),
            (Speech::Native, r#"{"type":"message","seq":42,"content":"a\nb"}"#, message("a\nb")),
            (Speech::Native, r#"{"type":"ack","client_id":"c-1","seq":42}"#, Heard::Stored("c-1".into())),
            (
                Speech::Native,
                r#"{"type":"error","code":"invalid","message":"No","client_id":"c-1"}"#,
                refused("invalid"),
            ),
            (Speech::Native, r#"{"type":"resync","head":4}"#, Heard::Resync),
            (Speech::Rooms, r#"{"type":"connected","data":{"seq":0}}"#, Heard::Joined),
            (Speech::Rooms, r#"{"type":"new_message","data":{"seq":42,"content":"hi"}}"#, message("hi")),
            (
                Speech::Rooms,
                r#"{"type":"message_sent","data":{"client_id":"c-1","seq":42}}"#,
                Heard::Stored("c-1".into()),
            ),
            (
                Speech::Rooms,
                r#"{"type":"message_error","data":{"code":"unknown","client_id":"c-1"}}"#,
                refused("unknown"),
            ),
            (
                Speech::Rooms,
                r#"{"type":"rate_limit_exceeded","data":{"error":"no","client_id":"c-1"}}"#,
                refused("rate_limited"),
            ),
            (Speech::Personas, r#"{"type":"online_users","users":[]}"#, Heard::Greeting),
            (Speech::Personas, r#"{"type":"conversation_joined","seq":41}"#, Heard::Joined),
            (Speech::Personas, r#"{"type":"new_message","message":{"seq":42,"content":"hi"}}"#, message("hi")),
            (
                Speech::Personas,
                r#"{"type":"error","message":"No","code":"invalid","client_id":"c-1"}"#,
                refused("invalid"),
            ),
            (Speech::Personas, r#"{"type":"typing_indicator","user_id":"bob"}"#, Heard::Other),
            (Speech::Native, "no JSON", Heard::Other),
        ] {
            assert_eq!(speech.hear(frame), heard, "{frame}");
        }
    }
}
