//! What a dialect must do, and the values that go in and out of it.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::{
    config::Secret,
    model::{
        ClientId, CloseReason, Command, ConnectionId, ConversationId, Event, Identity, LogId, Pair, Reject, Reply, Seq,
        Timestamp, UserId,
    },
    outbox::Frame,
};

/// How a dialect's sockets behave, beside what they say.
#[derive(Debug)]
pub(super) struct Capabilities {
    /// Its name in metrics and logs.
    pub(super) label: &'static str,
    /// A message also goes to the very socket that sent it.
    pub(super) echoes: bool,
    /// Its sockets follow their user's inbox.
    pub(super) follows_inbox: bool,
    /// The first frame may bring the token.
    pub(super) token_in_frame: bool,
    /// What its sockets listen to without being asked.
    pub(super) joins: AutoJoin,
    /// Whom the greeting names.
    pub(super) greets_with: RosterPolicy,
    /// A frame that says something, shown to a client whose frame was none.
    pub(super) example: &'static str,
}

/// What a dialect's sockets listen to without being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoJoin {
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
pub enum RosterPolicy {
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
    pub intent: Intent,
}

/// What a frame can ask.
#[derive(Debug)]
pub enum Intent {
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
pub struct RequestMeta {
    /// The client's mark on the frame.
    pub reference: Option<Reference>,
    /// The `client_id` it carried.
    pub client_id: Option<ClientId>,
    /// When it came.
    pub at: Timestamp,
}

impl RequestMeta {
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
pub(super) trait Codec: Sync {
    fn capabilities(&self) -> &'static Capabilities;
    fn decode(&self, text: &str, bound: Option<&ConversationId>) -> Result<Request, BadFrame>;
    fn greet(&self, greeting: &Greeting<'_>) -> Option<Frame>;
    fn event(&self, event: &Event, pair: Option<&Pair>) -> Option<Frame>;
    fn reply(&self, asked: RequestMeta, reply: &Reply) -> Option<Frame>;
    fn refreshed(&self, asked: RequestMeta, until: Timestamp) -> Option<Frame>;
    fn reject(&self, asked: RequestMeta, reject: &Reject) -> Frame;
    fn resync(&self, log: &LogId, first: Seq, head: Seq) -> Option<Frame>;
    /// The last frame before a close, where there is more to say than a close can.
    fn farewell(&self, reason: &CloseReason, at: Timestamp) -> Option<Frame>;
    fn close(&self, reason: &CloseReason) -> Option<(u16, Cow<'static, str>)>;
}
