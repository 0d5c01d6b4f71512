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
mod envelope;
mod native;
mod personas;
mod rooms;

use envelope::{read, request};

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
    /// A frame that says something, shown to a client whose frame was none.
    example: &'static str,
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

    /// A frame that says something.
    pub fn example(self) -> &'static str {
        self.codec().habits().example
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

/// Checks what somebody wrote.
fn content(text: &str) -> Result<Content, Reject> {
    Content::parse(text).map_err(|error| Reject::Invalid(error.to_string()))
}

/// A type that a dialect doesn't have.
fn unknown_type(kind: &str) -> Reject {
    Reject::UnknownType(kind.chars().take(64).collect())
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
    fn plain_text_is_shown_a_frame_that_is_right() {
        let room = ConversationId::parse("lobby").unwrap();
        for dialect in Dialect::ALL {
            assert!(dialect.decode(dialect.example(), Some(&room)).is_ok(), "{dialect:?}");
            for text in ["hello", "\"hello\"", "{hello}", "{\"content\":\"hello\"}"] {
                let bad = dialect.decode(text, Some(&room)).unwrap_err().reject;
                assert!(bad.to_string().ends_with(dialect.example()), "{dialect:?}: {bad}");
            }
        }
    }
}
