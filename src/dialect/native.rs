//! The native dialect: JSON text frames with a `type`; it supports every command. `docs/protocol/native.md` shows every
//! frame.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::{
    closes::{class_of, code, common_close},
    codec::{AutoJoin, BadFrame, Capabilities, Codec, Greeting, Intent, Request, RequestMeta, RosterPolicy},
    envelope::{content, read, request, unknown_type},
    fields::WithoutRef,
};
use crate::{
    config::Secret,
    model::{
        CloseReason, Command, ConversationId, Data, DataEdit, Emoji, EntrySeq, Event, EventName, HistoryRange, Listed,
        LogId, NewEvent, NewMessage, Page, Pair, Reject, Reply, SearchTerms, Seq, SinceSeq, Target, Timestamp, Unread,
        UserId,
    },
    outbox::{Class, Frame},
};

mod inbound;
mod outbound;
mod replies;
mod shapes;

use inbound::In;
use outbound::Out;

/// The codec.
pub(super) struct Native;

/// A valid frame, shown in refusals.
const EXAMPLE: &str = r#"{"type":"send","conversation_id":"lobby","content":"hello"}"#;

/// Close codes of this dialect, in addition to the common ones.
mod own_code {
    pub(super) const TOKEN: u16 = 4401;
    pub(super) const FORBIDDEN: u16 = 4403;
    pub(super) const TOO_SLOW: u16 = 4408;
    pub(super) const DISCONNECTED: u16 = 4410;
    pub(super) const LIMIT: u16 = 4429;
}

fn intent(text: &str, given: Option<&RawValue>) -> Result<Intent, Reject> {
    let WithoutRef(frame) = read!(WithoutRef<In<'_>>, text, given)?;
    Ok(Intent::Command(match frame {
        In::Authenticate { token } => return Ok(Intent::Authenticate(Secret::new(token))),
        In::Refresh { token } => return Ok(Intent::Refresh(Secret::new(token))),
        In::Join { conversation_id: conversation, since_seq, roster } => {
            let since = SinceSeq::given("since_seq", since_seq)?;
            Command::Join { conversation, since, roster, automatic: false }
        }
        In::Leave { conversation_id } => Command::Leave { conversation: conversation_id },
        In::Sync { conversations, roster } => {
            let cursor = |(conversation, since)| match SinceSeq::given("a seq in conversations", Some(since)) {
                Ok(since) => Ok((conversation, since.unwrap_or(SinceSeq::START))),
                Err(error) => Err(Reject::from(error)),
            };
            let cursors = conversations.0.into_iter().map(cursor);
            Command::Sync { cursors: Listed::given("conversations", cursors.collect::<Result<_, _>>()?)?, roster }
        }
        In::Send { conversation_id, recipient_id, content: text, data: _, client_id, reply_to, persona_id } => {
            let to = target("send", conversation_id, recipient_id)?;
            let (data, reply_to) = (Data::given(given)?, EntrySeq::given("reply_to", reply_to)?);
            let content = content(&text, data.as_ref())?;
            Command::Send(NewMessage { to, content, data, client_id, reply_to, persona: persona_id })
        }
        In::Edit { conversation_id: conversation, seq, content: text, data: _, client_id } => {
            let (target, data) = (EntrySeq::of_message(seq)?, DataEdit::given(given)?);
            let content = content(&text, data.data())?;
            Command::Edit { conversation, target, content, data, client_id }
        }
        In::Delete { conversation_id: conversation, seq, client_id } => {
            Command::Delete { conversation, target: EntrySeq::of_message(seq)?, client_id }
        }
        In::React { conversation_id: conversation, seq, emoji, active, client_id } => {
            let (target, emoji) = (EntrySeq::of_message(seq)?, Emoji::parse(&emoji)?);
            Command::React { conversation, target, emoji, active, client_id }
        }
        In::Event { conversation_id, recipient_id, name, data: _ } => {
            let to = target("event", conversation_id, recipient_id)?;
            Command::Event(NewEvent { to, name: EventName::parse(&name)?, data: Data::given(given)? })
        }
        In::Typing { conversation_id: conversation, active } => Command::Typing { conversation, active },
        In::Read { conversation_id: conversation, seq, delivered_seq } => {
            let (read, delivered) = (EntrySeq::given("seq", seq)?, EntrySeq::given("delivered_seq", delivered_seq)?);
            if read.is_none() && delivered.is_none() {
                return Err(Reject::Invalid("read needs seq or delivered_seq".into()));
            }
            Command::Read { conversation, delivered, read }
        }
        In::Presence { user_ids } => Command::Presence { users: Listed::given("user_ids", user_ids)? },
        In::Status { status } => Command::SetStatus { status },
        In::History { conversation_id, before_seq, after_seq, around_seq, thread_seq, limit, offset } => {
            let page = Page::given(limit, offset)?;
            let range = HistoryRange::given(before_seq, after_seq, around_seq, page)?;
            let thread = thread_seq.map(EntrySeq::of_message).transpose()?;
            Command::History { conversation: conversation_id, range, thread, page }
        }
        In::Search { words, conversation_id: conversation, limit, offset } => {
            let (terms, page) = (SearchTerms::given("words", &words)?, Page::given(limit, offset)?);
            Command::Search { terms, conversation, page }
        }
        In::Conversations { archived, limit, offset } => {
            Command::Conversations { archived, page: Page::given(limit, offset)? }
        }
        In::Members { conversation_id: conversation } => Command::Describe { conversation },
        In::Archive { conversation_id: conversation, archived } => Command::Archive { conversation, archived },
        In::Ping {} => Command::Ping,
    }))
}

/// The destination of a message or an event.
fn target(kind: &str, conversation: Option<ConversationId>, user: Option<UserId>) -> Result<Target, Reject> {
    match (conversation, user) {
        (Some(conversation), None) => Ok(Target::Conversation(conversation)),
        (None, Some(user)) => Ok(Target::User(user)),
        _ => Err(Reject::Invalid(format!("{kind} needs conversation_id or recipient_id, and not both"))),
    }
}

impl Codec for Native {
    fn capabilities(&self) -> &'static Capabilities {
        &Capabilities {
            label: "native",
            echoes: false,
            acks: true,
            follows_inbox: true,
            token_in_frame: true,
            joins: AutoJoin::Added,
            greets_with: RosterPolicy::Nobody,
            hints: true,
            example: EXAMPLE,
        }
    }

    fn decode(&self, text: &str, _: Option<&ConversationId>) -> Result<Request, BadFrame> {
        request(text, EXAMPLE, |kind, data| match In::KINDS.contains(&kind) {
            true => intent(text, data),
            false => Err(unknown_type(kind)),
        })
    }

    fn greet(&self, greeting: &Greeting<'_>) -> Option<Frame> {
        Some(Out::greeting(greeting).frame())
    }

    fn event(&self, event: &Event, _: Option<&Pair>) -> Option<Frame> {
        match event {
            Event::Entry { entry, .. } => Some(Out::entry(entry).frame()),
            Event::Ephemeral { ephemeral, .. } => Some(Frame::json(&Out::ephemeral(ephemeral)?, class_of(ephemeral))),
        }
    }

    fn hint(&self, Unread { conversation, head, unread, .. }: &Unread) -> Option<Frame> {
        let hint = Out::Hint { conversation_id: conversation, head: *head, unread: *unread };
        Some(Frame::json(&hint, Class::hint(conversation)))
    }

    fn reply(&self, meta: RequestMeta, reply: &Reply) -> Option<Frame> {
        // A reply without content is sent only if the client gave a `ref`.
        let silent = matches!(reply, Reply::Done) && meta.reference.is_none();
        (!silent).then(|| replies::reply(meta.reference.as_deref(), reply))
    }

    fn parts(&self, reply: Reply, most: usize) -> Vec<Reply> {
        let reply = match reply {
            // Clients ask for the members only; they have the rest from the list.
            Reply::Conversation(described) => {
                Reply::Members { conversation: described.id, members: described.members, more: false }
            }
            other => other,
        };
        reply.into_parts(most)
    }

    fn refreshed(&self, meta: RequestMeta, expires_at: Timestamp) -> Option<Frame> {
        Some(Out::Refreshed { reference: meta.reference.as_deref(), expires_at }.frame())
    }

    fn reject(&self, meta: RequestMeta, reject: &Reject) -> Frame {
        Out::error(&meta, reject).frame()
    }

    fn resync(&self, log: &LogId, first_seq: Seq, head: Seq) -> Option<Frame> {
        Some(Out::Resync { reference: None, conversation_id: log.conversation()?, first_seq, head }.frame())
    }

    fn farewell(&self, reason: &CloseReason, _: Timestamp) -> Option<Frame> {
        match reason {
            CloseReason::Restart(after) => Some(Out::Restart { retry_after_ms: after.as_millis() as u64 }.frame()),
            _ => None,
        }
    }

    fn close(&self, reason: &CloseReason) -> Option<(u16, Cow<'static, str>)> {
        let (common, text) = common_close(reason)?;
        let code = match reason {
            CloseReason::Refused(reject) => refusal_code(reject),
            CloseReason::TokenExpired => own_code::TOKEN,
            CloseReason::Disconnected => own_code::DISCONNECTED,
            CloseReason::TooSlow => own_code::TOO_SLOW,
            CloseReason::Flood => own_code::LIMIT,
            _ => common,
        };
        Some((code, text))
    }
}

fn refusal_code(reject: &Reject) -> u16 {
    match reject {
        Reject::InvalidToken(_)
        | Reject::InvalidTokenExplained(_)
        | Reject::TokenExpired
        | Reject::TokenRevoked
        | Reject::AuthTimeout => own_code::TOKEN,
        Reject::NotMember | Reject::Forbidden(_) | Reject::NotFound(_) | Reject::Blocked => own_code::FORBIDDEN,
        Reject::TooManyConnections => code::POLICY,
        Reject::RateLimited { .. } | Reject::TooManyReads { .. } | Reject::TooManyConversations => own_code::LIMIT,
        Reject::TooManyConnectionsMaybe
        | Reject::Overloaded { .. }
        | Reject::ReadTooSlow { .. }
        | Reject::Unavailable
        | Reject::Unknown => code::TRY_LATER,
        Reject::Invalid(_)
        | Reject::UnknownType(_)
        | Reject::Conflict(_)
        | Reject::TooManyReactions
        | Reject::Unsupported(_)
        | Reject::NoPersonas
        | Reject::PersonaFailed => code::POLICY,
    }
}
