//! The personas dialect: many conversations on one socket, and personas that answer. `docs/protocol/personas.md` shows
//! every frame.

use std::borrow::Cow;

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
        Body, ClientId, CloseReason, Command, ConversationId, Data, Entry, EntryId, EntrySeq, Ephemeral,
        EphemeralEvent, Event, GivenNumber, Listed, LogId, NewMessage, Pair, Reject, Reply, Resumed, Seq, SinceSeq,
        Target, Timestamp, UserId,
    },
    outbox::{Class, Frame},
};

/// The codec.
pub(super) struct Personas;

/// A valid frame, shown in refusals.
const EXAMPLE: &str = r#"{"type":"send_message","conversation_id":"lobby","content":"hello"}"#;

/// A frame from a client, by its `type`.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum In<'a> {
    JoinConversation {
        conversation_id: ConversationId,
        #[serde(default)]
        since_seq: Option<GivenNumber>,
    },
    LeaveConversation {
        conversation_id: ConversationId,
    },
    SendMessage {
        conversation_id: ConversationId,
        #[serde(borrow, default)]
        content: Cow<'a, str>,
        #[serde(default)]
        persona_id: Option<UserId>,
        #[serde(default)]
        client_id: Option<ClientId>,
        #[serde(default)]
        reply_to: Option<GivenNumber>,
    },
    TypingStart {
        conversation_id: ConversationId,
    },
    TypingStop {
        conversation_id: ConversationId,
    },
    GetOnlineStatus {
        user_ids: Vec<UserId>,
    },
    Refresh {
        token: String,
    },
}

/// Every `type` a client may send.
const KINDS: [&str; 7] = [
    "join_conversation",
    "leave_conversation",
    "send_message",
    "typing_start",
    "typing_stop",
    "get_online_status",
    "refresh",
];

/// A frame to the client, by its `type`.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Out<'a> {
    ConversationJoined {
        conversation_id: &'a ConversationId,
        seq: Seq,
        timestamp: Timestamp,
    },
    NewMessage {
        conversation_id: &'a LogId,
        message: Message<'a>,
        timestamp: Timestamp,
    },
    TypingIndicator {
        conversation_id: &'a LogId,
        user_id: &'a UserId,
        is_typing: bool,
        timestamp: Timestamp,
    },
    PresenceUpdate {
        user_id: &'a UserId,
        online: bool,
        timestamp: Timestamp,
    },
    OnlineUsers {
        users: Vec<&'a UserId>,
        timestamp: Timestamp,
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<&'a RawValue>,
    },
    Notification {
        conversation_id: &'a ConversationId,
        from_seq: Seq,
        timestamp: Timestamp,
    },
    Refreshed {
        expires_at: Timestamp,
        timestamp: Timestamp,
    },
    Resync {
        conversation_id: &'a LogId,
        first_seq: Seq,
        head: Seq,
    },
    Error {
        message: String,
        code: &'static str,
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<&'a RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        client_id: Option<&'a ClientId>,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
        timestamp: Timestamp,
    },
}

#[derive(Serialize)]
struct Message<'a> {
    id: EntryId,
    sender_id: &'a UserId,
    sender_username: &'a str,
    content: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Data>,
    timestamp: Timestamp,
    is_ai: bool,
    seq: Seq,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<&'a ClientId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<Seq>,
}

fn frame(out: &Out<'_>) -> Frame {
    Frame::json(out, Class::Durable)
}

fn intent(text: &str, given: Option<&RawValue>) -> Result<Intent, Reject> {
    Ok(Intent::Command(match read!(In<'_>, text, given)? {
        In::JoinConversation { conversation_id: conversation, since_seq } => {
            let since = SinceSeq::given("since_seq", since_seq)?;
            Command::Join { conversation, since, roster: false, automatic: false }
        }
        In::LeaveConversation { conversation_id: conversation } => Command::Leave { conversation },
        In::SendMessage { conversation_id, content: text, persona_id: persona, client_id, reply_to } => {
            let (to, data) = (Target::Conversation(conversation_id), Data::given(given)?);
            let (content, reply_to) = (content(&text, data.as_ref())?, EntrySeq::given("reply_to", reply_to)?);
            Command::Send(NewMessage { to, content, data, client_id, reply_to, persona })
        }
        In::TypingStart { conversation_id: conversation } => Command::Typing { conversation, active: true },
        In::TypingStop { conversation_id: conversation } => Command::Typing { conversation, active: false },
        In::GetOnlineStatus { user_ids } => Command::Presence { users: Listed::given("user_ids", user_ids)? },
        In::Refresh { token } => return Ok(Intent::Refresh(Secret::new(token))),
    }))
}

/// The class of lists of online users: each replaces the one before.
const ROSTER: Class = Class::State(0);

fn online_users(users: &[UserId], timestamp: Timestamp) -> Out<'_> {
    Out::OnlineUsers { users: users.iter().collect(), timestamp, reference: None }
}

impl Codec for Personas {
    fn capabilities(&self) -> &'static Capabilities {
        &Capabilities {
            label: "personas",
            echoes: true,
            acks: false,
            follows_inbox: true,
            token_in_frame: false,
            joins: AutoJoin::Nothing,
            greets_with: RosterPolicy::Acquaintances,
            hints: false,
            example: EXAMPLE,
        }
    }

    fn decode(&self, text: &str, _: Option<&ConversationId>) -> Result<Request, BadFrame> {
        request(text, EXAMPLE, |kind, data| match KINDS.contains(&kind) {
            true => intent(text, data),
            false => Err(unknown_type(kind)),
        })
    }

    fn greet(&self, greeting: &Greeting<'_>) -> Option<Frame> {
        Some(frame(&online_users(greeting.present, greeting.at)))
    }

    fn roster(&self, users: &[UserId], at: Timestamp) -> Option<Frame> {
        Some(Frame::json(&online_users(users, at), ROSTER))
    }

    fn event(&self, event: &Event, _: Option<&Pair>) -> Option<Frame> {
        match event {
            Event::Entry { entry, .. } => entry_frame(entry),
            Event::Ephemeral { ephemeral, .. } => ephemeral_frame(ephemeral),
        }
    }

    fn reply(&self, meta: RequestMeta, reply: &Reply) -> Option<Frame> {
        let timestamp = meta.at;
        Some(match reply {
            Reply::Joined(conversation, joined) => match joined.resumed {
                Resumed::From(_) => {
                    frame(&Out::ConversationJoined { conversation_id: conversation, seq: joined.head, timestamp })
                }
                Resumed::Resync { first } => self.resync(&LogId::from(conversation), first, joined.head)?,
            },
            Reply::Presence { users, .. } => {
                let users = users.iter().filter(|one| one.online).map(|one| &one.user).collect();
                frame(&Out::OnlineUsers { users, timestamp, reference: meta.reference.as_deref() })
            }
            // The broadcast serves as the ack of a send; this dialect has no frames for the other replies.
            _ => return None,
        })
    }

    fn refreshed(&self, meta: RequestMeta, expires_at: Timestamp) -> Option<Frame> {
        Some(frame(&Out::Refreshed { expires_at, timestamp: meta.at }))
    }

    fn reject(&self, meta: RequestMeta, reject: &Reject) -> Frame {
        frame(&Out::Error {
            message: reject.to_string(),
            code: reject.code(),
            reference: meta.reference.as_deref(),
            client_id: meta.client_id.as_ref(),
            retry_after_ms: reject.retry_after_ms(),
            timestamp: meta.at,
        })
    }

    fn resync(&self, log: &LogId, first_seq: Seq, head: Seq) -> Option<Frame> {
        Some(frame(&Out::Resync { conversation_id: log, first_seq, head }))
    }

    fn farewell(&self, _: &CloseReason, _: Timestamp) -> Option<Frame> {
        None
    }

    fn close(&self, reason: &CloseReason) -> Option<(u16, Cow<'static, str>)> {
        document_close(reason)
    }
}

/// Encodes messages and the inbox's notifications. This dialect has no frames for other entries.
fn entry_frame(entry: &Entry) -> Option<Frame> {
    Some(match &entry.body {
        Body::Message { content, data, reply_to, is_ai, deleted: false, .. } => frame(&Out::NewMessage {
            conversation_id: &entry.log,
            message: Message {
                id: entry.id(),
                sender_id: &entry.sender,
                sender_username: &entry.sender_name,
                content,
                data: data.as_ref(),
                timestamp: entry.at,
                is_ai: *is_ai,
                seq: entry.seq,
                client_id: entry.client_id.as_ref(),
                reply_to: *reply_to,
            },
            timestamp: entry.at,
        }),
        Body::Notified { conversation, from_seq } => {
            frame(&Out::Notification { conversation_id: conversation, from_seq: *from_seq, timestamp: entry.at })
        }
        _ => return None,
    })
}

fn ephemeral_frame(ephemeral: &EphemeralEvent) -> Option<Frame> {
    let timestamp = ephemeral.at;
    let out = match &ephemeral.what {
        Ephemeral::Typing { user, active, .. } => {
            Out::TypingIndicator { conversation_id: &ephemeral.log, user_id: user, is_typing: *active, timestamp }
        }
        Ephemeral::Presence { user, online, .. } => Out::PresenceUpdate { user_id: user, online: *online, timestamp },
        Ephemeral::Listening { .. }
        | Ephemeral::Audience { .. }
        | Ephemeral::Receipt { .. }
        | Ephemeral::Custom { .. }
        | Ephemeral::Probe { .. } => return None,
    };
    Some(Frame::json(&out, class_of(ephemeral)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_read() {
        for kind in KINDS {
            let error = Personas.decode(&format!(r#"{{"type":"{kind}"}}"#), None).unwrap_err().reject;
            assert!(matches!(error, Reject::Invalid(_)), "{kind}: {error}");
        }
        assert!(matches!(Personas.decode(r#"{"type":"ping"}"#, None).unwrap_err().reject, Reject::UnknownType(_)));
    }

    #[test]
    fn a_persona_may_be_null() {
        let frame = r#"{"type":"send_message","conversation_id":"c","content":"hi","persona_id":null}"#;
        let Intent::Command(Command::Send(message)) = Personas.decode(frame, None).unwrap().intent else { panic!() };
        assert_eq!(message.persona, None);
    }
}
