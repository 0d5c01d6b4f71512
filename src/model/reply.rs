//! What a command answers.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    ClientId, ConnectionId, ConversationId, Entry, EntryId, LogId, NodeId, Page, Reject, Seq, Status, Timestamp, UserId,
};

/// How a conversation came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConversationKind {
    /// Any number of members.
    Group,
    /// Two members, unique by their unordered pair.
    Direct,
}

/// A member of a conversation, and how far they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Member {
    /// Who.
    pub user: UserId,
    /// Their display name, where one is known.
    pub name: Option<Arc<str>>,
    /// All up to here was delivered.
    pub delivered_seq: Seq,
    /// All up to here was read.
    pub read_seq: Seq,
}

/// A conversation, as one of its members sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    /// Its id.
    pub id: ConversationId,
    /// How it came about.
    pub kind: ConversationKind,
    /// A name, for groups.
    pub name: Option<Arc<str>>,
    /// What it is about.
    pub description: Option<Arc<str>>,
    /// Whether anyone may join.
    pub open: bool,
    /// Who made it.
    pub created_by: UserId,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its log last grew.
    pub updated_at: Timestamp,
    /// Its newest seq.
    pub head: Seq,
    /// Messages that the reader of this has not read.
    pub unread: i64,
    /// Whether the reader of this has put it out of sight.
    pub archived: bool,
    /// Its members, at most the first thousand by id; listings show the first hundred.
    pub members: Vec<Member>,
}

/// What became of a send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Where it stands.
    pub log: LogId,
    /// The user it was sent to, where it was sent to a user.
    pub recipient: Option<UserId>,
    /// Its seq.
    pub seq: Seq,
    /// When the store took it.
    pub at: Timestamp,
    /// The idempotency id the client gave.
    pub client_id: Option<ClientId>,
    /// Whether it had been stored before: this was a repeat.
    pub duplicate: bool,
}

impl Sent {
    /// The entry's public id.
    pub fn id(&self) -> EntryId {
        EntryId::of(&self.log, self.seq)
    }
}

/// How many reacted to a message in one way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reactions {
    /// In what way.
    pub emoji: Arc<str>,
    /// How many.
    pub count: i64,
    /// Whether the reader of this is one of them.
    pub own: bool,
}

/// A message as it stands now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its entry; it shows later edits and deletion.
    pub entry: Entry,
    /// The reactions to it that stand, the commonest first.
    pub reactions: Vec<Reactions>,
    /// How many messages reply to it.
    pub replies: i64,
}

/// Messages, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessagePage {
    /// Whose.
    pub conversation: ConversationId,
    /// The messages.
    pub messages: Vec<Message>,
    /// How many the conversation has in all.
    pub total: i64,
    /// Which part of them this is.
    pub page: Page,
}

/// One of a user's connections, anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// Which.
    pub connection: ConnectionId,
    /// On which node.
    pub node: NodeId,
    /// Since when.
    pub since: Timestamp,
}

/// What one node holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStats {
    /// Which.
    pub node: NodeId,
    /// Whether it gave a sign of life of late.
    pub alive: bool,
    /// Users connected to it.
    pub users: u64,
    /// Connections it holds.
    pub connections: u64,
}

/// What all nodes hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// The node that says so.
    pub node: NodeId,
    /// Connections that node holds.
    pub connections: u64,
    /// Conversations and inboxes that node follows.
    pub followed: u64,
    /// Users online, over all nodes.
    pub users_online: u64,
    /// Every node; with Redis off or down, this one alone.
    pub nodes: Vec<NodeStats>,
}

/// Whether somebody is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Presence {
    /// Who.
    pub user: UserId,
    /// Whether they are to be shown as online.
    pub online: bool,
    /// Their status.
    pub status: Status,
    /// When they were last there, where that is known.
    pub last_seen: Option<Timestamp>,
}

/// A note that messages wait for somebody who was away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Notification {
    /// Its number; for reference.
    pub id: i64,
    /// Where they wait.
    pub conversation: ConversationId,
    /// The first one unread.
    pub from_seq: Seq,
    /// How many.
    pub count: i64,
    /// When the first one came.
    pub created_at: Timestamp,
    /// When it was marked read.
    pub read_at: Option<Timestamp>,
}

/// How a join that asked for what it missed begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resumed {
    /// All that came after `from` follows, then live.
    From(Seq),
    /// Too much was missed, or it is gone: the client reads anew; live follows after `head`.
    Resync {
        /// The first seq still stored.
        first: Seq,
    },
}

/// Where a socket begins to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined {
    /// The log's newest seq at that moment.
    pub head: Seq,
    /// Where what follows begins.
    pub resumed: Resumed,
}

/// What a command answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The socket listens.
    Joined(ConversationId, Joined),
    /// The socket no longer listens.
    Left {
        /// To what.
        conversation: ConversationId,
    },
    /// Each conversation of a `Sync`, joined or refused.
    Synced(Vec<(ConversationId, Result<Joined, Reject>)>),
    /// Stored.
    Sent(Sent),
    /// Messages.
    History(MessagePage),
    /// Who is there.
    Presence(Vec<Presence>),
    /// A sign of life.
    Pong,
    /// Made.
    Created(Conversation),
    /// One's conversations, and how many there are.
    Conversations(Vec<Conversation>, i64),
    /// One of them.
    Conversation(Conversation),
    /// One message.
    Message(Message),
    /// Messages that were found, newest first, of any of one's conversations.
    Found(Vec<Entry>),
    /// One's notifications.
    Notifications(Vec<Notification>),
    /// A page of those who are online.
    Online {
        /// Who.
        users: Vec<UserId>,
        /// How many there are in all.
        count: u64,
        /// Where the next page begins; none after the last one.
        next: Option<u64>,
    },
    /// One's connections.
    Connections(Vec<ConnectionInfo>),
    /// What all nodes hold.
    Stats(Stats),
    /// Done; nothing more to say.
    Done,
}
