//! Replies to commands.

use std::{collections::HashMap, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    ClientId, ConnectionId, ConversationId, Entry, EntryId, EntryPage, Erasure, ExportPage, FoundMessages, LogId,
    Message, MessagePage, NodeId, Notification, Reject, RestrictionChange, Retention, Seq, Status, Timestamp, UserId,
};

/// The kind of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConversationKind {
    /// Any number of members.
    Group,
    /// Two members, unique by their unordered pair.
    Direct,
}

/// A member of a conversation, with the delivered and read marks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Member {
    /// The user.
    pub user: UserId,
    /// The display name, if known.
    pub name: Option<Arc<str>>,
    /// The member received every entry up to this seq.
    pub delivered_seq: Seq,
    /// The member read every entry up to this seq.
    pub read_seq: Seq,
}

/// A conversation as one of its members (the reader) sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    /// Its id.
    pub id: ConversationId,
    /// The kind.
    pub kind: ConversationKind,
    /// A name, for groups.
    pub name: Option<Arc<str>>,
    /// The topic.
    pub description: Option<Arc<str>>,
    /// True if any user may join.
    pub open: bool,
    /// The user who created it.
    pub created_by: UserId,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Time at which its log last grew.
    pub updated_at: Timestamp,
    /// Its newest seq.
    pub head: Seq,
    /// Number of messages that the reader has not read: of others, not deleted, after the read mark.
    pub unread: i64,
    /// True if the reader archived it.
    pub archived: bool,
    /// The members: at most the first 1,000 by id; listings show the first 100.
    pub members: Vec<Member>,
    /// Its newest message, in listings. A deleted one is empty.
    pub last_message: Option<Box<Entry>>,
}

/// A page of a user's conversations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversationList {
    /// The conversations, most recently active first.
    pub conversations: Vec<Conversation>,
    /// Total number of the user's conversations.
    pub total: i64,
    /// Offset of the next page; none after the last page.
    pub next_offset: Option<u32>,
    /// The presence of members, as the user sees it: of at most 1,000 users of a page.
    pub presence: HashMap<UserId, Presence>,
    /// The user's own status.
    pub status: Status,
}

/// The messages of a conversation that a member has not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// The conversation.
    pub conversation: ConversationId,
    /// The member.
    pub user: UserId,
    /// The conversation's newest seq.
    pub head: Seq,
    /// Number of messages that the member has not read.
    pub unread: i64,
}

/// The result of a send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The log that contains the message.
    pub log: LogId,
    /// The recipient, if the message was sent to a user.
    pub recipient: Option<UserId>,
    /// Its seq.
    pub seq: Seq,
    /// Time at which the store accepted it.
    pub at: Timestamp,
    /// The idempotency id from the client.
    pub client_id: Option<ClientId>,
    /// True if an earlier send with the same id stored it.
    pub duplicate: bool,
}

impl Sent {
    /// The entry's public id.
    pub fn id(&self) -> EntryId {
        EntryId::of(&self.log, self.seq)
    }
}

/// One of a user's connections, on any node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// The connection.
    pub connection: ConnectionId,
    /// The node that holds it.
    pub node: NodeId,
    /// Time at which it was opened.
    pub since: Timestamp,
    /// The label of its dialect, if the registry has it.
    pub dialect: Option<Arc<str>>,
}

/// Users and connections of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStats {
    /// The node.
    pub node: NodeId,
    /// True if its lease has not lapsed.
    pub alive: bool,
    /// Number of users connected to it.
    pub users: u64,
    /// Number of connections that it holds.
    pub connections: u64,
}

/// Users and connections of all nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// The node that answers.
    pub node: NodeId,
    /// Number of connections on that node.
    pub connections: u64,
    /// Number of conversations and inboxes that that node follows.
    pub followed: u64,
    /// Number of users online on all nodes.
    pub users_online: u64,
    /// Every node; with Redis off or down, only the answering node.
    pub nodes: Vec<NodeStats>,
}

/// The presence of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Presence {
    /// The user.
    pub user: UserId,
    /// True if others see the user as online.
    pub online: bool,
    /// The user's status.
    pub status: Status,
    /// Time at which the user was last online, if known.
    pub last_seen: Option<Timestamp>,
}

/// The outcome of a join with `since_seq`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resumed {
    /// All entries after this seq follow, then live entries.
    From(Seq),
    /// Too many entries were missed, or some are no longer stored: the client must read the conversation anew; live
    /// entries follow after `head`.
    Resync {
        /// The first seq still stored.
        first: Seq,
    },
}

/// The position at which a socket begins to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined {
    /// The log's newest seq at that moment.
    pub head: Seq,
    /// The position at which the following entries begin.
    pub resumed: Resumed,
}

/// The reply to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The socket listens to the conversation.
    Joined(ConversationId, Joined),
    /// The socket no longer listens.
    Left {
        /// The conversation.
        conversation: ConversationId,
    },
    /// The result for each conversation of a `Sync`: joined or refused.
    Synced {
        /// The conversations, in the order of the command.
        conversations: Vec<(ConversationId, Result<Joined, Reject>)>,
        /// True if another part of the reply follows.
        more: bool,
    },
    /// The message or change is stored.
    Sent(Sent),
    /// A page of messages.
    History(MessagePage),
    /// The presence of the requested users.
    Presence {
        /// The users, in the order of the command.
        users: Vec<Presence>,
        /// True if another part of the reply follows.
        more: bool,
    },
    /// The answer to a ping.
    Pong,
    /// The created conversation.
    Created(Conversation),
    /// A page of the user's conversations.
    Conversations(ConversationList),
    /// One conversation.
    Conversation(Conversation),
    /// The members of one conversation, at most the first 1,000 by id.
    Members {
        /// The conversation.
        conversation: ConversationId,
        /// The members.
        members: Vec<Member>,
        /// True if another part of the reply follows.
        more: bool,
    },
    /// One message.
    Message(Box<Message>),
    /// Messages that a search found, in any of the user's conversations.
    Found(FoundMessages),
    /// The user's notifications.
    Notifications(Vec<Notification>),
    /// A page of the users who are online.
    Online {
        /// The users.
        users: Vec<UserId>,
        /// Total number of users online.
        count: u64,
        /// Start of the next page; `None` after the last page.
        next: Option<u64>,
    },
    /// The users whom the user blocks.
    Blocks(Vec<UserId>),
    /// The user's connections.
    Connections(Vec<ConnectionInfo>),
    /// A page of the entries of a log.
    Entries(EntryPage),
    /// A page of the export of a user's data.
    Exported(ExportPage),
    /// The erasure of a user's data.
    Erasure(Erasure),
    /// The time for which a conversation's entries are kept.
    Retention(Retention),
    /// Users and connections of all nodes.
    Stats(Stats),
    /// The change of restrictions that was stored, or the earlier one that has the same effect.
    Restricted(RestrictionChange),
    /// The block of a user by an admin; `None` if there is none.
    BlockOf(Option<RestrictionChange>),
    /// A page of the blocks by admins, and their total number.
    BlockedUsers(Vec<RestrictionChange>, i64),
    /// The command is done and has no result.
    Done,
    /// The reaction had that state already, so nothing was stored. The idempotency id comes back.
    Unchanged(Option<ClientId>),
}
