//! The rooms dialect: one conversation on each socket, frames of `{"type": …, "data": {…}}`.

use std::{borrow::Cow, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    closes::{class_of, document_close},
    codec::{AutoJoin, BadFrame, Capabilities, Codec, Greeting, Intent, Request, RequestMeta, RosterPolicy},
    envelope::{content, read, request, unknown_type},
};
use crate::{
    config::Secret,
    model::{
        Body, ClientId, CloseReason, Command, ConversationId, Data, Entry, EntryId, EntrySeq, Ephemeral, Event,
        GivenNumber, LogId, NewMessage, Pair, Reject, Reply, Seq, Target, Timestamp, UserId,
    },
    outbox::{Class, Frame},
};

/// The codec.
pub(super) struct Rooms;

/// A valid frame, shown in refusals.
const EXAMPLE: &str = r#"{"type":"send_message","data":{"content":"hello"}}"#;

#[derive(Deserialize)]
struct Packet<T> {
    data: T,
}

#[derive(Deserialize)]
struct SendMessage<'a> {
    #[serde(borrow, default)]
    content: Cow<'a, str>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    client_id: Option<ClientId>,
    #[serde(default)]
    reply_to: Option<GivenNumber>,
}

#[derive(Deserialize)]
struct Refresh {
    token: String,
}

/// A frame to the client.
#[derive(Serialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
enum Out<'a> {
    Connected {
        room_id: &'a ConversationId,
        user_id: &'a UserId,
        username: &'a str,
        seq: Seq,
        timestamp: Timestamp,
    },
    NewMessage {
        id: EntryId,
        room_id: &'a LogId,
        sender_id: &'a UserId,
        sender_username: &'a str,
        content: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<&'a Data>,
        created_at: Timestamp,
        seq: Seq,
        #[serde(skip_serializing_if = "Option::is_none")]
        client_id: Option<&'a ClientId>,
        #[serde(skip_serializing_if = "Option::is_none")]
        reply_to: Option<Seq>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        is_ai: bool,
    },
    MessageSent {
        message_id: EntryId,
        room_id: &'a LogId,
        seq: Seq,
        created_at: Timestamp,
        #[serde(skip_serializing_if = "Option::is_none")]
        client_id: Option<&'a ClientId>,
    },
    MessageError {
        error: String,
        code: &'static str,
        retryable: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        client_id: Option<&'a ClientId>,
    },
    RateLimitExceeded {
        error: String,
        rate_limit_info: RateLimitInfo,
        #[serde(skip_serializing_if = "Option::is_none")]
        client_id: Option<&'a ClientId>,
    },
    UserJoined(Person<'a>),
    UserLeft(Person<'a>),
    UserTyping(Person<'a>),
    UserStoppedTyping(Person<'a>),
    Refreshed {
        expires_at: Timestamp,
    },
    Resync {
        room_id: &'a LogId,
        first_seq: Seq,
        head: Seq,
    },
    Error {
        error: String,
        code: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        client_id: Option<&'a ClientId>,
    },
}

/// A refusal, with the mark of the frame that it answers beside its `data`.
#[derive(Serialize)]
struct Refusal<'a> {
    #[serde(flatten)]
    out: Out<'a>,
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    reference: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct RateLimitInfo {
    messages_sent: u32,
    max_messages: u32,
    /// Time until the limit resets, in seconds.
    time_until_reset: u64,
}

#[derive(Serialize)]
struct Person<'a> {
    room_id: &'a LogId,
    user_id: &'a UserId,
    username: &'a Arc<str>,
    timestamp: Timestamp,
}

/// A frame without `data`, such as `pong`: the protocol document of the rooms dialect shows only its type.
#[derive(Serialize)]
struct TypeOnly {
    #[serde(rename = "type")]
    kind: &'static str,
}

fn frame(out: &Out<'_>) -> Frame {
    Frame::json(out, Class::Durable)
}

fn intent(kind: &str, text: &str, room: &ConversationId) -> Result<Intent, Reject> {
    let typing = |active| Command::Typing { conversation: room.clone(), active };
    let command = match kind {
        "send_message" => {
            let Packet { data: sent } = read!(Packet<SendMessage<'_>>, text, None)?;
            let data = Data::given(sent.data)?;
            Command::Send(NewMessage {
                to: Target::Conversation(room.clone()),
                content: content(&sent.content, data.as_ref())?,
                data,
                client_id: sent.client_id,
                reply_to: EntrySeq::given("reply_to", sent.reply_to)?,
                persona: None,
            })
        }
        "typing_start" => typing(true),
        "typing_stop" => typing(false),
        "ping" => Command::Ping,
        "refresh" => {
            return Ok(Intent::Refresh(Secret::new(read!(Packet<Refresh>, text, None)?.data.token)));
        }
        other => return Err(unknown_type(other)),
    };
    Ok(Intent::Command(command))
}

impl Codec for Rooms {
    fn capabilities(&self) -> &'static Capabilities {
        &Capabilities {
            label: "rooms",
            echoes: true,
            acks: true,
            follows_inbox: false,
            token_in_frame: false,
            joins: AutoJoin::Nothing,
            greets_with: RosterPolicy::Nobody,
            hints: false,
            example: EXAMPLE,
        }
    }

    fn decode(&self, text: &str, bound: Option<&ConversationId>) -> Result<Request, BadFrame> {
        let no_room = || Reject::Invalid("No room".into());
        request(text, EXAMPLE, |kind, _| intent(kind, text, bound.ok_or_else(no_room)?))
    }

    fn greet(&self, greeting: &Greeting<'_>) -> Option<Frame> {
        let (room_id, seq) = greeting.bound?;
        let (user_id, username) = (&greeting.identity.user, &*greeting.identity.name);
        Some(frame(&Out::Connected { room_id, user_id, username, seq, timestamp: greeting.at }))
    }

    fn event(&self, event: &Event, _: Option<&Pair>) -> Option<Frame> {
        match event {
            Event::Entry { entry, .. } => message(entry),
            Event::Ephemeral { ephemeral, .. } => {
                let person =
                    |user_id, username| Person { room_id: &ephemeral.log, user_id, username, timestamp: ephemeral.at };
                let out = match &ephemeral.what {
                    Ephemeral::Typing { user, name, active: true } => Out::UserTyping(person(user, name)),
                    Ephemeral::Typing { user, name, active: false } => Out::UserStoppedTyping(person(user, name)),
                    Ephemeral::Listening { user, name, active: true } => Out::UserJoined(person(user, name)),
                    Ephemeral::Listening { user, name, active: false } => Out::UserLeft(person(user, name)),
                    Ephemeral::Audience { .. }
                    | Ephemeral::Presence { .. }
                    | Ephemeral::Receipt { .. }
                    | Ephemeral::Custom { .. }
                    | Ephemeral::Probe { .. } => return None,
                };
                Some(Frame::json(&out, class_of(ephemeral)))
            }
        }
    }

    fn reply(&self, _: RequestMeta, reply: &Reply) -> Option<Frame> {
        match reply {
            Reply::Sent(sent) => Some(frame(&Out::MessageSent {
                message_id: sent.id(),
                room_id: &sent.log,
                seq: sent.seq,
                created_at: sent.at,
                client_id: sent.client_id.as_ref(),
            })),
            Reply::Pong => Some(Frame::json(&TypeOnly { kind: "pong" }, Class::Durable)),
            _ => None,
        }
    }

    fn refreshed(&self, _: RequestMeta, expires_at: Timestamp) -> Option<Frame> {
        Some(frame(&Out::Refreshed { expires_at }))
    }

    fn reject(&self, meta: RequestMeta, reject: &Reject) -> Frame {
        let (error, code) = (reject.to_string(), reject.code());
        let client_id = meta.client_id.as_ref();
        let out = match reject {
            Reject::RateLimited { sent, limit, retry_after, .. } => Out::RateLimitExceeded {
                error,
                rate_limit_info: RateLimitInfo {
                    messages_sent: *sent,
                    max_messages: *limit,
                    time_until_reset: retry_after.as_millis().div_ceil(1_000) as u64,
                },
                client_id,
            },
            Reject::Overloaded { .. } | Reject::Unavailable | Reject::Unknown => {
                Out::MessageError { error, code, retryable: reject.retryable(), client_id }
            }
            _ => Out::Error { error, code, client_id },
        };
        Frame::json(&Refusal { out, reference: meta.reference.as_deref() }, Class::Durable)
    }

    fn resync(&self, log: &LogId, first_seq: Seq, head: Seq) -> Option<Frame> {
        Some(frame(&Out::Resync { room_id: log, first_seq, head }))
    }

    fn farewell(&self, _: &CloseReason, _: Timestamp) -> Option<Frame> {
        None
    }

    fn close(&self, reason: &CloseReason) -> Option<(u16, Cow<'static, str>)> {
        document_close(reason)
    }
}

/// Encodes a message. This dialect has no frames for other entries.
fn message(entry: &Entry) -> Option<Frame> {
    let Body::Message { content, data, reply_to, is_ai, deleted: false, .. } = &entry.body else { return None };
    Some(frame(&Out::NewMessage {
        id: entry.id(),
        room_id: &entry.log,
        sender_id: &entry.sender,
        sender_username: &entry.sender_name,
        content,
        data: data.as_ref(),
        created_at: entry.at,
        seq: entry.seq,
        client_id: entry.client_id.as_ref(),
        reply_to: *reply_to,
        is_ai: *is_ai,
    }))
}
