//! Wire formats: each dialect decodes frames to requests, and encodes events and replies as frames.
//!
//! A dialect is one codec over the commands and events that all dialects share, in a file of its own, with one row in
//! `Dialect::ALL` and one in `Dialect::codec`. Wire structs exist only in the dialects' own files. No dialect makes
//! decisions or accesses a socket.

use crate::{
    model::{CloseReason, ConversationId, Event, Joined, LogId, Pair, Reject, Reply, Seq, Timestamp, Unread, UserId},
    outbox::Frame,
};

mod closes;
mod codec;
mod conversation;
mod direct;
mod envelope;
mod fields;
mod native;
mod personas;
mod rooms;

pub use codec::{AutoJoin, BadFrame, Greeting, Intent, Reference, Request, RequestMeta, RosterPolicy};

use closes::code;
use codec::Codec;

/// A wire format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// `/v1/ws`: Switchboard's own dialect, which supports every command.
    Native,
    /// `/ws`: direct messages from user to user.
    Direct,
    /// `/ws/{room_id}`: one room on each socket.
    Rooms,
    /// `/api/chat/ws/{conversation_id}`: one conversation on each socket.
    Conversation,
    /// `/ws/auth`, `/ws/{user_id}`: many conversations on each socket, and personas.
    Personas,
}

impl Dialect {
    /// Every dialect.
    pub const ALL: [Self; 5] = [Self::Native, Self::Direct, Self::Rooms, Self::Conversation, Self::Personas];
    /// The number of dialects.
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

    /// The index in [`Dialect::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// The label in metrics.
    pub fn label(self) -> &'static str {
        self.codec().capabilities().label
    }

    /// True if a message is also sent to the socket that it came from.
    pub fn echoes(self) -> bool {
        self.codec().capabilities().echoes
    }

    /// True if a stored message gets an ack; otherwise its echo is the ack.
    pub fn acks(self) -> bool {
        self.codec().capabilities().acks
    }

    /// True if its sockets follow their user's inbox.
    pub fn follows_inbox(self) -> bool {
        self.codec().capabilities().follows_inbox
    }

    /// True if the first frame may carry the token; otherwise the handshake must.
    pub fn takes_token_in_frame(self) -> bool {
        self.codec().capabilities().token_in_frame
    }

    /// The conversations that its sockets join without a command.
    pub fn joins(self) -> AutoJoin {
        self.codec().capabilities().joins
    }

    /// The users whom it informs when users join and leave.
    pub fn greets_with(self) -> RosterPolicy {
        self.codec().capabilities().greets_with
    }

    /// True if its sockets get hints of new messages in conversations to which they don't listen.
    pub fn shows_hints(self) -> bool {
        self.codec().capabilities().hints
    }

    /// Decodes a text frame; `bound` is the conversation that the connection's route names.
    ///
    /// # Errors
    /// The frame has no type that this dialect knows, or is invalid.
    pub fn decode(self, text: &str, bound: Option<&ConversationId>) -> Result<Request, BadFrame> {
        self.codec().decode(text, bound)
    }

    /// A valid example frame.
    pub fn example(self) -> &'static str {
        self.codec().capabilities().example
    }

    /// Encodes the first frame on an open connection.
    pub fn greet(self, greeting: &Greeting<'_>) -> Option<Frame> {
        self.codec().greet(greeting)
    }

    /// Encodes the list of online users; `None` if this dialect shows none.
    pub fn roster(self, users: &[UserId], at: Timestamp) -> Option<Frame> {
        self.codec().roster(users, at)
    }

    /// Encodes an event; `None` if this dialect has no frame for it. `pair`: the two members of a direct conversation,
    /// if known.
    pub fn event(self, event: &Event, pair: Option<&Pair>) -> Option<Frame> {
        self.codec().event(event, pair)
    }

    /// Encodes a hint that a conversation has new messages; `None` if this dialect has no frame for it.
    pub fn hint(self, unread: &Unread) -> Option<Frame> {
        self.codec().hint(unread)
    }

    /// Encodes a reply; `None` if this dialect has no frame for it.
    pub fn reply(self, meta: RequestMeta, reply: &Reply) -> Option<Frame> {
        self.codec().reply(meta, reply)
    }

    /// Encodes that the socket joined a conversation without a command; `None` if this dialect has no frame for it.
    pub fn joined(self, conversation: &ConversationId, joined: Joined, at: Timestamp) -> Option<Frame> {
        self.reply(RequestMeta::at(at), &Reply::Joined(conversation.clone(), joined))
    }

    /// The parts in which a reply is sent, each of about `most` bytes: only dialects whose frames say that more follow have
    /// several.
    pub fn parts(self, reply: Reply, most: usize) -> Vec<Reply> {
        self.codec().parts(reply, most)
    }

    /// Encodes the new expiry of the connection after a refresh.
    pub fn refreshed(self, meta: RequestMeta, until: Timestamp) -> Option<Frame> {
        self.codec().refreshed(meta, until)
    }

    /// Encodes a refusal.
    pub fn reject(self, meta: RequestMeta, reject: &Reject) -> Frame {
        self.codec().reject(meta, reject)
    }

    /// Encodes the request to read a log anew, because the missed entries will not be sent.
    pub fn resync(self, log: &LogId, first: Seq, head: Seq) -> Option<Frame> {
        self.codec().resync(log, first, head)
    }

    /// The close frame for a client that reads too slowly.
    pub fn too_slow(self) -> Frame {
        let (code, text) = self.codec().close(&CloseReason::TooSlow).unwrap_or((code::POLICY, "Too slow".into()));
        Frame::close(code, &text)
    }

    /// The last frames of a connection: an optional data frame, and the close frame. Both are `None` if the client is
    /// gone.
    pub fn end(self, reason: &CloseReason, at: Timestamp) -> (Option<Frame>, Option<Frame>) {
        let close = self.codec().close(reason).map(|(code, text)| Frame::close(code, &text));
        (self.codec().farewell(reason, at), close)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dialects_are_listed_in_index_order() {
        for (at, dialect) in Dialect::ALL.into_iter().enumerate() {
            assert_eq!(dialect.index(), at);
        }
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

    #[test]
    fn plain_text_is_refused_with_an_example_frame() {
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
