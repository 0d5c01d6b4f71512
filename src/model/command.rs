//! Commands that a user sends over a socket or over REST.

use std::sync::Arc;

use super::{
    Body, ClientId, Content, ConversationId, Data, DataEdit, Emoji, EntryRange, EntrySeq, EventName, ExportCursor,
    HistoryRange, Listed, Page, PageLimit, RestrictionRequest, RetentionDays, SearchTerms, SinceSeq, Status, UserId,
};

/// The destination of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A conversation.
    Conversation(ConversationId),
    /// A user: the message goes into the direct conversation with them, which is created if needed.
    User(UserId),
}

/// A message to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMessage {
    /// The destination.
    pub to: Target,
    /// The text; empty only beside data.
    pub content: Content,
    /// The JSON beside the text.
    pub data: Option<Data>,
    /// Idempotency id: a repeated send with it stores nothing new.
    pub client_id: Option<ClientId>,
    /// The message this one replies to.
    pub reply_to: Option<EntrySeq>,
    /// The persona that must answer.
    pub persona: Option<UserId>,
}

impl NewMessage {
    /// The body of the entry that it becomes.
    pub fn body(&self) -> Body {
        Body::Message {
            content: self.content.clone().into(),
            data: self.data.clone(),
            reply_to: self.reply_to.map(EntrySeq::get),
            is_ai: false,
            persona: self.persona.clone(),
            edited_at: None,
            deleted: false,
        }
    }
}

/// An event to pass on without storing it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// The conversation whose listeners get it, or the user whose sockets get it.
    pub to: Target,
    /// The name by which clients know it.
    pub name: EventName,
    /// Its JSON.
    pub data: Option<Data>,
}

/// A conversation to create.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewConversation {
    /// The requested id; if `None`, a new one is generated.
    pub id: Option<ConversationId>,
    /// A name, for groups.
    pub name: Option<Arc<str>>,
    /// The topic.
    pub description: Option<Arc<str>>,
    /// True for a group; false for a conversation of two users.
    pub is_group: bool,
    /// True if any user may join.
    pub open: bool,
    /// The members in addition to the creator.
    pub members: Listed<UserId>,
}

/// A command of a user. The types of its fields check ids, contents, numbers and lists when they are built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Listen to a conversation; with `since`, first receive the entries after that seq. Sockets only.
    Join {
        /// The conversation.
        conversation: ConversationId,
        /// The last seq that the client has.
        since: Option<SinceSeq>,
        /// True if the client wants to be told who begins and stops to listen, in a dialect that leaves this to it.
        roster: bool,
        /// True if the session joins without a command of the client.
        automatic: bool,
    },
    /// Stop listening; the user stays a member. Sockets only.
    Leave {
        /// The conversation.
        conversation: ConversationId,
    },
    /// Join several conversations, each from its seq. Each is answered for itself. Sockets only.
    Sync {
        /// The conversations, each once, with the last seq that the client has. The first ones get the places of the socket.
        cursors: Listed<(ConversationId, SinceSeq)>,
        /// As for a join.
        roster: bool,
    },
    /// Send a message.
    Send(NewMessage),
    /// Replace the text of the user's own message, and its data if the edit says so.
    Edit {
        /// The conversation.
        conversation: ConversationId,
        /// The message.
        target: EntrySeq,
        /// The new text; empty only beside new data.
        content: Content,
        /// The change of its data.
        data: DataEdit,
        /// Idempotency id: a repeated edit with it stores nothing new.
        client_id: Option<ClientId>,
    },
    /// Delete the user's own message (admins: any message).
    Delete {
        /// The conversation.
        conversation: ConversationId,
        /// The message.
        target: EntrySeq,
        /// Idempotency id: a repeated deletion with it stores nothing new.
        client_id: Option<ClientId>,
    },
    /// Add a reaction to a message, or remove it.
    React {
        /// The conversation.
        conversation: ConversationId,
        /// The message.
        target: EntrySeq,
        /// The reaction.
        emoji: Emoji,
        /// False to remove the reaction.
        active: bool,
        /// Idempotency id: a repeated reaction with it stores nothing new.
        client_id: Option<ClientId>,
    },
    /// Pass an event on, without storing it.
    Event(NewEvent),
    /// Report that the user types, or stopped typing.
    Typing {
        /// The conversation.
        conversation: ConversationId,
        /// False if the user stopped.
        active: bool,
    },
    /// Move the user's delivered and read marks.
    Read {
        /// The conversation.
        conversation: ConversationId,
        /// The user received every entry up to this seq.
        delivered: Option<EntrySeq>,
        /// The user read every entry up to this seq.
        read: Option<EntrySeq>,
    },
    /// Get the presence of users.
    Presence {
        /// The users.
        users: Listed<UserId>,
    },
    /// Set the user's status.
    SetStatus {
        /// The status.
        status: Status,
    },
    /// Read messages, newest first.
    History {
        /// The conversation.
        conversation: ConversationId,
        /// The position of the page.
        range: HistoryRange,
        /// Only replies to this message: its thread.
        thread: Option<EntrySeq>,
        /// The limit and the offset.
        page: Page,
    },
    /// Read one message.
    Show {
        /// The conversation.
        conversation: ConversationId,
        /// The message.
        target: EntrySeq,
    },
    /// Find messages in the user's own conversations, newest first.
    Search {
        /// The message must contain all these words; the last one may be the beginning of a word.
        terms: SearchTerms,
        /// Search only this conversation.
        conversation: Option<ConversationId>,
        /// The limit and the offset.
        page: Page,
    },
    /// Check that the connection works.
    Ping,
    /// Create a conversation.
    Create(NewConversation),
    /// List the user's conversations.
    Conversations {
        /// True to list the archived conversations instead of the others.
        archived: bool,
        /// The limit and the offset.
        page: Page,
    },
    /// Show one conversation.
    Describe {
        /// The conversation.
        conversation: ConversationId,
    },
    /// Archive a conversation for this user, or restore it.
    Archive {
        /// The conversation.
        conversation: ConversationId,
        /// False to restore it.
        archived: bool,
    },
    /// Add users to a conversation.
    AddMembers {
        /// The conversation.
        conversation: ConversationId,
        /// The users.
        users: Listed<UserId>,
    },
    /// Remove a member from a conversation.
    RemoveMember {
        /// The conversation.
        conversation: ConversationId,
        /// The member.
        user: UserId,
    },
    /// Block a user, or end the block.
    Block {
        /// The user.
        user: UserId,
        /// False to end the block.
        blocked: bool,
    },
    /// List the users whom the user blocks.
    Blocks,
    /// List the user's notifications, newest first.
    Notifications {
        /// The limit and the offset.
        page: Page,
    },
    /// Mark the user's notifications read.
    ReadNotifications {
        /// The notifications to mark; all if `None`.
        ids: Option<Listed<i64>>,
    },
    /// List the users who are online, in pages.
    Online {
        /// Start of the page: 0, or the `next` of the previous page.
        cursor: u64,
        /// Approximate number of users on the page.
        limit: PageLimit,
    },
    /// List the user's own connections on all nodes.
    Connections,
    /// List a user's connections on all nodes. Admins only.
    ConnectionsOf {
        /// The user.
        user: UserId,
    },
    /// List a user's conversations with the user's marks. Admins only.
    ConversationsOf {
        /// The user.
        user: UserId,
        /// True to list the archived conversations instead of the others.
        archived: bool,
        /// The limit and the offset.
        page: Page,
    },
    /// Read the entries of a conversation's log, of every kind, oldest first. Admins only.
    Entries {
        /// The conversation.
        conversation: ConversationId,
        /// The position of the page.
        range: EntryRange,
        /// Maximum number of entries.
        limit: PageLimit,
    },
    /// Show how long a conversation's entries are kept. Admins only.
    Retention {
        /// The conversation.
        conversation: ConversationId,
    },
    /// Set how long a conversation's entries are kept. Admins only.
    SetRetention {
        /// The conversation.
        conversation: ConversationId,
        /// The rule; none: the deployment's.
        days: Option<RetentionDays>,
    },
    /// Read a page of the export of a user's data. Admins only.
    Export {
        /// The user.
        user: UserId,
        /// The position of the page.
        cursor: ExportCursor,
    },
    /// Erase a user's data. Admins only.
    Erase {
        /// The user.
        user: UserId,
    },
    /// Show how far the erasure of a user's data is. Admins only.
    ShowErasure {
        /// The user.
        user: UserId,
    },
    /// Show the connections of all nodes. Admins only.
    Stats,
    /// Disconnect, revoke, block or unblock a user. Admins only.
    Restrict {
        /// The user.
        user: UserId,
        /// The change.
        request: RestrictionRequest,
    },
    /// Show whether an admin blocked a user. Admins only.
    ShowBlock {
        /// The user.
        user: UserId,
    },
    /// List the users whom admins blocked, by id. Admins only.
    BlockedUsers {
        /// The limit and the offset.
        page: Page,
    },
}

impl Command {
    /// The metrics label for input that could not be read as a command.
    pub const UNREADABLE: &'static str = "unreadable";

    /// True if the command reads many rows: history, a search or a list. Such commands of one user are limited.
    pub fn is_heavy_read(&self) -> bool {
        matches!(
            self,
            Self::History { .. }
                | Self::Search { .. }
                | Self::Conversations { .. }
                | Self::Describe { .. }
                | Self::Notifications { .. }
                | Self::ConversationsOf { .. }
                | Self::Entries { .. }
        )
    }

    /// The user to whom a message is sent, if it is sent to a user.
    pub fn recipient(&self) -> Option<&UserId> {
        match self {
            Self::Send(NewMessage { to: Target::User(user), .. }) => Some(user),
            _ => None,
        }
    }

    /// The idempotency id that the command carries.
    pub fn client_id(&self) -> Option<&ClientId> {
        match self {
            Self::Send(message) => message.client_id.as_ref(),
            Self::Edit { client_id, .. } | Self::Delete { client_id, .. } | Self::React { client_id, .. } => {
                client_id.as_ref()
            }
            _ => None,
        }
    }
}

macro_rules! labels {
    ($($pattern:pat => $label:literal,)*) => {
        impl Command {
            /// Every label.
            pub const LABELS: &[&str] = &[$($label),*];

            /// The command's label in metrics.
            pub fn label(&self) -> &'static str {
                match self {
                    $($pattern => $label,)*
                }
            }
        }
    };
}

labels! {
    Command::Join { .. } => "join",
    Command::Leave { .. } => "leave",
    Command::Sync { .. } => "sync",
    Command::Send(_) => "send",
    Command::Edit { .. } => "edit",
    Command::Delete { .. } => "delete",
    Command::React { .. } => "react",
    Command::Event(_) => "event",
    Command::Typing { .. } => "typing",
    Command::Read { .. } => "read",
    Command::Presence { .. } => "presence",
    Command::SetStatus { .. } => "set_status",
    Command::History { .. } => "history",
    Command::Show { .. } => "show",
    Command::Search { .. } => "search",
    Command::Ping => "ping",
    Command::Create(_) => "create",
    Command::Conversations { .. } => "conversations",
    Command::Describe { .. } => "describe",
    Command::Archive { .. } => "archive",
    Command::AddMembers { .. } => "add_members",
    Command::RemoveMember { .. } => "remove_member",
    Command::Block { .. } => "block",
    Command::Blocks => "blocks",
    Command::Notifications { .. } => "notifications",
    Command::ReadNotifications { .. } => "read_notifications",
    Command::Online { .. } => "online",
    Command::Connections => "connections",
    Command::ConnectionsOf { .. } => "connections_of",
    Command::ConversationsOf { .. } => "conversations_of",
    Command::Entries { .. } => "entries",
    Command::Retention { .. } => "retention",
    Command::SetRetention { .. } => "set_retention",
    Command::Export { .. } => "export",
    Command::Erase { .. } => "erase",
    Command::ShowErasure { .. } => "show_erasure",
    Command::Stats => "stats",
    Command::Restrict { request: RestrictionRequest::Disconnect, .. } => "disconnect_user",
    Command::Restrict { request: RestrictionRequest::RevokeIssued(_) | RestrictionRequest::RevokeToken(_), .. } =>
        "revoke_tokens",
    Command::Restrict { request: RestrictionRequest::Block, .. } => "block_user",
    Command::Restrict { request: RestrictionRequest::Unblock, .. } => "unblock_user",
    Command::ShowBlock { .. } => "show_block",
    Command::BlockedUsers { .. } => "blocked_users",
}
