//! Wire formats: frames to requests, events and replies to frames.
//!
//! A dialect is one codec over the same commands and events, in a file of its own, and a row in each of the two matches
//! here; adding one touches nothing else. Wire structs live in the dialects' own files and nowhere else. No dialect
//! decides anything or reaches a socket.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::{
    config::Secret,
    model::{
        ClientId, CloseReason, Command, ConnectionId, Content, ConversationId, Event, Identity, LogId, Occurrence,
        Pair, Reject, Reply, Seq, Timestamp, UserId,
    },
    outbox::{Class, Frame},
};

mod conversation;
mod direct;
mod native;
mod personas;
mod rooms;

/// A wire format, named for what it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// `/v1/ws`: can say everything.
    Native,
    /// `/ws`: direct messages (seed 000).
    Direct,
    /// `/ws/{room_id}`: rooms (seed 002).
    Rooms,
    /// `/api/chat/ws/{conversation_id}`: one conversation (seed 003).
    Conversation,
    /// `/ws/auth`, `/ws/{user_id}`: many conversations, personas (seed 004).
    Personas,
}

/// How a dialect's sockets behave, beside what they say.
#[derive(Debug)]
struct Habits {
    /// Its name in metrics and logs.
    label: &'static str,
    /// A message also goes to the very socket that sent it.
    echoes: bool,
    /// Its sockets follow their user's inbox.
    follows_inbox: bool,
    /// The first frame may bring the token.
    token_in_frame: bool,
    /// What its sockets listen to without being asked.
    joins: Joins,
    /// Whom the greeting names.
    greets_with: Company,
}

/// What a dialect's sockets listen to without being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joins {
    /// Nothing.
    Nothing,
    /// What their user is added to while they are connected.
    Added,
    /// Their user's direct conversations, all of them and from the start, with what was not delivered yet. Clients of
    /// this kind can't say what they have: what reached them is noted for them.
    Directs,
}

/// Whom a dialect tells about when users come and go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Company {
    /// Only those who come and go.
    Nobody,
    /// All who listen to the conversation.
    Listeners,
    /// At the beginning, those online who share a conversation with the user.
    Acquaintances,
}

/// A client's own mark on a frame (`ref`), given back as it came.
pub type Reference = Box<RawValue>;

/// What a frame asks.
#[derive(Debug)]
pub struct Request {
    /// The client's mark on it.
    pub reference: Option<Reference>,
    /// What it asks.
    pub ask: Ask,
}

/// What a frame can ask.
#[derive(Debug)]
pub enum Ask {
    /// To be let in with this token.
    Authenticate(Secret),
    /// To stay longer with this token.
    Refresh(Secret),
    /// A command.
    Command(Command),
}

/// A frame that asks nothing that can be done.
#[derive(Debug)]
pub struct BadFrame {
    /// The client's mark on it, where that much could be read.
    pub reference: Option<Reference>,
    /// What is wrong.
    pub reject: Reject,
}

/// What a reply answers, where it answers a frame.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The client's mark on the frame.
    pub reference: Option<Reference>,
    /// The `client_id` it carried.
    pub client_id: Option<ClientId>,
    /// When it came.
    pub at: Timestamp,
}

impl Asked {
    /// A frame that came at this time, without marks; or none.
    pub fn at(at: Timestamp) -> Self {
        Self { reference: None, client_id: None, at }
    }
}

/// What is said first on a connection that is open.
#[derive(Debug)]
pub struct Greeting<'a> {
    /// Who the client is.
    pub identity: &'a Identity,
    /// Its connection.
    pub connection: ConnectionId,
    /// The conversation its route is bound to, and the newest seq of it.
    pub bound: Option<(&'a ConversationId, Seq)>,
    /// Who is there, where the dialect names them.
    pub present: &'a [UserId],
    /// The time.
    pub at: Timestamp,
}

/// What a codec must do.
trait Codec: Sync {
    fn habits(&self) -> &'static Habits;
    fn decode(&self, text: &str, bound: Option<&ConversationId>) -> Result<Request, BadFrame>;
    fn greet(&self, greeting: &Greeting<'_>) -> Option<Frame>;
    fn event(&self, event: &Event, pair: Option<&Pair>) -> Option<Frame>;
    fn reply(&self, asked: Asked, reply: &Reply) -> Option<Frame>;
    fn refreshed(&self, asked: Asked, until: Timestamp) -> Option<Frame>;
    fn reject(&self, asked: Asked, reject: &Reject) -> Frame;
    fn resync(&self, log: &LogId, first: Seq, head: Seq) -> Option<Frame>;
    /// The last frame before a close, where there is more to say than a close can.
    fn farewell(&self, reason: &CloseReason, at: Timestamp) -> Option<Frame>;
    fn close(&self, reason: &CloseReason) -> Option<(u16, Cow<'static, str>)>;
}

impl Dialect {
    /// Every dialect.
    pub const ALL: [Self; 5] = [Self::Native, Self::Direct, Self::Rooms, Self::Conversation, Self::Personas];
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    fn codec(self) -> &'static dyn Codec {
        match self {
            Self::Native => &native::Native,
            Self::Direct => &direct::Direct,
            Self::Rooms => &rooms::Rooms,
            Self::Conversation => &conversation::Conversation,
            Self::Personas => &personas::Personas,
        }
    }

    /// Its place in [`Dialect::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// The label in metrics.
    pub fn label(self) -> &'static str {
        self.codec().habits().label
    }

    /// Whether a message also goes to the very socket that sent it.
    pub fn echoes(self) -> bool {
        self.codec().habits().echoes
    }

    /// Whether its sockets follow their user's inbox.
    pub fn follows_inbox(self) -> bool {
        self.codec().habits().follows_inbox
    }

    /// Whether the first frame may bring the token; else the handshake must.
    pub fn takes_token_in_frame(self) -> bool {
        self.codec().habits().token_in_frame
    }

    /// What its sockets listen to without being asked.
    pub fn joins(self) -> Joins {
        self.codec().habits().joins
    }

    /// Whom it tells about when users come and go.
    pub fn greets_with(self) -> Company {
        self.codec().habits().greets_with
    }

    /// Reads a text frame; `bound` is the conversation the connection's route names.
    ///
    /// # Errors
    /// The frame says nothing this dialect knows, or says it wrongly.
    pub fn decode(self, text: &str, bound: Option<&ConversationId>) -> Result<Request, BadFrame> {
        self.codec().decode(text, bound)
    }

    /// What is said first on an open connection.
    pub fn greet(self, greeting: &Greeting<'_>) -> Option<Frame> {
        self.codec().greet(greeting)
    }

    /// An event as a frame; none where this dialect can't say it. `pair`: the two members of a direct conversation,
    /// where that is known.
    pub fn event(self, event: &Event, pair: Option<&Pair>) -> Option<Frame> {
        self.codec().event(event, pair)
    }

    /// A reply as a frame; none where this dialect says nothing then.
    pub fn reply(self, asked: Asked, reply: &Reply) -> Option<Frame> {
        self.codec().reply(asked, reply)
    }

    /// Says how long the connection may stay now.
    pub fn refreshed(self, asked: Asked, until: Timestamp) -> Option<Frame> {
        self.codec().refreshed(asked, until)
    }

    /// A refusal as a frame.
    pub fn reject(self, asked: Asked, reject: &Reject) -> Frame {
        self.codec().reject(asked, reject)
    }

    /// Says that a log must be read anew: nothing in between will come.
    pub fn resync(self, log: &LogId, first: Seq, head: Seq) -> Option<Frame> {
        self.codec().resync(log, first, head)
    }

    /// The close frame for a reader that is too slow.
    pub fn too_slow(self) -> Frame {
        let (code, text) = self.codec().close(&CloseReason::TooSlow).unwrap_or((code::POLICY, "Too slow".into()));
        Frame::close(code, &text)
    }

    /// The frames that end a connection: what is left to say, and the close. None where the other side is gone.
    pub fn end(self, reason: &CloseReason, at: Timestamp) -> (Option<Frame>, Option<Frame>) {
        let close = self.codec().close(reason).map(|(code, text)| Frame::close(code, &text));
        (self.codec().farewell(reason, at), close)
    }
}

/// Close codes that every dialect shares (RFC 6455, section 7.4.1, and the registry it began).
mod code {
    pub(super) const PROTOCOL: u16 = 1002;
    pub(super) const UNSUPPORTED: u16 = 1003;
    pub(super) const NOT_UTF8: u16 = 1007;
    pub(super) const POLICY: u16 = 1008;
    pub(super) const TOO_LARGE: u16 = 1009;
    pub(super) const RESTART: u16 = 1012;
    pub(super) const TRY_LATER: u16 = 1013;
}

/// How a close is worded that has nothing to do with a dialect; none where the other side is gone.
fn common_close(reason: &CloseReason) -> Option<(u16, Cow<'static, str>)> {
    Some(match reason {
        CloseReason::ClientLeft => return None,
        CloseReason::Binary => (code::UNSUPPORTED, "Text frames only".into()),
        CloseReason::TooLarge => (code::TOO_LARGE, "Message too large".into()),
        CloseReason::NotUtf8 => (code::NOT_UTF8, "Not UTF-8".into()),
        CloseReason::Protocol => (code::PROTOCOL, "Protocol error".into()),
        CloseReason::Silent => (code::POLICY, "No answer to ping".into()),
        CloseReason::TooSlow => (code::POLICY, "Too slow: reconnect and resume".into()),
        CloseReason::Flood => (code::POLICY, "Too many frames".into()),
        CloseReason::TokenExpired => (code::POLICY, "Token expired".into()),
        CloseReason::Refused(reject) => (code::POLICY, reject.to_string().into()),
        CloseReason::Restart(after) => {
            (code::RESTART, format!("Restarting, retry after {} ms", after.as_millis()).into())
        }
    })
}

/// How the seeds' dialects close: with 1008 and the reason in words, or 1013 where it is worth another try.
fn seed_close(reason: &CloseReason) -> Option<(u16, Cow<'static, str>)> {
    match reason {
        CloseReason::Refused(Reject::TooManyConnectionsMaybe | Reject::Unavailable) => {
            Some((code::TRY_LATER, "Try again later".into()))
        }
        _ => common_close(reason),
    }
}

/// How soon an occurrence may be dropped for a slow reader.
fn class_of(occurrence: &Occurrence) -> Class {
    use std::hash::{DefaultHasher, Hash, Hasher};

    use crate::model::Ephemeral;

    let mut kind = DefaultHasher::new();
    occurrence.log.hash(&mut kind);
    std::mem::discriminant(&occurrence.what).hash(&mut kind);
    match &occurrence.what {
        Ephemeral::Typing { .. } => return Class::Typing,
        Ephemeral::Listening { user, .. }
        | Ephemeral::Audience { user, .. }
        | Ephemeral::Presence { user, .. }
        | Ephemeral::Receipt { user, .. } => {
            user.hash(&mut kind);
        }
    }
    Class::State(kind.finish())
}

/// Reads a frame of a known type.
fn read<'a, T: serde::Deserialize<'a>>(text: &'a str) -> Result<T, Reject> {
    serde_json::from_str(text).map_err(|error| explain(&error))
}

/// Checks what somebody wrote.
fn content(text: &str) -> Result<Content, Reject> {
    Content::parse(text).map_err(|error| Reject::Invalid(error.to_string()))
}

/// A type that a dialect doesn't have.
fn unknown_type(kind: &str) -> Reject {
    Reject::UnknownType(kind.chars().take(64).collect())
}

/// Reads a text frame by its `type`.
fn request(text: &str, ask: impl FnOnce(&str) -> Result<Ask, Reject>) -> Result<Request, BadFrame> {
    let (kind, reference) = open_envelope(text)?;
    match ask(&kind) {
        Ok(ask) => Ok(Request { reference, ask }),
        Err(reject) => Err(BadFrame { reference, reject }),
    }
}

/// The deepest JSON that is read; deeper is refused before it costs anything.
const MAX_JSON_DEPTH: usize = 32;

/// Why a text is not a frame of JSON.
fn check_json_depth(text: &str) -> Result<(), Reject> {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => {
                depth += 1;
                if depth > MAX_JSON_DEPTH {
                    return Err(Reject::Invalid("JSON is nested too deeply: at most 32 levels".into()));
                }
            }
            b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// What is wrong with a frame, in words for the client: never a piece of what it sent.
fn explain(error: &serde_json::Error) -> Reject {
    use serde_json::error::Category;
    match error.classify() {
        Category::Data => Reject::Invalid(format!("Invalid message format: {}", short(&error.to_string()))),
        _ => Reject::Invalid("Invalid message format: not JSON".into()),
    }
}

/// The first words of an error, without where it stood.
fn short(text: &str) -> String {
    let text = text.split(" at line ").next().unwrap_or_default();
    text.chars().take(120).collect()
}

/// The least that any frame has.
#[derive(serde::Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default, rename = "ref")]
    reference: Option<&'a RawValue>,
}

/// The longest mark that is given back, in bytes.
const MAX_REFERENCE_BYTES: usize = 256;

/// Reads a frame's `type` and `ref`, having checked its depth.
fn open_envelope(text: &str) -> Result<(Cow<'_, str>, Option<Reference>), BadFrame> {
    let bad = |reject| BadFrame { reference: None, reject };
    check_json_depth(text).map_err(bad)?;
    if !text.trim_start().starts_with('{') {
        return Err(bad(Reject::Invalid("Invalid message format: not a JSON object".into())));
    }
    let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|error| bad(explain(&error)))?;
    match envelope.reference {
        Some(reference) if reference.get().len() > MAX_REFERENCE_BYTES => {
            Err(bad(Reject::Invalid("ref is too long: at most 256 bytes".into())))
        }
        reference => Ok((envelope.kind, reference.map(ToOwned::to_owned))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order() {
        for (at, dialect) in Dialect::ALL.into_iter().enumerate() {
            assert_eq!(dialect.index(), at);
        }
    }

    #[test]
    fn depth_is_counted_outside_strings() {
        assert!(check_json_depth(&format!("{}{}", "[".repeat(32), "]".repeat(32))).is_ok());
        assert!(check_json_depth(&"[".repeat(33)).is_err());
        assert!(check_json_depth(&format!("[\"\\\"{}\"]", "[".repeat(99))).is_ok());
    }

    #[test]
    fn every_dialect_refuses_the_same_numbers_and_lists() {
        let room = ConversationId::parse("team").unwrap();
        let refused =
            |dialect: Dialect, frame: &str| dialect.decode(frame, Some(&room)).unwrap_err().reject.to_string();
        for number in ["0", "-1", "1.5", "\"7\""] {
            for (dialect, frame) in [
                (Dialect::Native, r#"{"type":"send","conversation_id":"team","content":"x","reply_to":N}"#),
                (Dialect::Direct, r#"{"type":"send_message","recipient_id":"bob","content":"x","reply_to":N}"#),
                (Dialect::Rooms, r#"{"type":"send_message","data":{"content":"x","reply_to":N}}"#),
                (Dialect::Conversation, r#"{"type":"message","content":"x","reply_to":N}"#),
                (Dialect::Personas, r#"{"type":"send_message","conversation_id":"team","content":"x","reply_to":N}"#),
            ] {
                let text = refused(dialect, &frame.replace('N', number));
                assert_eq!(text, "reply_to must be a whole number from 1 to 9223372036854775807", "{dialect:?}");
            }
        }
        let users = serde_json::to_string(&vec!["u"; 1_001]).unwrap();
        for (dialect, kind, join) in
            [(Dialect::Native, "presence", "join"), (Dialect::Personas, "get_online_status", "join_conversation")]
        {
            let text = refused(dialect, &format!(r#"{{"type":"{kind}","user_ids":{users}}}"#));
            assert_eq!(text, "user_ids has at most 1000 ids", "{dialect:?}");
            let frame = format!(r#"{{"type":"{join}","conversation_id":"team","since_seq":-1}}"#);
            let text = refused(dialect, &frame);
            assert_eq!(text, "since_seq must be a whole number from 0 to 9223372036854775807", "{dialect:?}");
            assert!(dialect.decode(&frame.replace("-1", "0"), None).is_ok());
        }
    }
}
