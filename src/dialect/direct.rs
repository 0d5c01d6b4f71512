//! The direct dialect: messages from user to user. `docs/protocol/direct.md` shows every frame.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    closes::document_close,
    codec::{AutoJoin, BadFrame, Capabilities, Codec, Greeting, Intent, Request, RequestMeta, RosterPolicy},
    envelope::{content, read, request, unknown_type},
};
use crate::{
    config::Secret,
    model::{
        Body, ClientId, CloseReason, Command, ConversationId, Data, Entry, EntryId, EntrySeq, Event, GivenNumber,
        Joined, LogId, NewMessage, Pair, Reject, Reply, Resumed, Seq, Target, Timestamp, UserId,
    },
    outbox::{Class, Frame},
};

/// The codec.
pub(super) struct Direct;

/// A valid frame, shown in refusals.
const EXAMPLE: &str = r#"{"type":"send_message","recipient_id":"bob","content":"hello"}"#;

/// A frame from a client, by its `type`.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum In<'a> {
    Authenticate {
        token: String,
    },
    Refresh {
        token: String,
    },
    SendMessage {
        recipient_id: UserId,
        #[serde(borrow, default)]
        content: Cow<'a, str>,
        #[serde(default)]
        client_id: Option<ClientId>,
        #[serde(default)]
        reply_to: Option<GivenNumber>,
    },
}

/// Every `type` a client may send.
const KINDS: [&str; 3] = ["authenticate", "refresh", "send_message"];

/// A frame to the client, by its `type`.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Out<'a> {
    Authenticated {
        user_id: &'a UserId,
        username: &'a str,
        expires_at: Timestamp,
    },
    NewMessage {
        data: Message<'a>,
    },
    MessageSent {
        data: Sent<'a>,
    },
    Refreshed {
        expires_at: Timestamp,
    },
    Resync {
        data: Resync<'a>,
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
    },
}

#[derive(Serialize)]
struct Message<'a> {
    id: EntryId,
    conversation_id: &'a LogId,
    sender_id: &'a UserId,
    sender_username: &'a str,
    recipient_id: &'a UserId,
    content: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Data>,
    seq: Seq,
    created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<&'a ClientId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<Seq>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_ai: bool,
}

#[derive(Serialize)]
struct Sent<'a> {
    id: EntryId,
    conversation_id: &'a LogId,
    #[serde(skip_serializing_if = "Option::is_none")]
    recipient_id: Option<&'a UserId>,
    seq: Seq,
    created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<&'a ClientId>,
}

#[derive(Serialize)]
struct Resync<'a> {
    conversation_id: &'a LogId,
    first_seq: Seq,
    head: Seq,
}

fn frame(out: &Out<'_>) -> Frame {
    Frame::json(out, Class::Durable)
}

fn intent(text: &str, given: Option<&RawValue>) -> Result<Intent, Reject> {
    Ok(match read!(In<'_>, text, given)? {
        In::Authenticate { token } => Intent::Authenticate(Secret::new(token)),
        In::Refresh { token } => Intent::Refresh(Secret::new(token)),
        In::SendMessage { recipient_id, content: text, client_id, reply_to } => {
            let (to, data) = (Target::User(recipient_id), Data::given(given)?);
            let (content, reply_to) = (content(&text, data.as_ref())?, EntrySeq::given("reply_to", reply_to)?);
            Intent::Command(Command::Send(NewMessage { to, content, data, client_id, reply_to, persona: None }))
        }
    })
}

/// A refusal; `meta` is of the frame that it answers.
fn error<'a>(reject: &Reject, meta: Option<&'a RequestMeta>) -> Out<'a> {
    Out::Error {
        message: reject.to_string(),
        code: reject.code(),
        reference: meta.and_then(|meta| meta.reference.as_deref()),
        client_id: meta.and_then(|meta| meta.client_id.as_ref()),
        retry_after_ms: reject.retry_after_ms(),
    }
}

impl Codec for Direct {
    fn capabilities(&self) -> &'static Capabilities {
        &Capabilities {
            label: "direct",
            echoes: false,
            acks: true,
            follows_inbox: true,
            token_in_frame: true,
            joins: AutoJoin::Directs,
            greets_with: RosterPolicy::Nobody,
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
        let identity = greeting.identity;
        let (user_id, username) = (&identity.user, &*identity.name);
        Some(frame(&Out::Authenticated { user_id, username, expires_at: identity.expires_at }))
    }

    fn event(&self, event: &Event, pair: Option<&Pair>) -> Option<Frame> {
        match event {
            Event::Entry { entry, .. } => message(entry, pair?),
            Event::Ephemeral { .. } => None,
        }
    }

    fn reply(&self, _: RequestMeta, reply: &Reply) -> Option<Frame> {
        if let Reply::Joined(conversation, Joined { head, resumed: Resumed::Resync { first } }) = reply {
            return self.resync(&LogId::from(conversation), *first, *head);
        }
        let Reply::Sent(sent) = reply else { return None };
        let data = Sent {
            id: sent.id(),
            conversation_id: &sent.log,
            recipient_id: sent.recipient.as_ref(),
            seq: sent.seq,
            created_at: sent.at,
            client_id: sent.client_id.as_ref(),
        };
        Some(frame(&Out::MessageSent { data }))
    }

    fn refreshed(&self, _: RequestMeta, expires_at: Timestamp) -> Option<Frame> {
        Some(frame(&Out::Refreshed { expires_at }))
    }

    fn reject(&self, meta: RequestMeta, reject: &Reject) -> Frame {
        frame(&error(reject, Some(&meta)))
    }

    fn resync(&self, log: &LogId, first_seq: Seq, head: Seq) -> Option<Frame> {
        let data = Resync { conversation_id: log, first_seq, head };
        Some(frame(&Out::Resync { data }))
    }

    /// Sends a refusal as a frame too, because many clients of this dialect ignore the close frame.
    fn farewell(&self, reason: &CloseReason, _: Timestamp) -> Option<Frame> {
        match reason {
            CloseReason::Refused(reject) => Some(frame(&error(reject, None))),
            CloseReason::TokenExpired => Some(frame(&error(&Reject::TokenExpired, None))),
            _ => None,
        }
    }

    fn close(&self, reason: &CloseReason) -> Option<(u16, Cow<'static, str>)> {
        document_close(reason)
    }
}

/// Encodes a message of a direct conversation. This dialect has no frames for other entries.
fn message(entry: &Entry, pair: &Pair) -> Option<Frame> {
    let Body::Message { content, data, reply_to, is_ai, deleted: false, .. } = &entry.body else { return None };
    let data = Message {
        id: entry.id(),
        conversation_id: &entry.log,
        sender_id: &entry.sender,
        sender_username: &entry.sender_name,
        recipient_id: pair.other(&entry.sender),
        content,
        data: data.as_ref(),
        seq: entry.seq,
        created_at: entry.at,
        client_id: entry.client_id.as_ref(),
        reply_to: *reply_to,
        is_ai: *is_ai,
    };
    Some(frame(&Out::NewMessage { data }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_read() {
        for kind in KINDS {
            let error = Direct.decode(&format!(r#"{{"type":"{kind}"}}"#), None).unwrap_err().reject;
            assert!(matches!(error, Reject::Invalid(_)), "{kind}: {error}");
        }
        let error = Direct.decode(r#"{"type":"typing_start"}"#, None).unwrap_err().reject;
        assert_eq!(error, Reject::UnknownType("typing_start".into()));
    }

    #[test]
    fn recipients_may_be_numbers() {
        let frame = r#"{"type":"send_message","recipient_id":456,"content":"hi","extra":[1]}"#;
        let Intent::Command(Command::Send(message)) = Direct.decode(frame, None).unwrap().intent else { panic!() };
        assert_eq!(message.to, Target::User(UserId::parse("456").unwrap()));
    }
}
