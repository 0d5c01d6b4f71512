//! Every pair of dialects: Alice on one node, Bob on the other, in one direct conversation.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::document::{Channel, Direction, Document};
use crate::support::{Client, Node, Postgres, RedisServer, token};

/// Number of messages of each side.
const TURNS: usize = 3;

/// Messages that a side knows, by seq: id, sender, content.
type Log = BTreeMap<i64, (String, String, String)>;

/// A user with a dialect.
struct Side {
    channel: Channel,
    user: String,
    conversation: String,
    other: String,
    client: Client,
    /// Copies of messages, including its own if the dialect sends them.
    copies: Log,
    /// Ids in the acks of its own messages, if the dialect acks.
    acked: BTreeMap<i64, String>,
}

impl Side {
    /// Opens a socket that listens to the conversation.
    async fn open(channel: Channel, node: &Node, user: &str, other: &str, conversation: &str) -> Self {
        let (base, token) = (node.ws(), token(user));
        let url = match channel {
            Channel::Native => format!("{base}/v1/ws?token={token}"),
            Channel::Direct => format!("{base}/ws"),
            Channel::Rooms => format!("{base}/ws/{conversation}?token={token}"),
            Channel::Conversation => format!("{base}/api/chat/ws/{conversation}?token={token}"),
            Channel::Personas => format!("{base}/ws/auth?token={token}"),
        };
        let client = Client::connect(&url).await;
        let (user, other, conversation) = (user.to_owned(), other.to_owned(), conversation.to_owned());
        let (copies, acked) = (Log::new(), BTreeMap::new());
        let mut side = Self { channel, user, conversation, other, client, copies, acked };
        match channel {
            Channel::Native => {
                side.send(&json!({"type": "join", "conversation_id": side.conversation})).await;
                side.until("joined").await;
            }
            Channel::Direct => {
                side.send(&json!({"type": "authenticate", "token": token})).await;
                side.until("authenticated").await;
            }
            Channel::Rooms => side.until("connected").await,
            Channel::Conversation => side.until("system").await,
            Channel::Personas => {
                side.send(&json!({"type": "join_conversation", "conversation_id": side.conversation})).await;
                side.until("conversation_joined").await;
            }
        }
        side
    }

    async fn send(&mut self, frame: &Value) {
        Document::get().check(self.channel, Direction::FromClient, frame).unwrap();
        self.client.send(frame).await;
    }

    /// Sends a message; the recipients are checked later.
    async fn send_text(&mut self, content: &str) {
        let frame = match self.channel {
            Channel::Native => json!({"type": "send", "conversation_id": self.conversation, "content": content}),
            Channel::Direct => json!({"type": "send_message", "recipient_id": self.other, "content": content}),
            Channel::Rooms => json!({"type": "send_message", "data": {"content": content}}),
            Channel::Conversation => json!({"type": "message", "content": content}),
            Channel::Personas => {
                json!({"type": "send_message", "conversation_id": self.conversation, "content": content})
            }
        };
        self.send(&frame).await;
    }

    /// Returns the next frame and records it.
    async fn next(&mut self) -> Value {
        let frame = self.client.recv().await;
        Document::get().check(self.channel, Direction::ToClient, &frame).unwrap();
        self.record(&frame);
        frame
    }

    async fn until(&mut self, kind: &str) {
        while self.next().await["type"] != kind {}
    }

    /// Reads until a message is known: as a copy, or as the ack of an own message.
    async fn until_received(&mut self, content: &str, own: bool) {
        let acks = matches!(self.channel, Channel::Native | Channel::Direct);
        let before = self.acked.len();
        while if own && acks {
            self.acked.len() == before
        } else {
            !self.copies.values().any(|(.., copy)| copy == content)
        } {
            self.next().await;
        }
    }

    fn record(&mut self, frame: &Value) {
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("no text in {frame}")).to_owned();
        let seq = |value: &Value| value.as_i64().unwrap_or_else(|| panic!("no seq in {frame}"));
        let data = &frame["data"];
        match (self.channel, frame["type"].as_str().unwrap_or_default()) {
            (Channel::Native, "ack") => drop(self.acked.insert(seq(&frame["seq"]), text(&frame["id"]))),
            (Channel::Direct, "message_sent") => drop(self.acked.insert(seq(&data["seq"]), text(&data["id"]))),
            (Channel::Rooms, "message_sent") => drop(self.acked.insert(seq(&data["seq"]), text(&data["message_id"]))),
            (Channel::Native, "message") => self.copy(frame, "id"),
            (Channel::Direct | Channel::Rooms, "new_message") => self.copy(data, "id"),
            (Channel::Conversation, "message") => self.copy(frame, "message_id"),
            (Channel::Personas, "new_message") => self.copy(&frame["message"], "id"),
            (_, "error") => panic!("{:?}: {frame}", self.channel),
            _ => {}
        }
    }

    fn copy(&mut self, message: &Value, id: &str) {
        let text =
            |field: &str| message[field].as_str().unwrap_or_else(|| panic!("no {field} in {message}")).to_owned();
        let seq = message["seq"].as_i64().unwrap_or_else(|| panic!("no seq in {message}"));
        let before = self.copies.insert(seq, (text(id), text("sender_id"), text("content")));
        assert_eq!(before, None, "{:?} got {message} twice", self.channel);
    }

    /// All messages that this side knows; for its own acked messages, with the content in `said`.
    fn log(&self, said: &[String]) -> Log {
        let mut log = self.copies.clone();
        for ((seq, id), content) in self.acked.iter().zip(said) {
            let own = (id.clone(), self.user.clone(), content.clone());
            match self.channel {
                // The rooms dialect sends both the copy and the ack; they must agree.
                Channel::Rooms => assert_eq!(log.get(seq), Some(&own)),
                _ => assert_eq!(log.insert(*seq, own), None, "{:?} got a copy of its own message", self.channel),
            }
        }
        log
    }
}

/// Makes the direct conversation of two users and returns its id.
async fn create_direct(node: &Node, from: &str, to: &str) -> String {
    let mut client = Client::connect(&format!("{}/ws", node.ws())).await;
    client.send(&json!({"type": "authenticate", "token": token(from)})).await;
    client.expect("authenticated").await;
    client.send(&json!({"type": "send_message", "recipient_id": to, "content": "begin"})).await;
    let id = client.expect("message_sent").await["data"]["conversation_id"].as_str().unwrap().to_owned();
    client.close().await;
    id
}

#[tokio::test]
async fn every_dialect_exchanges_messages_with_every_dialect() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let one = Node::serve(&redis.url(), &database).start().await;
    let two = Node::serve(&redis.url(), &database).start().await;
    for (a, of_alice) in Channel::ALL.into_iter().enumerate() {
        for (b, of_bob) in Channel::ALL.into_iter().enumerate() {
            let (alice, bob) = (format!("alice-{a}{b}"), format!("bob-{a}{b}"));
            let conversation = create_direct(&one, &alice, &bob).await;
            let mut alice = Side::open(of_alice, &one, &alice, &bob, &conversation).await;
            let mut bob = Side::open(of_bob, &two, &bob, &alice.user, &conversation).await;
            exchange(&mut alice, &mut bob).await;
        }
    }
}

/// Both sides send in turns; then both know the same messages, each once.
async fn exchange(alice: &mut Side, bob: &mut Side) {
    let (mut by_alice, mut by_bob) = (Vec::new(), Vec::new());
    for turn in 0..TURNS {
        let words = [format!("{turn} from {:?}", alice.channel), format!("{turn} back from {:?}", bob.channel)];
        alice.send_text(&words[0]).await;
        bob.until_received(&words[0], false).await;
        alice.until_received(&words[0], true).await;
        bob.send_text(&words[1]).await;
        alice.until_received(&words[1], false).await;
        bob.until_received(&words[1], true).await;
        let [first, second] = words;
        by_alice.push(first);
        by_bob.push(second);
    }
    // Read the rest of the last turn: an ack that came after the copy, or an extra copy.
    for side in [&mut *alice, &mut *bob] {
        for frame in side.client.drain().await {
            side.record(&frame);
        }
    }
    let (mut known, mut same) = (alice.log(&by_alice), bob.log(&by_bob));
    for log in [&mut known, &mut same] {
        log.retain(|_, (.., content)| content != "begin");
    }
    assert_eq!(known, same, "{:?} and {:?}", alice.channel, bob.channel);
    let contents: Vec<&String> = known.values().map(|(.., content)| content).collect();
    let expected: Vec<&String> = by_alice.iter().zip(&by_bob).flat_map(|(one, other)| [one, other]).collect();
    assert_eq!(contents, expected, "{:?} and {:?}", alice.channel, bob.channel);
    let seqs: Vec<i64> = known.keys().copied().collect();
    assert!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1), "without gaps: {seqs:?}");
}
