//! The highest seq that a socket received since it joined is a right `since_seq`: acks come in the order of their log, and
//! no ack overtakes an entry.

mod automatic;

use std::{collections::BTreeSet, sync::Arc};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::{sync::Barrier, task::JoinSet};

use crate::support::{Client, Link, Node, Postgres, Proxy, RedisServer, token};

/// Messages that each sender sends.
const EACH: usize = 80;
const SENDERS: [&str; 4] = ["alice", "bob", "carol", "dave"];
/// Messages of one sender under way.
const WINDOW: usize = 4;

/// A dialect whose acks carry a seq and whose clients resume.
#[derive(Debug, Clone, Copy)]
enum Speech {
    Native,
    Rooms,
}

/// A seq that a frame shows.
#[derive(Debug)]
struct Seen {
    seq: i64,
    /// The `client_id`, if the frame acks.
    acked: Option<String>,
}

impl Speech {
    async fn open(self, node: &Node, user: &str, room: &str, since: i64) -> Client {
        match self {
            Self::Native => {
                let mut client = Client::native(node, user).await;
                client.send(&json!({"type": "join", "conversation_id": room, "since_seq": since, "ref": "join"})).await;
                client.until("joined").await;
                client
            }
            Self::Rooms => {
                let url = format!("{}/ws/{room}?token={}&since_seq={since}", node.ws(), token(user));
                let mut client = Client::connect(&url).await;
                client.expect("connected").await;
                client
            }
        }
    }

    fn send(self, room: &str, id: &str) -> Value {
        match self {
            Self::Native => json!({"type": "send", "conversation_id": room, "content": id, "client_id": id}),
            Self::Rooms => json!({"type": "send_message", "data": {"content": id, "client_id": id}}),
        }
    }

    fn seen(self, frame: &Value) -> Option<Seen> {
        let (entry, ack, fields) = match self {
            Self::Native => ("message", "ack", frame),
            Self::Rooms => ("new_message", "message_sent", &frame["data"]),
        };
        let kind = frame["type"].as_str()?;
        let acked = (kind == ack).then(|| fields["client_id"].as_str().unwrap().to_owned());
        (kind == entry || kind == ack).then(|| Seen { seq: fields["seq"].as_i64().unwrap(), acked })
    }
}

/// A client that believes that the highest seq it has seen is all that it has.
struct Naive {
    speech: Speech,
    nodes: Arc<[Node; 2]>,
    user: &'static str,
    room: String,
    cursor: i64,
    seen: BTreeSet<i64>,
    unacked: Vec<String>,
}

impl Naive {
    async fn open(&self) -> Client {
        let node = &self.nodes[rand::random_range(0..2)];
        self.speech.open(node, self.user, &self.room, self.cursor).await
    }

    /// Reads one frame. A seq may repeat, but none is skipped.
    async fn read(&mut self, client: &mut Client) {
        let frame = client.recv().await;
        let Some(Seen { seq, acked }) = self.speech.seen(&frame) else { return };
        assert!(seq <= self.cursor + 1, "{} has {}, and gets {frame}", self.user, self.cursor);
        self.cursor = self.cursor.max(seq);
        self.seen.insert(seq);
        if let Some(id) = acked {
            self.unacked.retain(|unacked| *unacked != id);
        }
    }

    /// Sends all messages, over connections that break again and again.
    async fn send_all(&mut self) {
        let mut ids: Vec<String> = (0..EACH).rev().map(|number| format!("{}-{number}", self.user)).collect();
        while !ids.is_empty() || !self.unacked.is_empty() {
            let mut client = self.open().await;
            for id in self.unacked.clone() {
                client.send(&self.speech.send(&self.room, &id)).await;
            }
            for _ in 0..rand::random_range(20..60) {
                while self.unacked.len() < WINDOW
                    && let Some(id) = ids.pop()
                {
                    client.send(&self.speech.send(&self.room, &id)).await;
                    self.unacked.push(id);
                }
                if self.unacked.is_empty() {
                    return;
                }
                self.read(&mut client).await;
            }
        }
    }

    /// Reads until nothing is missing behind the highest seq.
    async fn catch_up(&mut self, head: i64) {
        let mut client = self.open().await;
        while self.cursor < head {
            self.read(&mut client).await;
        }
    }
}

async fn no_entry_is_lost(speech: Speech) {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let start = async || Node::serve(&redis.url(), &database).start().await;
    let nodes = Arc::new([start().await, start().await]);
    let room = nodes[0].conversation(&token(SENDERS[0]), &SENDERS[1..]).await;
    let all_sent = Arc::new(Barrier::new(SENDERS.len()));
    let mut clients = JoinSet::new();
    for user in SENDERS {
        let (seen, unacked) = (BTreeSet::new(), Vec::new());
        let mut naive = Naive { speech, nodes: nodes.clone(), user, room: room.clone(), cursor: 0, seen, unacked };
        let all_sent = all_sent.clone();
        clients.spawn(async move {
            naive.send_all().await;
            all_sent.wait().await;
            let head = (SENDERS.len() * EACH) as i64;
            naive.catch_up(head).await;
            let missing: Vec<i64> = (1..=head).filter(|seq| !naive.seen.contains(seq)).collect();
            assert!(missing.is_empty(), "{user} never got {missing:?}");
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test]
async fn the_highest_seq_of_a_native_client_is_a_right_cursor() {
    no_entry_is_lost(Speech::Native).await;
}

#[tokio::test]
async fn the_highest_seq_of_a_rooms_client_is_a_right_cursor() {
    no_entry_is_lost(Speech::Rooms).await;
}

/// Two nodes; the second one hears nothing of the first one while its link to Redis is frozen.
struct Deaf {
    _redis: RedisServer,
    link: Proxy,
    one: Node,
    two: Node,
}

impl Deaf {
    async fn start() -> Self {
        Self::with_joins(500).await
    }

    /// Nodes whose sockets join at most this number of conversations by themselves.
    async fn with_joins(joins: usize) -> Self {
        let redis = RedisServer::start().await;
        let database = Postgres::shared().await.database().await;
        let link = Proxy::to(redis.url().split("://").nth(1).unwrap().trim_end_matches('/')).await;
        let node = |url: &str| Node::serve(url, &database).set("MAX_CONVERSATIONS_PER_CONNECTION", joins);
        let one = node(&redis.url()).start().await;
        let two = node(&link.url(&redis.url())).start().await;
        Self { _redis: redis, link, one, two }
    }
}

/// The next frame of this socket that shows an entry or an ack.
async fn next(client: &mut Client) -> (String, i64) {
    let frame = client.until_where(|frame| frame["seq"].is_number()).await;
    (frame["type"].as_str().unwrap().to_owned(), frame["seq"].as_i64().unwrap())
}

#[tokio::test]
async fn the_acks_of_changes_and_repeats_wait_for_earlier_entries_too() {
    let nodes = Deaf::start().await;
    let room = nodes.one.conversation(&token("alice"), &["bob"]).await;
    let mut alice = Client::native(&nodes.one, "alice").await;
    let mut bob = Client::native(&nodes.two, "bob").await;
    bob.join(&room).await;
    bob.send_text(&room, "first").await;
    let commands = [
        json!({"type": "send", "content": "hello", "client_id": "again"}),
        json!({"type": "edit", "seq": 1, "content": "edited", "client_id": "edit"}),
        json!({"type": "react", "seq": 1, "emoji": "👍", "ref": 7}),
        json!({"type": "delete", "seq": 1}),
    ];
    nodes.link.set(Link::Frozen);
    let mut seq = 1;
    for mut command in commands {
        alice.send_text(&room, "unheard").await;
        command["conversation_id"] = json!(room);
        bob.send(&command).await;
        assert_eq!(next(&mut bob).await, ("message".into(), seq + 1), "before the ack of {command}");
        let ack = bob.until_where(|frame| frame["seq"].is_number()).await;
        assert_eq!((&ack["type"], ack["seq"].as_i64(), &ack["ref"]), (&json!("ack"), Some(seq + 2), &command["ref"]));
        seq += 2;
    }
    // A repeat over a new socket that still lacks everything: its ack follows the entry of the message.
    let mut late = Client::native(&nodes.two, "bob").await;
    late.send(&json!({"type": "join", "conversation_id": room, "since_seq": 0, "ref": "join"})).await;
    late.send(&json!({"type": "send", "conversation_id": room, "content": "hello", "client_id": "again"})).await;
    late.until("joined").await;
    let mut last = 0;
    loop {
        let (kind, seq) = next(&mut late).await;
        if kind == "ack" {
            assert!(seq == 3 && last >= 3, "the ack of {seq} came after {last}");
            return;
        }
        assert_eq!(seq, last + 1);
        last = seq;
    }
}

#[tokio::test]
async fn a_socket_that_does_not_listen_is_acked_at_once() {
    let nodes = Deaf::start().await;
    let room = nodes.one.conversation(&token("alice"), &["bob"]).await;
    let mut bob = Client::native(&nodes.two, "bob").await;
    let mut listener = Client::native(&nodes.two, "alice").await;
    listener.join(&room).await;
    for seq in 1..4 {
        assert_eq!(bob.send_text(&room, "hello").await["seq"], seq);
    }
    // A request over REST is no ack of a socket; other sockets of the user hear of it as of any message.
    let path = format!("/api/chat/conversations/{room}/messages");
    let body = json!({"content": "over REST"});
    let sent = nodes.two.request(Method::POST, &path, Some(&token("alice")), Some(&body)).await;
    assert_eq!(sent.json["seq"], 4);
    for seq in 1..=4 {
        assert_eq!(next(&mut listener).await, ("message".into(), seq));
    }
}

/// A socket that gave up an automatic join for room still counts as listening: its client was not told. The ack comes
/// after the entries that it missed.
#[tokio::test]
async fn the_ack_in_a_conversation_that_was_given_up_for_room_waits_for_the_missed_entries() {
    let nodes = Deaf::with_joins(2).await;
    let mut bob = Client::native(&nodes.two, "bob").await;
    let mut rooms = Vec::new();
    for _ in 0..3 {
        rooms.push(nodes.one.conversation(&token("alice"), &["bob"]).await);
        bob.until_where(|frame| frame["type"] == "joined").await;
    }
    let room = rooms.remove(0);
    nodes.two.metric("switchboard_joins_dropped_total", |dropped| dropped == 1.0).await;
    nodes.link.set(Link::Frozen);
    let mut alice = Client::native(&nodes.one, "alice").await;
    alice.send_text(&room, "unheard").await;
    bob.send(&json!({"type": "send", "conversation_id": room, "content": "hello", "client_id": "1"})).await;
    let joined = bob.until_where(|frame| frame["conversation_id"] == *room).await;
    assert_eq!(joined["type"], "joined", "{joined}");
    assert_eq!(next(&mut bob).await, ("message".into(), 1));
    let mut last = 1;
    loop {
        let (kind, seq) = next(&mut bob).await;
        assert!(seq <= last + 1, "{kind} {seq} after {last}");
        if kind == "ack" {
            return assert_eq!(seq, 2);
        }
        last = seq;
    }
}
