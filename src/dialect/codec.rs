//! The interface of a dialect's codec, and the values that go in and out of it.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::{
    config::Secret,
    model::{
        ClientId, CloseReason, Command, ConnectionId, ConversationId, Event, Identity, LogId, Pair, Reject, Reply, Seq,
        Timestamp, Unread, UserId,
    },
    outbox::Frame,
};

/// The behaviour of a dialect's sockets, apart from their frames.
#[derive(Debug)]
pub(super) struct Capabilities {
    /// The name in metrics and logs.
    pub(super) label: &'static str,
    /// True if a message is also sent to the socket that it came from.
    pub(super) echoes: bool,
    /// True if a stored message gets an ack; otherwise its echo is the ack.
    pub(super) acks: bool,
    /// True if its sockets follow their user's inbox.
    pub(super) follows_inbox: bool,
    /// True if the first frame may carry the token.
    pub(super) token_in_frame: bool,
    /// The conversations that its sockets join without a command.
    pub(super) joins: AutoJoin,
    /// The users whom the dialect informs when users join and leave.
    pub(super) greets_with: RosterPolicy,
    /// True if its sockets get hints of new messages in conversations to which they don't listen.
    pub(super) hints: bool,
    /// A valid example frame, shown to a client that sent an unreadable one.
    pub(super) example: &'static str,
}

/// The conversations that a dialect's sockets join without a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoJoin {
    /// No conversation.
    Nothing,
    /// The conversations to which the user is added while connected.
    Added,
    /// All direct conversations of the user, each from the first entry that was not delivered yet. Clients of this
    /// dialect can't report their position, so the broker moves the delivered marks for them.
    Directs,
}

/// The users whom a dialect informs when users join and leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RosterPolicy {
    /// No other users.
    Nobody,
    /// All listeners of the conversation.
    Listeners,
    /// The user, and the online users who share a conversation with the user: in the greeting, and again after changes.
    Acquaintances,
}

/// A client's own mark on a frame (`ref`), returned unchanged in the reply.
pub type Reference = Box<RawValue>;

/// A decoded frame.
#[derive(Debug)]
pub struct Request {
    /// The client's mark on the frame.
    pub reference: Option<Reference>,
    /// The requested action.
    pub intent: Intent,
}

/// The action that a frame requests.
#[derive(Debug)]
pub enum Intent {
    /// Authenticate with this token.
    Authenticate(Secret),
    /// Extend the connection with this token.
    Refresh(Secret),
    /// Run a command.
    Command(Command),
}

/// A frame that could not be decoded.
#[derive(Debug)]
pub struct BadFrame {
    /// The client's mark on the frame, if that could be read.
    pub reference: Option<Reference>,
    /// The frame's `client_id`, if that could be read.
    pub client_id: Option<ClientId>,
    /// The refusal.
    pub reject: Reject,
}

/// Metadata of the frame that a reply answers.
#[derive(Debug, Clone)]
pub struct RequestMeta {
    /// The client's mark on the frame.
    pub reference: Option<Reference>,
    /// The frame's `client_id`.
    pub client_id: Option<ClientId>,
    /// Time at which the frame arrived.
    pub at: Timestamp,
}

impl RequestMeta {
    /// Metadata without a mark and `client_id`: of a frame that arrived at `at`, or of no frame.
    pub fn at(at: Timestamp) -> Self {
        Self { reference: None, client_id: None, at }
    }
}

/// The data for the first frame on an open connection.
#[derive(Debug)]
pub struct Greeting<'a> {
    /// The client's identity.
    pub identity: &'a Identity,
    /// Its connection.
    pub connection: ConnectionId,
    /// The conversation that the route names, with its newest seq.
    pub bound: Option<(&'a ConversationId, Seq)>,
    /// The users present, if the dialect names them.
    pub present: &'a [UserId],
    /// The current time.
    pub at: Timestamp,
    /// The epoch of the store.
    pub epoch: i64,
}

/// The interface of a dialect. [`Dialect`](super::Dialect) documents most methods.
pub(super) trait Codec: Sync {
    fn capabilities(&self) -> &'static Capabilities;
    fn decode(&self, text: &str, bound: Option<&ConversationId>) -> Result<Request, BadFrame>;
    fn greet(&self, greeting: &Greeting<'_>) -> Option<Frame>;
    /// The list of online users after a change; none if the dialect shows none.
    fn roster(&self, _users: &[UserId], _at: Timestamp) -> Option<Frame> {
        None
    }
    fn event(&self, event: &Event, pair: Option<&Pair>) -> Option<Frame>;
    fn hint(&self, _: &Unread) -> Option<Frame> {
        None
    }
    fn reply(&self, meta: RequestMeta, reply: &Reply) -> Option<Frame>;
    fn parts(&self, reply: Reply, _most: usize) -> Vec<Reply> {
        vec![reply]
    }
    fn refreshed(&self, meta: RequestMeta, until: Timestamp) -> Option<Frame>;
    fn reject(&self, meta: RequestMeta, reject: &Reject) -> Frame;
    fn resync(&self, log: &LogId, first: Seq, head: Seq) -> Option<Frame>;
    /// The last data frame before a close; `None` if the close frame alone is enough.
    fn farewell(&self, reason: &CloseReason, at: Timestamp) -> Option<Frame>;
    fn close(&self, reason: &CloseReason) -> Option<(u16, Cow<'static, str>)>;
}
