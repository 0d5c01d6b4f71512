//! The conversation dialect: one conversation on each socket, flat frames. `docs/protocol/conversation.md` shows every
//! frame.

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
        EphemeralEvent, Event, GivenNumber, LogId, NewMessage, Pair, Reject, Reply, Seq, Target, Timestamp, UserId,
    },
    outbox::{Class, Frame},
};

/// The codec.
pub(super) struct Conversation;

/// A valid frame, shown in refusals.
const EXAMPLE: &str = r#"{"type":"message","content":"hello"}"#;

/// A frame from a client, by its `type`.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum In<'a> {
    Message {
        #[serde(borrow, default)]
        content: Cow<'a, str>,
        #[serde(default)]
        client_id: Option<ClientId>,
        #[serde(default)]
        reply_to: Option<GivenNumber>,
    },
    Typing {},
    Refresh {
        token: String,
    },
}

/// Every `type` a client may send.
const KINDS: [&str; 3] = ["message", "typing", "refresh"];

/// A frame to the client, by its `type`.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Out<'a> {
    Message {
        content: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<&'a Data>,
        sender_id: &'a UserId,
        sender_username: &'a str,
        message_id: EntryId,
        timestamp: Timestamp,
        is_edited: bool,
        seq: Seq,
        #[serde(skip_serializing_if = "Option::is_none")]
        client_id: Option<&'a ClientId>,
        #[serde(skip_serializing_if = "Option::is_none")]
        reply_to: Option<Seq>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        is_ai: bool,
    },
    Typing {
        sender_id: &'a UserId,
        sender_username: &'a str,
    },
    System {
        content: String,
        sender_id: &'a UserId,
        active_users: &'a [UserId],
        #[serde(skip_serializing_if = "Option::is_none")]
        seq: Option<Seq>,
    },
    Refreshed {
        expires_at: Timestamp,
    },
    Resync {
        first_seq: Seq,
        head: Seq,
    },
    Error {
        content: String,
        code: &'static str,
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<&'a RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        client_id: Option<&'a ClientId>,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
    },
}

fn frame(out: &Out<'_>) -> Frame {
    Frame::json(out, Class::Durable)
}

fn joined_or_left(name: &str, active: bool) -> String {
    format!("User {name} {} the conversation", if active { "joined" } else { "left" })
}

fn intent(text: &str, conversation: &ConversationId, given: Option<&RawValue>) -> Result<Intent, Reject> {
    Ok(Intent::Command(match read!(In<'_>, text, given)? {
        In::Message { content: text, client_id, reply_to } => {
            let (to, data) = (Target::Conversation(conversation.clone()), Data::given(given)?);
            let (content, reply_to) = (content(&text, data.as_ref())?, EntrySeq::given("reply_to", reply_to)?);
            Command::Send(NewMessage { to, content, data, client_id, reply_to, persona: None })
        }
        In::Typing {} => Command::Typing { conversation: conversation.clone(), active: true },
        In::Refresh { token } => return Ok(Intent::Refresh(Secret::new(token))),
    }))
}

impl Codec for Conversation {
    fn capabilities(&self) -> &'static Capabilities {
        &Capabilities {
            label: "conversation",
            echoes: true,
            acks: false,
            follows_inbox: false,
            token_in_frame: false,
            joins: AutoJoin::Nothing,
            greets_with: RosterPolicy::Listeners,
            hints: false,
            example: EXAMPLE,
        }
    }

    fn decode(&self, text: &str, bound: Option<&ConversationId>) -> Result<Request, BadFrame> {
        let unbound = || Reject::Invalid("No conversation".into());
        request(text, EXAMPLE, |kind, data| match KINDS.contains(&kind) {
            true => intent(text, bound.ok_or_else(unbound)?, data),
            false => Err(unknown_type(kind)),
        })
    }

    /// Also tells the joining client itself which users are present.
    fn greet(&self, greeting: &Greeting<'_>) -> Option<Frame> {
        let (_, seq) = greeting.bound?;
        let content = joined_or_left(&greeting.identity.name, true);
        let (sender_id, active_users) = (&greeting.identity.user, greeting.present);
        Some(frame(&Out::System { content, sender_id, active_users, seq: Some(seq) }))
    }

    fn event(&self, event: &Event, _: Option<&Pair>) -> Option<Frame> {
        match event {
            Event::Entry { entry, .. } => message(entry),
            Event::Ephemeral { ephemeral, .. } => ephemeral_frame(ephemeral),
        }
    }

    /// The broadcast of the message serves as its ack.
    fn reply(&self, _: RequestMeta, _: &Reply) -> Option<Frame> {
        None
    }

    fn refreshed(&self, _: RequestMeta, expires_at: Timestamp) -> Option<Frame> {
        Some(frame(&Out::Refreshed { expires_at }))
    }

    fn reject(&self, meta: RequestMeta, reject: &Reject) -> Frame {
        let (content, code, retry_after_ms) = (reject.to_string(), reject.code(), reject.retry_after_ms());
        let (reference, client_id) = (meta.reference.as_deref(), meta.client_id.as_ref());
        frame(&Out::Error { content, code, reference, client_id, retry_after_ms })
    }

    fn resync(&self, _: &LogId, first_seq: Seq, head: Seq) -> Option<Frame> {
        Some(frame(&Out::Resync { first_seq, head }))
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
    let Body::Message { content, data, reply_to, is_ai, edited_at, deleted: false, .. } = &entry.body else {
        return None;
    };
    Some(frame(&Out::Message {
        content,
        data: data.as_ref(),
        sender_id: &entry.sender,
        sender_username: &entry.sender_name,
        message_id: entry.id(),
        timestamp: entry.at,
        is_edited: edited_at.is_some(),
        seq: entry.seq,
        client_id: entry.client_id.as_ref(),
        reply_to: *reply_to,
        is_ai: *is_ai,
    }))
}

/// Encodes an ephemeral event. This dialect has no frame for a user who stopped typing.
fn ephemeral_frame(ephemeral: &EphemeralEvent) -> Option<Frame> {
    let out = match &ephemeral.what {
        Ephemeral::Typing { user, name, active: true } => Out::Typing { sender_id: user, sender_username: name },
        Ephemeral::Audience { user, name, active, present } => {
            Out::System { content: joined_or_left(name, *active), sender_id: user, active_users: present, seq: None }
        }
        Ephemeral::Typing { active: false, .. }
        | Ephemeral::Listening { .. }
        | Ephemeral::Presence { .. }
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
        let room = ConversationId::parse("team").unwrap();
        for kind in KINDS {
            if let Err(bad) = Conversation.decode(&format!(r#"{{"type":"{kind}"}}"#), Some(&room)) {
                assert!(matches!(bad.reject, Reject::Invalid(_)), "{kind}");
            }
        }
        let error = Conversation.decode(r#"{"type":"dance"}"#, Some(&room)).unwrap_err().reject;
        assert_eq!(error, Reject::UnknownType("dance".into()));
    }

    #[test]
    fn a_message_without_content_gets_the_documented_error() {
        let room = ConversationId::parse("team").unwrap();
        for frame in [r#"{"type":"message"}"#, r#"{"type":"message","content":" \n"}"#] {
            let error = Conversation.decode(frame, Some(&room)).unwrap_err().reject;
            assert_eq!(error.to_string(), "Message content cannot be empty");
        }
    }
}
