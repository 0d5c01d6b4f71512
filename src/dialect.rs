//! Wire formats: frames to requests, events and replies to frames.
//!
//! A dialect is one codec over the same commands and events, in a file of its own, and a row in each of the two matches
//! here; adding one touches nothing else. Wire structs live in the dialects' own files and nowhere else. No dialect
//! decides anything or reaches a socket.

use crate::{
    model::{CloseReason, ConversationId, Event, LogId, Pair, Reject, Reply, Seq, Timestamp},
    outbox::Frame,
};

mod closes;
mod codec;
mod conversation;
mod direct;
mod envelope;
mod native;
mod personas;
mod rooms;

pub use codec::{AutoJoin, BadFrame, Greeting, Intent, Reference, Request, RequestMeta, RosterPolicy};

use closes::code;
use codec::Codec;

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
        self.codec().capabilities().label
    }

    /// Whether a message also goes to the very socket that sent it.
    pub fn echoes(self) -> bool {
        self.codec().capabilities().echoes
    }

    /// Whether its sockets follow their user's inbox.
    pub fn follows_inbox(self) -> bool {
        self.codec().capabilities().follows_inbox
    }

    /// Whether the first frame may bring the token; else the handshake must.
    pub fn takes_token_in_frame(self) -> bool {
        self.codec().capabilities().token_in_frame
    }

    /// What its sockets listen to without being asked.
    pub fn joins(self) -> AutoJoin {
        self.codec().capabilities().joins
    }

    /// Whom it tells about when users come and go.
    pub fn greets_with(self) -> RosterPolicy {
        self.codec().capabilities().greets_with
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
        self.codec().capabilities().example
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
    pub fn reply(self, asked: RequestMeta, reply: &Reply) -> Option<Frame> {
        self.codec().reply(asked, reply)
    }

    /// Says how long the connection may stay now.
    pub fn refreshed(self, asked: RequestMeta, until: Timestamp) -> Option<Frame> {
        self.codec().refreshed(asked, until)
    }

    /// A refusal as a frame.
    pub fn reject(self, asked: RequestMeta, reject: &Reject) -> Frame {
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
